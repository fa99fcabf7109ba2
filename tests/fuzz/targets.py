"""What is fuzzed: each target takes any bytes and must hold what its docstring says.

Anything but the errors a target names is a finding.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.types import Message, Scope

import config
from agi_handlers.agi import commands
from agi_handlers.agi.protocol import AgiLimits, AgiProtocol
from agi_handlers.ami.messages import AmiProtocolError, AmiReader
from agi_handlers.audio_leg.audiosocket_protocol import AudioSocketDecoder
from agi_handlers.audio_leg.file_exchange import FileExchangeFailed
from agi_handlers.audio_leg.file_shell import (
    FileShell,
    FileShellOptions,
    _ShellConnection,
)
from agi_handlers.audio_leg.media_port import first_message
from agi_handlers.campaigns import CampaignsInvalid, load_campaign
from agi_handlers.errors import AgiArgumentInvalid, AudioLegUnavailable
from agi_handlers.vicidial.lead import Lead, clean_value, fill_instructions
from agi_handlers.vicidial.responses import Unusable, read_response
from model.actions import Action, ActionParser
from model.audio.wav import AudioLimits
from model.engine.openai_engine import _Reply
from model.engine.openai_wire import (
    StreamLines,
    error_of,
    model_named,
    stream_part,
)
from model.engine.stream import Delivery, TokenStream
from model.errors import InvalidAudio, SpeechError, SpeechUnavailable, SynthesisFailed
from model.live_messages import LiveProtocolError
from model.live_wire import ClientMessages, ServerMessages
from model.tts.openai_speech import _Samples
from model.ultravox.clip import AudioClip
from rest_api.audio_bodies import decode_audio, read_encoded
from rest_api.chat_bodies import read_audio_request
from rest_api.errors import RequestRefused
from rest_api.schemas import AudioChat

Target: TypeAlias = Callable[[bytes], None]

_LIMITS: Final = AudioLimits(max_s=2.0, max_encoded_bytes=1 << 20)
_AGI: Final = AgiLimits(max_line_bytes=256, max_environment_bytes=4096)
_MAX_NEW_TOKENS: Final = 20
_ACTIONS: Final = ("transfer", "hangup", "dtmf", "note")


def _cut(data: bytes) -> list[bytes]:
    """The first byte says where the rest is cut."""
    if not data:
        return []
    at = data[0] % (len(data) or 1)
    return [data[1 : at + 1], data[at + 1 :]]


def agi(data: bytes) -> None:
    """Never raises; the same events however it is cut; memory under its limits."""

    def events(pieces: list[bytes]) -> list[str]:
        protocol = AgiProtocol(_AGI)
        for piece in pieces:
            protocol.receive_data(piece)
            assert len(protocol._buffer) <= _AGI.max_line_bytes + len(piece)
        protocol.receive_eof()
        return [repr(event) for event in protocol.events_received()]

    assert events(_cut(data)) == events([data[1:]])


def agi_answers(data: bytes) -> None:
    """The same for answers to commands that are under way."""
    protocol = AgiProtocol(_AGI)
    protocol.receive_data(b"agi_request: agi://bot/ultravox\nagi_channel: SIP/1\n\n")
    protocol.events_received()
    for piece in data.split(b"\xff")[:64]:
        if protocol.state.name == "IDLE":
            protocol.send_command("NOOP", interruptible=bool(piece[:1] > b"m"))
        if protocol.can_interrupt:
            protocol.send_interrupt("marker")
        protocol.receive_data(piece)
        protocol.events_received()
        protocol.data_to_send()
    protocol.receive_eof()
    assert protocol.is_closed


def agi_arguments(data: bytes) -> None:
    """Whatever is put into a command stays one line and one argument."""
    text = data.decode("utf-8", errors="replace")
    for make in (
        lambda: commands.set_variable("BOT_NOTE", text, allow_commas=True),
        lambda: commands.set_variable(text, "x"),
        lambda: commands.exec_("NoOp", text),
        lambda: commands.stream_file(text),
        lambda: commands.set_context(text),
        lambda: commands.set_extension(text),
        lambda: commands.verbose(commands.dialplan_text(text)),
    ):
        try:
            line = make().line
        except AgiArgumentInvalid:
            continue
        assert "\n" not in line
        assert "\r" not in line
        assert "\0" not in line
        unescaped = line.replace("\\\\", "").replace('\\"', "")
        assert unescaped.count('"') % 2 == 0, line
    assert not set(commands.dialplan_text(text)) & set('\r\n\0",${}[]\\')


def audiosocket(data: bytes) -> None:
    """Never raises; the same messages however it is cut."""

    def messages(pieces: list[bytes]) -> list[str]:
        decoder = AudioSocketDecoder()
        for piece in pieces:
            decoder.receive_data(piece)
        decoder.receive_eof()
        return [repr(message) for message in decoder.events_received()]

    assert messages(_cut(data)) == messages([data[1:]])


def audio_port(data: bytes) -> None:
    """A connection says what it is within a few bytes, or is junk; never raises."""
    found = first_message(data)
    if found is None:
        assert len(data) <= 81
    elif found != "junk":
        key, rest = found
        assert "\n" not in key
        assert data.endswith(rest)


def live_messages(data: bytes) -> None:
    """Only LiveProtocolError, on both sides of the wire."""
    sides: list[Callable[[str | bytes], object]]
    sides = [ClientMessages().receive, ServerMessages().receive]
    for receive in sides:
        for piece in data.split(b"\xff")[:16]:
            try:
                receive(piece[1:] if piece[:1] == b"\0" else _text(piece))
            except LiveProtocolError:
                break


def audio(data: bytes) -> None:
    """A finite wave under the limits, or InvalidAudio."""
    if len(data) < 2:
        return
    rate_hz = 4000 + data[0] * 700
    readers: list[Callable[[], AudioClip]] = [
        lambda: read_encoded(data[1:], rate_hz, _LIMITS),
        lambda: decode_audio(_text(data[1:]), rate_hz, _LIMITS),
    ]
    for read in readers:
        try:
            wave = read().wave
        except InvalidAudio:
            continue
        assert np.isfinite(wave).all()
        assert 320 <= len(wave) <= 2.1 * 16_000


def chat_form(data: bytes) -> None:
    """A form's fields and file, or one of the two refusals that have an answer."""
    if not data:
        return
    pieces = _cut(data)

    async def receive() -> Message:
        body = pieces.pop(0) if pieces else b""
        return {"type": "http.request", "body": body, "more_body": bool(pieces)}

    kind = b"multipart/form-data; boundary=" + (b"x" if data[0] % 8 else data[1:9])
    # with an "app" starlette words its complaints as it does behind a port
    scope: Scope = {"type": "http", "app": None, "query_string": b""}
    scope["headers"] = [(b"content-type", kind)]
    with suppress(RequestRefused, RequestValidationError):
        made = asyncio.run(read_audio_request(Request(scope, receive), AudioChat))
        assert made.encoded is not None
        assert len(made.encoded) <= len(data)


