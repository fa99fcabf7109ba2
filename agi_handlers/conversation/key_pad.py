"""Keys that the caller presses, collected into a number; pure."""

from __future__ import annotations

from typing import Final

# Longer than any account or card number: what comes behind it is a stuck key.
MAX_KEYS: Final = 32


class KeyPad:
    """The keys of one number so far."""

    __slots__ = ("_keys", "_last_ms", "_timeout_ms")

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._keys = ""
        self._last_ms = 0

    @property
    def is_empty(self) -> bool:
        return not self._keys

    def press(self, at_ms: int, key: str) -> None:
        """One key more; a flood of them is cut off."""
        self._last_ms = at_ms
        if len(self._keys) < MAX_KEYS:
            self._keys += key

    def due_ms(self) -> int | None:
        """When the number counts as whole; None: no key was pressed."""
        return self._last_ms + self._timeout_ms if self._keys else None

    def take(self) -> str:
        """The number, which is then forgotten."""
        keys, self._keys = self._keys, ""
        return keys
