"""A synthesiser process that misbehaves as its texts say.

tone 1.5               1.5 s of a tone, in chunks of 60 ms
die FILE               half a second, then the process dies; once FILE exists: whole
always die             half a second, then the process dies
hang                   half a second, then nothing, for ever
refuse                 SynthesisFailed
print                  writes on standard output, then a tone
nonsense               bytes that are no message
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np

from model.errors import SynthesisFailed
from model.tts.errors import VoiceUnknown
from model.tts.voice import Voice
from model.tts.worker_loop import EmitWave, run_worker

RATE_HZ = 16_000


def tone(duration_s: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    at = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    return (0.1 * np.sin(2 * np.pi * 300 * at)).astype(np.float32)


class ScriptedEngine:
    version = "scripted 1"

    def identify(self, voice: Voice) -> str:
        if voice.language == "xx":
            raise VoiceUnknown("no xx")
        return "tone"

    def calibration_text(self) -> str:
        return "tone 1"

    def warm_voices(self) -> list[Voice]:
        return [Voice()]

    def speak(self, text: str, voice: Voice, emit: EmitWave) -> None:
        match text.split(" "):
            case ["tone", duration_s]:
                self._emit(float(duration_s), emit)
            case ["die", file]:
                if Path(file).exists():
                    self._emit(1.0, emit)
                else:
                    Path(file).touch()
                    self._die(emit)
            case ["always", "die"]:
                self._die(emit)
            case ["a"]:  # what a voice is checked with
                self._emit(0.1, emit)
            case ["hang"]:
                self._emit(0.5, emit)
                signal.pause()
            case ["print"]:
                print("not for the service", flush=True)
                self._emit(1.0, emit)
            case ["nonsense"]:
                os.write(0, b"\xff" * 100)
                signal.pause()
            case _:
                raise SynthesisFailed(f"cannot say {text!r}")

    def _emit(self, duration_s: float, emit: EmitWave) -> None:
        wave = tone(duration_s)
        step = RATE_HZ * 60 // 1000
        for start in range(0, len(wave), step):
            if not emit(wave[start : start + step], RATE_HZ):
                return

    def _die(self, emit: EmitWave) -> None:
        self._emit(0.5, emit)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    run_worker(ScriptedEngine)
