"""Every AGI command the bot uses: how it is written, what its response means.

The only place that quotes. A command is refused here, before it is sent, when Asterisk
would read it as something else: with a line end in it, over 2,000 bytes, or with a
comma where the dialplan would cut the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

from agi_handlers.agi.messages import AgiResponse
from agi_handlers.agi.protocol import MAX_COMMAND_BYTES
from agi_handlers.agi.results import (
    KEYS,
    ChannelState,
    ExecEnded,
    PlaybackEnd,
    PlaybackEnded,
    RecordingEnd,
    RecordingEnded,
    channel_state,
    digit_or_none,
    no_meaning,
    number_of,
    playback_ended,
    recording_ended,
    value_of,
)
from agi_handlers.errors import AgiArgumentInvalid

__all__ = [
    "ALL_KEYS",
    "ChannelState",
    "Command",
    "ExecEnded",
    "PlaybackEnd",
    "PlaybackEnded",
    "RecordingEnd",
    "RecordingEnded",
    "answer",
    "channel_status",
    "dialplan_text",
    "exec_",
    "exec_audiosocket",
    "get_full_variable",
    "get_variable",
    "hangup",
    "noop",
    "record_file",
    "set_context",
    "set_extension",
    "set_priority",
    "set_variable",
    "stream_file",
    "verbose",
    "wait_for_digit",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# Every key a telephone has: only keys in the list end a playback.
ALL_KEYS = "0123456789*#"

# Longest prompt or reply that is still taken for one, not for a hung command.
_MAX_PLAYBACK_S = 600.0
# AudioSocket answers when the talk ends; a talk longer than this is a stuck channel.
_MAX_TALK_S = 14_400.0
_VARIABLE_NAME = re.compile(r"_{0,2}[A-Za-z][A-Za-z0-9_]*(\([A-Za-z0-9_,:/.-]*\))?")
_APPLICATION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FILE_FORMAT = re.compile(r"[a-z0-9]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+")
# Characters that mean something to the dialplan when a value is pasted into it.
_DIALPLAN_SIGNS = str.maketrans(
    {",": ";", '"': "'", "\\": "/", "$": "", "{": "(", "}": ")", "[": "(", "]": ")"}
)


@dataclass(frozen=True, slots=True)
class Command(Generic[T_co]):
    """One command line and the meaning of its response.

    may_take_s: how long Asterisk may rightly be busy with it.
    interrupted: what an interrupt makes of it, where Asterisk stops the command when
    another one arrives; None for all the others.
    """

    line: str
    interpret: Callable[[AgiResponse], T_co] = field(repr=False, compare=False)
    name: str
    """Its words without arguments, for logs: ``STREAM FILE``."""
    may_take_s: float = 0.0
    interrupted: T_co | None = None


# --- free text ---


def dialplan_text(text: str, max_bytes: int = 200) -> str:
    """Free text made safe for a channel variable: one line, no dialplan signs."""
    plain = _CONTROL.sub(" ", text).translate(_DIALPLAN_SIGNS)
    encoded = plain.encode("utf-8", errors="replace")[:max_bytes]
    return encoded.decode("utf-8", errors="ignore").strip()


# --- the commands ---


def answer() -> Command[bool]:
    """Answer; True when the channel is up. Needed before AudioSocket."""
    return _command("ANSWER", interpret=lambda r: number_of(r) == 0, may_take_s=5.0)


def hangup() -> Command[None]:
    """Hang the caller up; the dialplan goes on at its h extension."""
    return _command("HANGUP", interpret=no_meaning)


def noop() -> Command[None]:
    return _command("NOOP", interpret=no_meaning)


def verbose(text: str, level: int = 1) -> Command[None]:
    """A line on the Asterisk console. Any text is taken: it is cleaned, not refused."""
    plain = _CONTROL.sub(" ", text)
    shortened = plain.encode("utf-8", errors="replace")[:500].decode("utf-8", "ignore")
    return _command("VERBOSE", shortened, str(level), interpret=no_meaning)


def channel_status() -> Command[ChannelState]:
    """State of the call's own channel; ChannelGone (511) after a hang-up."""
    return _command("CHANNEL STATUS", interpret=channel_state)


def get_variable(name: str) -> Command[str | None]:
    """A channel variable or dialplan function; None when it is not set."""
    return _command("GET VARIABLE", _variable_name(name), interpret=value_of)


def get_full_variable(expression: str) -> Command[str | None]:
    """A whole expression: ``${IFMODULE(app_audiosocket.so)}``; ``""`` when not set."""
    return _command("GET FULL VARIABLE", expression, interpret=value_of)


def set_variable(name: str, value: str, *, allow_commas: bool = False) -> Command[None]:
    """Set a channel variable or dialplan function. Nothing in value is expanded.

    Commas are refused unless allowed: Asterisk stores them, but cuts the value at
    the first one when the dialplan pastes it into an application's arguments. Make
    free text safe with ``dialplan_text``.
    """
    if "," in value and not allow_commas:
        raise AgiArgumentInvalid(f"{name}: a comma would cut the value")
    return _command("SET VARIABLE", _variable_name(name), value, interpret=no_meaning)


def set_context(context: str) -> Command[None]:
    return _command("SET CONTEXT", context, interpret=no_meaning)


