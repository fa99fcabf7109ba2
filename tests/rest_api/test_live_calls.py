"""Operators see and steer a running call: a real call, both halves' line, real sockets.

The conversation runs on the event loop's clock with a scripted caller and speech half.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agi_handlers.audio_leg.tapped_leg import TappedLeg
from agi_handlers.call_records import CallRecord
from agi_handlers.campaigns import Campaign
from agi_handlers.conversation.call import Call
from agi_handlers.conversation.call_notes import CallNotes
from agi_handlers.conversation.call_parts import CallParts
from agi_handlers.conversation.outcome import CallOutcome
from agi_handlers.conversation.turn_taking import TurnTaking
from agi_handlers.live_audio import LiveAudio
from agi_handlers.live_calls import LiveCall, LiveCalls
from agi_handlers.records.rows import CallRow, EventRow, Row, TurnRow
from model.audio.prompts import Prompt
from model.client import ControlLink
from model.control_messages import Hello, encode
from rest_api.app import AppOptions
from rest_api.auth import KeyRing
from rest_api.control_desk import Ears
from tests.fakes.call_parts import HangsUp, ScriptedLeg, ScriptedSession, Speaks
from tests.fakes.ear import loudness_ear
from tests.rest_api.serving import serving, until

KEY = "k" * 32
Said: TypeAlias = Speaks | HangsUp
WITH_KEY = {"X-API-Key": KEY}
PATH = "/live/calls/call-1"


@dataclass(slots=True)
class Scene:
    """A phone half with one call, and the HTTP port."""

    url: str
    client: httpx.AsyncClient
    live: LiveCalls
    session: ScriptedSession
    call: asyncio.Task[CallOutcome]
    rows: list[Row] = field(default_factory=list)
    link: asyncio.Task[None] | None = None

    async def post(self, path: str, **body: str) -> httpx.Response:
        return await self.client.post(path, json=body, headers=WITH_KEY)

    async def calls(self) -> list[dict[str, Any]]:
        data = (await self.client.get("/live/calls")).json()["data"]
        return [call for phone in data["phones"] for call in phone["calls"]]

    async def shows(self, fits: Callable[[list[dict[str, Any]]], object]) -> None:
        """Until the list is as wanted."""
        async with asyncio.timeout(20):
            while not fits(await self.calls()):  # noqa: ASYNC110 - not ours to signal
                await asyncio.sleep(0.05)

    def operator_events(self) -> list[tuple[str, str]]:
        return [
            (row.name, row.detail)
            for row in self.rows
            if isinstance(row, EventRow) and row.kind == "operator"
        ]


async def _all_of(line: ClientConnection) -> list[bytes]:
    """Everything that comes until the other side ends it."""
    pieces: list[bytes] = []
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionClosed):
            while True:
                piece = await line.recv()
                pieces += [piece] if isinstance(piece, bytes) else []
    return pieces


def _talk(
    call_id: str, rows: list[Row], session: ScriptedSession, script: Sequence[Said]
) -> tuple[LiveCalls, Coroutine[Any, Any, CallOutcome]]:
    """A phone half's calls, and the one call it has, to be run."""
    campaign = Campaign(name="sales", transfer={"billing": "8600"})
    audio = LiveAudio(is_full_duplex=True)
    leg = ScriptedLeg(script or [Speaks(0.0, 30.0), HangsUp(30.0)])
    parts = CallParts(
        leg=TappedLeg(leg, [audio]),
        ear=loudness_ear(),
        session=session,
        phrases=campaign.phrases.as_mapping(),
        prompts={"one_moment": Prompt("one_moment", "", bytes(1600))},
        target_of=campaign.target_of,
        notes=CallNotes(call_id, rows.append),
    )
    call = Call(parts, TurnTaking())
    record = CallRecord(CallRow(call_id, 0.0, caller="***0187"), rows.append)
    live = LiveCalls()

    async def talk() -> CallOutcome:
        known = LiveCall(call, record, campaign, audio, "audiosocket")
        with live.known(known):
            return await call.run()

    return live, talk()


