"""When a call's sound and numbers are kept from recording and record.

There may be several reasons at once; it is secret as long as there is any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from agi_handlers.conversation.call_notes import CallNotes

SecretReason: TypeAlias = Literal["keys", "action", "operator"]

# Speech that began sooner after a key is the key's own tone, or was there before it.
_KEY_TONE_MS: Final = 700


class Secrecy:
    """The state of one call.  Times are milliseconds of the call."""

    def __init__(
        self,
        notes: CallNotes,
        pause_recording: Callable[[bool], None] | None,
        *,
        keys_are_secret: bool,
    ) -> None:
        """`pause_recording`: True: silence, False: sound; None: nothing is recorded."""
        self._notes = notes
        self._pause_recording = pause_recording
        self._keys_are_secret = keys_are_secret
        self._reasons: set[SecretReason] = set()
        self._last_key_ms = 0

    def on_key(self, at_ms: int) -> None:
        """The caller pressed a key; more will follow."""
        self._last_key_ms = at_ms
        if self._keys_are_secret:
            self.keep("keys", at_ms, is_secret=True)

    def on_spoke(self, at_ms: int, began_ms: int) -> None:
        """The caller has said something that began then: no keys any more."""
        if began_ms > self._last_key_ms + _KEY_TONE_MS:
            self.keep("keys", at_ms, is_secret=False)

    def keep(self, why: SecretReason, at_ms: int, *, is_secret: bool) -> None:
        """From now on there is that reason, or there is not."""
        before = bool(self._reasons)
        (self._reasons.add if is_secret else self._reasons.discard)(why)
        now = bool(self._reasons)
        if now == before:
            return
        self._notes.is_secret = now
        if self._pause_recording is not None:
            self._pause_recording(now)
            name = "paused" if now else "resumed"
            self._notes.happened(at_ms, "recording", name, why)
