"""Make the recorded prompts from their texts: `python -m sounds.make_prompts`.

Reads prompts.toml in the folder, and in the folders of other languages below it, and
writes NAME.wav beside it for each prompt: 8 kHz, mono, 16 bit.  Speaks with espeak-ng
unless a piper voice file is given.  With --check nothing is written; it ends
with 1 if a prompt is missing or no longer says its text.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from model.audio.frames import RATE_HZ
from model.audio.pcm import pcm16_from_wave
from model.audio.prompts import TABLE_NAME, PromptUnusable, load_prompts, prompt_texts
from model.audio.wav import write_wav
from model.errors import SpeechError
from model.tts.open import TtsOptions, open_synthesizer, voice_for
from model.tts.speaker import Speaker

_BEEP_PEAK = 0.2
_FADE_S = 0.005
# espeak varies an utterance by a few samples, and edges are cut in steps of 10 ms.
_SAME_MS = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).parent
    parser.add_argument("--directory", type=Path, default=here)
    parser.add_argument("--voice", default="", help="a voice's name, or a piper file")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    directory: Path = arguments.directory
    tables = sorted(directory.glob(f"*/{TABLE_NAME}"))
    folders = [directory, *(table.parent for table in tables)]
    if arguments.voice and len(folders) > 1:
        parser.error("--voice speaks one language: name its folder with --directory")
    status = 0
    for folder in folders:
        try:
            status |= _make(folder, arguments.voice, is_check=arguments.check)
        except (PromptUnusable, SpeechError) as exc:
            print(f"make_prompts: {exc}", file=sys.stderr)
            status = 1
    return status


def _make(directory: Path, voice: str, *, is_check: bool) -> int:
    made = asyncio.run(make_prompts(directory, voice))
    if is_check:
        return _check(directory, made)
    for name, pcm16 in made.items():
        path = directory / f"{name}.wav"
        write_wav(path, pcm16, rate_hz=RATE_HZ)
        print(f"{path} {_duration_ms(pcm16)} ms")
    return 0


async def make_prompts(directory: Path, voice: str = "") -> dict[str, bytes]:
    """All prompts of a folder's table as pcm16 at 8 kHz, by name.

    Raises:
        PromptUnusable: the table cannot be used.
        SpeechError: a text cannot be spoken.
    """
    texts = prompt_texts(directory)
    table = tomllib.loads((directory / TABLE_NAME).read_text(encoding="utf-8"))
    wanted = table.get("voice", {})
    options = TtsOptions(
        voice=voice or str(wanted.get("name", "")),
        language=str(wanted.get("language", "en-us")),
        speed_wpm=int(wanted.get("speed_wpm", 160)),
        num_workers=1,
    )
    synthesizer = await open_synthesizer(options)
    try:
        speaker = Speaker(synthesizer)
        speech = {
            name: await speaker.phrase(text, voice_for(options))
            for name, text in texts.items()
            if text
        }
    finally:
        await synthesizer.aclose()
    sounds = {name: _sound(entry) for name, entry in table.get("sound", {}).items()}
    return speech | sounds


def _sound(entry: dict[str, Any]) -> bytes:
    """A tone with soft edges, or silence."""
    try:
        tone_hz, duration_ms = float(entry["tone_hz"]), int(entry["duration_ms"])
    except (KeyError, TypeError, ValueError) as exc:
        raise PromptUnusable(f"a sound needs tone_hz and duration_ms: {entry}") from exc
    at = np.arange(RATE_HZ * duration_ms // 1000) / RATE_HZ
    edge = np.minimum(at, at[::-1]) / _FADE_S
    wave = _BEEP_PEAK * np.sin(2 * np.pi * tone_hz * at) * np.minimum(edge, 1.0)
    return pcm16_from_wave(wave.astype(np.float32))


def _check(directory: Path, made: dict[str, bytes]) -> int:
    """Compare lengths: another text is hardly ever as long to 60 ms."""
    stale = [
        name
        for name, prompt in load_prompts(directory).items()
        if abs(_duration_ms(prompt.pcm16) - _duration_ms(made[name])) > _SAME_MS
    ]
    for name in stale:
        print(f"{name}.wav does not say its text; run make_prompts", file=sys.stderr)
    return 1 if stale else 0


def _duration_ms(pcm16: bytes) -> int:
    return len(pcm16) // 2 * 1000 // RATE_HZ


if __name__ == "__main__":
    sys.exit(main())