def settings(data: bytes) -> None:
    """Settings, or ConfigError with lines for people, and no secret in them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "ultravox.toml")
        file.write_bytes(data)
        secret = "a-secret-nobody-may-see"
        problems = ["none"]
        try:
            config.load({"ULTRAVOX_ENGINE_API_KEY": secret}, file)
        except config.ConfigError as exc:
            problems = exc.problems
        assert problems
        assert secret not in "".join(problems)


def campaign(data: bytes) -> None:
    """A campaign, or CampaignsInvalid."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "sales.toml")
        file.write_bytes(data)
        problems = ["none"]
        try:
            load_campaign(file)
        except CampaignsInvalid as exc:
            problems = exc.problems
        assert problems


def vicidial(data: bytes) -> None:
    """Some verdict, never an exception, and the password in none of its words."""
    status, secret = (200, 200, 302, 500)[data[0] % 4 if data else 0], "Pa55w0rd"
    for function in ("", "lead_field_info"):
        response = read_response(
            status, data[1:], secret=secret, bare_function=function
        )
        if status >= 300:
            assert isinstance(response, Unusable)
    value = clean_value(_text(data), 40)
    assert len(value) <= 40
    assert not set(value) & set('\r\n\0<>{}[]`$\\"')
    filled = fill_instructions("Speak with --A--first_name--B-- now", Lead())
    assert "\n" not in filled


def actions(data: bytes) -> None:
    """The same parts however the text is cut; actions that are allowed, and no more."""
    text = _text(data)
    whole, cut = ActionParser(_ACTIONS), ActionParser(_ACTIONS)
    at = (data[0] if data else 0) % (len(text) + 1)
    parts = [*whole.receive_text(text), *whole.flush()]
    others = [*cut.receive_text(text[:at]), *cut.receive_text(text[at:]), *cut.flush()]
    assert _joined(parts) == _joined(others)
    for part in parts:
        if isinstance(part, Action):
            assert part.name in _ACTIONS
            assert "\n" not in part.argument


