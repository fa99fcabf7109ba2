"""Every setting of the service: one typed place, read once at the start.

Names are environment variables with the prefix `ULTRAVOX_`; the same names without the
prefix, in lower case, may stand in `ultravox.toml` (or the file `ULTRAVOX_CONFIG`
names).  The environment wins over the file.  Secrets are taken from either, and are
never shown.  `load()` reports every mistake at once, before any port is opened.
"""

from __future__ import annotations

import difflib
import importlib.util
import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

PREFIX = "ULTRAVOX_"
DEFAULT_MODEL = "fixie-ai/ultravox-v0_5-llama-3_1-8b"
_FILE_VARIABLE = PREFIX + "CONFIG"
_DEFAULT_FILE = "ultravox.toml"
Port = Annotated[int, Field(ge=0, le=65535)]  # 0: the system picks one (tests)


class ConfigError(Exception):
    """The settings are wrong; `problems` holds one line for each mistake."""

    code = "config_invalid"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Settings(BaseSettings):
    """All settings, validated; frozen once read."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=False
    )

    # --- HTTP: health, REST chat, docs ---
    host: str = Field("0.0.0.0", description="address of the HTTP port")
    port: Port = Field(8000, description="HTTP port: health, chat, docs")
    api_keys: SecretStr = Field(
        SecretStr(""), description="keys for REST users: name:key, comma separated"
    )
    auth: Literal["auto", "off"] = Field(
        "auto", description="auto: a key is asked of every address but loopback"
    )
    cors_origins: str = Field("", description="browser origins allowed, comma list")
    tls_certificate: Path | None = Field(None, description="PEM file for HTTPS")
    tls_key: Path | None = Field(None, description="private key of that certificate")

    # --- what one client of the HTTP port may ask for ---
    http_requests_per_min: int = Field(
        1200, ge=1, le=1_000_000, description="of one key and of one address"
    )
    http_burst: int = Field(
        100, ge=1, le=100_000, description="requests that may come all at once"
    )
    http_replies_per_client: int = Field(
        32, ge=1, le=10_000, description="replies under way for one key or address"
    )
    http_replies: int = Field(
        128, ge=1, le=10_000, description="REST replies under way in all"
    )
    http_connections: int = Field(
        256, ge=1, le=4096, description="of one address at a time, this host's excepted"
    )
    http_wrong_keys_per_min: int = Field(
        20, ge=1, le=10_000, description="from one address, then it has to wait"
    )
    http_max_body_mb: int = Field(48, ge=1, le=256, description="largest request body")
    http_body_timeout_s: float = Field(
        60.0, ge=1, le=3600, description="longest wait for a whole request body"
    )
    http_max_audio_s: float = Field(
        120.0, ge=1, le=3600, description="longest recording in a request"
    )
    http_reply_timeout_s: float = Field(
        120.0, ge=1, le=3600, description="longest wait for a REST reply"
    )
    conversations_max: int = Field(
        500, ge=1, le=1_000_000, description="kept for REST clients (conversation_id)"
    )
    conversations_idle_s: float = Field(
        1800.0, ge=1, le=2_592_000, description="a kept one unused for longer goes"
    )
    conversations_turns: int = Field(
        400, ge=2, le=100_000, description="longest kept conversation, in turns"
    )
    conversations_chars: int = Field(
        400_000, ge=1000, le=100_000_000, description="the same in letters"
    )
    conversations_audio_s: float = Field(
        1800.0, ge=1, le=1_000_000, description="speech in all kept conversations"
    )

    # --- the model ---
    model: str = Field("", description="directory or hub id; empty: see README")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N")
    card_gb: str = Field(
        "",
        description="GB of weights a GPU may hold, or a list; empty: 4/5 of the free",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="number format of the weights"
    )
    quantize: Literal["none", "int8", "nf4"] = Field(
        "none", description="8 or 4 bits a weight; by bitsandbytes"
    )
    engine: Literal["local", "openai", "scripted"] = Field(
        "local", description="local: in this service; openai: ULTRAVOX_ENGINE_URL"
    )
    engine_url: str = Field("", description="OpenAI-compatible servers, comma list")
    engine_api_key: SecretStr = Field(SecretStr(""), description="key for those")
    max_context_tokens: int = Field(
        4096, ge=256, le=131_072, description="a dialogue's length in tokens"
    )
    turn_model: str = Field(
        "",
        description="checkpoint that tells the end of turns beside it, e.g. UltraVAD",
    )
    turn_over_from: float = Field(
        0.0,
        ge=0,
        le=1,
        description="the model's P(turn over) that is sure; 0: as the checkpoint says",
    )
    turn_more_below: float = Field(
        0.0, ge=0, lt=1, description="up to this P(turn over) the caller goes on"
    )
    max_waiting: int = Field(
        64, ge=1, le=10_000, description="requests that may wait for a free place"
    )
    max_step_tokens: int = Field(
        512,
        ge=64,
        le=65_536,
        description="prompt tokens read in one step; more: longer pauses of replies",
    )
    max_busy_share: float = Field(
        0.85,
        gt=0,
        le=1,
        description="share of the engine's time for callers; more calls are refused",
    )
    engine_threads: int = Field(
        0, ge=0, le=256, description="CPU threads of the engine; 0: torch's choice"
    )
    cuda_graphs: Literal["auto", "on", "off"] = Field(
        "auto", description="replayed decode steps; on: an error where impossible"
    )
    paged_attention: Literal["auto", "on", "off"] = Field(
        "auto", description="one attention kernel a layer; on: an error if impossible"
    )
    engine_first_token_s: float = Field(
        30.0, gt=0, le=600, description="openai: patience before the first token"
    )
    engine_token_s: float = Field(
        10.0, gt=0, le=600, description="openai: patience between tokens"
    )
    engine_max_clips: int = Field(
        8, ge=1, le=1000, description="openai: utterances sent with a request"
    )
    max_new_tokens: int = Field(
        150, ge=1, le=4096, description="length limit of one spoken reply"
    )

    # --- voices ---
    tts: Literal["auto", "espeak", "piper", "openai"] = Field(
        "auto", description="auto: piper when a voice is given, else espeak"
    )
    tts_voice: str = Field("", description="voice name, or the piper voice file")
    tts_url: str = Field("", description="server with /v1/audio/speech for openai")
    tts_workers: int = Field(2, ge=1, le=64, description="synthesiser processes")
    tts_fallback: Literal["espeak", "none"] = Field(
        "espeak", description="who speaks when the chosen synthesiser fails in a call"
    )
    tts_cache_mb: int = Field(
        256, ge=0, le=65_536, description="fixed phrases kept on disk; 0: none"
    )
    tts_speed_wpm: int = Field(165, ge=80, le=400, description="words a minute")
    language: str = Field("en-us", description="default language of the bot")

    # --- telephony ---
    agi_host: str = Field("0.0.0.0", description="address of the FastAGI port")
    agi_port: Port = Field(4573, description="FastAGI port")
    audiosocket_host: str = Field("0.0.0.0", description="address of the audio port")
    audiosocket_port: Port = Field(
        9092, description="audio port: AudioSocket and file transfer"
    )
    audiosocket_advertise: str = Field(
        "", description="HOST or HOST:PORT that Asterisk is told to connect to"
    )
    ami_addresses: str = Field(
        "", description="managers of the dialers, HOST or HOST:PORT, comma list"
    )
    ami_user: str = Field("", description="manager user who may read call and dtmf")
    ami_password: SecretStr = Field(SecretStr(""), description="its secret")
    media: Literal["auto", "audiosocket", "eagi", "recorded_turns"] = Field(
        "auto", description="how the caller's audio comes: auto probes each dialer"
    )
    shared_dir: Path | None = Field(
        None, description="folder that bot and Asterisk both see, same path"
    )
    asterisk_dir: str = Field(
        "/tmp",  # noqa: S108 - on the dialer; file names there are unguessable
        description="folder on the Asterisk host for prompts and recordings "
        "when there is no shared folder",
    )
    max_calls: int = Field(40, ge=1, le=1000, description="calls at once")
    allowed_dialers: str = Field(
        "", description="addresses that may use the AGI and audio ports; empty: any"
    )

    # --- the conversation ---
    campaigns_dir: Path = Field(Path("campaigns"), description="bot personas")
    sounds_dir: Path = Field(Path("sounds"), description="recorded prompts")
    vad: Literal["silero", "webrtc"] = Field("silero", description="speech detector")
    endpoint_ms: int = Field(
        0,
        ge=0,
        le=3000,
        description="silence that ends the caller's turn; 0: adapts to the caller",
    )
    barge_in: bool = Field(True, description="the caller may interrupt the bot")
    no_input_s: float = Field(
        7.0, ge=1, le=120, description="silence before the bot asks again"
    )
    max_call_s: float = Field(
        900.0, ge=10, le=86_400, description="length limit of one call"
    )
    first_audio_timeout_s: float = Field(
        8.0, ge=0.5, le=120, description="longest wait for a reply to begin"
    )

    # --- the service ---
    api_url: str = Field(
        "", description="running sidecars, comma list; empty: start one here"
    )
    api_key: SecretStr = Field(
        SecretStr(""), description="key the phone half shows to those sidecars"
    )
    data_dir: Path = Field(Path("data"), description="records, recordings, state")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="least level that is logged"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="json: one object a line"
    )
    drain_s: float = Field(
        30.0, ge=0, le=3600, description="time calls get to end on SIGTERM"
    )
    otlp_url: str = Field(
        "", description="OpenTelemetry traces: http://collector:4318/v1/traces"
    )
    freeze_s: float = Field(
        3.0,
        ge=1,
        le=60,
        description="phone half standing still so long: killed, calls go to people",
    )

    # --- what is kept of calls ---
    records: bool = Field(True, description="keep a record of every call")
    records_url: SecretStr = Field(
        SecretStr(""),
        description="SQLAlchemy URL of a store that hosts share; empty: a file",
    )
    caller_key: SecretStr = Field(
        SecretStr(""),
        description="secret behind callers' digests, the same on hosts that share",
    )
    records_days: float = Field(
        365.0, ge=0, description="records older than this are deleted; 0: never"
    )
    records_numbers: Literal["masked", "plain"] = Field(
        "masked", description="callers' numbers in records; found by number either way"
    )
    recordings: bool = Field(
        False, description="record calls (WAV); a campaign's own rule goes before"
    )
    recordings_days: float = Field(
        30.0, ge=0, description="recordings older than this are deleted; 0: never"
    )
    records_digits: Literal["plain", "masked"] = Field(
        "plain", description="numbers said in calls; masked: none in the records"
    )
    recordings_disk_percent: float = Field(
        50.0,
        ge=0,
        le=100,
        description="of the disk at most, the oldest go; 0: any",
    )
    recordings_format: Literal["wav", "flac", "opus"] = Field(
        "wav", description="what they are made into when the call is over"
    )
    recordings_min_free_mb: int = Field(
        2048, ge=0, description="with less room than this on the disk none are made"
    )

    # --- VICIdial ---
    vicidial_url: str = Field("", description="https://dialer (agc and vicidial below)")
    vicidial_user: str = Field("", description="API user")
    vicidial_password: SecretStr = Field(
        SecretStr(""), description="its password: letters, digits, - and _"
    )
    vicidial_agent_user: str = Field(
        "", description="the remote agent's User ID Start: whose lines the bot answers"
    )
    vicidial_lines: int = Field(
        1, ge=1, le=255, description="its Number of Lines; asked when a call has no id"
    )
    vicidial_drain: bool = Field(
        False, description="make the remote agent INACTIVE on a stop, ACTIVE on a start"
    )
    vicidial_timeout_s: float = Field(
        3.0, ge=0.5, le=10, description="longest wait for one answer"
    )
    vicidial_ca: Path | None = Field(
        None, description="PEM file, when the dialer's certificate is your own"
    )
    vicidial_phrases: str = Field(
        "", description="answers of a translated VICIdial: reason=phrase, comma list"
    )

    @field_validator("language")
    @classmethod
    def _language_tag(cls, value: str) -> str:
        if not value or not value.replace("-", "").isalnum() or len(value) > 20:
            raise ValueError("a language tag such as en-us is wanted")
        return value.lower()

    @field_validator("endpoint_ms")
    @classmethod
    def _endpoint(cls, value: int) -> int:
        if 0 < value < 200:  # shorter silences are inside words
            raise ValueError("0 or 200 to 3000 is wanted")
        return value

    @field_validator("allowed_dialers")
    @classmethod
    def _networks(cls, value: str) -> str:
        for part in comma_list(value):
            try:
                ipaddress.ip_network(part)
            except ValueError as exc:
                raise ValueError(
                    f"{part!r} is no address or network such as 10.1.1.0/24"
                ) from exc
        return value

    @field_validator("audiosocket_advertise")
    @classmethod
    def _advertise(cls, value: str) -> str:
        # a comma or space would end the argument of EXEC AudioSocket
        if any(c in value for c in ", \t\r\n\"'"):
            raise ValueError("HOST or HOST:PORT is wanted, without spaces or commas")
        return value

    @field_validator("asterisk_dir")
    @classmethod
    def _plain_path(cls, value: str) -> str:
        # it is pasted into a shell line on the Asterisk host
        if not value.startswith("/") or not all(
            c.isalnum() or c in "/._-" for c in value
        ):
            raise ValueError("an absolute path of letters, digits, / . _ - is wanted")
        return value.rstrip("/") or "/"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # load() merges environment and file itself, to name each mistake's origin
        return (init_settings,)


def load(
    environ: Mapping[str, str] | None = None, path: Path | None = None
) -> Settings:
    """Read the settings from the environment and the optional file.

    Raises:
        ConfigError: with every unknown name and every bad value.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    named = environ.get(_FILE_VARIABLE)
    file = path or Path(named or _DEFAULT_FILE)
    values, origin = _from_file(file, must_exist=bool(path or named), problems=problems)
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name == _FILE_VARIABLE:
            continue
        key = name[len(PREFIX) :].lower()
        if key not in Settings.model_fields:
            problems.append(f"{name}: unknown setting{_did_you_mean(key, PREFIX)}")
            continue
        values[key], origin[key] = text, name
    try:
        settings = Settings(**values)
    except ValidationError as exc:
        problems += [_explain(error, origin) for error in exc.errors()]
    else:
        problems += _cross_checks(settings)
    if problems:
        raise ConfigError(problems)
    return settings


