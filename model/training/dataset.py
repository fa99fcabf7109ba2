"""A corpus in memory-mapped form, and the batches of a step.

Batches depend only on the seed and the step's number, so a resumed run sees what an
unbroken one would have seen.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model.training.added_noise import add_noise
from model.training.dialogue import draw_dialogue, draw_opening
from model.training.grammar import draw_words
from model.training.rows import (
    ROWS_THAT_BEGIN_ALIKE,
    Heard,
    Row,
    RowMaker,
    imagined_words,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MAX_TRIM_FRAMES = 40  # of silence, so that a clip seen twice is cut up differently
_KEEP_LEAD_FRAMES = 4


@dataclass(frozen=True, slots=True)
class StoredClip:
    """Where a clip lies in its shard's arrays."""

    mel: np.ndarray[Any, Any]
    phones: np.ndarray[Any, Any]
    first_frame: int
    first_phone: int
    num_frames: int


@dataclass(frozen=True, slots=True)
class StoredDialogue:
    """One conversation of the corpus."""

    opening: str | None
    turns: tuple[dict[str, Any], ...]
    clips: tuple[StoredClip, ...]


def read_corpus(folder: Path, known: dict[str, list[StoredDialogue]]) -> None:
    """Add the shards that are complete and not in `known` yet."""
    for path in sorted(folder.glob("[0-9]*.json")):
        if path.stem in known:
            continue
        mel = np.load(folder / f"{path.stem}.mel.npy", mmap_mode="r")
        phones = np.load(folder / f"{path.stem}.phones.npy", mmap_mode="r")
        frame = phone = 0
        dialogues = []
        for entry in json.loads(path.read_text()):
            clips = []
            for turn in entry["turns"]:
                count = turn["num_frames"]
                clips.append(StoredClip(mel, phones, frame, phone, count))
                frame, phone = frame + count, phone + -(-count // 2)
            if any("|" in turn["transcript"] for turn in entry["turns"]):
                continue
            dialogues.append(
                StoredDialogue(entry["opening"], tuple(entry["turns"]), tuple(clips))
            )
        known[path.stem] = dialogues


@dataclass(frozen=True, slots=True)
class Audio:
    """Clips of like length, padded: mel (A, 80, F), frames (A,), phonemes (A, F/2).

    Arrays, because they may come from another process.
    """

    mel: np.ndarray[Any, Any]
    num_frames: np.ndarray[Any, Any]
    phones: np.ndarray[Any, Any]
    clips: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step: clips in groups of like length, what they hold, and rows over them."""

    audio: tuple[Audio, ...]
    heard: tuple[Heard, ...]
    reply_rows: tuple[Row, ...]
    transcript_rows: tuple[Row, ...]


def imagined_batch(
    maker: RowMaker, rng: random.Random, size: int, openings: int = 0
) -> Batch:
    """Dialogues that nobody spoke: what is heard is laid out as if they had been.

    `openings`: so many more of one turn. They are short, so they teach most
    phrasings a second.
    """
    heard: list[Heard] = []
    replies: list[Row] = []
    transcripts: list[Row] = []
    for _ in range(size):
        dialogue = draw_dialogue(rng)
        first = len(heard)
        turns = []
        for turn in dialogue.turns:
            said = turn.transcript
            if turn.kind == "outside" and turn.spoken is not None:
                said = turn.spoken.text
            words, num_frames = imagined_words(rng, said)
            outside = turn.kind == "outside"
            heard.append(maker.hear(words, num_frames, is_outside=outside))
            turns.append(
                {
                    "kind": turn.kind,
                    "intent": turn.intent,
                    "transcript": said if turn.kind == "speech" else turn.transcript,
                    "reply": turn.reply,
                    "rest": turn.rest,
                }
            )
            if rng.random() < 0.3:
                index = len(heard) - 1
                row = maker.transcript_row(rng, turns[-1], heard[-1], index)
                transcripts.append(row)
        replies.append(
            maker.reply_row(
                rng,
                maker.begin_call(rng, dialogue.opening),
                turns,
                heard[first:],
                first,
                as_text=0.2,
            )
        )
    # Rows that begin alike are read faster.
    sets = range(0, openings, ROWS_THAT_BEGIN_ALIKE)
    beginnings = [maker.begin_call(rng, None) for _ in sets]
    for number in range(openings):
        begun = beginnings[number // ROWS_THAT_BEGIN_ALIKE]
        turn = draw_opening(rng)
        words, num_frames = imagined_words(rng, turn.transcript)
        heard.append(maker.hear(words, num_frames, is_outside=False))
        index, entry = len(heard) - 1, asdict(turn)
        replies.append(maker.opening_row(rng, begun, entry, heard[index], index))
        if rng.random() < 0.25:
            transcripts.append(maker.transcript_row(rng, entry, heard[index], index))
    for _ in range((size + openings // 2) // 2):
        # Copying must not lean on what callers usually say.
        said = draw_words(rng)
        words, num_frames = imagined_words(rng, said)
        heard.append(maker.hear(words, num_frames, is_outside=False))
        turn_of_words = {"transcript": said}
        index = len(heard) - 1
        row = maker.transcript_row(rng, turn_of_words, heard[-1], index)
        transcripts.append(row)
    return Batch((), tuple(heard), tuple(replies), tuple(transcripts))


def spoken_batch(
    maker: RowMaker,
    rng: random.Random,
    dialogues: Sequence[StoredDialogue],
    *,
    augment: bool = True,
    noisy: bool = True,
    with_rows: bool = True,
    transcripts: float = 0.5,
    clips_a_group: int = 12,
) -> Batch:
    """Stored dialogues as a step's input.

    Args:
        augment: trim silence, change voices, mask some of what is heard.
        noisy: put new noise on some of the clips.
    """
    heard: list[Heard] = []
    mels: list[np.ndarray[Any, Any]] = []
    phones: list[np.ndarray[Any, Any]] = []
    replies: list[Row] = []
    transcript_rows: list[Row] = []
    for dialogue in dialogues:
        first = len(heard)
        for turn, clip in zip(dialogue.turns, dialogue.clips, strict=True):
            mel, classes, words = _cut(rng, turn, clip, augment=augment)
            outside = turn["kind"] == "outside"
            heard.append(maker.hear(words, len(mel), is_outside=outside))
            mels.append(mel)
            phones.append(classes)
        if with_rows:
            found = dialogue_rows(
                maker,
                rng,
                dialogue,
                heard,
                first,
                transcripts=transcripts,
                as_text=0.04 if augment else 0.0,
            )
            replies += found[0]
            transcript_rows += found[1]
    order = sorted(range(len(mels)), key=lambda i: len(mels[i]))
    groups = []
    for start in range(0, len(order), clips_a_group):
        chosen = order[start : start + clips_a_group]
        groups.append(_pad(rng, chosen, mels, phones, augment, noisy))
    return Batch(tuple(groups), tuple(heard), tuple(replies), tuple(transcript_rows))


def dialogue_rows(
    maker: RowMaker,
    rng: random.Random,
    dialogue: StoredDialogue,
    heard: Sequence[Heard],
    first: int,
    *,
    transcripts: float,
    as_text: float,
) -> tuple[list[Row], list[Row]]:
    """Its reply row, if it has replies, and some of its turns' transcript rows.

    `first`: the number of the dialogue's first clip in `heard`.
    """
    replies, written = [], []
    for index, turn in enumerate(dialogue.turns, first):
        if rng.random() < transcripts or turn["kind"] == "words":
            written.append(maker.transcript_row(rng, turn, heard[index], index))
    if dialogue.turns[0]["kind"] != "words":
        clips = heard[first : first + len(dialogue.turns)]
        begun = maker.begin_call(rng, dialogue.opening)
        row = maker.reply_row(rng, begun, dialogue.turns, clips, first, as_text=as_text)
        replies.append(row)
    return replies, written


def _cut(
    rng: random.Random, turn: dict[str, Any], clip: StoredClip, *, augment: bool
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[tuple[str, float, float]]]:
    """The stored clip with some of its silence trimmed off both ends."""
    count = clip.num_frames
    words = turn["words"]
    lead = tail = 0
    if augment and words:
        spare = int(words[0][1] * 100) - _KEEP_LEAD_FRAMES
        lead = 2 * rng.randint(0, max(min(spare, _MAX_TRIM_FRAMES), 0) // 2)
        spare = count - int(words[-1][2] * 100) - 2 * _KEEP_LEAD_FRAMES
        tail = rng.randint(0, max(min(spare, _MAX_TRIM_FRAMES), 0))
    begin = clip.first_frame + lead
    mel = clip.mel[begin : clip.first_frame + count - tail]
    first = clip.first_phone + lead // 2
    classes = clip.phones[first : first + -(-len(mel) // 2)]
    moved = [(w, s - lead / 100, e - lead / 100) for w, s, e in words]
    return mel, classes, moved


def _pad(
    rng: random.Random,
    chosen: Sequence[int],
    mels: Sequence[np.ndarray[Any, Any]],
    phones: Sequence[np.ndarray[Any, Any]],
    augment: bool,
    noisy: bool,
) -> Audio:
    longest = -(-max(len(mels[i]) for i in chosen) // 32) * 32
    mel = np.zeros((len(chosen), longest, 80), np.float32)
    classes = np.full((len(chosen), longest // 2), 255, np.int64)
    for row, i in enumerate(chosen):
        mel[row, : len(mels[i])] = mels[i]
        classes[row, : len(phones[i])] = phones[i]
        own = mel[row, : len(mels[i])]
        if augment:
            _another_voice(rng, own)
        if noisy:
            add_noise(rng, own, mels)
        if augment:
            _mask(rng, own)
    return Audio(
        np.ascontiguousarray(mel.transpose(0, 2, 1)),
        np.array([len(mels[i]) for i in chosen]),
        classes,
        tuple(chosen),
    )


def _another_voice(rng: random.Random, mel: np.ndarray[Any, Any]) -> None:
    """A longer or shorter vocal tract and another handset, in place, half the time."""
    if rng.random() < 0.5:
        return
    bins = mel.shape[1]
    source = np.clip(np.arange(bins) * rng.uniform(0.9, 1.12), 0, bins - 1.001)
    below = source.astype(int)
    share = (source - below).astype(np.float32)
    warped = mel[:, below] * (1 - share) + mel[:, below + 1] * share
    wave = np.arange(bins) * (rng.uniform(0.5, 3) * 6.28 / bins) + rng.uniform(0, 6.28)
    # 0.1 is 4 dB in the features' scale.
    mel[:] = warped + (rng.uniform(0, 0.12) * np.sin(wave)).astype(np.float32)


def _mask(rng: random.Random, mel: np.ndarray[Any, Any]) -> None:
    """Light SpecAugment, in place: two bands, two gaps."""
    for _ in range(2):
        width = rng.randint(0, 10)
        low = rng.randint(0, 60 - width)  # a telephone has nothing in the upper third
        mel[:, low : low + width] = 0.0
        gap = rng.randint(0, min(11, len(mel) // 8))
        at = rng.randint(0, len(mel) - gap)
        mel[at : at + gap] = 0.0
