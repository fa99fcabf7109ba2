"""Checkpoints from a hub, played by a server on this machine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest

from model.errors import ModelLoadError
from model.ultravox.checkpoint import LoadOptions, load_checkpoint
from model.ultravox.repository import HubOptions, open_part, open_repository
from tests.model.ultravox.parity_data import V0_5, write_encoder_and_projector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TOKEN = "hf_of_one_who_accepted"
_COMMIT = "0123456789abcdef0123456789abcdef01234567"
# What the hub says, by repository, as (status, code in the X-Error-Code header).
_REFUSALS = {
    "org/gated": (403, "GatedRepo"),  # a token of somebody without the licence
    "org/locked": (401, "GatedRepo"),  # no token at all
    "org/unknown": (401, "RepoNotFound"),
}


class _Hub(BaseHTTPRequestHandler):
    """The few answers of the hub that a download needs."""

    root: ClassVar[Path]
    seen: ClassVar[list[str]]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        repo, _, rest = self.path.lstrip("/").partition("/resolve/main/")
        self.seen.append(f"{repo}: {rest}")
        status, code = _REFUSALS.get(repo, (404, "EntryNotFound"))
        path = self.root / repo / rest
        if self.headers.get("Authorization") == f"Bearer {_TOKEN}":
            path = self.root / "org/speech" / rest  # it opens every door
        body = path.read_bytes() if path.is_file() else b""
        self.send_response(200 if body else status)
        if body:
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')  # noqa: S324
        else:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", _COMMIT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubOptions]:
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)  # its thread would stay
    _Hub.root, _Hub.seen = tmp_path / "hub", []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield HubOptions(
        cache_dir=tmp_path / "cache",
        endpoint=f"http://127.0.0.1:{server.server_port}",
    )
    server.shutdown()
    server.server_close()
    thread.join()


def _publish(tmp_path: Path) -> None:
    """org/speech names org/llm, as the published v0.5 repositories do."""
    folder = write_encoder_and_projector(tmp_path / "hub" / "org")
    folder.rename(folder.with_name("speech"))
    config = folder.with_name("speech") / "config.json"
    values = json.loads(config.read_text()) | {"text_model_id": "org/llm"}
    config.write_text(json.dumps(values))


def test_a_published_checkpoint_is_fetched_with_its_parts(
    tmp_path: Path, hub: HubOptions
) -> None:
    _publish(tmp_path)
    options = LoadOptions(device="cpu", dtype="float32", hub=hub)
    fetched = load_checkpoint("org/speech", options)
    whole = load_checkpoint(str(V0_5), LoadOptions(device="cpu", dtype="float32"))
    for name, tensor in whole.network.state_dict().items():
        assert tensor.equal(fetched.network.state_dict()[name]), name
    wanted = {line.split(": ")[1] for line in _Hub.seen}
    assert not any(file.endswith((".py", ".bin", ".pth")) for file in wanted)


def test_how_far_a_download_is_can_be_told(tmp_path: Path, hub: HubOptions) -> None:
    _publish(tmp_path)
    told: list[str] = []
    reporting = dataclasses.replace(hub, report=told.append)
    load_checkpoint("org/speech", LoadOptions(device="cpu", hub=reporting))
    weights = [line for line in told if line.startswith("model.safetensors, ")]
    assert weights[-1].endswith("0 of 0 MB"), told  # the fixture's are 0.2 MB


def test_a_checkpoint_fetched_once_loads_offline(
    tmp_path: Path, hub: HubOptions
) -> None:
    _publish(tmp_path)
    options = LoadOptions(device="cpu", dtype="float32", hub=hub)
    load_checkpoint("org/speech", options)
    _Hub.seen.clear()
    offline = HubOptions(cache_dir=hub.cache_dir, offline=True)
    load_checkpoint("org/speech", LoadOptions(device="cpu", hub=offline))
    assert _Hub.seen == []


@pytest.mark.parametrize(
    ("repo", "says"),
    [
        ("org/gated", "accept its licence at https://huggingface.co/org/gated"),
        ("org/locked", "and set HF_TOKEN to a token of that account"),
        ("org/unknown", "if it is private, set HF_TOKEN"),
    ],
)
def test_a_refusal_says_what_to_do(hub: HubOptions, repo: str, says: str) -> None:
    with pytest.raises(ModelLoadError, match=says) as caught:
        load_checkpoint(repo, LoadOptions(hub=hub))
    assert caught.value.subject == repo


def test_a_token_of_one_who_accepted_opens_it(tmp_path: Path, hub: HubOptions) -> None:
    _publish(tmp_path)
    with_token = dataclasses.replace(hub, token=_TOKEN)
    for name, options in (("org/locked", with_token), ("org/speech", hub)):
        assert open_repository(name, options).find("config.json") is not None
    with pytest.raises(ModelLoadError):
        open_repository(
            "org/locked", dataclasses.replace(hub, token="hf_of_another")
        ).find("tokenizer.json")


def test_a_gated_backbone_is_named_not_the_checkpoint(
    tmp_path: Path, hub: HubOptions
) -> None:
    _publish(tmp_path)
    config = tmp_path / "hub" / "org" / "speech" / "config.json"
    values = json.loads(config.read_text()) | {"text_model_id": "org/gated"}
    config.write_text(json.dumps(values))
    with pytest.raises(ModelLoadError, match="HF_TOKEN") as caught:
        load_checkpoint("org/speech", LoadOptions(hub=hub))
    assert caught.value.subject == "org/gated"


def test_a_missing_file_is_not_a_missing_repository(
    tmp_path: Path, hub: HubOptions
) -> None:
    _publish(tmp_path)
    repository = open_repository("org/llm", hub)
    assert repository.find("no_such_file.json") is None
    found = repository.find("config.json")
    assert found is not None
    assert found.is_file()


def test_names_that_are_paths_are_not_asked_of_the_hub(
    tmp_path: Path, hub: HubOptions
) -> None:
    owner = open_repository(str(tmp_path), hub)
    for name in ("./llm", "../llm", "/models/llm", "a/b/c", "llm"):
        with pytest.raises(ModelLoadError, match="not a folder in it or beside it"):
            open_part(name, owner, hub)
    assert _Hub.seen == []
