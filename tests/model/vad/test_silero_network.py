"""The network in numpy says what onnxruntime makes of the package's own file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from model.audio.pcm import wave_from_pcm16
from model.audio.resample import upsampled
from model.onnx import import_onnxruntime
from model.vad.onnx_weights import read_weights
from model.vad.silero_network import (
    KEPT_SAMPLES,
    LINE_SAMPLES,
    SHAPES,
    STATE_SIZE,
    WINDOW_SAMPLES,
    SileroNetwork,
)


@pytest.fixture(scope="module")
def file() -> Path:
    package = find_spec("silero_vad")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "data" / "silero_vad_16k_op15.onnx"


@pytest.fixture(scope="module")
def network(file: Path) -> SileroNetwork:
    weights = read_weights(file)
    return SileroNetwork(
        {name.removeprefix("model."): weights[name] for name in weights}
    )


def test_speech_and_silence_are_judged_as_by_onnxruntime(
    network: SileroNetwork, file: Path, spoken_call: bytes
) -> None:
    session = import_onnxruntime().InferenceSession(
        str(file), providers=["CPUExecutionProvider"]
    )
    wave = wave_from_pcm16(spoken_call)
    starts = np.arange(0, 8000, 1600)  # five callers, each ahead of the one before
    lines_at = starts[:, np.newaxis] + np.arange(LINE_SAMPLES)
    ours = np.zeros((len(starts), 2 * STATE_SIZE), dtype=np.float32)
    theirs = np.zeros((2, len(starts), STATE_SIZE), dtype=np.float32)
    answers = []
    for at in range(0, wave.size - LINE_SAMPLES - 8000, WINDOW_SAMPLES):
        lines = wave[lines_at + at]
        answer, ours = network.run(lines, ours)
        (expected, theirs) = session.run(
            None,
            {
                "input": upsampled(lines),
                "sr": np.array(16_000, dtype=np.int64),
                "state": theirs,
            },
        )
        np.testing.assert_allclose(answer, expected[:, 0], atol=1e-5)
        answers.append(answer)
    assert np.min(answers) < 0.05
    assert np.max(answers) > 0.95


def test_a_caller_alone_is_judged_as_among_others(network: SileroNetwork) -> None:
    rng = np.random.default_rng(3)
    lines = (0.1 * rng.standard_normal((9, LINE_SAMPLES))).astype(np.float32)
    states = rng.standard_normal((9, 2 * STATE_SIZE)).astype(np.float32)
    together, moved = network.run(lines, states)
    for row in range(9):
        alone, state = network.run(lines[row : row + 1], states[row : row + 1])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)
        np.testing.assert_allclose(state[0], moved[row], atol=1e-5)


def test_a_line_is_a_window_and_what_was_before() -> None:
    assert LINE_SAMPLES == KEPT_SAMPLES + WINDOW_SAMPLES == 319


def test_weights_of_another_network_are_refused() -> None:
    weights = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    SileroNetwork(weights)
    weights["encoder.2.reparam_conv.bias"] = np.zeros(65, np.float32)
    with pytest.raises(
        ValueError, match=r"encoder\.2\.reparam_conv\.bias is not there"
    ):
        SileroNetwork(weights)
    del weights["encoder.2.reparam_conv.bias"]
    with pytest.raises(
        ValueError, match=r"encoder\.2\.reparam_conv\.bias is not there"
    ):
        SileroNetwork(weights)


@pytest.mark.parametrize("num_bytes", [0, 1, 2, 100, 5000, 800_000])
def test_a_damaged_file_is_refused_or_misses_weights(
    file: Path, tmp_path: Path, num_bytes: int
) -> None:
    damaged = tmp_path / "cut.onnx"
    damaged.write_bytes(file.read_bytes()[:num_bytes])
    with pytest.raises(ValueError, match=r"cut short|no weights"):
        read_weights(damaged)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(b"GIF89a" + bytes(range(256)) * 20)
    with pytest.raises(ValueError, match=r"kind|cut short|no weights"):
        read_weights(other)