@asynccontextmanager
async def scene(*script: Said) -> AsyncIterator[Scene]:
    rows: list[Row] = []
    session = ScriptedSession(phrase_s=1.0)
    live, talk = _talk("call-1", rows, session, script)
    keys = AppOptions(keys=KeyRing.parse(f"ada:{KEY}"))
    async with (
        serving(app=keys) as url,
        httpx.AsyncClient(base_url=url, timeout=20) as client,
    ):
        talking = asyncio.create_task(talk)
        linking = asyncio.create_task(ControlLink([url], "phone-1", live).run())
        try:
            found = Scene(url, client, live, session, talking, rows, linking)
            await found.shows(lambda calls: calls)
            yield found
        finally:
            for task in (talking, linking):
                task.cancel()
            await asyncio.wait([talking, linking])


@asynccontextmanager
async def other_phone_half(now: Scene) -> AsyncIterator[asyncio.Task[CallOutcome]]:
    """One more at the same HTTP port, with a call of its own."""
    live, talk = _talk("call-2", now.rows, ScriptedSession(phrase_s=1.0), ())
    talking = asyncio.create_task(talk)
    linking = asyncio.create_task(ControlLink([now.url], "phone-2", live).run())
    try:
        await now.shows(lambda calls: len(calls) == 2)
        yield talking
    finally:
        for task in (talking, linking):
            task.cancel()
        await asyncio.wait([talking, linking])


async def test_orders_go_to_the_phone_half_that_has_the_call() -> None:
    async with scene() as now, other_phone_half(now) as other:
        answer = (await now.client.get("/live/calls")).json()["data"]
        shown = {
            phone["name"]: [call["call_id"] for call in phone["calls"]]
            for phone in answer["phones"]
        }
        assert shown == {"phone-1": ["call-1"], "phone-2": ["call-2"]}
        assert (await now.post("/live/calls/call-2/hangup")).is_success
        async with asyncio.timeout(20):
            assert (await other).reason == "operator_hung_up"
        assert (await now.post("/live/phones/phone-2/drain")).is_success
        assert not now.live.is_drained
        assert not now.call.done()
        assert now.operator_events() == [("hangup", "ada")]


async def test_a_running_call_is_shown_with_its_state_and_levels() -> None:
    async with scene() as now:
        await until(lambda: now.session.said)
        (call,) = await now.calls()
    assert (call["call_id"], call["caller"]) == ("call-1", "***0187")
    assert call["campaign"] == "sales"
    assert call["phase"] in ("hearing", "speaking")
    assert -20 < call["caller_dbfs"] < 0
    assert call["targets"] == ["billing"]


async def test_steering_needs_a_key_on_this_host_as_well() -> None:
    async with scene() as now:
        for path, body in (
            (f"{PATH}/say", {"text": "Hello."}),
            (f"{PATH}/transfer", {}),
            (f"{PATH}/hangup", {}),
            ("/live/phones/phone-1/drain", {}),
        ):
            answer = await now.client.post(path, json=body)
            assert answer.status_code == 401, path
        with pytest.raises(InvalidStatus) as refused:
            await connect(now.url.replace("http", "ws") + f"{PATH}/listen")
        assert refused.value.response.status_code == 401
        assert now.operator_events() == []
        assert not now.call.done()


async def test_what_an_operator_writes_is_spoken_and_recorded_under_his_name() -> None:
    async with scene() as now:
        answer = await now.post(f"{PATH}/say", text="  We close\n at five.  ")
        assert answer.status_code == 200, answer.text
        await until(lambda: now.session.said[-1] == "We close at five.")
        assert now.operator_events() == [("say", "ada: We close at five.")]
        await until(
            lambda: any(
                isinstance(row, TurnRow) and row.phrase == "operator" and row.fate
                for row in now.rows
            )
        )


@pytest.mark.slow
async def test_a_transfer_goes_where_the_operator_wants() -> None:
    async with scene() as now:
        refused = await now.post(f"{PATH}/transfer", target="nowhere")
        assert refused.status_code == 409
        assert "nowhere" in refused.json()["error"]["message"]
        assert (await now.post(f"{PATH}/transfer", target="billing")).is_success
        again = await now.post(f"{PATH}/transfer", target="billing")
        assert again.status_code == 409
        outcome = await asyncio.wait_for(now.call, 20)
    assert (outcome.status, outcome.transfer_to) == ("transfer", "8600")
    assert outcome.reason == "operator"
    assert now.operator_events() == [("transfer", "ada: billing")]


async def test_hanging_up_ends_the_call_at_once() -> None:
    async with scene() as now:
        assert (await now.post(f"{PATH}/hangup")).is_success
        outcome = await asyncio.wait_for(now.call, 5)
        assert await now.calls() == [] or (await now.post(f"{PATH}/hangup")).is_error
    assert (outcome.status, outcome.reason) == ("completed", "operator_hung_up")
    assert now.operator_events() == [("hangup", "ada")]


