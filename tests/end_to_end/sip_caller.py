"""A caller: places a real SIP call with RTP audio and records what comes back.

    python -m tests.end_to_end.sip_caller --port 15000 --to bot \\
        --say wait:200,1 --say hello.wav --out heard.wav --events events.jsonl

Items of --say: see tools/caller/say_items.py. Exit status: 0 answered and ended,
1 refused or not answered. The last line of output is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

import numpy as np

from model.audio.frames import FRAME_MS, FRAME_SAMPLES, RATE_HZ
from model.audio.g711 import ulaw_decode, ulaw_encode
from model.audio.wav import write_wav
from tests.end_to_end.sip_dialogue import (
    Answered,
    ByeAnswered,
    Parties,
    ReferReceived,
    Refused,
    RemoteHungUp,
    Ringing,
    SipDialogue,
    State,
)
from tests.end_to_end.tones import ToneFinder
from tools.caller.ear import Ear
from tools.caller.mouth import Mouth, Slot
from tools.caller.say_items import KEYS, Item, parse_item
from tools.caller.turns import Turn, measured_turns

_LOOPBACK: Final = "127.0.0.1"
_INVITE_RETRY_S: Final = 0.5  # RFC 3261 T1
_BYE_TIMEOUT_S: Final = 2.0
_ULAW_PAYLOAD: Final = 0
_KEY_PAYLOAD: Final = 101
_KEY_VOLUME: Final = 10
_NUM_KEY_ENDS: Final = 3  # RFC 4733, 2.5.1.4
_SLOT_S: Final = FRAME_MS / 1000
# What a hands-free telephone gives back comes 120 ms late.
_ECHO_SLOTS: Final = 6


@dataclass(frozen=True, slots=True)
class CallEvent:
    """One line of a call's story; `at_s` counts from the answer."""

    at_s: float
    name: str
    what: str = ""
    value: float | None = None

    def __str__(self) -> str:
        return json.dumps(
            {"at_s": round(self.at_s, 3), "name": self.name}
            | ({"what": self.what} if self.what else {})
            | ({"value": round(self.value, 3)} if self.value is not None else {})
        )


class CallNotAnswered(Exception):
    """The server refused the call, or nobody answered in time."""


