"""Chat completions on the wire: what is asked, and what answers of all kinds mean."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from datetime import date
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from model.engine.openai_wire import (
    MIN_CLIP_SAMPLES,
    ClipTexts,
    StreamPart,
    error_of,
    model_named,
    request_body,
    stream_part,
)
from model.engine.plain_chat import PlainChat
from model.engine.request import GenerationRequest
from model.errors import (
    ContextTooLong,
    EngineOverloaded,
    GenerationFailed,
    InvalidRequest,
    SpeechUnavailable,
)
from model.ultravox.inputs import Dialogue


def dialogue() -> Dialogue:
    return Dialogue(PlainChat(), "Be brief.", today=date(2026, 1, 1))


def body_of(asked: Dialogue, **options: Any) -> dict[str, Any]:
    return request_body(GenerationRequest(asked.prompt(), **options), ClipTexts())


def test_text_is_sent_as_text() -> None:
    asked = dialogue()
    asked.append_user_text("Hi")
    asked.append_assistant_tokens(list(b"Hello."))
    asked.append_user_text("Well")
    body = body_of(asked, max_new_tokens=7)
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Well"},
    ]
    assert body["max_tokens"] == 7
    assert body["stream"] is True
    assert body["temperature"] == 0.0
    assert "seed" not in body
    assert "stop" not in body


def test_audio_is_sent_as_a_wav_file_in_its_place() -> None:
    asked = dialogue()
    asked.append_user_audio(np.full(16_000, 0.5, np.float32), "Listen: ", " Well?")
    before, audio, after = body_of(asked)["messages"][1]["content"]
    assert before == {"type": "text", "text": "Listen: "}
    assert after == {"type": "text", "text": " Well?"}
    assert (audio["type"], audio["input_audio"]["format"]) == ("input_audio", "wav")
    file = io.BytesIO(base64.b64decode(audio["input_audio"]["data"]))
    wave, rate_hz = soundfile.read(file)
    assert rate_hz == 16_000
    assert len(wave) == 16_000
    assert abs(float(wave[0]) - 0.5) < 0.001


def test_a_very_short_clip_is_filled_up() -> None:
    asked = dialogue()
    asked.append_user_audio(np.ones(1, np.float32))
    (part,) = body_of(asked)["messages"][1]["content"]
    file = io.BytesIO(base64.b64decode(part["input_audio"]["data"]))
    assert len(soundfile.read(file)[0]) == MIN_CLIP_SAMPLES


def test_a_clip_is_encoded_once_and_forgotten_with_its_dialogue() -> None:
    texts, asked = ClipTexts(), dialogue()
    clip = asked.append_user_audio(np.zeros(16_000, np.float32))
    assert texts.of(clip) is texts.of(clip)
    assert len(texts._made) == 1
    del clip, asked
    assert len(texts._made) == 0


def event(**values: Any) -> str:
    return "data: " + json.dumps(values)


def choice(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"delta": delta, "finish_reason": finish_reason}]}


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("", None),
        (": ping", None),
        ("event: x", None),
        ("data: [DONE]", StreamPart(is_end=True)),
        ("data:[DONE]", StreamPart(is_end=True)),
        (event(**choice(role="assistant", content=None)), StreamPart()),
        (event(**choice(content="Hi")), StreamPart(text="Hi")),
        (event(**choice("stop")), StreamPart(finish_reason="stop")),
        (event(**choice("length")), StreamPart(finish_reason="length")),
        (event(**choice("content_filter")), StreamPart(finish_reason="stop")),
        (event(choices=[]), StreamPart()),
        (event(choices=None), StreamPart()),
        (event(choices=[{"delta": None}]), StreamPart()),
        (
            event(
                choices=[],
                usage={
                    "prompt_tokens": 9,
                    "completion_tokens": 4,
                    "prompt_tokens_details": {"cached_tokens": 3},
                },
            ),
            StreamPart(prompt_tokens=9, completion_tokens=4, cached_tokens=3),
        ),
        (
            event(
                choices=[], usage={"prompt_tokens": 9, "prompt_tokens_details": None}
            ),
            StreamPart(prompt_tokens=9),
        ),
    ],
)
def test_a_line_of_the_stream(line: str, part: StreamPart | None) -> None:
    assert stream_part(line) == part


ODD_EVENTS = (
    "{",
    "3",
    '{"choices": {}}',
    '{"choices": [3]}',
    '{"choices": [{"delta": "Hi"}]}',
    '{"choices": [{"delta": {"content": 3}}]}',
    '{"choices": [{"delta": {"content": ["Hi"]}}]}',
    '{"choices": [{"finish_reason": []}]}',
    '{"usage": 3}',
    '{"usage": {"prompt_tokens": "9"}}',
    '{"usage": {"prompt_tokens": -9}}',
    '{"usage": {"prompt_tokens_details": []}}',
    '{"more": ' + "[" * 100_000 + "]" * 100_000 + "}",
)


@pytest.mark.parametrize("data", [*ODD_EVENTS, '{"error": {"message": "it broke"}}'])
def test_a_line_that_is_a_failure(data: str) -> None:
    with pytest.raises(GenerationFailed):
        stream_part(f"data: {data}")


@given(st.text(max_size=100))
def test_junk_in_a_stream_raises_nothing_else(junk: str) -> None:
    with contextlib.suppress(GenerationFailed):
        stream_part("data: " + junk)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, '{"error": {"message": "Unknown part", "code": 400}}', InvalidRequest),
        (
            400,
            '{"error": {"message": "exceeds the available context size"}}',
            ContextTooLong,
        ),
        (
            400,
            '{"object": "error", "message": "This model\'s maximum context length is"}',
            ContextTooLong,
        ),
        (401, '{"error": "no key"}', SpeechUnavailable),
        (404, "not here", SpeechUnavailable),
        (429, "", EngineOverloaded),
        (500, "<html>oops</html>", GenerationFailed),
        (500, '{"error": [3], "message": "no"}', GenerationFailed),
        (500, '{"error": ' + "[" * 100_000, GenerationFailed),
        (503, '{"error":{"message":"Loading model"}}', SpeechUnavailable),
    ],
)
def test_an_error_answer_becomes_one_of_ours(
    status: int, body: str, kind: type[Exception]
) -> None:
    error = error_of(status, body)
    assert type(error) is kind
    assert str(status) in str(error)


def test_the_first_model_is_taken_unless_one_is_named() -> None:
    listed = b'{"data": [{"id": "a"}, {"id": "b"}]}'
    assert model_named(listed, "") == "a"
    assert model_named(listed, "b") == "b"
    with pytest.raises(SpeechUnavailable, match="has a, b"):
        model_named(listed, "c")


def test_a_model_that_says_it_has_no_ears_is_refused() -> None:
    about = b'{"data": [{"id": "a", "architecture": {"input_modalities": ["text"]}}]}'
    with pytest.raises(SpeechUnavailable, match="takes no audio"):
        model_named(about, "")
    assert model_named(about.replace(b'"text"', b'"text", "audio"'), "") == "a"
    other = b'{"data": [{"id": "a", "architecture": "gemma"}]}'
    assert model_named(other, "") == "a"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b'{"data": []}',
        b'{"data": [{}]}',
        b'{"data": [{"id": "a", "architecture": {"\xff": 1}}]}',
        b'{"data": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_list_of_models_is_unavailability(body: bytes) -> None:
    with pytest.raises(SpeechUnavailable):
        model_named(body, "")