async def test_a_phone_half_is_drained_and_takes_calls_again() -> None:
    async with scene() as now:
        found = []
        for action in ("drain", "resume"):
            assert (await now.post(f"/live/phones/phone-1/{action}")).is_success
            found.append(now.live.is_drained)
        assert found == [True, False]
        assert (await now.post("/live/phones/nobody/drain")).status_code == 409
        assert not now.call.done()


@pytest.mark.slow
async def test_a_listener_hears_both_sides_and_hears_of_the_end() -> None:
    async with scene(Speaks(2.5, 3.5), HangsUp(4.0)) as now:
        address = now.url.replace("http", "ws") + f"{PATH}/listen"
        async with connect(address, additional_headers=WITH_KEY) as line:
            heard = b"".join(await _all_of(line))
    assert line.close_code == 1000
    both = np.frombuffer(heard, dtype="<i2").reshape(-1, 2)
    assert 1.0 <= np.count_nonzero(both[:, 0]) / 8000 <= 1.04  # the caller, whole
    assert 0 < np.count_nonzero(both[:, 1]) / 8000 <= 1.04  # the rest of the greeting
    assert now.operator_events() == [("listen", "ada")]


async def test_a_listener_hears_when_the_phone_half_is_gone() -> None:
    async with scene() as now:
        address = now.url.replace("http", "ws") + f"{PATH}/listen"
        async with connect(address, additional_headers=WITH_KEY) as line:
            await line.recv()
            assert now.link is not None
            now.link.cancel()
            await _all_of(line)
        assert "gone" in (line.close_reason or "")


@pytest.mark.slow
async def test_leaving_ends_the_listening() -> None:
    async with scene() as now:
        address = now.url.replace("http", "ws") + f"{PATH}/listen"
        async with connect(address, additional_headers=WITH_KEY) as line:
            await line.recv()
            await now.shows(lambda calls: calls[0]["num_listeners"] == 1)
        await now.shows(lambda calls: calls[0]["num_listeners"] == 0)


async def test_a_call_that_is_not_there_is_a_conflict_that_says_so() -> None:
    async with scene() as now:
        answer = await now.post("/live/calls/..%2Fetc/hangup")
        assert answer.status_code in (404, 409)
        answer = await now.post("/live/calls/nothing/hangup")
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "not_possible"


@pytest.mark.parametrize(
    "first", ["", "[]", '{"type":"calls","calls":[]}', b"\0\0\0\1abc", "x" * 70_000]
)
async def test_a_stranger_on_the_phones_line_is_let_go(first: str | bytes) -> None:
    async with serving() as url, httpx.AsyncClient(base_url=url) as client:
        async with connect(url.replace("http", "ws") + "/internal/phone") as line:
            await line.send(first)
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(line.recv(), 20)
        assert (await client.get("/live/calls")).json()["data"]["phones"] == []


async def test_junk_after_hello_ends_that_line_alone() -> None:
    async with scene() as now:
        address = now.url.replace("http", "ws") + "/internal/phone"
        async with connect(address) as line:
            await line.send(encode(Hello("phone-2")).decode())
            await line.send(b"odd")
            await _all_of(line)
        assert len(await now.calls()) == 1


async def test_a_slow_listener_loses_the_oldest_and_always_hears_the_end() -> None:
    ears = Ears()
    for number in range(200):
        ears.heard(bytes([number]))
    ears.end("")
    pieces = [piece async for piece in ears.pieces()]
    assert len(pieces) == 49
    assert pieces[-1] == bytes([199])
    assert ears.num_dropped == 151


async def test_heartbeats_and_the_line_name_a_phone_half_alike() -> None:
    async with scene() as now:
        beat = {"name": "phone-1", "interval_s": 5.0, "metrics": ""}
        sent = {**beat, "num_calls": 1, "max_calls": 4}
        assert (await now.client.post("/internal/heartbeat", json=sent)).is_success
        health = (await now.client.get("/health")).json()
        phones = (await now.client.get("/live/calls")).json()["data"]["phones"]
    assert [phone["name"] for phone in health["telephony"]] == ["phone-1"]
    assert [phone["name"] for phone in phones] == ["phone-1"]