def _from_file(
    file: Path, *, must_exist: bool, problems: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values of the TOML file and where each came from; mistakes go to `problems`."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if must_exist:
            problems.append(f"{file}: no such settings file")
        return {}, {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        problems.append(f"{file}: cannot be read: {exc}")
        return {}, {}
    except RecursionError:  # tomllib goes down as deep as brackets do
        problems.append(f"{file}: cannot be read: lists or tables in too many others")
        return {}, {}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in Settings.model_fields:
            problems.append(f"{file}: {key}: unknown setting{_did_you_mean(key, '')}")
        else:
            values[key] = value
    return values, {key: f"{file}: {key}" for key in values}


def _did_you_mean(key: str, prefix: str) -> str:
    close = difflib.get_close_matches(key, Settings.model_fields, n=1)
    if not close:
        return ""
    return f" (did you mean {prefix}{close[0].upper() if prefix else close[0]}?)"


def _explain(error: Any, origin: Mapping[str, str]) -> str:
    key = str(error["loc"][0]) if error["loc"] else "?"
    field = Settings.model_fields.get(key)
    secret = field is not None and field.annotation is SecretStr
    shown = "" if secret else f" (got {error['input']!r})"
    return f"{origin.get(key, key)}: {error['msg']}{shown}"


def _cross_checks(settings: Settings) -> list[str]:
    problems = []
    try:
        gb_a_card = numbers(settings.card_gb)
    except ValueError:
        gb_a_card = (0.0,)
    if any(gb <= 0 for gb in gb_a_card):
        problems.append(
            f"ULTRAVOX_CARD_GB is {settings.card_gb!r}, not numbers above 0"
        )
    if gb_a_card and settings.quantize != "none":
        problems.append("ULTRAVOX_CARD_GB and ULTRAVOX_QUANTIZE exclude each other")
    if settings.engine == "openai" and not settings.engine_url:
        problems.append("ULTRAVOX_ENGINE=openai needs ULTRAVOX_ENGINE_URL")
    if settings.turn_more_below and (
        settings.turn_more_below >= settings.turn_over_from
    ):
        problems.append(
            "ULTRAVOX_TURN_MORE_BELOW must be below ULTRAVOX_TURN_OVER_FROM"
        )
    if settings.tts == "openai" and not settings.tts_url:
        problems.append("ULTRAVOX_TTS=openai needs ULTRAVOX_TTS_URL")
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        problems.append(
            "ULTRAVOX_TLS_CERTIFICATE and ULTRAVOX_TLS_KEY are needed together"
        )
    if settings.vicidial_url and not (
        settings.vicidial_user and settings.vicidial_password.get_secret_value()
    ):
        problems.append(
            "ULTRAVOX_VICIDIAL_URL needs ULTRAVOX_VICIDIAL_USER and _PASSWORD"
        )
    if settings.ami_addresses and not (
        settings.ami_user and settings.ami_password.get_secret_value()
    ):
        problems.append("ULTRAVOX_AMI_ADDRESSES needs ULTRAVOX_AMI_USER and _PASSWORD")
    if settings.vicidial_url and not settings.vicidial_agent_user:
        problems.append("ULTRAVOX_VICIDIAL_URL needs ULTRAVOX_VICIDIAL_AGENT_USER")
    if settings.records_url.get_secret_value():
        problems += _shared_store_problems(settings)
    ports = [settings.port, settings.agi_port, settings.audiosocket_port]
    taken = [port for port in ports if port and ports.count(port) > 1]
    if taken:
        problems.append(f"port {taken[0]} is set for two listeners")
    return problems


def _shared_store_problems(settings: Settings) -> list[str]:
    problems = []
    if importlib.util.find_spec("sqlalchemy") is None:
        problems.append(
            "ULTRAVOX_RECORDS_URL needs SQLAlchemy and the database's driver: "
            "pip install -r requirements-store.txt"
        )
    if len(settings.caller_key.get_secret_value()) < 16:
        problems.append(
            "ULTRAVOX_RECORDS_URL needs ULTRAVOX_CALLER_KEY, 16 characters or more "
            "and the same on every host"
        )
    return problems


def comma_list(text: str) -> list[str]:
    """The parts of a comma separated setting, without blanks."""
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers(text: str) -> tuple[float, ...]:
    """The parts of a comma list as numbers.  Raises ValueError."""
    return tuple(float(part) for part in comma_list(text))


def settings_table() -> str:
    """The README's table of settings, in Markdown."""
    rows = ["| setting | default | what for |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        shown = (
            default.get_secret_value() if isinstance(default, SecretStr) else default
        )
        text = "" if shown in ("", None) else f"`{shown}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {text} | {field.description} |")
    return "\n".join(rows)
