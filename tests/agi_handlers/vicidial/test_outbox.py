"""The outbox: on disk before it is sent, told once, and nothing stops the calls."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agi_handlers.errors import VicidialUnavailable
from agi_handlers.vicidial.client import VicidialClient, VicidialOptions
from agi_handlers.vicidial.duties import (
    AddComment,
    Duty,
    DutyUnreadable,
    HoldForCallback,
    OptOut,
    ReportEnding,
    ScheduleCallback,
    from_text,
    tell,
    to_text,
)
from agi_handlers.vicidial.outbox import Outbox, OutboxOptions
from agi_handlers.vicidial.outbox_file import OutboxFile, OutboxUnusable
from agi_handlers.vicidial.responses import LoginRefused, Refusal, Refused
from tests.fakes.vicidial import FakeVicidial

ROOT = Path(__file__).resolve().parents[3]
CALL = "V1221015300000001001"
HOLD = HoldForCallback(1001, "CALLBK", "BOTCAMP", "2026-11-23 10:00:00", "later")
DUTIES: tuple[Duty, ...] = (
    OptOut("7275551212"),
    ScheduleCallback(1001, "BOTCAMP", "2026-11-23 10:00:00", "later"),
    ReportEnding(CALL, 1001, "BOTCAMP", "NI"),
    HOLD,
    AddComment(1001, "said hello"),
)
QUICK = OutboxOptions(first_retry_s=0.02, longest_retry_s=0.05, longest_sleep_s=0.05)


@dataclass
class Told:
    """Notes what it is told; fails with each of `errors` first."""

    errors: list[Exception] = field(default_factory=list)
    told: list[tuple[Duty, bool]] = field(default_factory=list)
    attempts: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, duty: Duty, is_late: bool) -> None:
        self.attempts += 1
        self.changed.set()
        if self.errors:
            raise self.errors.pop(0)
        self.told.append((duty, is_late))

    async def until(self, num: int) -> None:
        async with asyncio.timeout(5):
            while len(self.told) < num:
                await self._change()

    async def tried(self, num: int) -> None:
        async with asyncio.timeout(5):
            while self.attempts < num:
                await self._change()

    async def _change(self) -> None:
        self.changed.clear()
        await self.changed.wait()


@asynccontextmanager
async def running(path: Path, told: Told) -> AsyncIterator[Outbox]:
    async with Outbox(path, told, QUICK) as outbox:
        task = asyncio.create_task(outbox.run())
        try:
            yield outbox
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def path(data_dir: Path) -> Path:
    return data_dir / "vicidial-outbox.sqlite"


def waiting(path: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.execute("SELECT kind, given_up FROM duties ORDER BY number"))


async def nothing_waits(outbox: Outbox) -> None:
    async with asyncio.timeout(5):
        while await outbox.num_waiting():  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("duty", DUTIES)
def test_duties_come_back_from_their_text_as_they_were(duty: Duty) -> None:
    assert from_text(*to_text(duty)) == duty


@pytest.mark.parametrize(
    ("kind", "body"), [("Unknown", "{}"), ("OptOut", "{"), ("OptOut", '{"x": 1}')]
)
def test_text_of_another_version_is_a_typed_error(kind: str, body: str) -> None:
    with pytest.raises(DutyUnreadable):
        from_text(kind, body)


async def test_a_duty_is_told_once_and_removed(path: Path) -> None:
    told = Told()
    async with running(path, told) as outbox:
        assert await outbox.tell_now("call-1", DUTIES[0])
        assert await outbox.num_waiting() == 0
    assert told.told == [(DUTIES[0], False)]


async def test_duties_of_a_call_are_told_in_order_in_spite_of_failures(
    path: Path,
) -> None:
    told = Told([VicidialUnavailable("down"), VicidialUnavailable("down")])
    async with running(path, told) as outbox:
        for duty in DUTIES:
            await outbox.put("call-1", duty)
        await told.until(len(DUTIES))
    assert [duty for duty, _ in told.told] == list(DUTIES)


async def test_a_held_duty_waits_and_keeps_its_chain_waiting(path: Path) -> None:
    told = Told()
    async with running(path, told) as outbox:
        held = await outbox.put("call-1", DUTIES[2], hold_s=60)
        await outbox.put("call-1", DUTIES[3])
        await outbox.put("call-2", DUTIES[0])
        await told.until(1)
        assert told.told == [(DUTIES[0], False)]
        await outbox.remove(held)
        await told.until(2)
    assert told.told[1:] == [(DUTIES[3], False)]


async def test_what_vicidial_refuses_is_kept_for_the_operator(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told([Refused("add_dnc_phone", Refusal.PERMISSION, "no permission")])
    async with running(path, told) as outbox:
        assert not await outbox.tell_now("call-1", DUTIES[0])
        await outbox.put("call-1", DUTIES[2])
        await told.until(1)
        await nothing_waits(outbox)  # what was told is removed a moment later
    assert "duty_refused" in caplog.text
    assert waiting(path) == [("OptOut", 1)]


async def test_after_a_refused_login_duties_wait_untouched(path: Path) -> None:
    told = Told([LoginRefused("x") for _ in range(1000)])
    async with running(path, told) as outbox:
        await outbox.put("call-1", DUTIES[0])
        await outbox.put("call-2", DUTIES[0])
        await told.tried(2)
        assert await outbox.num_waiting() == 2
    again = Told()
    async with running(path, again):
        await again.until(2)
    assert [is_late for _, is_late in again.told] == [True, True]


async def test_kill_minus_nine_loses_nothing(path: Path) -> None:
    """A process dies while VICIdial is silent; the next one tells."""
    script = f"""
