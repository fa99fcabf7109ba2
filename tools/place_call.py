"""Call a bot without Asterisk: play its part on the AGI port and on the audio leg.

    python -m tools.place_call --agi 127.0.0.1:4573 --say hello.wav --out heard.wav

Opens the AGI dialogue as a dialer would, answers the bot's commands as Asterisk does,
connects the audio leg it is told to, does what --say says, records what it hears. The
last line is JSON: response delay of every turn (last voiced sample sent to first
voiced sample heard), barge-in stop time, late frames, the bot's variables, errors.

--say items, done in order:

    FILE.wav      say a recording: any rate, any number of channels
    FILE.ulaw     the same, headerless 8 kHz mu-law
    say:TEXT      say a text, spoken by the bundled synthesiser
    @SECONDS      stay silent until that many seconds after the answer
    +SECONDS      stay silent for that long
    dtmf:123#     press these keys
    wait:RMS,S    stay silent until a sound above RMS is heard, then S more
    quiet:RMS,S   stay silent until nothing above RMS was heard for S seconds
    bye           hang up

Without bye the call ends when the bot has answered the last item and was quiet for
--linger seconds, or after --seconds.

Exit status: 0 answered and nothing went wrong, 1 refused, unreachable or with errors,
2 wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, TextIO

import uvloop

from model.audio.frames import RATE_HZ
from model.audio.wav import write_wav
from model.errors import SpeechError
from tools.caller.agi_wire import Channel
from tools.caller.call import CallPlan, CallReport, place_call
from tools.caller.channel import Abilities, folders_of
from tools.caller.journal import Journal
from tools.caller.line import TelephoneLine
from tools.caller.report import summary_of_many, summary_of_one
from tools.caller.say_items import Item, parse_item, recording
from tools.caller.wheel import Wheel

_SOUNDS: Final = Path(__file__).resolve().parent.parent / "sounds"
_WITH_AUDIOSOCKET: Final = "22.10.1"
_WITHOUT_AUDIOSOCKET: Final = "16.28.0"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    options = _parser().parse_args(arguments)
    try:
        items = [parse_item(text) for text in options.say]
        noise = recording(options.line_noise).pcm16 if options.line_noise else b""
        TelephoneLine(noise)
    except (ValueError, SpeechError) as exc:
        print(f"place_call: {exc}", file=sys.stderr)
        return 2
    try:
        reports, own_lateness_s = uvloop.run(_place_all(options, items, noise))
        _save(options.out, reports)
    except OSError as exc:
        print(f"place_call: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if options.calls == 1:
        print(json.dumps(summary_of_one(reports[0], own_lateness_s)))
    else:
        print(json.dumps(summary_of_many(reports, own_lateness_s)))
    is_good = all(r.answered_s is not None and not r.errors for r in reports)
    return 0 if is_good else 1


async def _place_all(
    options: argparse.Namespace, items: Sequence[Item], noise: bytes
) -> tuple[list[CallReport], list[float]]:
    """All calls, and how late this process itself was."""
    loop = asyncio.get_running_loop()
    wheel = Wheel()
    abilities = Abilities(
        folders_of([*options.sounds, _SOUNDS]),
        has_audiosocket=options.audiosocket,
        runs_scripts=options.run_scripts,
    )
    with ExitStack() as stack:
        file: TextIO | None = None
        if options.events is not None:
            file = stack.enter_context(options.events.open("w", encoding="utf-8"))
        turning = asyncio.ensure_future(wheel.run())

        async def one(number: int) -> CallReport:
            await asyncio.sleep((number - 1) * options.stagger)
            is_alone = options.calls == 1
            journal = Journal(loop.time, file, num_call=None if is_alone else number)
            plan = _plan(options, items, number)
            if noise or options.line_loss:
                line = TelephoneLine(noise, options.line_loss, seed=number)
                plan = replace(plan, line=line)
            report = await place_call(plan, abilities, journal, wheel)
            journal.event("done", ended=report.ended)
            return report

        try:
            reports = await asyncio.gather(
                *(one(number) for number in range(1, options.calls + 1))
            )
        finally:
            turning.cancel()
            with suppress(asyncio.CancelledError):
                await turning
    return reports, wheel.lateness_s


def _plan(options: argparse.Namespace, items: Sequence[Item], number: int) -> CallPlan:
    host, port = options.agi
    version = _WITH_AUDIOSOCKET if options.audiosocket else _WITHOUT_AUDIOSOCKET
    unique_s, _, fraction = options.uniqueid.partition(".")
    about = Channel(
        uniqueid=f"{unique_s}.{int(fraction or 0) + number - 1}",
        name=f"PJSIP/caller-{number:08x}",
        callerid=options.caller,
        calleridname=options.caller_name,
        dnid=options.extension,
        extension=options.extension,
        version=options.asterisk_version or version,
    )
    return CallPlan(
        host=host,
        port=port,
        script=options.script.lstrip("/"),
        args=options.arg,
        items=items,
        variables=dict(options.var),
        about=about,
        is_answered=options.answered,
        threshold_rms=options.threshold,
        max_s=options.seconds,
        linger_s=options.linger,
    )


def _save(out: Path | None, reports: Sequence[CallReport]) -> None:
    """heard.wav, or heard-1.wav, heard-2.wav ... of several calls."""
    if out is None:
        return
    for number, report in enumerate(reports, 1):
        name = out.name if len(reports) == 1 else f"{out.stem}-{number}{out.suffix}"
        heard = report.ear.pcm16(report.answered_s or 0.0)
        write_wav(out.with_name(name), heard, rate_hz=RATE_HZ)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise argparse.ArgumentTypeError("HOST:PORT is wanted")
    return host.strip("[]"), int(port)


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError("NAME=VALUE is wanted")
    return name, value


def _share(text: str) -> float:
    share = float(text)
    if not 0.0 <= share <= 1.0:
        raise argparse.ArgumentTypeError("0 to 1 is wanted")
    return share


def _number(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("1 to 1000 is wanted")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.place_call",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--agi", type=_address, required=True, metavar="HOST:PORT")
    add("--script", default="ultravox", help="script and query: ultravox?campaign=x")
    add("--line-noise", type=Path, help="a recording heard behind the caller all along")
    add("--line-loss", type=_share, default=0.0, help="share of packets lost, 0 to 1")
    add("--arg", action="append", default=[], help="further argument of AGI()")
    add("--say", nargs="+", action="extend", default=[], metavar="ITEM")
    add("--out", type=Path, help="WAV file for what was heard, from the answer on")
    add("--events", type=Path, help="JSON lines: everything that happened")
    add("--calls", type=_number, default=1, help="that many at once")
    add("--stagger", type=float, default=0.0, help="seconds between their starts")
    add("--seconds", type=float, default=60.0, help="hang up after that long")
    add("--linger", type=float, default=3.0, help="quiet seconds that end a call")
    add("--threshold", type=float, default=200.0, help="RMS that counts as voice")
    flag = argparse.BooleanOptionalAction
    add(
        "--audiosocket",
        action=flag,
        default=True,
        help="whether this Asterisk has app_audiosocket",
    )
    add(
        "--run-scripts",
        action=flag,
        default=False,
        help="run the programs a bot asks for by EXEC AGI and EXEC EAGI on this "
        "machine, as Asterisk would: only for a bot you trust",
    )
    add("--answered", action=flag, default=False, help="the channel is up already")
    add("--var", type=_assignment, action="append", default=[], metavar="NAME=VALUE")
    add("--sounds", type=Path, action="append", default=[], help="folder of prompts")
    add("--caller", default="5551234567")
    add("--caller-name", default="Jane Q Roe")
    add("--extension", default="8901")
    add("--uniqueid", default="1795329931.0")
    add("--asterisk-version", default="", help="what agi_version says")
    return parser


if __name__ == "__main__":
    sys.exit(main())
