"""Print the dialplan for VICIdial's Custom Dialplan Entry, with your own values in it.

    python -m tools.dialplan --agi 10.0.0.5 --ingroup SALESLINE
    python -m tools.dialplan --agi 10.0.0.5 --ingroup SUPPORT --for did --more
    python -m tools.dialplan --agi 10.0.0.5 --ingroup SALESLINE --for after-hours \\
        --people 85026666666666101 --more

Paste the output into Admin > System Settings > Custom Dialplan Entry (all dialers) or
Admin > Servers > Custom Dialplan Entry (one dialer).  --more is for every further
extension in the same form: it leaves out the lines that may stand there only once.
--context prints a context of its own, with VICIdial's call log, for sites that keep
their dialplan in files.  dialplan/README.md has the way through VICIdial's screens.

  --for            serves                                               extension
  remote-agent     outbound calls, in-groups, agents' Local Closer           8901
  did              DIDs and Call Menus that lead to an extension             8902
  survey           surveys whose method is an extension                      8903
  after-hours      in-groups when they are closed or nobody is there         8904
  agent            agents' blind transfers and presets                       8905

Exit status: 0, or 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

_FOLDER: Final = Path(__file__).resolve().parent.parent / "dialplan"
Situation: TypeAlias = Literal["remote-agent", "did", "survey", "after-hours", "agent"]
ENTRIES: Final[Mapping[Situation, Path]] = {
    "remote-agent": _FOLDER / "vicidial-custom-dialplan-entry.conf",
    "did": _FOLDER / "vicidial-did-entry.conf",
    "survey": _FOLDER / "vicidial-survey-entry.conf",
    "after-hours": _FOLDER / "vicidial-after-hours-entry.conf",
    "agent": _FOLDER / "vicidial-agent-to-bot-entry.conf",
}
_ENTRY_LINE: Final = re.compile(r"exten => (\d+),[1n],(.*)")
_SETTING: Final = re.compile(r"Set\((\w+)=([^)]*)\)")
_FASTAGI_PORT: Final = 4573
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_IN_GROUP = re.compile(r"[A-Za-z0-9_-]{2,20}")
_EXTENSION = re.compile(r"[0-9]{2,10}")
_PEOPLE = re.compile(r"[0-9*#]{2,40}")
# VICIdial's own; taking one over would break every agent.
_TAKEN = re.compile(r"8[36]\d\d.*|9[09]\d*|[98]600\d*|85\d\d.*")
# As VICIdial ships it, without its one closing parenthesis too many.
_CALL_LOG: Final = (
    "exten => h,1,AGI(agi://127.0.0.1:4577/call_log--HVcauses--PRI-----NODEBUG-----"
    "${HANGUPCAUSE}-----${DIALSTATUS}-----${DIALEDTIME}-----${ANSWEREDTIME}"
)
_TECHNOLOGY_CAUSE: Final = "-----${HANGUPCAUSE(${HANGUPCAUSE_KEYS()},tech)}"
CONTEXT: Final = "ultravox-vicidial"
ASTERISK_VERSIONS: Final = (11, 13, 16, 18, 20, 22)


@dataclass(frozen=True, slots=True)
class Entry:
    """What differs from site to site; None: as the file for the situation has it."""

    agi: str
    in_group: str
    situation: Situation = "remote-agent"
    agi_2: str = ""
    extension: str | None = None
    campaign: str | None = None
    people: str | None = None
    ready_s: int = 3
    call_limit_s: int = 960
    is_first: bool = True
    """False: another entry in the same form has the shared lines already."""


def dialplan_text(entry: Entry) -> str:
    """The lines to paste; no comments, which the form would not survive."""
    own = _lines(entry.situation)
    settings = {
        "ULTRAVOX_AGI": entry.agi,
        "ULTRAVOX_AGI_2": entry.agi_2,
        "ULTRAVOX_CAMPAIGN": entry.campaign,
        "ULTRAVOX_INGROUP": entry.in_group,
        "ULTRAVOX_PEOPLE": entry.people,
        "ULTRAVOX_READY_S": str(entry.ready_s),
        "ULTRAVOX_CALL_LIMIT_S": str(entry.call_limit_s),
    }
    lines: list[str] = []
    for line in own:
        found = _ENTRY_LINE.fullmatch(line)
        assert found is not None
        what = found[2]
        setting = _SETTING.fullmatch(what)
        if setting is not None and settings.get(setting[1]) is not None:
            what = f"Set({setting[1]}={settings.pop(setting[1])})"
        priority = "n" if lines else "1"
        lines.append(f"exten => {entry.extension or found[1]},{priority},{what}")
    left = [name for name, value in settings.items() if value]
    assert not left, f"{ENTRIES[entry.situation].name} does not set {left}"
    if entry.is_first:
        lines += _shared_lines()
    return "".join(f"{line}\n" for line in lines)


def context_text(entry: Entry, asterisk: int) -> str:
    """The same as a context of its own, with the call log of that version."""
    cause = _TECHNOLOGY_CAUSE if asterisk >= 13 else ""
    return f"[{CONTEXT}]\n{dialplan_text(entry)}{_CALL_LOG}{cause})\n"


def _lines(situation: Situation) -> list[str]:
    text = ENTRIES[situation].read_text(encoding="utf-8")
    return [line for line in text.splitlines() if _ENTRY_LINE.fullmatch(line)]


def _shared_lines() -> list[str]:
    text = ENTRIES["remote-agent"].read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not _ENTRY_LINE.fullmatch(line)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    options = _parser().parse_args(arguments)
    if options.extension and _TAKEN.fullmatch(options.extension):
        print(
            f"dialplan: VICIdial uses extensions like {options.extension} itself; "
            "take one that `dialplan show NUMBER@default` does not know",
            file=sys.stderr,
        )
        return 2
    entry = Entry(
        agi=options.agi,
        agi_2=options.agi_2 or "",
        in_group=options.ingroup,
        situation=options.situation,
        extension=options.extension,
        campaign=options.campaign,
        people=options.people,
        ready_s=options.ready_s,
        call_limit_s=options.call_limit_s,
        is_first=not options.more,
    )
    if options.context:
        sys.stdout.write(context_text(entry, options.asterisk))
    else:
        sys.stdout.write(dialplan_text(entry))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.dialplan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--agi", required=True, type=_agi, help="the bot's HOST or HOST:PORT")
    add("--agi-2", type=_agi, help="a second bot, asked after the first")
    add(
        "--for",
        dest="situation",
        choices=list(ENTRIES),
        default="remote-agent",
        help="what calls it is for, see above (default: %(default)s)",
    )
    add(
        "--extension",
        type=_matching(_EXTENSION, "digits"),
        help="its number, for a remote agent the External Extension (default: above)",
    )
    add(
        "--ingroup",
        required=True,
        type=_matching(_IN_GROUP, "an in-group's id"),
        help="the in-group whose people take over when the bot does not",
    )
    add(
        "--people",
        type=_matching(_PEOPLE, "an extension of the context default"),
        help="an extension that takes over in place of the in-group, e.g. a mailbox",
    )
    add(
        "--campaign",
        type=_matching(_NAME, "a campaign file's name without .toml"),
        help="the bot's persona; auto: the one that claims VICIdial's campaign or "
        "in-group",
    )
    add(
        "--ready-s",
        default=3,
        type=_seconds,
        help="how long the bot may take to say that it is there (default: %(default)s)",
    )
    add(
        "--call-limit-s",
        default=960,
        type=_seconds,
        help="when Asterisk ends a talk; above ULTRAVOX_MAX_CALL_S "
        "(default: %(default)s)",
    )
    add("--more", action="store_true", help="for a second extension in the same form")
    add("--context", action="store_true", help="a context of its own, for a file")
    add(
        "--asterisk",
        type=int,
        choices=ASTERISK_VERSIONS,
        default=18,
        help="the dialer's version, for --context (default: %(default)s)",
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
