"""Token ids, arriving one by one -> text that is safe to pass on.

Pure. A character of several bytes can be several tokens, and what a token adds can
depend on the token before it; so text is held back until it cannot change any more.
Text that may turn out to be the start of a stop string is held back as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_INCOMPLETE = "\ufffd"  # what decoding gives for half a character


class Detokenizer:
    """The text of one reply.

    `text` is everything passed on so far, `token_ids` the ids that spell it (and, on
    the way, those held back). After a stop string has come, `stopped` is true and
    both end before it.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()
    ) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._held = ""  # decoded, but possibly the start of a stop string
        self._context_start = 0  # ids from here are decoded together,
        self._decoded_until = 0  # of which those up to here have been passed on
        self.token_ids: list[int] = []
        self.text = ""
        self.stopped = False

    def push(self, token_ids: Sequence[int]) -> str:
        """Take ids and return the text that became certain."""
        if self.stopped:
            return ""
        self.token_ids.extend(token_ids)
        before = self._decode(self.token_ids[self._context_start : self._decoded_until])
        now = self._decode(self.token_ids[self._context_start :])
        if len(now) <= len(before) or now.endswith(_INCOMPLETE):
            return ""
        self._context_start = self._decoded_until
        self._decoded_until = len(self.token_ids)
        return self._release(now[len(before) :], final=False)

    def finish(self) -> str:
        """No more ids will come: return what was held back."""
        if self.stopped:
            return ""
        before = self._decode(self.token_ids[self._context_start : self._decoded_until])
        now = self._decode(self.token_ids[self._context_start :])
        # Bytes of a character that never got complete are not text.
        return self._release(now[len(before) :].rstrip(_INCOMPLETE), final=True)

    def _release(self, new: str, *, final: bool) -> str:
        self._held += new
        found = [i for s in self._stop if (i := self._held.find(s)) >= 0]
        if found:
            released, self._held = self._held[: min(found)], ""
            self.stopped = True
            self.text += released
            self._drop_ids_past_text()
            return released
        keep = 0 if final else self._possible_stop_length()
        cut = len(self._held) - keep
        released, self._held = self._held[:cut], self._held[cut:]
        self.text += released
        return released

    def _possible_stop_length(self) -> int:
        """How much of the end of the held text could begin a stop string."""
        longest = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest

    def _drop_ids_past_text(self) -> None:
        while self.token_ids and not self.text.startswith(self._decode(self.token_ids)):
            self.token_ids.pop()
