"""Messages of `/chat/live` to WebSocket messages and back; see `model.live_messages`.

Reading is strict: a field of a wrong type or out of range is an error that names it.
No I/O here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Literal, assert_never

import msgspec
from msgspec import Meta

from model.live_messages import (
    MAX_AUDIO_BYTES,
    MAX_TEXT_CHARS,
    Bytes,
    Cancel,
    ClientMessage,
    End,
    Forget,
    Identified,
    Identify,
    LiveError,
    LiveProtocolError,
    Milliseconds,
    Past,
    Rate,
    Ready,
    Say,
    ServerMessage,
    Settle,
    Start,
    Turn,
    UserTurnSent,
    Wire,
)
from model.speech import (
    FinishReason,
    ReplyAction,
    ReplyAudio,
    ReplyDone,
    ReplyText,
    SessionOptions,
    Timings,
    Transcript,
    TurnEnd,
    TypedTurn,
    Usage,
    Utterance,
)

Probability = Annotated[float, Meta(ge=0.0, le=1.0)]

# What stands in JSON where it differs from the message itself.


@dataclass(frozen=True, slots=True)
class _StartFields:
    call_id: Annotated[str, Meta(min_length=1, max_length=200)]
    instructions: str
    campaign: Annotated[str, Meta(max_length=200)] = "default"
    language: Annotated[str, Meta(min_length=1, max_length=20)] = "en-us"
    voice: Annotated[str, Meta(max_length=200)] = ""
    rate_hz: Rate = 8000
    max_new_tokens: Annotated[int, Meta(ge=1, le=4096)] = 150
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] = 0.0
    actions: tuple[Annotated[str, Meta(max_length=64)], ...] = ()
    transcribe: bool = False
    protocol: Literal[1] = 1


@dataclass(frozen=True, slots=True)
class _UtteranceFields:
    turn: Turn
    n_bytes: Bytes
    rate_hz: Rate = 8000
    started_ms: Milliseconds = 0
    ended_ms: Milliseconds = 0


@dataclass(frozen=True, slots=True)
class _PastFields:
    heard: str
    text: str | None = None
    n_bytes: Annotated[int, Meta(ge=0, le=MAX_AUDIO_BYTES, multiple_of=2)] = 0
    rate_hz: Rate = 8000


@dataclass(frozen=True, slots=True)
class _IdentifyFields:
    number: Turn
    n_bytes: Bytes
    rate_hz: Rate = 8000
    judge: bool = True


@dataclass(frozen=True, slots=True)
class _TextFields:
    turn: Turn
    text: str


@dataclass(frozen=True, slots=True)
class _TurnEndFields:
    turn: Turn
    probability: Probability
    over_from: Probability | None = None
    more_below: Probability | None = None


@dataclass(frozen=True, slots=True)
class _AudioFields:
    turn: Turn
    piece: Annotated[int, Meta(ge=0)]
    text: str
    n_bytes: Annotated[int, Meta(ge=0, le=MAX_AUDIO_BYTES, multiple_of=2)]


@dataclass(frozen=True, slots=True)
class _ActionFields:
    turn: Turn
    name: str
    argument: str


@dataclass(frozen=True, slots=True)
class _DoneFields:
    turn: Turn
    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    end_of_turn_probability: float | None = None


_CLIENT_FIELDS: Final[Mapping[str, type]] = {
    "start": _StartFields,
    "utterance": _UtteranceFields,
    "text": _TextFields,
    "say": Say,
    "cancel": Cancel,
    "settle": Settle,
    "forget": Forget,
    "past": _PastFields,
    "identify": _IdentifyFields,
    "end": End,
}
_SERVER_FIELDS: Final[Mapping[str, type]] = {
    "ready": Ready,
    "turn_end": _TurnEndFields,
    "text": _TextFields,
    "audio": _AudioFields,
    "action": _ActionFields,
    "done": _DoneFields,
    "transcript": Transcript,
    "identified": Identified,
    "error": LiveError,
}


class ClientMessages:
    """Server's side: what the client's WebSocket messages say, one by one."""

    def __init__(self) -> None:
        self._pending: _UtteranceFields | _PastFields | _IdentifyFields | None = None

    def receive(self, wire: Wire) -> ClientMessage | None:
        """The message this completes; None while its audio is still to come.

        Raises:
            LiveProtocolError: the dialogue can't go on after it.
        """
        if isinstance(wire, bytes):
            header, self._pending = self._pending, None
            if header is None:
                raise LiveProtocolError("binary message without an utterance before it")
            _check_size(wire, header.n_bytes)
            if isinstance(header, _PastFields):
                return Past(Utterance(wire, header.rate_hz), header.heard)
            if isinstance(header, _IdentifyFields):
                said = Utterance(wire, header.rate_hz)
                return Identify(header.number, said, header.judge)
            return UserTurnSent(
                header.turn,
                Utterance(wire, header.rate_hz, header.started_ms, header.ended_ms),
            )
        if self._pending is not None:
            raise LiveProtocolError("the audio of the utterance is missing")
        match _fields_of(wire, _CLIENT_FIELDS):
            case _StartFields() as start:
                return Start(_session_options(start))
            case _PastFields(heard, text, n_bytes=0):
                return Past(None if text is None else TypedTurn(text), heard)
            case _UtteranceFields() | _PastFields() | _IdentifyFields() as header:
                self._pending = header
                return None
            case _TextFields(turn, text):
                return UserTurnSent(turn, TypedTurn(text))
            case Say() | Cancel() | Settle() | Forget() | End() as message:
                return message
            case other:
                raise AssertionError(other)


class ServerMessages:
    """Client's side: what the server's WebSocket messages say, one by one."""

    def __init__(self) -> None:
        self._pending: _AudioFields | None = None

    def receive(self, wire: Wire) -> ServerMessage | None:
        """The message this completes; None while its audio is still to come.

        Raises:
            LiveProtocolError: the dialogue can't go on after it.
        """
        if isinstance(wire, bytes):
            header, self._pending = self._pending, None
            if header is None:
                raise LiveProtocolError("binary message without audio announced")
            _check_size(wire, header.n_bytes)
            return ReplyAudio(header.turn, header.piece, header.text, wire)
        if self._pending is not None:
            raise LiveProtocolError("the announced audio is missing")
        match _fields_of(wire, _SERVER_FIELDS):
            case _TurnEndFields(turn, probability, over_from, more_below):
                return TurnEnd(turn, probability, over_from, more_below)
            case _TextFields(turn, text):
                return ReplyText(turn, text)
            case _AudioFields() as header:
                self._pending = header
                return None
            case _ActionFields(turn, name, argument):
                return ReplyAction(turn, name, argument)
            case _DoneFields(turn, text, reason, usage, timings, probability):
                return ReplyDone(turn, text, reason, usage, timings, probability)
            case Ready() | LiveError() | Transcript() | Identified() as message:
                return message
            case other:
                raise AssertionError(other)


def encode_client(message: ClientMessage) -> list[Wire]:
    """The one or two WebSocket messages that say this."""
    match message:
        case Start(options):
            return [_json("start", asdict(options))]
        case UserTurnSent(turn, user):
            if isinstance(user, TypedTurn):
                return [_json("text", {"turn": turn, "text": user.text})]
            header = _UtteranceFields(
                turn, len(user.pcm16), user.rate_hz, user.started_ms, user.ended_ms
            )
            return [_json("utterance", asdict(header)), user.pcm16]
        case Say():
            return [_json("say", asdict(message))]
        case Cancel():
            return [_json("cancel", asdict(message))]
        case Settle():
            return [_json("settle", asdict(message))]
        case Forget():
            return [_json("forget", asdict(message))]
        case Past(user, heard):
            match user:
                case None:
                    return [_json("past", {"heard": heard})]
                case TypedTurn(text):
                    return [_json("past", {"heard": heard, "text": text})]
                case Utterance(pcm16=pcm16, rate_hz=rate_hz):
                    past = _PastFields(heard, None, len(pcm16), rate_hz)
                    return [_json("past", asdict(past)), pcm16]
                case _:
                    assert_never(user)
        case Identify(number, said, judge):
            asked = _IdentifyFields(number, len(said.pcm16), said.rate_hz, judge)
            return [_json("identify", asdict(asked)), said.pcm16]
        case End():
            return [_json("end", {})]
    assert_never(message)


def encode_server(message: ServerMessage) -> list[Wire]:
    """The one or two WebSocket messages that say this."""
    match message:
        case Ready():
            return [_json("ready", asdict(message))]
        case TurnEnd():
            return [_json("turn_end", asdict(message))]
        case ReplyText():
            return [_json("text", asdict(message))]
        case ReplyAudio(turn, piece, text, pcm16):
            header = _AudioFields(turn, piece, text, len(pcm16))
            return [_json("audio", asdict(header)), pcm16]
        case ReplyAction():
            return [_json("action", asdict(message))]
        case ReplyDone():
            return [_json("done", asdict(message))]
        case Transcript():
            return [_json("transcript", asdict(message))]
        case Identified():
            return [_json("identified", asdict(message))]
        case LiveError():
            return [_json("error", asdict(message))]
    assert_never(message)


def _session_options(start: _StartFields) -> SessionOptions:
    values = asdict(start)
    del values["protocol"]
    return SessionOptions(**values)


def _json(kind: str, values: Mapping[str, Any]) -> str:
    return msgspec.json.encode({"type": kind, **values}).decode()


def _check_size(pcm16: bytes, n_bytes: int) -> None:
    if len(pcm16) != n_bytes:
        raise LiveProtocolError(
            f"{n_bytes} bytes of audio announced, {len(pcm16)} came", field="n_bytes"
        )


def _fields_of(text: str, known: Mapping[str, type]) -> Any:
    """One JSON message as the dataclass of its type."""
    if len(text) > MAX_TEXT_CHARS:
        raise LiveProtocolError(f"message longer than {MAX_TEXT_CHARS} characters")
    try:
        values = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as exc:
        raise LiveProtocolError("the message is not JSON") from exc
    if not isinstance(values, dict):
        raise LiveProtocolError("the message is not a JSON object")
    kind = values.pop("type", None)
    fields = known.get(kind) if isinstance(kind, str) else None
    if fields is None:
        shown = "no type" if kind is None else f"unknown type {str(kind)[:40]!r}"
        raise LiveProtocolError(f"the message has {shown}", field="type")
    try:
        return msgspec.convert(values, fields)
    except msgspec.ValidationError as exc:
        raise LiveProtocolError(
            f"{kind}: {exc}", field=_field_named_in(str(exc))
        ) from exc


# msgspec says "Expected `int`, got `str` - at `$.turn`"
# or "Object missing required field `turn`".
_FIELD_NAMED: Final = re.compile(r"at `\$\.([^`]*)`$|required field `([^`]*)`")


def _field_named_in(message: str) -> str:
    found = _FIELD_NAMED.search(message)
    return (found[1] or found[2]) if found else ""