def set_extension(extension: str) -> Command[None]:
    return _command("SET EXTENSION", extension, interpret=no_meaning)


def set_priority(priority: int | str) -> Command[None]:
    """A number or a label."""
    return _command("SET PRIORITY", str(priority), interpret=no_meaning)


def stream_file(
    name: str,
    escape_keys: str = ALL_KEYS,
    offset_samples: int = 0,
    *,
    may_take_s: float = _MAX_PLAYBACK_S,
) -> Command[PlaybackEnded]:
    """Play a sound file, named without its extension. The only interruptible way."""
    offset = [str(offset_samples)] if offset_samples else []
    return _command(
        "STREAM FILE",
        name,
        _escape_keys(escape_keys),
        *offset,
        interpret=playback_ended,
        may_take_s=may_take_s,
        interrupted=PlaybackEnded(PlaybackEnd.INTERRUPTED),
    )


def record_file(
    name: str,
    file_format: str,
    *,
    timeout_ms: int,
    escape_keys: str = ALL_KEYS,
    silence_s: int | None = None,
    beep: bool = False,
) -> Command[RecordingEnded]:
    """Record the caller into ``name.file_format``. Not interruptible.

    timeout_ms: a limit is always wanted, since nothing else ends a noisy line.
    silence_s: whole seconds of quiet that end it, counted from the start too.
    """
    if timeout_ms <= 0:
        raise AgiArgumentInvalid("RECORD FILE needs a time limit")
    if silence_s is not None and silence_s < 1:
        raise AgiArgumentInvalid("RECORD FILE counts silence in whole seconds")
    if not _FILE_FORMAT.fullmatch(file_format):
        raise AgiArgumentInvalid(f"not a file format: {file_format!r}")
    return _command(
        "RECORD FILE",
        name,
        file_format,
        _escape_keys(escape_keys),
        str(timeout_ms),
        *(["BEEP"] if beep else []),
        *([f"s={silence_s}"] if silence_s is not None else []),
        interpret=recording_ended,
        may_take_s=timeout_ms / 1000 + (2.0 if beep else 0.0),
    )


def wait_for_digit(timeout_ms: int) -> Command[str | None]:
    """One key, or None when none came; ChannelGone when the caller left meanwhile."""
    if timeout_ms < 0:
        raise AgiArgumentInvalid("WAIT FOR DIGIT needs a time limit")
    return _command(
        "WAIT FOR DIGIT",
        str(timeout_ms),
        interpret=digit_or_none,
        may_take_s=timeout_ms / 1000,
    )


def exec_(
    application: str, *arguments: str, may_take_s: float = 30.0
) -> Command[ExecEnded]:
    """Run a dialplan application; ``${...}`` in the arguments is not expanded.

    The application splits its arguments itself and gives quotes, brackets and
    backslashes their own meaning there; a comma within one argument is refused.
    """
    if not _APPLICATION_NAME.fullmatch(application):
        raise AgiArgumentInvalid(f"not an application name: {application!r}")
    for argument in arguments:
        if "," in argument:
            raise AgiArgumentInvalid(f"{application}: a comma splits an argument")
    joined = [",".join(arguments)] if arguments else []
    return _command(
        "EXEC",
        application,
        *joined,
        interpret=lambda r: ExecEnded(number_of(r)),
        may_take_s=may_take_s,
        name=f"EXEC {application}",
    )


def exec_audiosocket(
    call_id: UUID, address: str, *, may_take_s: float = _MAX_TALK_S
) -> Command[ExecEnded]:
    """Have Asterisk connect the call's audio to ``host:port``; answers at its end."""
    return exec_("AudioSocket", str(call_id), address, may_take_s=may_take_s)


# --- writing ---


def _command(
    words: str,
    *arguments: str,
    interpret: Callable[[AgiResponse], T],
    may_take_s: float = 0.0,
    interrupted: T | None = None,
    name: str | None = None,
) -> Command[T]:
    line = " ".join([words, *map(_quoted, arguments)])
    try:
        length_bytes = len(line.encode("utf-8"))
    except UnicodeEncodeError as exc:
        raise AgiArgumentInvalid(f"{words}: not Unicode text") from exc
    if length_bytes > MAX_COMMAND_BYTES:
        raise AgiArgumentInvalid(
            f"{words}: {length_bytes} bytes, {MAX_COMMAND_BYTES} are the most"
        )
    return Command(line, interpret, name or words, may_take_s, interrupted)


def _quoted(argument: str) -> str:
    r"""An argument as parse_args of res_agi.c reads it: ``"a b"``, ``\"``, ``\\``."""
    if "\n" in argument or "\r" in argument or "\0" in argument:
        raise AgiArgumentInvalid("a line end or NUL in an AGI argument")
    if argument and not re.search(r'[\s"\\]', argument):
        return argument
    return '"' + argument.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _variable_name(name: str) -> str:
    if not _VARIABLE_NAME.fullmatch(name):
        raise AgiArgumentInvalid(f"not a channel variable: {name!r}")
    return name


def _escape_keys(keys: str) -> str:
    if not KEYS.issuperset(keys):
        raise AgiArgumentInvalid(f"not telephone keys: {keys!r}")
    return keys