import asyncio, sys
from pathlib import Path
from agi_handlers.vicidial.duties import ReportEnding
from agi_handlers.vicidial.outbox import Outbox

async def tell(duty, is_late):
    print("sending", flush=True)
    await asyncio.sleep(3600)

async def main():
    async with Outbox(Path({str(path)!r}), tell) as outbox:
        await outbox.tell_now("call-1", ReportEnding({CALL!r}, 1001, "BOTCAMP", "NI"))

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"sending\n"
    process.kill()
    await process.communicate()
    told = Told()
    async with running(path, told):
        await told.until(1)
    assert told.told == [(ReportEnding(CALL, 1001, "BOTCAMP", "NI"), True)]


async def test_out_of_time_a_duty_is_left_to_the_outbox(path: Path) -> None:
    told = Told()
    stuck = asyncio.Event()

    async def stuck_once(duty: Duty, is_late: bool) -> None:
        if not stuck.is_set():
            stuck.set()
            await asyncio.sleep(3600)
        await told(duty, is_late)

    async with Outbox(path, stuck_once, QUICK) as outbox:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await outbox.tell_now("call-1", DUTIES[0])
        task = asyncio.create_task(outbox.run())
        await told.until(1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def corrupt_path(path: Path) -> Path:
    path.write_bytes(b"this is no database, it only has the name of one" * 100)
    return path


async def test_corrupt_file_is_set_aside_and_calls_go_on(
    corrupt_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    async with running(corrupt_path, told) as outbox:
        assert await outbox.tell_now("call-1", DUTIES[0])
        assert await outbox.put("call-1", DUTIES[1]) is not None
        await told.until(2)
    assert "outbox_corrupt" in caplog.text
    assert list(corrupt_path.parent.glob("*.corrupt-*"))


async def test_locked_file_is_one_error_and_the_duty_is_told_all_the_same(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    async with Outbox(path, told, QUICK) as outbox:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert await outbox.tell_now("call-1", DUTIES[0])
            told.errors.append(VicidialUnavailable("down"))
            assert not await outbox.tell_now("call-1", DUTIES[1])
        assert "locked" in str([vars(record) for record in caplog.records])
        assert "duty_lost" in caplog.text
        assert caplog.text.count("outbox_unusable") == 1
        assert await outbox.tell_now("call-1", DUTIES[2])
    assert [duty for duty, _ in told.told] == [DUTIES[0], DUTIES[2]]


def test_full_disk_is_a_clear_error(path: Path) -> None:
    file = OutboxFile(path)
    file.open(0.0)
    assert file._db is not None
    pages = file._db.execute("PRAGMA page_count").fetchone()[0]
    file._db.execute(f"PRAGMA max_page_count={pages}")  # as a full disk looks
    with pytest.raises(OutboxUnusable, match="full"):
        _fill(file)
    file.close()


def _fill(file: OutboxFile) -> None:
    for _ in range(100):
        file.put("call", "OptOut", "x" * 4000, 0.0, 0.0)


async def test_folder_that_cannot_be_made_is_a_clear_error(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (data_dir / "file").write_text("")
    told = Told()
    async with Outbox(data_dir / "file" / "outbox.sqlite", told, QUICK) as outbox:
        assert await outbox.tell_now("call-1", DUTIES[0])
    assert "outbox_unusable" in caplog.text


def test_file_is_for_its_owner_only(path: Path) -> None:
    file = OutboxFile(path)
    file.open(0.0)
    file.close()
    assert path.stat().st_mode & 0o077 == 0


def test_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(OutboxUnusable, match="newer version"):
        OutboxFile(path).open(0.0)


# --- what telling does at VICIdial ----------------------------------------------------


@asynccontextmanager
async def at_vicidial() -> AsyncIterator[tuple[FakeVicidial, VicidialClient]]:
    async with FakeVicidial() as fake:
        fake.db.add_line("7001")
        fake.db.add_lead(1001, "7275551212", comments="old")
        options = VicidialOptions(fake.url, "botapi", "Secret-Pass_1")
        async with VicidialClient(options) as client:
            yield fake, client


async def test_every_duty_can_be_told_twice() -> None:
    async with at_vicidial() as (fake, client):
        fake.db.give_call(CALL, 1001)
        for duty in DUTIES:
            for _ in range(2):
                await tell(client, duty, is_late=False)
        assert fake.db.log[CALL].status == "NI"
        assert fake.db.dnc == {("7275551212", "SYSTEM_INTERNAL")}
        assert fake.db.leads["1001"]["comments"] == "old / said hello"


async def test_group_that_is_not_known_is_asked_for() -> None:
    async with at_vicidial() as (fake, client):
        fake.db.give_call(CALL, 1001)
        await tell(client, ReportEnding(CALL, 1001, "", "NI"), is_late=False)
        assert fake.db.log[CALL].status == "NI"


async def test_late_report_gives_way_to_a_later_call() -> None:
    async with at_vicidial() as (fake, client):
        fake.db.give_call(CALL, 1001)
        fake.db.leads["1001"]["status"] = "SALE"
        await tell(client, ReportEnding(CALL, 1001, "", "NI"), is_late=True)
        assert fake.db.log[CALL].status == "NI"
        assert fake.db.leads["1001"]["status"] == "SALE"
        fake.db.leads["1001"]["status"] = "DROP"
        await tell(client, ReportEnding(CALL, 1001, "", "NI"), is_late=True)
        assert fake.db.leads["1001"]["status"] == "NI"


async def test_after_a_transfer_the_leads_status_is_the_humans() -> None:
    async with at_vicidial() as (fake, client):
        fake.db.give_call(CALL, 1001)
        fake.db.leads["1001"]["status"] = "SALE"
        duty = ReportEnding(CALL, 1001, "BOTCAMP", "XFERA", sets_lead=False)
        await tell(client, duty, is_late=False)
        assert fake.db.leads["1001"]["status"] == "SALE"
        assert fake.db.log[CALL].status == "XFERA"


async def test_hold_comes_only_after_the_callbacks_own_status() -> None:
    async with at_vicidial() as (fake, client):
        await tell(client, HOLD, is_late=False)
        assert fake.db.leads["1001"]["status"] == "NEW"
        fake.db.leads["1001"]["status"] = "CALLBK"
        await tell(client, HOLD, is_late=False)
        assert fake.db.leads["1001"]["status"] == "CBHOLD"


async def test_comments_keep_the_newest_when_there_is_no_room() -> None:
    async with at_vicidial() as (fake, client):
        fake.db.leads["1001"]["comments"] = "x" * 250
        await tell(client, AddComment(1001, "wants a call"), is_late=False)
        kept = fake.db.leads["1001"]["comments"]
        assert len(kept) == 255
        assert kept.endswith("xx / wants a call")


async def test_what_people_wrote_keeps_its_letters() -> None:
    async with at_vicidial() as (fake, client):
        fake.db.leads["1001"]["comments"] = "Se\u00f1ora Mu\u00f1oz & son <2>"
        await tell(client, AddComment(1001, "bot: wants a call"), is_late=False)
        kept = fake.db.leads["1001"]["comments"]
        assert kept == "Se\u00f1ora Mu\u00f1oz & son <2> / bot: wants a call"
        fake.db.leads["1001"]["comments"] = "\u00f1" * 127
        await tell(client, AddComment(1001, "bot: again"), is_late=False)
        kept = fake.db.leads["1001"]["comments"]
        assert len(kept.encode()) <= 255
        assert kept.endswith("\u00f1 / bot: again")


async def test_lead_is_never_held_without_a_callback() -> None:
    """A lead in CBHOLD that has no callback would not be called again, ever."""
    async with at_vicidial() as (fake, client):
        fake.db.leads["1001"]["status"] = "CALLBK"
        fake.db.refuses_callbacks = True
        with pytest.raises((Refused, VicidialUnavailable)):
            await tell(client, HOLD, is_late=False)
        assert fake.db.leads["1001"]["status"] == "CALLBK"
        fake.db.refuses_callbacks = False
        await tell(client, HOLD, is_late=False)
        assert fake.db.callbacks["1001"]["callback_datetime"] == HOLD.at
        assert fake.db.leads["1001"]["status"] == "CBHOLD"
