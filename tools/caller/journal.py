"""What happened in a call, with times: JSON lines for the events file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TextIO


class Journal:
    """Writes one JSON object a line; t is seconds since the call was placed.

    clock: the time of the calls, in seconds. num_call: set where several calls share
    a file.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        file: TextIO | None = None,
        *,
        num_call: int | None = None,
    ) -> None:
        self.errors: list[str] = []
        self._clock = clock
        self._file = file
        self._num_call = num_call
        self._started_s = clock()

    def now(self) -> float:
        """Seconds since the call was placed."""
        return self._clock() - self._started_s

    def event(self, name: str, at_s: float | None = None, **fields: object) -> None:
        if self._file is None:
            return
        at_s = self.now() if at_s is None else at_s
        line: dict[str, object] = {"t": round(at_s, 3), "ev": name}
        line["wall"] = round(time.time(), 3)
        if self._num_call is not None:
            line["call"] = self._num_call
        print(json.dumps(line | fields), file=self._file, flush=True)

    def error(self, message: str) -> None:
        """Something that should not have been; told once."""
        if message not in self.errors:
            self.errors.append(message)
            self.event("error", message=message)
