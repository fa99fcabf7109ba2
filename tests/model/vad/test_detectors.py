"""Both detectors by the same rules, each for real."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from model.audio.pcm import Wave, levels_dbfs, pcm16_from_wave, wave_from_pcm16
from model.vad.detector import (
    DetectorName,
    DetectorStream,
    SpeechDetector,
    load_detector,
)
from model.vad.events import SpeechEnded, SpeechEvent
from model.vad.listener import CallerEar, feed_together
from model.vad.silero import SileroDetector


@pytest.fixture(scope="module", params=["silero", "webrtc"])
def detector(request: pytest.FixtureRequest) -> SpeechDetector:
    name: DetectorName = request.param
    return load_detector(name)


def ask(
    detector: SpeechDetector, streams: list[DetectorStream], windows: list[Wave]
) -> list[float]:
    rows = np.array(windows)
    return detector.probabilities(streams, rows, levels_dbfs(rows))


def judge(detector: SpeechDetector, wave: Wave) -> list[float]:
    """Every whole window of one stream."""
    stream = detector.open_stream()
    size = detector.window_samples
    return [
        ask(detector, [stream], [wave[start : start + size]])[0]
        for start in range(0, wave.size - size + 1, size)
    ]


def hear(detector: SpeechDetector, pcm16: bytes, chunk_bytes: int) -> list[SpeechEvent]:
    ear = CallerEar(detector)
    events = [
        event
        for start in range(0, len(pcm16), chunk_bytes)
        for event in ear.feed(pcm16[start : start + chunk_bytes])
    ]
    return events + ear.force_end()


def at_s(num_samples: int) -> Wave:
    return (np.arange(num_samples) / 8000).astype(np.float32)


def test_two_sentences_are_two_turns(
    detector: SpeechDetector, spoken_call: bytes
) -> None:
    turns = [
        event
        for event in hear(detector, spoken_call, 320)
        if isinstance(event, SpeechEnded)
        # webrtc takes the very first frames of any noise for speech.
        and event.started_samples > 0
    ]
    assert len(turns) == 2
    first, second = turns
    assert 0.85 < first.started_samples / 8000 < 1.2
    assert first.ended_samples < second.started_samples
    assert second.ended_samples < len(spoken_call) / 2 - 11_000
    assert not first.forced
    assert not second.forced


@pytest.mark.parametrize("chunk_bytes", [2, 160, 319, 1 << 30])
def test_the_same_audio_in_other_chunks_gives_the_same_events_and_bytes(
    detector: SpeechDetector, spoken_call: bytes, chunk_bytes: int
) -> None:
    some = spoken_call[: 2 * 8000 * 4]
    assert hear(detector, some, chunk_bytes) == hear(detector, some, 320)


def test_two_calls_of_one_detector_do_not_hear_each_other(
    detector: SpeechDetector, spoken_call: bytes
) -> None:
    alone = judge(
        detector, wave_from_pcm16(spoken_call)[: detector.window_samples * 60]
    )
    ours, theirs = detector.open_stream(), detector.open_stream()
    size = detector.window_samples
    rng = np.random.default_rng(7)
    together = []
    for start in range(0, size * 60, size):
        window = wave_from_pcm16(spoken_call)[start : start + size]
        together += ask(detector, [ours], [window])
        noise = (0.3 * rng.standard_normal(size)).astype(np.float32)
        ask(detector, [theirs], [noise])
    assert together == alone


def test_calls_judged_together_are_judged_as_if_alone(
    detector: SpeechDetector, spoken_call: bytes
) -> None:
    wave = wave_from_pcm16(spoken_call)
    size = detector.window_samples
    shifts = [0, 1000, 5000, 9000, 12_345]
    alone = [judge(detector, wave[shift:][: size * 60]) for shift in shifts]
    streams = [detector.open_stream() for _ in shifts]
    together: list[list[float]] = [[] for _ in shifts]
    for step in range(60):
        windows = [wave[shift + step * size :][:size] for shift in shifts]
        for row, answer in enumerate(ask(detector, streams, windows)):
            together[row].append(answer)
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_ears_fed_together_find_the_same_turns(
    detector: SpeechDetector, spoken_call: bytes
) -> None:
    shifts = [0, 2002, 7000]
    calls = [spoken_call[shift:] for shift in shifts]
    ears = [CallerEar(detector) for _ in calls]
    together: list[list[SpeechEvent]] = [[] for _ in calls]
    for start in range(0, len(spoken_call), 320):
        chunks = [call[start : start + 320] for call in calls]
        for row, events in enumerate(feed_together(ears, chunks)):
            together[row] += events
    for ear, events in zip(ears, together, strict=True):
        events += ear.force_end()
    assert together == [hear(detector, call, 320) for call in calls]


@pytest.mark.parametrize(
    "sound",
    [
        lambda t: 0.0 * t,
        lambda t: 0.02 * np.random.default_rng(3).standard_normal(t.size),
        lambda t: 0.2 * (np.sin(2 * np.pi * 697 * t) + np.sin(2 * np.pi * 1209 * t)),
        lambda t: 0.3 * np.sign(np.sin(2 * np.pi * 50 * t)),
        lambda t: 1.0 * (np.arange(t.size) % 1600 == 0),
        lambda t: np.where(np.random.default_rng(4).random(t.size) < 0.5, -1.0, 1.0),
    ],
    ids=["silence", "noise", "key 1", "hum", "clicks", "full scale"],
)
def test_what_is_not_speech_does_no_harm(
    detector: SpeechDetector, sound: Callable[[Wave], Wave]
) -> None:
    wave = sound(at_s(8000 * 3)).astype(np.float32)
    answers = judge(detector, wave)
    assert all(0.0 <= answer <= 1.0 for answer in answers)
    events = hear(detector, pcm16_from_wave(wave), 320)
    assert all(event.decided_samples <= wave.size for event in events)


@pytest.mark.parametrize(
    "sound",
    [
        lambda t: 0.02 * np.random.default_rng(3).standard_normal(t.size),
        lambda t: 0.3 * np.sign(np.sin(2 * np.pi * 50 * t)),
        lambda t: 1.0 * (np.arange(t.size) % 1600 == 0),
        lambda t: 0.2 * (np.sin(2 * np.pi * 697 * t) + np.sin(2 * np.pi * 1209 * t)),
        lambda t: 0.2 * (np.sin(2 * np.pi * 440 * t) + np.sin(2 * np.pi * 480 * t)),
    ],
    ids=["noise", "hum", "clicks", "key 1", "ringback"],
)
def test_silero_takes_no_noise_for_a_caller(sound: Callable[[Wave], Wave]) -> None:
    wave = sound(at_s(8000 * 5)).astype(np.float32)
    assert hear(SileroDetector.load(), pcm16_from_wave(wave), 320) == []


def test_silero_is_sure_of_speech_and_of_silence(spoken_call: bytes) -> None:
    answers = judge(SileroDetector.load(), wave_from_pcm16(spoken_call))
    per_second = 8000 / 256
    assert max(answers[: int(0.9 * per_second)]) < 0.2
    during = answers[int(1.3 * per_second) : int(2.3 * per_second)]
    assert float(np.median(during)) > 0.9


def test_loading_the_detectors_does_not_load_torch() -> None:
    """silero-vad's own import would, and set torch's threads for the process."""
    script = (
        "import sys\n"
        "from model.vad.detector import load_detector\n"
        "load_detector('silero'); load_detector('webrtc')\n"
        "heavy = {'torch', 'silero_vad', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