def ami(data: bytes) -> None:
    """The same messages however it is cut, or AmiProtocolError; memory is bounded."""

    def messages(pieces: list[bytes]) -> list[object]:
        reader = AmiReader()
        found: list[object] = []
        try:
            for piece in (b"Asterisk Call Manager/9\r\n", *pieces):
                found += reader.receive_data(piece)
        except AmiProtocolError as exc:
            found.append(str(exc))
        return found

    assert messages(_cut(data)) == messages([data[1:]])
    with suppress(AmiProtocolError):
        AmiReader().receive_data(data)


def file_shell(data: bytes) -> None:
    """What a shell answers is a file, or an error that the leg knows."""
    asyncio.run(_ask_shell(data))


async def _ask_shell(answers: bytes) -> None:
    connection = _ShellConnection()
    connection.data_received(answers)
    connection.eof_received()
    shell = FileShell(connection, "ultravox-0", FileShellOptions(max_file_bytes=512))
    try:
        await shell.check_folder()
        await shell.put(shell.new_name(), b"\xff" * 8)
        assert len(await shell.get(shell.new_name())) <= 512
    except (AudioLegUnavailable, FileExchangeFailed):
        pass


def chat_stream(data: bytes) -> None:
    """A model server's streamed answer: a reply within its limits, or a SpeechError;
    the same however it is cut."""

    def answered(pieces: list[bytes]) -> list[str]:
        delivered = _Deliveries()
        lines = StreamLines()
        reply = _Reply(delivered, 0.0, _MAX_NEW_TOKENS)
        try:
            for piece in pieces:
                for line in lines.receive_data(piece):
                    _take(reply, line)
            _take(reply, lines.receive_eof())
            reply.end()
        except SpeechError as exc:
            delivered.seen.append(repr(exc))
        assert len(delivered.seen) <= _MAX_NEW_TOKENS + 2  # the end, or what went wrong
        return delivered.seen

    assert answered(_cut(data)) == answered([data[1:]])


def _take(reply: _Reply, line: str) -> None:
    """As the engine does, which reads no further than the reply's end."""
    if not reply.has_ended and (part := stream_part(line)) is not None:
        reply.take(part)


def _plain(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")


class _Deliveries(TokenStream):
    """Keeps what is delivered, without its times."""

    def __init__(self) -> None:
        super().__init__(_plain, stop=(), timeout_s=1.0, cancel=lambda: None)
        self.seen: list[str] = []

    def deliver(self, delivery: Delivery) -> None:
        ids, reason = delivery.token_ids, delivery.finish_reason
        self.seen.append(repr((ids, reason, delivery.usage)))


def model_answers(data: bytes) -> None:
    """An error answer becomes an error of ours in one line; a list of models a name, or
    SpeechUnavailable."""
    status = (400, 401, 404, 429, 500, 503)[data[0] % 6 if data else 0]
    said = str(error_of(status, _text(data[1:])))
    assert len(said) < 400
    assert "\n" not in said
    with suppress(SpeechUnavailable):
        assert isinstance(model_named(data[1:], ""), str)


def speech_answer(data: bytes) -> None:
    """A speech server's samples, or SynthesisFailed; the same however it is cut."""

    def heard(pieces: list[bytes]) -> tuple[int, bytes]:
        samples = _Samples(24_000)
        try:
            waves = [samples.receive_data(piece) for piece in pieces]
        except SynthesisFailed:
            return 0, b""
        assert 8000 <= samples.rate_hz <= 48_000
        return samples.rate_hz, b"".join(wave.tobytes() for wave in waves)

    assert heard(_cut(data)) == heard([data[1:]])


def _joined(parts: list[str | Action]) -> list[str | Action]:
    made: list[str | Action] = []
    for part in parts:
        if isinstance(part, str) and made and isinstance(made[-1], str):
            made[-1] += part
        else:
            made.append(part)
    return made


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for target in (
        *(agi, agi_answers, agi_arguments, audiosocket, audio_port, live_messages),
        *(audio, chat_form, settings, campaign, vicidial, actions, ami, file_shell),
        *(chat_stream, model_answers, speech_answer),
    )
}
