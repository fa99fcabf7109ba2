"""Put recorded calls to another prompt, model or setting, and compare the replies.

    python -m tools.replay --last 5 --campaign campaigns/sales.toml
    python -m tools.replay CALL_ID --url http://other-gpu:8000 --temperature 0.7

What the caller said is cut from the call's recording (ULTRAVOX_RECORDINGS) by the times
of its record; where there is no recording, the written words stand in for it, and the
output says so.  It is put turn by turn to the speech half at --url, with the words of
the campaign as they are now (the call's own, unless --campaign or --instructions give
others).  The caller's next words are the recorded ones, whatever the new reply was.

The delay compared is the speech half's: question to first audio of the reply.

Exit status: 0 replayed and the same, 1 replayed with differences, 2 wrong arguments,
3 a call could not be replayed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile

import config
from agi_handlers.campaigns import Campaign, CampaignsInvalid, load_campaign
from agi_handlers.errors import TelephonyError
from agi_handlers.records.archive import CallArchive, CallQuery
from agi_handlers.records.recording_files import recording_files
from agi_handlers.records.store import STORE_ERRORS, Archive, open_archive
from model.audio.frames import RATE_HZ
from model.client import RemoteSpeechService
from model.errors import SpeechError
from model.speech import (
    ReplyAction,
    ReplyDone,
    ReplyEvent,
    SessionOptions,
    SpeechSession,
    TypedTurn,
    UserTurn,
    Utterance,
)
from tools.caller.turns import percentile
from tools.records_store import store_of

_MARGIN_MS: Final = 200
"""Around the caller's words, as the detector's pre-roll and hangover leave it."""
_COLUMN: Final = 44


class NotReplayed(Exception):
    """This call cannot be put again; one line that says why."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one of the two said."""

    reply: str
    actions: Sequence[str]
    first_audio_ms: int | None


@dataclass(frozen=True, slots=True)
class ReplayedTurn:
    turn: int
    caller: str
    source: str
    """audio, or text where no recording is there."""
    then: Side
    now: Side

    @property
    def was_answered(self) -> bool:
        """False: the caller went on or away before there was a reply to compare."""
        return bool(self.then.reply or self.then.actions)

    @property
    def is_same(self) -> bool:
        is_same_reply = self.then.reply.split() == self.now.reply.split()
        return is_same_reply and list(self.then.actions) == list(self.now.actions)


@dataclass(frozen=True, slots=True)
class ReplayedCall:
    call_id: str
    model_then: str
    model_now: str
    turns: Sequence[ReplayedTurn]


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    options = _parser().parse_args(arguments)
    try:
        settings = config.load()
        archive: Archive = (
            CallArchive(options.file)
            if options.file is not None
            else open_archive(store_of(settings))
        )
        calls = list(_chosen(archive, options))
        campaign = _campaign(options)
    except config.ConfigError as exc:
        return _refuse(exc.problems)
    except CampaignsInvalid as exc:
        return _refuse(exc.problems)
    except (*STORE_ERRORS, TelephonyError, OSError) as exc:
        return _refuse([str(exc)])
    if not calls:
        return _refuse(["no such call in the records"])
    data_dir = (options.file.parent if options.file else None) or settings.data_dir
    replayer = Replayer(settings, options, data_dir, campaign)
    replayed, num_failed = asyncio.run(replayer.replay_all(calls))
    if options.json is not None:
        options.json.write_text(
            json.dumps([asdict(call) for call in replayed], indent=1) + "\n"
        )
    if num_failed:
        return 3
    turns = [turn for call in replayed for turn in call.turns if turn.was_answered]
    return 0 if all(turn.is_same for turn in turns) else 1


def _refuse(problems: Sequence[str]) -> int:
    for problem in problems:
        print(f"replay: {problem}", file=sys.stderr)
    return 2


