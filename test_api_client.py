"""Try the HTTP API by hand: health, text, audio and a whole customer-service call.

    .venv/bin/python test_api_client.py [--url URL] [--api-key KEY] [--audio FILE]

Prints every answer and how long it took.  Exit status: 0 everything answered, 1 a check
failed, 2 nobody answers at the address.
"""

from __future__ import annotations

import argparse
import base64
import math
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

_RATE_HZ: Final = 16_000
_TIMEOUT_S: Final = 180.0
"""A large model on a CPU takes its time."""
_SYSTEM: Final = {
    "role": "system",
    "content": "You are a helpful customer service assistant.",
}
_CUSTOMER: Final = (
    "Hello, I need help with my order.",
    "The order number is 4711.",
    "When will it arrive?",
    "Thank you, goodbye.",
)


class CheckFailed(Exception):
    """An answer wasn't what the API promises."""


@dataclass(slots=True)
class Api:
    """The server under test."""

    http: httpx.Client

    def get(self, path: str) -> dict[str, Any]:
        result = _json(self.http.get(path))
        if result.get("success") is False:
            raise CheckFailed(f"{path}: {result['error']['message']}")
        return result

    def chat(self, path: str, **body: Any) -> str:
        """The reply's text; prints it with its cost."""
        began = time.monotonic()
        result = _json(self.http.post(path, json=body))
        took_ms = (time.monotonic() - began) * 1000.0
        if not result.get("success"):
            raise CheckFailed(f"{path}: {result.get('error', result)}")
        data = result["data"]
        print(f"  bot: {data['response']}")
        first_ms, usage = data["timings"]["first_token_ms"], data["usage"]
        print(
            f"       {took_ms:.0f} ms, first token {first_ms:.0f} ms,"
            f" {usage['prompt_tokens']} tokens in, {usage['completion_tokens']} out"
        )
        return str(data["response"])


def check_health(api: Api) -> None:
    """GET /health and /memory."""
    health = api.get("/health")
    model = health["model"]
    print(f"  {health['status']}, up {health['uptime_s']:.0f} s")
    print(f"  model {model['name']} on {model['device']}")
    for note in (model["detail"], health["detail"]):
        if note:
            print(f"  note: {note}")
    if not model["is_ready"]:
        raise CheckFailed("the model is not ready")
    memory = api.get("/memory")
    print(f"  memory {memory['process']['rss_bytes'] / 1e6:.0f} MB")


def check_text(api: Api) -> None:
    """POST /chat/text and /chat/conversation."""
    turns = [_SYSTEM, {"role": "user", "content": _CUSTOMER[0]}]
    for path in ("/chat/text", "/chat/conversation"):
        print(f"  {path}: {_CUSTOMER[0]}")
        api.chat(path, turns=turns, max_new_tokens=50, temperature=0.7)


def check_audio(api: Api, audio: Path | None) -> None:
    """POST /chat/audio with a file, or with a tone where speech would be."""
    if audio is None:
        encoded, name = _tone(), "one second of a tone (--audio FILE sends speech)"
    else:
        encoded, name = audio.read_bytes(), str(audio)
    print(f"  /chat/audio: {name}")
    api.chat(
        "/chat/audio",
        audio_base64=base64.b64encode(encoded).decode(),
        turns=[_SYSTEM],
        sampling_rate=_RATE_HZ,
        max_new_tokens=50,
        temperature=0.7,
    )


def check_call(api: Api) -> None:
    """A conversation of several turns that keeps its history."""
    turns = [_SYSTEM]
    for said in _CUSTOMER:
        print(f"  customer: {said}")
        turns.append({"role": "user", "content": said})
        reply = api.chat("/chat/text", turns=turns, max_new_tokens=50, temperature=0.7)
        turns.append({"role": "assistant", "content": reply})


def check_refusal(api: Api) -> None:
    """A wrong request gets the error shape and names the field."""
    answer = api.http.post("/chat/text", json={"turns": []})
    error = _json(answer).get("error", {})
    print(f"  {answer.status_code} {error.get('code')}: {error.get('message')}")
    if answer.status_code != 422 or error.get("field") != "turns":
        raise CheckFailed("a request without turns was not refused as documented")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every check; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--api-key", default="", help="asked of all but loopback")
    parser.add_argument("--audio", type=Path, help="a WAV, FLAC, OGG or MP3 file")
    wanted = parser.parse_args(arguments)
    if wanted.audio is not None and not wanted.audio.is_file():
        parser.error(f"there is no file {wanted.audio}")
    headers = {"Authorization": f"Bearer {wanted.api_key}"} if wanted.api_key else {}
    checks: list[tuple[str, Callable[[Api], None]]] = [
        ("health", check_health),
        ("text", check_text),
        ("audio", lambda api: check_audio(api, wanted.audio)),
        ("customer service call", check_call),
        ("refusal", check_refusal),
    ]
    with httpx.Client(
        base_url=wanted.url, headers=headers, timeout=_TIMEOUT_S
    ) as client:
        try:
            return _run(Api(client), checks)
        except httpx.TransportError as exc:
            print(f"nobody answers at {wanted.url}: {exc}", file=sys.stderr)
            return 2


def _run(api: Api, checks: Sequence[tuple[str, Callable[[Api], None]]]) -> int:
    failed = []
    for name, check in checks:
        print(f"{name}:")
        try:
            check(api)
        except (CheckFailed, KeyError, TypeError) as exc:
            print(
                f"  FAILED: {exc!r}"
                if isinstance(exc, KeyError)
                else f"  FAILED: {exc}"
            )
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "everything answered")
    return 1 if failed else 0


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        result = answer.json()
    except ValueError as exc:
        raise CheckFailed(f"{answer.url}: {answer.status_code}, not JSON") from exc
    if not isinstance(result, dict):
        raise CheckFailed(f"{answer.url}: not a JSON object")
    return result


def _tone() -> bytes:
    """A second of 440 Hz as bare 16-bit samples."""
    samples = (
        round(8000 * math.sin(2 * math.pi * 440 * n / _RATE_HZ))
        for n in range(_RATE_HZ)
    )
    return b"".join(struct.pack("<h", sample) for sample in samples)


if __name__ == "__main__":
    sys.exit(main())
