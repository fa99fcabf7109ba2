"""What Asterisk says in an AGI dialogue: the request that opens it, and responses.

Source: Asterisk ``res/res_agi.c``, ``setup_env`` and the ``ast_agi_send`` calls of
the command functions; versions 11 to 22 differ only where a comment says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import parse_qsl, unquote

# setup_env writes this word where the channel has no such number or name.
_NOT_KNOWN = "unknown"
_ARGUMENT_PREFIX = "agi_arg_"
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_CODE_LINE = re.compile(r"(\d{3})(?:[ -](.*))?", re.DOTALL)
_RESULT = re.compile(r"result=([^\s(]*)(.*)", re.DOTALL)
_VALUE = re.compile(r"\((.*)\)(?: endpos=(-?\d+)(?: .*)?)?", re.DOTALL)
_ENDPOS = re.compile(r"endpos=(-?\d+)")

# End of a 520 block. Versions that take their usage texts from XML glue it to the
# last line of the text, so it is looked for at a line's end, not only at its start.
_USAGE_END = "520 End of proper usage."


@dataclass(frozen=True, slots=True)
class AgiRequest:
    """A call that asks for an AGI script: the environment Asterisk opens with.

    Numbers and names Asterisk does not know are empty. ``environment`` holds every
    ``agi_*`` line as it came.
    """

    script: str
    """Path of the URL without outer slashes and query, decoded: ``ultravox``."""
    query: Mapping[str, str]
    """Query string of the URL, decoded; the last of equal names wins."""
    args: tuple[str, ...]
    """Further arguments of the dialplan's ``AGI()``."""
    uniqueid: str
    channel: str
    callerid: str
    calleridname: str
    dnid: str
    rdnis: str
    context: str
    extension: str
    priority: int
    language: str
    accountcode: str
    version: str
    enhanced: bool
    """EAGI: caller audio comes on the script's file descriptor 3."""
    environment: Mapping[str, str] = field(repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> AgiRequest:
        """Build the request from ``agi_*`` names and their values.

        Asterisk sends the script part of the URL undecoded, with its query string.
        """
        path, _, query = environment.get("agi_network_script", "").partition("?")
        pairs = parse_qsl(query, keep_blank_values=True, errors="replace")

        def text(name: str) -> str:
            return environment.get(name, "")

        def known(name: str) -> str:
            value = environment.get(name, "")
            return "" if value == _NOT_KNOWN else value

        return cls(
            script=unquote(path, errors="replace").strip("/"),
            query=MappingProxyType(dict(pairs)),
            args=_arguments(environment),
            uniqueid=text("agi_uniqueid"),
            channel=text("agi_channel"),
            callerid=known("agi_callerid"),
            calleridname=known("agi_calleridname"),
            dnid=known("agi_dnid"),
            rdnis=known("agi_rdnis"),
            context=text("agi_context"),
            extension=text("agi_extension"),
            priority=_integer(text("agi_priority")) or 0,
            language=text("agi_language"),
            accountcode=text("agi_accountcode"),
            version=text("agi_version"),
            enhanced=text("agi_enhanced") == "1.0",
            environment=MappingProxyType(dict(environment)),
        )

    @property
    def asterisk_version(self) -> tuple[int, int, int] | None:
        """(16, 28, 0) of ``16.28.0~dfsg-0+deb11u4``; None for unnumbered builds."""
        match = _VERSION.search(self.version)
        if match is None:
            return None
        return int(match[1]), int(match[2]), int(match[3] or 0)


def _arguments(environment: Mapping[str, str]) -> tuple[str, ...]:
    """agi_arg_1, agi_arg_2 ... up to the first gap."""
    args: list[str] = []
    while (name := f"{_ARGUMENT_PREFIX}{len(args) + 1}") in environment:
        args.append(environment[name])
    return tuple(args)


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class AgiResponse:
    """The answer to one command.

    ``200 result=0 (timeout) endpos=24000`` has three parts, which mean different
    things for different commands: only the command that asked may interpret them.
    """

    code: int
    result: str = ""
    """After ``result=``; digits of GET DATA may be empty, so this is text."""
    value: str | None = None
    """In brackets; may itself contain brackets, spaces, line ends or any word."""
    endpos: int | None = None
    text: str = ""
    """Everything after the code, for logs."""
    usage: tuple[str, ...] = ()
    """The lines of a 520 block."""

    @property
    def result_number(self) -> int | None:
        return _integer(self.result)

    def __str__(self) -> str:
        return f"{self.code} {self.text}".rstrip()


@dataclass(frozen=True, slots=True)
class HangupNotice:
    """The channel hung up, or was redirected; the dialogue itself goes on."""


@dataclass(frozen=True, slots=True)
class PlaybackInterrupted:
    """An interrupt was answered: nothing is playing any more.

    ended_first: the response of the playback if it had just ended by itself; None
    when the interrupt cut it, as Asterisk then leaves its command unanswered.
    """

    ended_first: AgiResponse | None


def response_code(line: str) -> int | None:
    """The three digits a response line starts with, or None."""
    match = _CODE_LINE.fullmatch(line)
    return int(match[1]) if match else None


def opens_usage(line: str) -> bool:
    """Whether a 520 block of several lines begins here (the other form is one)."""
    return line.startswith("520-")


def closes_usage(line: str) -> bool:
    return line.rstrip().endswith(_USAGE_END)


def opens_value(line: str) -> bool:
    """Whether the bracket text of this response goes on in the next line.

    Channel variables may hold line ends; Asterisk writes them as they are.
    """
    match = _CODE_LINE.fullmatch(line)
    result = _RESULT.match(match[2] or "") if match else None
    if result is None:
        return False
    rest = result[2].strip()
    return rest.startswith("(") and not _closes_value(rest)


def _closes_value(text: str) -> bool:
    return text.endswith(")") or re.search(r"\) endpos=-?\d+$", text) is not None


def continues_value(line: str) -> bool:
    """Whether bracket text that spans lines is still open after this one."""
    return not _closes_value(line)


def parse_response(line: str) -> AgiResponse | None:
    """One whole response, line ends within its value included; None if it is none."""
    match = _CODE_LINE.fullmatch(line)
    if match is None:
        return None
    code, text = int(match[1]), (match[2] or "").strip(" ")
    result = _RESULT.match(text)
    if result is None:
        return AgiResponse(code, text=text)
    rest = result[2].strip(" ")
    value = _VALUE.fullmatch(rest)
    if value is not None:
        endpos = _integer(value[2]) if value[2] else None
        return AgiResponse(code, result[1], value[1], endpos, text)
    position = _ENDPOS.match(rest)
    endpos = int(position[1]) if position else None
    return AgiResponse(code, result[1], None, endpos, text)