def _chosen(archive: Archive, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for call_id in options.calls:
        found = archive.call(call_id)
        if found is not None:
            yield found
    if options.last:
        page = archive.search(CallQuery(limit=options.last))
        for row in page.calls:
            call = archive.call(row["call_id"])
            if call is not None:
                yield call


def _campaign(options: argparse.Namespace) -> Campaign | None:
    """Raises CampaignsInvalid."""
    return None if options.campaign is None else load_campaign(options.campaign)


class Replayer:
    """Puts calls again, with what the arguments change."""

    def __init__(
        self,
        settings: config.Settings,
        options: argparse.Namespace,
        data_dir: Path,
        campaign: Campaign | None,
    ) -> None:
        self._settings = settings
        self._options = options
        self._data_dir = data_dir
        self._campaign = campaign

    async def replay_all(
        self, calls: Sequence[Mapping[str, Any]]
    ) -> tuple[list[ReplayedCall], int]:
        """The calls that could be put again, and how many could not."""
        scheme = "https" if self._settings.tls_certificate else "http"
        url = self._options.url or f"{scheme}://127.0.0.1:{self._settings.port}"
        key = self._options.key or self._settings.api_key.get_secret_value()
        replayed: list[ReplayedCall] = []
        num_failed = 0
        async with RemoteSpeechService([url], key) as service:
            model = (await service.status()).model
            for call in calls:
                try:
                    async with service.open_session(self._session(call)) as session:
                        turns = [one async for one in self._turns(call, session)]
                except (NotReplayed, SpeechError, CampaignsInvalid) as exc:
                    num_failed += 1
                    print(f"call {call['call_id']}: not replayed: {exc}")
                    continue
                found = ReplayedCall(call["call_id"], call["model"], model, turns)
                show(found)
                replayed.append(found)
        return replayed, num_failed

    def _session(self, call: Mapping[str, Any]) -> SessionOptions:
        options, settings = self._options, self._settings
        campaign = self._campaign
        if campaign is None:
            path = settings.campaigns_dir / f"{call['campaign']}.toml"
            campaign = load_campaign(path, call["language"] or settings.language)
        instructions = campaign.instructions
        if options.instructions is not None:
            instructions = options.instructions.read_text(encoding="utf-8")
        temperature = options.temperature
        return SessionOptions(
            call_id=f"replay-{call['call_id']}"[:64],
            instructions=instructions,
            campaign=campaign.name,
            language=campaign.language or call["language"] or settings.language,
            voice=options.voice or campaign.voice,
            max_new_tokens=campaign.max_new_tokens or settings.max_new_tokens,
            temperature=campaign.temperature if temperature is None else temperature,
            actions=campaign.rules.actions,
        )

    async def _turns(
        self, call: Mapping[str, Any], session: SpeechSession
    ) -> AsyncIterator[ReplayedTurn]:
        caller_pcm16 = caller_side(self._data_dir, call["recording"])
        for number, row in enumerate(call["turns"], start=1):
            if row["fate"] in ("dropped", "failed"):
                continue  # the dialogue went on without it
            if row["source"] == "phrase":
                async for _ in session.say(number, row["reply_text"] or "-"):
                    pass
                await session.settle(number, row["heard_ms"] or None)
                continue
            user, source = _user(row, caller_pcm16)
            now = await _asked(session.reply(number, user))
            await session.settle(number)
            yield ReplayedTurn(
                turn=row["turn"],
                caller=row["said_text"] or f"({row['said_ms']} ms of speech)",
                source=source,
                then=_then(call, row),
                now=now,
            )


def caller_side(data_dir: Path, name: str) -> bytes | None:
    """The caller's channel as 8 kHz pcm16; None: there is no recording."""
    for path in recording_files(data_dir, name):
        samples, rate_hz = soundfile.read(path, dtype="int16", always_2d=True)
        caller = samples[:, 0]
        if rate_hz != RATE_HZ:  # Opus comes back at 48 kHz
            import soxr

            caller = soxr.resample(caller, rate_hz, RATE_HZ)
        return bytes(np.asarray(caller, dtype="<i2").tobytes())
    return None


def _user(row: Mapping[str, Any], caller_pcm16: bytes | None) -> tuple[UserTurn, str]:
    """Raises NotReplayed: neither sound nor words are there."""
    ended_ms, said_ms = row["speech_ended_ms"], row["said_ms"]
    is_spoken = row["said_kind"] == "speech" and ended_ms is not None
    if caller_pcm16 is not None and is_spoken:
        first_ms = max(0, ended_ms - said_ms - _MARGIN_MS)
        last_ms = ended_ms + _MARGIN_MS
        cut = caller_pcm16[_byte(first_ms) : _byte(last_ms)]
        if cut:
            return Utterance(cut, RATE_HZ, first_ms, last_ms), "audio"
    if row["said_text"]:
        return TypedTurn(row["said_text"]), "text"
    raise NotReplayed(f"turn {row['turn']} has neither a recording nor written words")


def _byte(at_ms: int) -> int:
    return 2 * (at_ms * RATE_HZ // 1000)


async def _asked(events: AsyncIterator[ReplyEvent]) -> Side:
    actions: list[str] = []
    reply, first_audio_ms = "", None
    async for event in events:
        match event:
            case ReplyAction():
                actions.append(f"{event.name} {event.argument}".strip())
            case ReplyDone():
                reply = event.text
                first_audio_ms = round(event.timings.first_audio_ms) or None
            case _:
                pass
    return Side(reply, actions, first_audio_ms)


def _then(call: Mapping[str, Any], row: Mapping[str, Any]) -> Side:
    actions = [
        f"{event['name']} {event['detail']}".strip()
        for event in call["events"]
        if event["kind"] == "action" and event["turn"] == row["turn"]
    ]
    return Side(row["reply_text"], actions, round(row["first_audio_ms"]) or None)


def show(call: ReplayedCall) -> None:
    """Side by side, a turn after another."""
    print(f"call {call.call_id}")
    print(f"  {'then: ' + call.model_then:<{_COLUMN}} | now: {call.model_now}")
    for turn in call.turns:
        mark = "=" if turn.is_same else "#" if turn.was_answered else "-"
        note = "" if turn.source == "audio" else "  [from the written words]"
        note += "" if turn.was_answered else "  [had no reply then]"
        print(f"{mark} turn {turn.turn}: {turn.caller}{note}")
        columns = [_column(side) for side in (turn.then, turn.now)]
        for at in range(max(map(len, columns))):
            left, right = (one[at] if at < len(one) else "" for one in columns)
            print(f"  {left:<{_COLUMN}} | {right}")
    answered = [turn for turn in call.turns if turn.was_answered]
    num_same = sum(turn.is_same for turn in answered)
    print(f"  {num_same} of {len(answered)} turns the same; first audio, p50:", end="")
    for side in ("then", "now"):
        delays = [getattr(turn, side).first_audio_ms for turn in answered]
        p50 = percentile([one for one in delays if one is not None], 50)
        print(f" {side} {'-' if p50 is None else round(p50)} ms", end="")
    print()


def _column(side: Side) -> list[str]:
    lines = textwrap.wrap(side.reply, _COLUMN) or ["-"]
    lines += [f"[[{action}]]" for action in side.actions]
    delay = "no audio" if side.first_audio_ms is None else f"{side.first_audio_ms} ms"
    return [*lines, f"({delay})"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("calls", nargs="*", metavar="CALL_ID")
    add("--last", type=int, default=0, metavar="N", help="the newest N calls as well")
    add("--file", type=Path, help="the records file, beside its recordings")
    add("--url", default="", help="the speech half to ask (default: the settings')")
    add("--key", default="", help="API key, where it asks for one")
    add("--campaign", type=Path, help="campaign file instead of the call's own")
    add("--instructions", type=Path, help="file with instructions instead of those")
    add("--temperature", type=float, help="instead of the campaign's")
    add("--voice", default="", help="instead of the campaign's")
    add("--json", type=Path, help="file for the whole result")
    return parser


if __name__ == "__main__":
    sys.exit(main())
