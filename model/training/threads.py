"""How many threads are faster just now, on a machine that others use too.

Two threads wait for each other at every operation: beside another busy process they
can be slower than one. Which is faster is measured again every so often.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class ThreadChoice:
    """Feed it what each step did; it says how many threads to use next."""

    max_threads: int
    trial_steps: int = 12
    settled_steps: int = 150
    threads: int = field(init=False)
    _rates: dict[int, float] = field(init=False, default_factory=dict)
    _work: float = field(init=False, default=0.0)
    _spent_s: float = field(init=False, default=0.0)
    _steps: int = field(init=False, default=0)
    _is_settled: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.threads = self.max_threads

    def step_done(self, work: float, spent_s: float) -> int:
        """Threads for the next step, after one that did `work` in `spent_s`."""
        self._work, self._spent_s = self._work + work, self._spent_s + spent_s
        self._steps += 1
        if self.max_threads == 1:
            return 1
        if self._is_settled:
            if self._steps >= self.settled_steps:
                self._begin(self.max_threads)
                self._is_settled, self._rates = False, {}
            return self.threads
        if self._steps >= self.trial_steps:
            self._rates[self.threads] = self._work / max(self._spent_s, 1e-9)
            if self.threads > 1:
                self._begin(self.threads - 1)
            else:
                best = max(self._rates, key=lambda n: self._rates[n])
                self._begin(best)
                self._is_settled = True
        return self.threads

    def _begin(self, threads: int) -> None:
        self.threads = threads
        self._work = self._spent_s = 0.0
        self._steps = 0
