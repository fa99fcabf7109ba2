"""What a service lives on fails: voices, files, disk, log, clock."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from agi_handlers.call_records import records_path
from tests.end_to_end.bot_service import BotService
from tests.faults.callers import QUESTION, heard

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

_SATISFIED = (*QUESTION, "wait:200,1.0", "bye")
_PIPE_BYTES = 65536
_FIRST_LINES_BYTES = 4096  # the key that is shown once must get through
_LIBFAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BotService]:
    """One for all: every test must leave it as well as it was."""
    with BotService.running(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
async def well(service: BotService) -> AsyncIterator[BotService]:
    """The service; the next call after the test must be served."""
    yield service
    await service.becomes("ready")
    after = await heard(service, _SATISFIED)
    assert after.status == "hangup", after.report
    assert after.wait_s < 4


def _voices(service: BotService) -> list[psutil.Process]:
    """The synthesiser's processes."""
    return [
        child
        for half in service.speech_halves()
        for child in half.children(recursive=True)
        if any("espeak_worker" in word for word in child.cmdline())
    ]


async def test_voices_killed(well: BotService) -> None:
    """They are started again in the time that the caller speaks."""
    call = asyncio.create_task(heard(well, _SATISFIED))
    await asyncio.sleep(2.2)
    killed = _voices(well)
    assert killed
    for process in killed:
        process.kill()
    served = await call
    assert served.status == "hangup", served.report
    assert served.wait_s < 4


async def test_voices_frozen(well: BotService) -> None:
    """A filler comes from a file; then, with no voice, people."""
    call = asyncio.create_task(heard(well, QUESTION, linger_s=15.0))
    await asyncio.sleep(2.2)
    for process in _voices(well):
        process.suspend()
    unserved = await call
    assert unserved.wait_s < 4
    assert unserved.longest_wait_s < 10
    assert unserved.status == "hangup" or not unserved.is_well_ended


async def test_no_file_descriptors_left(well: BotService) -> None:
    """New calls are refused at once; the one that is under way doesn't notice."""
    running = asyncio.create_task(heard(well, _SATISFIED))
    await asyncio.sleep(2.2)
    (phone_half,) = well.phone_halves()
    before = resource.prlimit(phone_half.pid, resource.RLIMIT_NOFILE)
    # a connection fits in, its call does not
    room = _lowest_free(phone_half.pid) + 1
    resource.prlimit(phone_half.pid, resource.RLIMIT_NOFILE, (room, before[1]))
    try:
        late = await asyncio.gather(*(heard(well, max_s=10.0) for _ in range(4)))
        # whichever come first may share what is left
        refused = [call for call in late if call.status != "hangup"]
        assert refused
        assert not any(call.is_well_ended for call in refused)
        assert max(call.returned_s for call in refused) < 4
        assert (await running).status == "hangup"
    finally:
        resource.prlimit(phone_half.pid, resource.RLIMIT_NOFILE, before)


async def test_records_locked(well: BotService) -> None:
    """Somebody backs the file up, for too long: rows wait, calls don't."""
    path = records_path(well.data_dir)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        served = await heard(well, _SATISFIED)
        assert served.status == "hangup"
        assert served.wait_s < 4
        await well.logged("records_not_written", timeout_s=30)
        other.execute("ROLLBACK")
    await well.logged("records_written_again", timeout_s=30)
    with contextlib.closing(sqlite3.connect(path)) as db:
        call_id = served.report.variables["BOT_CALL_ID"]
        found = db.execute(
            "SELECT status FROM calls WHERE call_id = ?", (call_id,)
        ).fetchone()
    assert found == ("caller_hung_up",)


def _lowest_free(pid: int) -> int:
    """The number that the next descriptor of a process gets."""
    used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in itertools.count() if number not in used)


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A disk of half a megabyte."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_disk_full(tmp_path: Path) -> None:
    """Neither record nor recording has room; the call has all it needs."""
    with _small_disk(tmp_path / "disk") as disk:
        settings = {
            "DATA_DIR": str(disk / "data"),
            "RECORDINGS": "true",
            "RECORDINGS_MIN_FREE_MB": "0",
        }
        service = BotService.start(tmp_path, settings=settings)
        try:
            await asyncio.to_thread(service.wait_until_ready)
            call = asyncio.create_task(heard(service, _SATISFIED))
            await asyncio.sleep(1.5)
            filling = disk / "filling"
            with contextlib.suppress(OSError), filling.open("wb", 0) as file:
                while True:
                    file.write(bytes(1024))
            served = await call
            assert served.status == "hangup", served.report
            assert served.wait_s < 4
            await service.logged("records_not_written", timeout_s=30)
            assert "not written" in await asyncio.to_thread(service.health)
            filling.unlink()
            await service.logged("records_written_again", timeout_s=30)
        finally:
            await asyncio.to_thread(service.stop)


async def test_disk_read_only(tmp_path: Path) -> None:
    """A disk with errors is mounted read-only, and the service is started again."""
    with _small_disk(tmp_path / "disk") as disk:
        settings = {"DATA_DIR": str(disk / "data")}
        first = BotService.start(tmp_path, settings=settings)
        try:
            await asyncio.to_thread(first.wait_until_ready)
        finally:
            await asyncio.to_thread(first.stop)
        _mount_again(disk, "ro")
        service = BotService.start(tmp_path, settings=settings)
        try:
            await asyncio.to_thread(service.wait_until_ready)
            served = await heard(service, _SATISFIED)
            assert served.status == "hangup", served.report
            assert served.wait_s < 4
            await service.logged("records_not_written", timeout_s=30)
            assert "not written" in await asyncio.to_thread(service.health)
            _mount_again(disk, "rw")
            await service.logged("records_written_again", timeout_s=30)
        finally:
            await asyncio.to_thread(service.stop)


def _mount_again(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


async def test_nobody_reads_the_log(tmp_path: Path) -> None:
    """The pipe to a log collector that hangs is full soon after the start."""
    reader, writer = os.pipe()
    os.write(writer, bytes(_PIPE_BYTES - _FIRST_LINES_BYTES))
    service = BotService.start(tmp_path, log_fd=writer)
    os.close(writer)
    try:
        await asyncio.to_thread(service.wait_until_ready)
        served = await heard(service, _SATISFIED)
        assert served.status == "hangup", served.report
        assert served.wait_s < 4
        await asyncio.to_thread(service.stop)  # ends in time, the log still stuck
    finally:
        os.close(reader)
        await asyncio.to_thread(service.stop)


@pytest.mark.skipif(
    _LIBFAKETIME is None, reason="Debian's package libfaketime is not installed"
)
@pytest.mark.parametrize("jump", ["+2h", "-2h"])
async def test_clock_jumps_in_mid_call(tmp_path: Path, jump: str) -> None:
    """Timers follow the monotonic clock: only dates change."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environ = {
        "LD_PRELOAD": str(_LIBFAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    service = BotService.start(tmp_path, environ=environ)
    try:
        await asyncio.to_thread(service.wait_until_ready)
        call = asyncio.create_task(heard(service, _SATISFIED))
        await asyncio.sleep(2.2)
        clock.write_text(jump)
        served = await call
        assert served.status == "hangup", served.report
        assert served.wait_s < 4
        await service.becomes("ready")
        assert served.record is not None
        assert served.record["ended_at"] >= served.record["started_at"]
    finally:
        await asyncio.to_thread(service.stop)
