"""Speech to listen to: sentences by espeak, in telephone quality."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import numpy as np

from model.audio.g711 import ulaw_decode, ulaw_encode
from model.audio.pcm import Wave, pcm16_from_wave
from model.audio.resample import resample

SENTENCES = (
    "I would like to change my delivery address.",
    "No, thank you very much.",
)


@cache
def spoken_call() -> bytes:
    """1 s of line noise, a sentence, 1.5 s of noise, another, 1.5 s; pcm16 at 8 kHz."""
    # The library has one global state, and this process runs other tests.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        first, second = pool.submit(_speak, SENTENCES).result(timeout=60)
    gap = np.zeros(12_000, dtype=np.float32)
    wave = np.concatenate([gap[:8000], first, gap, second, gap])
    rng = np.random.default_rng(1)
    wave = 0.5 * wave + (1e-3 * rng.standard_normal(wave.size)).astype(np.float32)
    return ulaw_decode(ulaw_encode(pcm16_from_wave(wave.astype(np.float32))))


def _speak(texts: tuple[str, ...]) -> list[Wave]:
    from model.tts.espeak_library import EspeakLibrary
    from model.tts.voice import Voice

    library = EspeakLibrary()
    waves = []
    for text in texts:
        parts: list[tuple[Wave, int]] = []

        def keep(
            wave: Wave, rate_hz: int, parts: list[tuple[Wave, int]] = parts
        ) -> bool:
            parts.append((wave.copy(), rate_hz))
            return True

        library.speak(text, Voice(), keep)
        whole = np.concatenate([wave for wave, _ in parts])
        waves.append(resample(whole, parts[0][1], 8000))
    return waves
