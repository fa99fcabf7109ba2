"""What is remembered of dialers, and for how long."""

from __future__ import annotations

from agi_handlers.audio_leg.dialer_memory import _MAX_ENTRIES, DialerMemory


def test_a_remark_belongs_to_one_dialer_and_one_subject() -> None:
    memory = DialerMemory(60.0)
    memory.remember("10.0.0.1", "eagi", "no shell")
    assert memory.recall("10.0.0.1", "eagi") == "no shell"
    assert memory.recall("10.0.0.2", "eagi") is None
    assert memory.recall("10.0.0.1", "audiosocket") is None


def test_the_latest_remark_counts() -> None:
    memory = DialerMemory(60.0)
    memory.remember("10.0.0.1", "eagi", "one")
    memory.remember("10.0.0.1", "eagi", "two")
    assert memory.recall("10.0.0.1", "eagi") == "two"


def test_a_remark_is_forgotten_in_time() -> None:
    memory = DialerMemory(0.0)
    memory.remember("10.0.0.1", "eagi", "no shell")
    assert memory.recall("10.0.0.1", "eagi") is None


def test_memory_stays_bounded_and_drops_the_oldest() -> None:
    memory = DialerMemory(60.0)
    for number in range(_MAX_ENTRIES + 1):
        memory.remember(f"dialer{number}", "eagi", "x")
    assert memory.recall("dialer0", "eagi") is None
    assert memory.recall(f"dialer{_MAX_ENTRIES}", "eagi") == "x"
