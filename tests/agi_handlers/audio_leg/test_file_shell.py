"""The file shell: its script run by bash, its faults, and that it leaves nothing."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agi_handlers.agi.connection import AgiConnection
from agi_handlers.audio_leg.file_exchange import FileExchangeFailed
from agi_handlers.audio_leg.file_shell import (
    FileShell,
    FileShellOptions,
    open_file_shell,
)
from agi_handlers.audio_leg.media_port import MediaPort
from agi_handlers.errors import AudioLegUnavailable
from tests.fakes.asterisk import Answer, FakeAsterisk, connected_agi
from tests.fakes.asterisk_shell import exec_agi, exec_agi_without_shell, shell_words


@asynccontextmanager
async def dialogue(
    answer: Answer = exec_agi, status: str = "SUCCESS"
) -> AsyncIterator[tuple[AgiConnection, FakeAsterisk]]:
    agi, asterisk = await connected_agi(
        responses={"EXEC AGI": answer}, variables={"AGISTATUS": status}
    )
    try:
        yield agi, asterisk
    finally:
        await agi.close()
        await asterisk.aclose()


@asynccontextmanager
async def open_shell(
    media_port: MediaPort,
    folder: Path,
    answer: Answer = exec_agi,
    options: FileShellOptions | None = None,
) -> AsyncIterator[FileShell]:
    options = replace(options or FileShellOptions(), folder=str(folder))
    async with (
        dialogue(answer) as (agi, _),
        open_file_shell(
            agi, media_port, host="127.0.0.1", port=media_port.port, options=options
        ) as shell,
    ):
        yield shell


async def until(condition: Callable[[], bool]) -> None:
    """Until the shell, a process of its own, has done something."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the file system has no event
            await asyncio.sleep(0.005)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def until_empty(folder: Path) -> None:
    await until(lambda: not names_in(folder))


async def test_a_file_goes_there_and_back_unchanged(
    media_port: MediaPort, tmp_path: Path
) -> None:
    ulaw = bytes(range(256)) * 300  # every byte value, line ends and NUL included
    async with open_shell(media_port, tmp_path) as shell:
        name = shell.new_name()
        await shell.put(name, ulaw)
        assert (tmp_path / f"{name}.ulaw").read_bytes() == ulaw
        assert shell.path_for_asterisk(name) == str(tmp_path / name)
        assert await shell.get(name) == ulaw
        await shell.put(name, b"")
        assert await shell.get(name) == b""
        await shell.remove(name)
        with pytest.raises(FileExchangeFailed, match="not on the Asterisk host"):
            await shell.get(name)


async def test_nothing_is_left_on_the_asterisk_host_when_the_call_ends(
    media_port: MediaPort, tmp_path: Path
) -> None:
    async with open_shell(media_port, tmp_path) as shell:
        await shell.put(shell.new_name(), b"x")
        # a recording that Asterisk wrote and nobody fetched
        (tmp_path / f"{shell.new_name()}.ulaw").write_bytes(b"x")
    await until_empty(tmp_path)


async def test_files_are_for_the_asterisk_user_only(
    media_port: MediaPort, tmp_path: Path
) -> None:
    async with open_shell(media_port, tmp_path) as shell:
        name = shell.new_name()
        await shell.put(name, b"x")
        assert (tmp_path / f"{name}.ulaw").stat().st_mode & 0o777 == 0o600
    await until_empty(tmp_path)


async def test_old_leftovers_of_crashed_calls_are_swept(
    media_port: MediaPort, tmp_path: Path
) -> None:
    old_s = time.time() - 3 * 3600
    for name in ("ultravox-old-1.ulaw", "other.ulaw"):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (old_s, old_s))
    (tmp_path / "ultravox-running-1.ulaw").write_bytes(b"x")
    async with open_shell(media_port, tmp_path):
        pass
    await until(lambda: not (tmp_path / "ultravox-old-1.ulaw").exists())
    assert names_in(tmp_path) == {"other.ulaw", "ultravox-running-1.ulaw"}


async def test_requests_of_several_tasks_do_not_mix(
    media_port: MediaPort, tmp_path: Path
) -> None:
    async with open_shell(media_port, tmp_path) as shell:
        contents = [bytes((n,)) * (n * 997) for n in range(12)]
        names = [shell.new_name() for _ in contents]
        async with asyncio.TaskGroup() as tasks:
            for name, ulaw in zip(names, contents, strict=True):
                tasks.create_task(shell.put(name, ulaw))
        async with asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(shell.get(name)) for name in names]
        assert [task.result() for task in reading] == contents


