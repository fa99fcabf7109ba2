"""Settings: one place, every mistake at once, no secret shown."""

from __future__ import annotations

from pathlib import Path

import pytest

import config
from config import ConfigError, Settings, load

ROOT = Path(__file__).resolve().parent.parent


def test_defaults_are_those_of_the_original_description() -> None:
    settings = load({}, None)
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)
    assert (settings.agi_port, settings.audiosocket_port) == (4573, 9092)
    assert config.DEFAULT_MODEL == "fixie-ai/ultravox-v0_5-llama-3_1-8b"


def test_three_mistakes_in_a_file_are_reported_together(tmp_path: Path) -> None:
    file = tmp_path / "ultravox.toml"
    file.write_text('agi_port = "many"\nmedya = "auto"\nmax_calls = 0\n')
    with pytest.raises(ConfigError) as caught:
        load({}, file)
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 3
    assert "agi_port" in text
    assert "medya: unknown setting (did you mean media?)" in text
    assert "max_calls" in text
    assert "greater than or equal to 1" in text


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "ultravox.toml"
    file.write_text("agi_port = 4600\nmax_calls = 7\n")
    settings = load({"ULTRAVOX_AGI_PORT": "4700"}, file)
    assert (settings.agi_port, settings.max_calls) == (4700, 7)


def test_unknown_variable_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"did you mean ULTRAVOX_AGI_PORT\?"):
        load({"ULTRAVOX_AGY_PORT": "1"}, None)


def test_file_that_is_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such settings file"):
        load({"ULTRAVOX_CONFIG": str(tmp_path / "no.toml")}, None)


def test_file_that_is_no_toml_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b"\xff\xfe not toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load({}, file)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"ULTRAVOX_ENGINE": "openai"}, "needs ULTRAVOX_ENGINE_URL"),
        ({"ULTRAVOX_TLS_KEY": "/k.pem"}, "needed together"),
        ({"ULTRAVOX_VICIDIAL_URL": "http://d"}, "needs ULTRAVOX_VICIDIAL_USER"),
        ({"ULTRAVOX_VICIDIAL_URL": "http://d"}, "needs ULTRAVOX_VICIDIAL_AGENT_USER"),
        ({"ULTRAVOX_AGI_PORT": "9092"}, "port 9092 is set for two listeners"),
        ({"ULTRAVOX_AUDIOSOCKET_ADVERTISE": "a,b"}, "without spaces or commas"),
        ({"ULTRAVOX_ASTERISK_DIR": "/tmp;rm"}, "absolute path"),
        ({"ULTRAVOX_ASTERISK_DIR": "tmp"}, "absolute path"),
        ({"ULTRAVOX_ALLOWED_DIALERS": "10.0.0.1,pbx"}, "'pbx' is no address"),
        ({"ULTRAVOX_MEDIA": "telepathy"}, "audiosocket"),
        ({"ULTRAVOX_RECORDS_URL": "sqlite:///x"}, "needs ULTRAVOX_CALLER_KEY"),
    ],
)
def test_values_that_cannot_work_together_are_refused(
    environ: dict[str, str], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(environ, None)


def test_secrets_are_never_shown() -> None:
    environ = {"ULTRAVOX_API_KEYS": "crm:s3cretkey", "ULTRAVOX_API_KEY": "s3cretkey"}
    assert "s3cretkey" not in repr(load(environ, None))
    with pytest.raises(ConfigError) as caught:
        load({**environ, "ULTRAVOX_PORT": "x"}, None)
    assert "s3cretkey" not in str(caught.value)


def test_secret_of_the_wrong_type_is_not_echoed(tmp_path: Path) -> None:
    file = tmp_path / "ultravox.toml"
    file.write_text('vicidial_password = ["s3cretkey"]\n')
    with pytest.raises(ConfigError) as caught:
        load({}, file)
    assert "s3cretkey" not in str(caught.value)


def test_every_setting_is_described_and_stands_in_the_readme() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert config.settings_table() in readme
