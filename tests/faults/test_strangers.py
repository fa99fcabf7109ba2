"""Somebody who means harm: names that are commands, ports held open, floods, junk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.bot_service import BotService
from tests.faults.callers import QUESTION, heard
from tools.caller.agi_wire import Channel, environment_block

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

_SATISFIED = (*QUESTION, "wait:200,1.0", "bye")
_NUM_STRANGERS = 300
_LET_GO_S = 12.0  # no port waits longer for a stranger's next byte


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BotService]:
    with BotService.running(tmp_path_factory.mktemp("service")) as service:
        yield service


def _names(mark: Path) -> list[str]:
    """Callers' names; each would leave `mark` behind, or a forged line."""
    return [
        f"${{SHELL(touch {mark})}}",
        f"$(touch {mark})`touch {mark}`",
        f'"; touch {mark}; echo "',
        f"'|touch {mark}|'",
        f'x" "y"\rEXEC System "touch {mark}"',
        "<script>document.title='owned'</script>",
        '=HYPERLINK("http://example.invalid")',
        '\x1b[2J{"event": "forged", "level": "ERROR"}',
        "{instructions} {0} %s %(x)s ${EXTEN}",
        "\N{PILE OF POO}" * 300,
        "\udcff\x00\x7f".encode("utf-8", "surrogateescape").decode("latin-1"),
    ]


async def test_names_stay_names(service: BotService, tmp_path: Path) -> None:
    mark = tmp_path / "owned"
    names = _names(mark)
    calls = await asyncio.gather(
        *(
            heard(
                service,
                _SATISFIED,
                about=Channel(calleridname=name, callerid=name, uniqueid=f"{n}.{n}"),
            )
            for n, name in enumerate(names, 1)
        )
    )
    assert [call.status for call in calls] == ["hangup"] * len(names)
    assert not mark.exists()
    for call in calls:
        assert not any("${" in value for value in call.report.variables.values())
        assert call.record is not None
    log = service.log()
    assert "\x1b" not in log
    assert service.events("forged") == []
    started = [json.loads(x) for x in log.splitlines() if '"call_started"' in x]
    assert len(started) >= len(names)


@contextlib.asynccontextmanager
async def _strangers(
    port: int, first: bytes
) -> AsyncIterator[list[asyncio.Task[float]]]:
    """Connections that say `first` and no more; each task's result: let go after."""

    async def hold() -> float:
        began_s = time.monotonic()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return 0.0
        try:
            writer.write(first)
            with contextlib.suppress(ConnectionError):
                await reader.read()
        finally:
            writer.close()
        return time.monotonic() - began_s

    tasks = [asyncio.create_task(hold()) for _ in range(_NUM_STRANGERS)]
    await asyncio.sleep(0.5)
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("which", ["agi", "audio", "http"])
async def test_a_call_is_served_among_strangers_who_hold_a_port_open(
    service: BotService, which: str
) -> None:
    port, first = {
        "agi": (service.agi_port, b"agi_network: yes\nagi_network_script: ultra"),
        "audio": (service.audio_port, b"\x01\x00"),
        "http": (service.http_port, b"GET /health HTTP/1.1\r\nX-Slow: "),
    }[which]
    async with _strangers(port, first) as strangers:
        served = await heard(service, _SATISFIED)
        assert served.status == "hangup", served.report
        assert served.wait_s < 4
        async with asyncio.timeout(_LET_GO_S + 15):
            held_s = await asyncio.gather(*strangers)
    assert max(held_s) < _LET_GO_S + 3
    await service.becomes("ready")


async def test_junk_ends_only_its_own_connection(service: BotService) -> None:
    ports = (service.agi_port, service.audio_port, service.http_port)
    chance = random.Random(7)

    async def throw(port: int) -> None:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                writer.write(chance.randbytes(chance.randrange(1, 5000)))
                await writer.drain()
            writer.close()

    call = asyncio.create_task(heard(service, _SATISFIED))
    for _ in range(40):
        await asyncio.gather(*(throw(port) for port in ports for _ in range(5)))
        await asyncio.sleep(0.1)
    served = await call
    assert served.status == "hangup", served.report
    assert "Traceback" not in service.log()


async def test_more_calls_than_lines_are_told_at_once(service: BotService) -> None:
    """A hundred dialogues at once that want what isn't there: each gets its answer."""

    async def ask(script: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.agi_port)
        url = f"agi://127.0.0.1/{script}"
        writer.write(environment_block(Channel(), url, script))
        status = ""
        try:
            while line := await reader.readline():
                if b"BOT_STATUS" in line:
                    status = line.decode().split()[3].strip('"')
                writer.write(b"200 result=1\n")
        finally:
            writer.close()
        return status

    async with asyncio.timeout(20):
        answers = await asyncio.gather(
            *(ask("no_such_script") for _ in range(50)),
            *(ask("ultravox?campaign=../../etc/passwd") for _ in range(50)),
        )
    assert set(answers[:50]) == {"unknown_script"}
    assert set(answers[50:]) == {"failed"}