class SipCall:
    """One call, from INVITE to BYE; leaving the block hangs up.

    async with SipCall(port, "bot") as call:
        await call.happened("heard-start")
        call.do(recording(path))
        await call.heard_tone(440)
    """

    def __init__(
        self,
        sip_port: int,
        extension: str,
        items: Sequence[Item] = (),
        *,
        number: str = "5551234567",
        name: str = "Lab Caller",
        answer_timeout_s: float = 15.0,
        is_mute: bool = False,
        echo_db: float | None = None,
    ) -> None:
        self._server = (_LOOPBACK, sip_port)
        self._extension, self._number, self._name = extension, number, name
        self._answer_timeout_s = answer_timeout_s
        self._is_mute = is_mute
        # What is heard comes back so much louder than it was; None: no echo.
        self._echo_gain = None if echo_db is None else 10 ** (echo_db / 20)
        self._echoes: deque[bytes] = deque(maxlen=2 * _ECHO_SLOTS)
        self.ear = Ear()
        self.num_lost = 0
        self._mouth = Mouth(items)
        self._to_do: list[Item] = []
        self._tones = ToneFinder()
        self.events: list[CallEvent] = []
        self.worst_slot_lateness_ms = 0.0
        self._news = asyncio.Event()
        self._answered_at: float | None = None
        self._rtp_target: tuple[str, int] | None = None
        self._sip: asyncio.DatagramTransport
        self._rtp: asyncio.DatagramTransport
        self._dialogue: SipDialogue
        self._voice: asyncio.Task[None] | None = None
        self._sequence = random.getrandbits(15)
        self._timestamp = random.getrandbits(31)
        self._ssrc = random.getrandbits(32)
        self._num_slots = 0
        self._num_key_slots = 0
        self._heard_sequence: int | None = None
        self._last_key_stamp = b""

    async def __aenter__(self) -> Self:
        self._sip = await _open_datagrams(self._on_sip)
        try:
            self._rtp = await _open_datagrams(self._on_rtp)
        except OSError:
            self._sip.close()
            raise
        self._dialogue = SipDialogue(
            Parties(
                extension=self._extension,
                server=self._server,
                local=self._sip.get_extra_info("sockname"),
                rtp_port=self._rtp.get_extra_info("sockname")[1],
                number=self._number,
                name=self._name,
            )
        )
        try:
            await self._invite()
        except BaseException:
            await self._close()
            raise
        self._voice = asyncio.create_task(self._speak(), name="caller's voice")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.hang_up()
        await self._close()

    @property
    def at_s(self) -> float:
        """Seconds since the answer."""
        return 0.0 if self._answered_at is None else _now() - self._answered_at

    @property
    def is_up(self) -> bool:
        return self._dialogue.state is State.UP

    def do(self, *items: Item) -> None:
        """Say or press these, after what is being said."""
        self._to_do += items

    async def until(
        self, is_true: Callable[[], bool], what: str, timeout_s: float
    ) -> None:
        """Wait until something of the call is true.

        Raises:
            AssertionError: it is not in time; with the call's story.
        """
        try:
            await self._wait_until(is_true, timeout_s)
        except TimeoutError:
            story = "\n".join(f"  {event}" for event in self.events)
            raise AssertionError(
                f"not within {timeout_s:g} s: {what}\n{story}"
            ) from None

    async def happened(
        self, name: str, *, after_s: float = 0.0, timeout_s: float = 15.0
    ) -> CallEvent:
        """The first event of that name, waiting for it if need be."""

        def found() -> CallEvent | None:
            named = (e for e in self.events if e.name == name and e.at_s >= after_s)
            return next(named, None)

        await self.until(lambda: found() is not None, name, timeout_s)
        return cast("CallEvent", found())

    async def heard_tone(self, hz: int, *, timeout_s: float = 15.0) -> CallEvent:
        """A steady tone of that frequency: the lab marks places with them."""

        def found() -> CallEvent | None:
            tones = (e for e in self.events if e.name == "tone" and e.value is not None)
            return next((e for e in tones if abs((e.value or 0) - hz) <= 10), None)

        await self.until(lambda: found() is not None, f"a tone of {hz} Hz", timeout_s)
        return cast("CallEvent", found())

    async def ended(self, *, timeout_s: float = 30.0) -> CallEvent:
        """The other side has hung up."""
        return await self.happened("remote-hung-up", timeout_s=timeout_s)

    async def hang_up(self) -> None:
        """Hang up, if the call is still up."""
        if self.is_up:
            self._note("hung-up")
            self._dialogue.hang_up()
            self._flush_sip()
            try:
                await self._wait_until(
                    lambda: self._dialogue.state is State.ENDED, _BYE_TIMEOUT_S
                )
            except TimeoutError:
                self._note("bye-unanswered")

    def turns(self) -> list[Turn]:
        """What was said of the items the call began with, and what came back."""
        return measured_turns(self._mouth.said, self.ear.sounds)

    def summary(self) -> dict[str, object]:
        """Figures of the whole call."""
        return {
            "seconds": round(self.at_s, 3),
            "packets": self.ear.cadence.num_frames,
            "lost": self.num_lost,
            "max_gap_ms": round(1000 * self.ear.cadence.max_gap_s),
            "worst_slot_lateness_ms": round(self.worst_slot_lateness_ms, 1),
            "sounds": [
                [round(s.start_s, 3), round(s.end_s, 3)] for s in self.ear.sounds
            ],
        }

    async def _close(self) -> None:
        if self._voice is not None:
            self._voice.cancel()
            await asyncio.gather(self._voice, return_exceptions=True)
        self.ear.finish()
        self._drain_events()
        self._sip.close()
        self._rtp.close()
        await asyncio.sleep(0)  # a transport closes its socket in the next round

    async def _invite(self) -> None:
        deadline = _now() + self._answer_timeout_s
        retry_s = _INVITE_RETRY_S
        while self._dialogue.state is State.CALLING:
            if _now() >= deadline:
                self._dialogue.cancel()
                self._flush_sip()
                raise CallNotAnswered(f"no answer in {self._answer_timeout_s:g} s")
            if not any(event.name == "ringing" for event in self.events):
                self._dialogue.invite()
                self._flush_sip()
            try:
                await self._wait_until(
                    lambda: self._dialogue.state is not State.CALLING,
                    min(retry_s, deadline - _now()),
                )
            except TimeoutError:
                retry_s *= 2
        if not self.is_up:
            raise CallNotAnswered(str(self.events[-1]) if self.events else "refused")

    async def _speak(self) -> None:
        """Send one packet every 20 ms, on a schedule that does not drift."""
        next_at = _now()
        while self.is_up:
            if self._mouth.is_done and self._to_do:
                self._mouth, self._to_do = Mouth(self._to_do), []
            self._send_slot(self._mouth.next_slot(self.at_s, 0.0, self.ear))
            self.ear.on_time(self.at_s)
            self._drain_events()
            self._tell()
            if self._mouth.has_hung_up:
                await self.hang_up()
                return
            next_at += _SLOT_S
            lateness_ms = (_now() - next_at) * 1000
            self.worst_slot_lateness_ms = max(self.worst_slot_lateness_ms, lateness_ms)
            await asyncio.sleep(max(0.0, next_at - _now()))

    def _with_echo(self, pcm16: bytes) -> bytes:
        if self._echo_gain is None or len(self._echoes) <= _ECHO_SLOTS:
            return pcm16
        echo = np.frombuffer(self._echoes.popleft(), dtype="<i2")[:FRAME_SAMPLES]
        mixed = np.frombuffer(pcm16, dtype="<i2").astype(np.float64)
        mixed[: echo.size] += self._echo_gain * echo
        return np.clip(mixed, -32_767, 32_767).astype("<i2").tobytes()

    def _send_slot(self, slot: Slot) -> None:
        at = self._timestamp + self._num_slots * FRAME_SAMPLES
        if slot.pcm16 is not None:
            marker = 0x80 if self._num_slots == 0 else 0
            sent = self._with_echo(slot.pcm16)
            self._send_rtp(_ULAW_PAYLOAD | marker, at, ulaw_encode(sent))
        key = slot.held or slot.key
        if key is not None:
            self._send_key(key, at, is_released=slot.key is not None)
        self._num_slots += 1

    def _send_key(self, key: str, at: int, *, is_released: bool) -> None:
        """As a telephone does, from its beginning: an end alone Asterisk makes up for.

        One that is made up during its Answer() leaves a beginning behind, which then
        keeps back the caller's voice (Asterisk 16, channel.c).
        """
        began = at - self._num_key_slots * FRAME_SAMPLES
        marker = 0x80 if self._num_key_slots == 0 else 0
        self._num_key_slots += 1
        end = 0x80 if is_released else 0
        payload = struct.pack(
            ">BBH",
            KEYS.index(key),
            end | _KEY_VOLUME,
            self._num_key_slots * FRAME_SAMPLES,
        )
        for _ in range(_NUM_KEY_ENDS if is_released else 1):
            self._send_rtp(_KEY_PAYLOAD | marker, began, payload)
        if is_released:
            self._num_key_slots = 0

    def _send_rtp(self, payload_type: int, timestamp: int, payload: bytes) -> None:
        if self._rtp_target is None or self._is_mute:
            return
        header = struct.pack(
            ">BBHII",
            0x80,
            payload_type,
            self._sequence & 0xFFFF,
            timestamp & 0xFFFFFFFF,
            self._ssrc,
        )
        self._rtp.sendto(header + payload, self._rtp_target)
        self._sequence += 1

    def _on_rtp(self, datagram: bytes) -> None:
        if len(datagram) < 12:
            return
        payload_type = datagram[1] & 0x7F
        start = 12 + 4 * (datagram[0] & 0x0F)
        if datagram[0] & 0x10 and len(datagram) >= start + 4:
            start += 4 + 4 * int.from_bytes(datagram[start + 2 : start + 4], "big")
        payload = datagram[start:]
        self._count_lost(int.from_bytes(datagram[2:4], "big"))
        if payload_type == _ULAW_PAYLOAD:
            pcm16 = ulaw_decode(payload)
            self.ear.on_arrival(self.at_s, pcm16)
            self._echoes.append(pcm16)
            hz = self._tones.hear(pcm16)
            if hz is not None:
                self._note("tone", value=hz)
        elif payload_type == _KEY_PAYLOAD and len(payload) >= 4 and payload[1] & 0x80:
            # The end of a key comes three times, with one RTP time stamp.
            if datagram[4:8] != self._last_key_stamp:
                self._note("key-heard", KEYS[payload[0] & 15])
            self._last_key_stamp = datagram[4:8]

    def _count_lost(self, sequence: int) -> None:
        if self._heard_sequence is not None:
            step = (sequence - self._heard_sequence) & 0xFFFF
            # A larger step is a new stream: Asterisk starts one at a transfer.
            if 0 < step < 1000:
                self.num_lost += step - 1
        self._heard_sequence = sequence

    def _on_sip(self, datagram: bytes) -> None:
        for event in self._dialogue.receive(datagram):
            match event:
                case Ringing(code):
                    self._note("ringing", str(code))
                case Answered(rtp):
                    self._rtp_target = rtp
                    if self._answered_at is None:
                        self._answered_at = _now()
                        self._note("answered")
                case Refused(code):
                    self._note("refused", str(code))
                case RemoteHungUp(reason):
                    self._note("remote-hung-up", reason)
                case ReferReceived(to):
                    self._note("refer-received", to)
                case ByeAnswered():
                    self._note("bye-answered")
        self._flush_sip()
        self._tell()

    def _flush_sip(self) -> None:
        for datagram in self._dialogue.data_to_send():
            self._sip.sendto(datagram, self._server)

    def _drain_events(self) -> None:
        for name, at_s in self.ear.news():
            self.events.append(CallEvent(at_s, name))
        for done in self._mouth.events():
            voiced_s = None
            if done.name.startswith("said-") and self._mouth.said:
                said = self._mouth.said[-1]
                is_start = done.name == "said-start"
                voiced_s = said.voiced_start_s if is_start else said.voiced_end_s
            self._note(done.name, done.what, voiced_s)

    def _note(self, name: str, what: str = "", value: float | None = None) -> None:
        self.events.append(CallEvent(self.at_s, name, what, value))

    async def _wait_until(self, is_true: Callable[[], bool], timeout_s: float) -> None:
        """Look again at every piece of news; raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not is_true():
                await self._news.wait()

    def _tell(self) -> None:
        """Wake everybody who waits; the next news comes by a new event."""
        self._news.set()
        self._news = asyncio.Event()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, on_datagram: Callable[[bytes], None]) -> None:
        self._on_datagram = on_datagram

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        self._on_datagram(data)


async def _open_datagrams(
    on_datagram: Callable[[bytes], None],
) -> asyncio.DatagramTransport:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Datagrams(on_datagram), local_addr=(_LOOPBACK, 0)
    )
    return transport


def _now() -> float:
    return time.monotonic()


async def _place(args: argparse.Namespace) -> int:
    items = [parse_item(text) for text in args.say]
    call = SipCall(args.port, args.to, items, number=args.number, name=args.name)
    try:
        async with call:
            # When the time is up, leaving the block hangs up.
            with contextlib.suppress(AssertionError):
                await call.ended(timeout_s=args.seconds)
    except CallNotAnswered as exc:
        print(f"not answered: {exc}", file=sys.stderr)
        return 1
    if args.out:
        write_wav(args.out, call.ear.pcm16(), rate_hz=RATE_HZ)
    if args.events:
        args.events.write_text("".join(f"{event}\n" for event in call.events))
    print(json.dumps(call.summary()))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=15000, help="Asterisk's SIP port")
    parser.add_argument("--to", default="bot", help="extension to dial")
    parser.add_argument("--number", default="5551234567", help="caller's number")
    parser.add_argument("--name", default="Lab Caller", help="caller's name")
    parser.add_argument("--say", action="append", default=[], metavar="ITEM")
    parser.add_argument("--seconds", type=float, default=20, help="longest call")
    parser.add_argument("--out", type=Path, help="WAV file for what was heard")
    parser.add_argument("--events", type=Path, help="JSON lines file")
    return asyncio.run(_place(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
