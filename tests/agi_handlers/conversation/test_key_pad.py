"""Keys become a number, and a flood of them does not."""

from __future__ import annotations

from agi_handlers.conversation.key_pad import MAX_KEYS, KeyPad


def test_a_number_is_whole_when_no_key_follows_in_time() -> None:
    pad = KeyPad(timeout_ms=2000)
    assert pad.due_ms() is None
    for index, key in enumerate("4711"):
        pad.press(1000 * index, key)
    assert pad.due_ms() == 5000
    assert pad.take() == "4711"
    assert pad.is_empty
    assert pad.take() == ""


def test_a_stuck_key_fills_no_memory() -> None:
    pad = KeyPad(timeout_ms=2000)
    for at_ms in range(10_000):
        pad.press(at_ms, "5")
    assert pad.due_ms() == 11_999
    assert pad.take() == "5" * MAX_KEYS
