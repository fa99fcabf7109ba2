"""Asterisk's side of the AGI wire: commands in as Asterisk reads them, no I/O.

Shared by ``tools.place_call`` and the fake Asterisk of the tests, so that both show a
bot the same traps. Source: Asterisk ``res/res_agi.c`` (``run_agi``, ``parse_args``,
``setup_env``), checked against 16.28 and 22.10.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# A longer line is cut into two commands: 2,047 bytes up to 16, 2,048 in 18.
MAX_LINE_BYTES = 2047


def parse_words(line: str) -> list[str]:
    r"""A command line's words: blanks split, ``"a b"`` does not, ``\`` escapes."""
    words: list[str] = []
    is_quoted = is_escaped = False
    is_between = True
    for char in line:
        if char == '"' and not is_escaped:
            is_quoted = not is_quoted
            if is_quoted and is_between:
                words.append("")
                is_between = False
        elif char in " \t" and not is_quoted and not is_escaped:
            is_between = True
        elif char == "\\" and not is_escaped:
            is_escaped = True
        else:
            if is_between:
                words.append("")
                is_between = False
            words[-1] += char
            is_escaped = False
    return words


@dataclass(slots=True)
class CommandReader:
    """Command lines out of TCP segments, as Asterisk gets to see them.

    Asterisk waits on the raw socket but reads ahead: of two lines that came in one
    segment the second stays hidden until more bytes come. ``problems`` collects what
    a bot should not do.
    """

    problems: list[str] = field(default_factory=list)
    # In the socket; read one after another.
    _unread: deque[bytes] = field(default_factory=deque)
    _read: bytearray = field(default_factory=bytearray)  # in Asterisk's own buffer

    def receive_data(self, segment: bytes, *, is_late: bool = False) -> None:
        """What has arrived at the socket.

        is_late: this process was held up, so each line may have come by itself.
        """
        if is_late:
            self._unread += segment.splitlines(keepends=True)
        elif self._unread:
            self._unread[-1] += segment
        else:
            self._unread.append(segment)

    @property
    def is_awake(self) -> bool:
        """The socket is readable."""
        return bool(self._unread)

    def next_line(self) -> str | None:
        """The command line Asterisk takes now; None while it waits."""
        if not self._unread:
            return None
        if b"\n" not in self._read:
            while self._unread and b"\n" not in self._read:
                self._read += self._unread.popleft()
            if self._read.count(b"\n") > 1:
                self.problems.append("two commands in one segment")
        end = self._read.find(b"\n")
        if end > MAX_LINE_BYTES or (end < 0 and len(self._read) >= MAX_LINE_BYTES):
            self.problems.append(f"a command of more than {MAX_LINE_BYTES} bytes")
            raw = bytes(self._read[:MAX_LINE_BYTES])
            # The rest is a command of its own.
            self._unread.appendleft(bytes(self._read[MAX_LINE_BYTES:]))
            self._read.clear()
        elif end < 0:
            return None  # Asterisk blocks here until the line is whole
        else:
            raw = bytes(self._read[:end])
            del self._read[: end + 1]
        return raw.removesuffix(b"\r").decode("utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class Channel:
    """What Asterisk tells of a channel in the environment."""

    uniqueid: str = "1795329931.0"
    name: str = "PJSIP/trunk-00000000"
    callerid: str = "5551234567"
    calleridname: str = "Jane Q Roe"
    dnid: str = "8901"
    context: str = "default"
    extension: str = "8901"
    priority: int = 2
    version: str = "22.10.1"


def environment_block(
    channel: Channel,
    url: str,
    script: str,
    args: Sequence[str] = (),
    *,
    enhanced: bool = False,
    is_fast: bool = True,
    overrides: Mapping[str, str] | None = None,
) -> bytes:
    """The opening block, blank line included, in Asterisk's order.

    script: path and query of the URL, as they stand there. is_fast: FastAGI; a local
    script is told neither network nor script.
    """
    lines: dict[str, str] = {}
    if is_fast:
        lines["agi_network"] = "yes"
        lines["agi_network_script"] = script
    lines |= {
        "agi_request": url,
        "agi_channel": channel.name,
        "agi_language": "en",
        "agi_type": channel.name.partition("/")[0],
        "agi_uniqueid": channel.uniqueid,
        "agi_version": channel.version,
        "agi_callerid": channel.callerid or "unknown",
        "agi_calleridname": channel.calleridname or "unknown",
        "agi_callingpres": "0",
        "agi_callingani2": "0",
        "agi_callington": "0",
        "agi_callingtns": "0",
        "agi_dnid": channel.dnid or "unknown",
        "agi_rdnis": "unknown",
        "agi_context": channel.context,
        "agi_extension": channel.extension,
        "agi_priority": str(channel.priority),
        "agi_enhanced": "1.0" if enhanced else "0.0",
        "agi_accountcode": "",
        "agi_threadid": "140150932121344",
    }
    for number, argument in enumerate(args, 1):
        lines[f"agi_arg_{number}"] = argument
    lines |= overrides or {}
    text = "".join(f"{name}: {value}\n" for name, value in lines.items())
    return text.encode() + b"\n"
