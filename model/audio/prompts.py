"""Recorded prompts: the few things the phone half can say without any model.

A folder holds `prompts.toml` (what each prompt says) and NAME.wav for each of them:
8 kHz, mono, 16 bit, which Asterisk plays as well.  All are read at the start, so that a
missing file shows then and not in the middle of a caller's trouble.
"""

from __future__ import annotations

import tomllib
import wave as wave_file
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model.audio.frames import RATE_HZ, SAMPLE_BYTES

TABLE_NAME: Final = "prompts.toml"
_MAX_PROMPT_S: Final = 60
"""A prompt is a sentence or two; longer is music that got into the wrong folder."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A recorded sound."""

    name: str
    text: str
    """What it says; empty for tones and silence."""
    pcm16: bytes
    """8 kHz mono."""


class PromptUnusable(Exception):
    """A prompt is missing or no telephone recording; the message names the file."""


def load_prompts(directory: Path) -> Mapping[str, Prompt]:
    """All prompts of a folder, by name.

    Raises:
        PromptUnusable: every file that is missing or unusable, a line each.
    """
    prompts: dict[str, Prompt] = {}
    problems: list[str] = []
    for name, text in prompt_texts(directory).items():
        path = directory / f"{name}.wav"
        try:
            prompts[name] = Prompt(name, text, _read_recording(path))
        except PromptUnusable as exc:
            problems.append(str(exc))
    if problems:
        raise PromptUnusable("\n".join(problems))
    return prompts


def load_languages(directory: Path) -> Mapping[str, Mapping[str, Prompt]]:
    """The prompts of each language: folders below, named by their primary tag ("es").

    Each must have every prompt that `directory` itself has.

    Raises:
        PromptUnusable: every file that is missing or unusable, a line each.
    """
    wanted = prompt_texts(directory)
    languages: dict[str, Mapping[str, Prompt]] = {}
    problems: list[str] = []
    for table in sorted(directory.glob(f"*/{TABLE_NAME}")):
        folder = table.parent
        try:
            languages[folder.name] = prompts = load_prompts(folder)
        except PromptUnusable as exc:
            problems.append(str(exc))
            continue
        problems += [f"{folder}: no {name}" for name in wanted if name not in prompts]
    if problems:
        raise PromptUnusable("\n".join(problems))
    return languages


def prompt_texts(directory: Path) -> dict[str, str]:
    """Names and texts from the folder's table.

    Raises:
        PromptUnusable: the table is missing or malformed.
    """
    path = directory / TABLE_NAME
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise PromptUnusable(f"cannot read {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise PromptUnusable(f"{path} is no valid TOML: {exc}") from exc
    texts: dict[str, str] = {}
    for kind in ("speech", "sound"):
        entries = table.get(kind, {})
        if not isinstance(entries, dict):
            raise PromptUnusable(f"{path}: [{kind}] must be a table of prompts")
        for name, value in entries.items():
            if not name.replace("_", "").isalnum():
                raise PromptUnusable(f"{path}: {name!r} is no name for a file")
            texts[name] = str(value) if kind == "speech" else ""
    if not texts:
        raise PromptUnusable(f"{path} lists no prompts")
    return texts


def _read_recording(path: Path) -> bytes:
    try:
        with path.open("rb") as file, wave_file.open(file, "rb") as recording:
            form = (
                recording.getframerate(),
                recording.getnchannels(),
                recording.getsampwidth(),
            )
            if form != (RATE_HZ, 1, SAMPLE_BYTES):
                raise PromptUnusable(
                    f"{path} has {form[0]} Hz, {form[1]} channels, {8 * form[2]} bit; "
                    f"{RATE_HZ} Hz, mono, 16 bit is needed"
                )
            pcm16 = recording.readframes(_MAX_PROMPT_S * RATE_HZ + 1)
    except OSError as exc:
        raise PromptUnusable(f"cannot read {path}: {exc.strerror}") from exc
    except (wave_file.Error, EOFError) as exc:
        raise PromptUnusable(f"{path} is no WAV file: {exc}") from exc
    pcm16 = pcm16[: len(pcm16) & ~1]
    if not pcm16:
        raise PromptUnusable(f"{path} is empty")
    if len(pcm16) > _MAX_PROMPT_S * RATE_HZ * SAMPLE_BYTES:
        raise PromptUnusable(f"{path} is longer than {_MAX_PROMPT_S} s")
    return pcm16
