"""Festival's `ked` voice: a third synthesizer, kept out of training altogether."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile

from model.training.aligned import AlignedSpeech

if TYPE_CHECKING:
    from collections.abc import Sequence


def speak_all(texts: Sequence[str]) -> list[AlignedSpeech]:
    """Say all texts in one run of the `festival` program; no times are known.

    Raises:
        FileNotFoundError: festival is not installed.
        subprocess.CalledProcessError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "say.scm"
        lines = ["(voice_ked_diphone)"]
        for i, text in enumerate(texts):
            path = Path(folder) / f"{i}.wav"
            lines.append(
                f'(utt.save.wave (utt.synth (Utterance Text "{text}")) "{path}" \'riff)'
            )
        script.write_text("\n".join(lines))
        subprocess.run(
            ["festival", "--batch", str(script)],
            check=True,
            capture_output=True,
            timeout=600,
        )
        spoken = []
        for i in range(len(texts)):
            wave, rate_hz = soundfile.read(Path(folder) / f"{i}.wav", dtype="float32")
            spoken.append(AlignedSpeech(wave, int(rate_hz), (), ()))
    return spoken
