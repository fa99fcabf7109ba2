"""Real Asterisk processes for the tests below, one of each version for the session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.asterisk_lab import Asterisk, AsteriskUnavailable
from tests.end_to_end.bot_service import BotService
from tests.free_port import free_port

Measured = Callable[[str, float], None]
_MEASUREMENTS: dict[str, list[float]] = {}


@pytest.fixture(scope="session")
def measured() -> Measured:
    """Takes a name and seconds; figures are shown, never judged, at the end."""

    def note(name: str, seconds: float) -> None:
        _MEASUREMENTS.setdefault(name, []).append(seconds)

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, seconds in sorted(_MEASUREMENTS.items()):
        figures = " ".join(f"{1000 * value:.0f}" for value in sorted(seconds))
        terminalreporter.write_line(f"measured on real calls: {name}: {figures} ms")


@pytest.fixture(scope="session")
def service_agi_port() -> int:
    """The FastAGI port the lab's dialplan has for its bot; free when the run began."""
    return free_port()


@pytest.fixture(scope="session")
def vicidial_agi_port() -> int:
    """The one that its entries for VICIdial have; mostly nobody listens there."""
    return free_port()


@pytest.fixture(scope="session")
def start_asterisk(
    service_agi_port: int, vicidial_agi_port: int
) -> Iterator[Callable[[int], Asterisk]]:
    """Gives the Asterisk of a major version, started when first asked for."""
    running: dict[int, Asterisk] = {}

    def start(version: int) -> Asterisk:
        try:
            if version not in running:
                running[version] = Asterisk.start(
                    version, service_agi_port, vicidial_agi_port
                )
        except AsteriskUnavailable as exc:
            if os.environ.get("CI"):
                pytest.fail(f"Asterisk {version} is part of the checks here: {exc}")
            pytest.skip(f"no Asterisk {version} on this machine: {exc}")
        return running[version]

    yield start
    for asterisk in running.values():
        asterisk.stop()


@pytest.fixture(scope="session")
def asterisk_16(start_asterisk: Callable[[int], Asterisk]) -> Asterisk:
    """Without AudioSocket: calls take turns by recordings."""
    return start_asterisk(16)


@pytest.fixture(scope="session")
def asterisk_22(start_asterisk: Callable[[int], Asterisk]) -> Asterisk:
    """With AudioSocket."""
    return start_asterisk(22)


@pytest.fixture(scope="session", params=[16, 22])
def asterisk(
    request: pytest.FixtureRequest, start_asterisk: Callable[[int], Asterisk]
) -> Asterisk:
    """Each version in turn."""
    return start_asterisk(request.param)


@pytest.fixture(scope="session")
def service(
    service_agi_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BotService]:
    """The service that the lab's extension `bot` reaches; scripted replies."""
    folder = tmp_path_factory.mktemp("service")
    service = BotService.start(folder, service_agi_port)
    try:
        service.wait_until_ready()
        yield service
    finally:
        status = service.stop()
    assert status == 0, service.log()[-4000:]


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[BotService]:
    """A service of the test's own, to be hurt."""
    with BotService.running(tmp_path) as service:
        yield service