async def test_a_full_disk_is_a_clear_error_and_the_shell_goes_on(
    media_port: MediaPort, tmp_path: Path
) -> None:
    async def with_little_room(words: list[str]) -> str:
        program, flag, script = shell_words(words)
        return await exec_agi([*words[:2], f"{program},{flag},ulimit -f 8;{script}"])

    async with open_shell(media_port, tmp_path, with_little_room) as shell:
        with pytest.raises(FileExchangeFailed, match="8192 of 200000 bytes"):
            await shell.put(shell.new_name(), bytes(200_000))
        other = shell.new_name()
        await shell.put(other, b"\n\n")
        assert await shell.get(other) == b"\n\n"
    await until_empty(tmp_path)


async def test_a_file_that_cannot_be_written_is_a_clear_error_and_the_shell_goes_on(
    media_port: MediaPort, tmp_path: Path
) -> None:
    async with open_shell(media_port, tmp_path) as shell:
        name = shell.new_name()
        (tmp_path / f"{name}.ulaw").mkdir()
        with pytest.raises(FileExchangeFailed, match="0 of 200000 bytes"):
            await shell.put(name, b"\n" * 200_000)
        (tmp_path / f"{name}.ulaw").rmdir()
        await shell.put(name, b"abc")
        assert await shell.get(name) == b"abc"
    await until_empty(tmp_path)


async def test_a_request_that_is_cancelled_spoils_the_shell_and_says_so(
    media_port: MediaPort, tmp_path: Path
) -> None:
    async with open_shell(media_port, tmp_path) as shell:
        name = shell.new_name()
        await shell.put(name, b"abc")
        reading = asyncio.create_task(shell.get(name))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        with pytest.raises(FileExchangeFailed, match="got no answer"):
            await shell.get(name)
        await shell.remove(name)
    await until_empty(tmp_path)


async def test_a_shell_that_dies_is_a_clear_error(
    media_port: MediaPort, tmp_path: Path
) -> None:
    options = FileShellOptions(idle_s=1)
    async with open_shell(media_port, tmp_path, options=options) as shell:
        await shell._connection._reader.read()  # it gave up: nothing was asked of it
        with pytest.raises(FileExchangeFailed, match="file connection broken"):
            await shell.put(shell.new_name(), b"x")


async def test_a_file_beyond_the_limit_is_refused(
    media_port: MediaPort, tmp_path: Path
) -> None:
    options = FileShellOptions(max_file_bytes=10)
    async with open_shell(media_port, tmp_path, options=options) as shell:
        name = shell.new_name()
        await shell.put(name, bytes(11))
        with pytest.raises(FileExchangeFailed, match="file of 11 bytes"):
            await shell.get(name)
    await until_empty(tmp_path)


@pytest.mark.parametrize("folder", ["missing", "file"])
async def test_a_folder_that_is_none_makes_it_unavailable(
    media_port: MediaPort, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AudioLegUnavailable, match="may write to"):
        async with open_shell(media_port, tmp_path / folder):
            pass
    assert names_in(tmp_path) == {"file"}


async def test_no_shell_on_the_asterisk_host_is_seen_at_once(
    media_port: MediaPort, tmp_path: Path
) -> None:
    options = FileShellOptions(folder=str(tmp_path), connect_timeout_s=60.0)
    async with dialogue(exec_agi_without_shell, "NOTFOUND") as (agi, _):
        with pytest.raises(AudioLegUnavailable, match="AGISTATUS=NOTFOUND"):
            async with open_file_shell(
                agi, media_port, host="127.0.0.1", port=media_port.port, options=options
            ):
                pass


async def test_a_shell_that_cannot_connect_is_not_waited_for_by_agi(
    media_port: MediaPort, tmp_path: Path
) -> None:
    options = FileShellOptions(folder=str(tmp_path), connect_timeout_s=0.05)
    async with dialogue() as (agi, asterisk):
        with pytest.raises(
            AudioLegUnavailable, match=r"no connection to 127\.0\.0\.1:1 "
        ):
            async with open_file_shell(
                agi, media_port, host="127.0.0.1", port=1, options=options
            ):
                pass
        assert asterisk.commands[-1] == "GET VARIABLE AGISTATUS"


async def test_the_command_fits_an_agi_line_with_the_longest_settings(
    media_port: MediaPort,
) -> None:
    sent: list[str] = []

    async def note(words: list[str]) -> str:
        sent.append(shell_words(words)[2])
        return "200 result=0"

    options = FileShellOptions(folder="/" + "d" * 255, connect_timeout_s=0.01)
    async with dialogue(note) as (agi, _):
        with pytest.raises(AudioLegUnavailable):
            async with open_file_shell(
                agi, media_port, host="h" * 253, port=65535, options=options
            ):
                pass
    assert len(sent[0]) < 1900
