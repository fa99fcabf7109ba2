"""Print the dialplan for VICIdial's Custom Dialplan Entry, with your own values in it.

    python -m tools.dialplan --agi 10.0.0.5 --extension 8901 --ingroup SALESLINE
    python -m tools.dialplan --agi 10.0.0.5 --extension 8902 --ingroup SUPPORT \\
        --campaign support --more

Paste the output into Admin > System Settings > Custom Dialplan Entry (all dialers) or
Admin > Servers > Custom Dialplan Entry (one dialer).  --more is for every further
extension in the same form: it leaves out the lines that may stand there only once.
dialplan/README.md has the way through VICIdial's screens.

Exit status: 0, or 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ENTRY: Final = (
    Path(__file__).resolve().parent.parent
    / "dialplan"
    / "vicidial-custom-dialplan-entry.conf"
)
_FASTAGI_PORT: Final = 4573
_EXTENSION_IN_FILE: Final = "8901"
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_IN_GROUP = re.compile(r"[A-Za-z0-9_-]{2,20}")
_EXTENSION = re.compile(r"[0-9]{2,10}")
# VICIdial's own; taking one over would break every agent.
_TAKEN = re.compile(r"8[36]\d\d.*|9[09]\d*|[98]600\d*|85\d\d.*")


@dataclass(frozen=True, slots=True)
class Entry:
    """What differs from site to site."""

    agi: str
    extension: str = _EXTENSION_IN_FILE
    in_group: str = "SALESLINE"
    campaign: str = "default"
    ready_s: int = 3
    call_limit_s: int = 960
    is_first: bool = True
    """False: another entry in the same form has the shared lines already."""


def dialplan_text(entry: Entry) -> str:
    """The lines to paste; no comments, which the form would not survive."""
    text = ENTRY.read_text(encoding="utf-8")
    values = {
        "ULTRAVOX_AGI": entry.agi,
        "ULTRAVOX_CAMPAIGN": entry.campaign,
        "ULTRAVOX_INGROUP": entry.in_group,
        "ULTRAVOX_READY_S": str(entry.ready_s),
        "ULTRAVOX_CALL_LIMIT_S": str(entry.call_limit_s),
    }
    for name, value in values.items():
        text, count = re.subn(
            rf"(?m)^(exten => 8901,[1n],Set\({name}=)[^)]*\)$",
            lambda found, value=value: f"{found[1]}{value})",  # type: ignore[misc]
            text,
        )
        assert count == 1, f"{ENTRY.name} sets {name} {count} times"
    text = re.sub(rf"\b{_EXTENSION_IN_FILE}\b", entry.extension, text)
    if not entry.is_first:
        lines = text.splitlines(keepends=True)
        text = "".join(ln for ln in lines if not ln.startswith("exten => T,"))
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    options = _parser().parse_args(arguments)
    if _TAKEN.fullmatch(options.extension):
        print(
            f"dialplan: VICIdial uses extensions like {options.extension} itself; "
            "take one that `dialplan show NUMBER@default` does not know",
            file=sys.stderr,
        )
        return 2
    entry = Entry(
        agi=options.agi,
        extension=options.extension,
        in_group=options.ingroup,
        campaign=options.campaign,
        ready_s=options.ready_s,
        call_limit_s=options.call_limit_s,
        is_first=not options.more,
    )
    sys.stdout.write(dialplan_text(entry))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.dialplan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--agi", required=True, type=_agi, help="the bot's HOST or HOST:PORT"
    )
    parser.add_argument(
        "--extension",
        default=_EXTENSION_IN_FILE,
        type=_matching(_EXTENSION, "digits"),
        help="the remote agent's External Extension (default: %(default)s)",
    )
    parser.add_argument(
        "--ingroup",
        required=True,
        type=_matching(_IN_GROUP, "an in-group's id"),
        help="the in-group whose people take over when the bot does not",
    )
    parser.add_argument(
        "--campaign",
        default="default",
        type=_matching(_NAME, "a campaign file's name without .toml"),
        help="the bot's persona (default: %(default)s)",
    )
    parser.add_argument(
        "--ready-s",
        default=3,
        type=_seconds,
        help="how long the bot may take to say that it is there (default: %(default)s)",
    )
    parser.add_argument(
        "--call-limit-s",
        default=960,
        type=_seconds,
        help="when Asterisk ends a talk; above ULTRAVOX_MAX_CALL_S "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--more", action="store_true", help="for a second extension in the same form"
    )
    return parser


def _agi(text: str) -> str:
    address = text.removeprefix("agi://").rstrip("/")
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, str(_FASTAGI_PORT)
    if not _HOST.fullmatch(host) or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r}: HOST or HOST:PORT is wanted")
    return f"agi://{host}:{port}"


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise argparse.ArgumentTypeError(f"{text!r}: {what} is wanted")
        return text

    return check


def _seconds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r}: whole seconds are wanted")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
