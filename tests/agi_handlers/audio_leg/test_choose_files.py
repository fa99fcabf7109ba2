"""Where sound files go: a folder is believed when Asterisk has proved it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agi_handlers.agi.connection import AgiConnection
from agi_handlers.audio_leg.choose_files import FileChooser, MediaAddress
from agi_handlers.audio_leg.file_exchange import SharedFolder
from agi_handlers.audio_leg.file_shell import FileShell, FileShellOptions
from agi_handlers.audio_leg.media_port import MediaPort
from agi_handlers.errors import AudioLegUnavailable, ChannelGone
from tests.fakes.asterisk import Answer, FakeAsterisk, connected_agi
from tests.fakes.asterisk_shell import exec_agi, exec_agi_without_shell


class Host:
    """The Asterisk host: what its file system lets Asterisk do."""

    def __init__(self, *, can_read: bool = True, can_write: bool = True) -> None:
        self.can_read = can_read
        self.can_write = can_write

    @property
    def responses(self) -> dict[str, Answer]:
        return {
            "STREAM FILE": self._stream,
            "RECORD FILE": self._record,
            "EXEC AGI": exec_agi,
        }

    def _stream(self, words: list[str]) -> str:
        if self.can_read and Path(words[2] + ".ulaw").exists():
            return "200 result=0 endpos=160"
        return "200 result=-1 endpos=0"

    def _record(self, words: list[str]) -> str:
        if not self.can_write:
            return "200 result=-1 (writefile)"
        Path(words[2] + ".ulaw").write_bytes(b"\xff" * 320)
        return "200 result=0 (timeout) endpos=320"


@asynccontextmanager
async def dialogue(
    responses: dict[str, Answer], *, dialer: str = "127.0.0.1"
) -> AsyncIterator[tuple[AgiConnection, FakeAsterisk]]:
    agi, asterisk = await connected_agi(responses=responses)
    agi.peer_host, agi.local_host = dialer, "127.0.0.1"
    try:
        yield agi, asterisk
    finally:
        await agi.close()
        await asterisk.aclose()


def chooser(
    media_port: MediaPort,
    tmp_path: Path,
    *,
    shared: bool = False,
    exchange: bool = False,
    keep_s: float = 60.0,
) -> FileChooser:
    shell_dir = tmp_path / "asterisk"
    shell_dir.mkdir(exist_ok=True)
    shared_dir = tmp_path / "shared"
    if shared:
        shared_dir.mkdir(exist_ok=True)
    return FileChooser(
        media_port,
        shared_dir=shared_dir if shared else None,
        exchange_dir=tmp_path / "exchange" if exchange else None,
        shell=FileShellOptions(folder=str(shell_dir), connect_timeout_s=1.0),
        keep_s=keep_s,
    )


def address_of(media_port: MediaPort) -> MediaAddress:
    return MediaAddress("127.0.0.1", media_port.port)


async def kind_opened(
    files: FileChooser, media_port: MediaPort, agi: AgiConnection
) -> type:
    async with files.open_files(agi, address_of(media_port)) as opened:
        await opened.put(opened.new_name(), b"x")
        return type(opened)


async def test_a_shared_folder_is_used_once_asterisk_has_proved_it(
    media_port: MediaPort, tmp_path: Path
) -> None:
    files = chooser(media_port, tmp_path, shared=True)
    async with dialogue(Host().responses, dialer="10.1.1.5") as (agi, asterisk):
        assert await kind_opened(files, media_port, agi) is SharedFolder
        num_commands = len(asterisk.commands)
        assert num_commands == 2
        assert await kind_opened(files, media_port, agi) is SharedFolder
        assert len(asterisk.commands) == num_commands, "proved already"
    assert not any((tmp_path / "shared").iterdir())


async def test_the_exchange_folder_is_used_for_an_asterisk_on_this_host(
    media_port: MediaPort, tmp_path: Path
) -> None:
    files = chooser(media_port, tmp_path, exchange=True)
    async with dialogue(Host().responses) as (agi, _):
        assert await kind_opened(files, media_port, agi) is SharedFolder


@pytest.mark.parametrize(
    "host", [Host(can_read=False), Host(can_write=False)], ids=["read", "write"]
)
async def test_a_folder_asterisk_cannot_use_is_replaced_by_the_shell(
    media_port: MediaPort, tmp_path: Path, host: Host
) -> None:
    files = chooser(media_port, tmp_path, exchange=True)
    async with dialogue(host.responses) as (agi, asterisk):
        assert await kind_opened(files, media_port, agi) is FileShell
        num_tries = sum("STREAM FILE" in line for line in asterisk.commands)
        assert await kind_opened(files, media_port, agi) is FileShell
        assert num_tries == sum("STREAM FILE" in line for line in asterisk.commands)


async def test_the_exchange_folder_is_not_tried_with_a_remote_asterisk(
    media_port: MediaPort, tmp_path: Path
) -> None:
    files = chooser(media_port, tmp_path, exchange=True)
    async with dialogue(Host().responses, dialer="10.1.1.5") as (agi, asterisk):
        assert await kind_opened(files, media_port, agi) is FileShell
        assert not any("STREAM FILE" in line for line in asterisk.commands)


async def test_a_shared_folder_that_is_missing_is_replaced_by_the_shell(
    media_port: MediaPort, tmp_path: Path
) -> None:
    files = chooser(media_port, tmp_path, shared=True)
    (tmp_path / "shared").rmdir()
    async with dialogue(Host().responses) as (agi, _):
        assert await kind_opened(files, media_port, agi) is FileShell


async def test_asterisk_is_told_an_absolute_path(
    media_port: MediaPort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = FileChooser(
        media_port,
        shared_dir=None,
        exchange_dir=Path("exchange"),
        shell=FileShellOptions(),
        keep_s=60.0,
    )
    async with (
        dialogue(Host().responses) as (agi, _),
        files.open_files(agi, address_of(media_port)) as opened,
    ):
        path = opened.path_for_asterisk("name")
    assert path == str(tmp_path / "exchange" / "name")


async def test_a_repaired_folder_is_used_after_some_time(
    media_port: MediaPort, tmp_path: Path
) -> None:
    host = Host(can_write=False)
    files = chooser(media_port, tmp_path, exchange=True, keep_s=0.0)
    async with dialogue(host.responses) as (agi, _):
        assert await kind_opened(files, media_port, agi) is FileShell
        host.can_write = True
        assert await kind_opened(files, media_port, agi) is SharedFolder


async def test_neither_folder_nor_shell_is_unavailable(
    media_port: MediaPort, tmp_path: Path
) -> None:
    files = FileChooser(
        media_port,
        shared_dir=None,
        exchange_dir=None,
        shell=FileShellOptions(connect_timeout_s=0.05),
        keep_s=60.0,
    )
    responses: dict[str, Answer] = {"EXEC AGI": exec_agi_without_shell}
    async with dialogue(responses) as (agi, _):
        with pytest.raises(AudioLegUnavailable, match="file transfer"):
            await kind_opened(files, media_port, agi)


async def test_a_shell_that_failed_is_not_waited_for_a_second_time(
    media_port: MediaPort, tmp_path: Path
) -> None:
    files = chooser(media_port, tmp_path)
    responses: dict[str, Answer] = {"EXEC AGI": exec_agi}
    async with dialogue(responses) as (agi, asterisk):
        address = MediaAddress("127.0.0.1", 1)  # nobody listens there
        for _ in range(2):
            with pytest.raises(AudioLegUnavailable, match="no connection"):
                async with files.open_files(agi, address):
                    pass
        assert sum("EXEC AGI" in line for line in asterisk.commands) == 1


async def test_a_caller_who_leaves_during_the_proof_says_nothing_of_the_folder(
    media_port: MediaPort, tmp_path: Path
) -> None:
    files = chooser(media_port, tmp_path, exchange=True)
    async with dialogue(Host(can_read=False).responses) as (agi, asterisk):
        asterisk.is_hung_up = True
        with pytest.raises(ChannelGone):
            await kind_opened(files, media_port, agi)
    async with dialogue(Host().responses) as (agi, _):
        assert await kind_opened(files, media_port, agi) is SharedFolder


def test_an_ipv6_address_is_written_with_brackets() -> None:
    assert str(MediaAddress("::1", 9092)) == "[::1]:9092"
    assert str(MediaAddress("bot.example", 9092)) == "bot.example:9092"
