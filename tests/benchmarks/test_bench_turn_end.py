from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.bench_turn_end import Call, hear, main, record_call
from benchmarks.segment import segments_of
from model.audio.frames import RATE_HZ
from model.training.corpus import CorpusOptions, Studio
from model.vad.detector import SpeechDetector, load_detector
from model.vad.options import EndpointingOptions
from tests.fakes.espeak_speech import spoken_call

OPTIONS = CorpusOptions(voices="held_out_espeak", split="held_out", is_clean=True)
PAUSE_S = 1.0


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return load_detector("silero")


def test_a_call_has_six_turns_and_its_pauses_lie_within_them() -> None:
    call = record_call(Studio(4, OPTIONS), 20.0)
    assert len(call.turns) == 6
    assert call.pauses_ms
    assert all(200 <= pause <= 1500 for pause in call.pauses_ms)
    length_s = len(call.pcm16) / 2 / RATE_HZ
    gaps_s = [later[0] - earlier[1] for earlier, later in pairwise(call.turns)]
    assert all(1.9 < gap < 3.1 for gap in gaps_s)
    assert call.turns[-1][1] < length_s - 1.9


def test_the_model_shortens_and_stretches_the_wait(detector: SpeechDetector) -> None:
    call = hesitating_call()
    options = EndpointingOptions()

    def ends_s(hint: float | None) -> list[float]:
        events = hear(call, detector, options, lambda _said: hint, 100)
        return [segment.decided_end for segment in segments_of(events)]

    unaided, sure, unsure = ends_s(None), ends_s(1.0), ends_s(0.0)
    assert len(unaided) == len(sure) == 2  # cut in two at the pause
    assert sure[0] < unaided[0] - 0.1
    assert len(unsure) == 1  # waited through it
    assert unsure[0] > sure[1]


def test_a_judgement_that_comes_too_late_changes_nothing(
    detector: SpeechDetector,
) -> None:
    call, options = hesitating_call(), EndpointingOptions()
    late = hear(call, detector, options, lambda _said: 0.0, 5000)
    assert late == hear(call, detector, options, None, 0)


def test_a_checkpoint_without_bounds_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = Path("model/checkpoints/demo")
    for path in demo.iterdir():
        (tmp_path / path.name).symlink_to(path.resolve())
    (tmp_path / "config.json").unlink()
    config = json.loads((demo / "config.json").read_text())
    del config["ultravox_phone_bot"]["turn_end"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["--checkpoint", str(tmp_path)]) == 2
    assert "not calibrated" in capsys.readouterr().err


def hesitating_call() -> Call:
    """One turn with a pause in the middle that is longer than any usual wait."""
    spoken, middle = spoken_call()[: 2 * 4 * RATE_HZ], 2 * 2 * RATE_HZ
    quiet = bytes(2 * int(PAUSE_S * RATE_HZ))
    pcm16 = spoken[:middle] + quiet + spoken[middle:] + quiet
    return Call(pcm16, ((1.0, 4.5),), (1000 * PAUSE_S,))
