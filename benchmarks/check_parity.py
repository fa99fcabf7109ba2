"""Check our Ultravox against what the reference implementation computed.

    python -m benchmarks.check_parity DIR [--device cuda]

DIR holds a checkpoint and fixtures:

    config.json, model.safetensors, tokenizer ...      the checkpoint
    cases/NAME.json, NAME.npz, NAME_ROW_CLIP.npy       messages, expected arrays, clips
                                                       (or .npz holding `pcm`)
    single_clips.npz                                   clips encoded one at a time
    history.npz, history.json                          a dialogue with two clips
    split/ultravox/                                    the same weights in parts

Everything is computed by us from the clips and the messages: features, audio
vectors, prompt ids, logits and greedy tokens, in float32 on the CPU. The cases pad
clips beside each other as the reference does; `single_clips` and `history` are what
a phone call needs, each clip as if alone. Rows named `engine/` are the same prompts
through the engine, alone and with other requests in flight. On a GPU only these and
`single_clips` are run.

Prints a table, then one line of JSON with the largest absolute differences. Exit
status 0 only if all are within the tolerances and all tokens are equal.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from benchmarks.engine_parity import Row, check_engine
from model.errors import ModelLoadError
from model.ultravox.checkpoint import Checkpoint, LoadOptions, load_checkpoint
from model.ultravox.clip import AudioClip
from model.ultravox.inputs import Dialogue, Prompt
from model.ultravox.lengths import (
    MAX_PIECE_FRAMES,
    count_mel_frames,
    num_audio_tokens,
    piece_lengths,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

MEL_TOLERANCE = 1e-5
AUDIO_TOLERANCE = 2e-5
LOGITS_TOLERANCE = 2e-3  # logits span about -33 to 35 in the fixtures
_PLACEHOLDER = "<|audio|>"
_ANY_DAY = date(2024, 7, 26)


@dataclass(slots=True)
class Differences:
    """Largest absolute differences of one case; None where there is nothing."""

    mel: float | None = None
    encoder: float | None = None
    audio: float | None = None
    logits: float | None = None
    prompt_equal: bool | None = None
    greedy_equal: bool | None = None

    @property
    def ok(self) -> bool:
        """Whether all are within the tolerances."""
        bounds = (
            (self.mel, MEL_TOLERANCE),
            (self.encoder, AUDIO_TOLERANCE),
            (self.audio, AUDIO_TOLERANCE),
            (self.logits, LOGITS_TOLERANCE),
        )
        # `not <=` so that NaN fails.
        too_far = any(d is not None and not d <= bound for d, bound in bounds)
        return not too_far and False not in (self.prompt_equal, self.greedy_equal)


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """Audio of a batch of prompts as the reference lays it out."""

    mel: Tensor  # (A, M, F) pieces of all rows
    num_mel_frames: Tensor  # (A,)
    states: Tensor  # (A, T, D)
    vectors: Tensor  # (sum of tokens, E)


def check_case(checkpoint: Checkpoint, folder: Path, name: str) -> Differences:
    """One case: a batch of prompts, their clips padded as the reference pads them."""
    meta = json.loads((folder / f"{name}.json").read_text())
    expected = np.load(folder / f"{name}.npz")
    clips = [[_wave(folder / file) for file in row] for row in meta["waves"]]
    prompts = [
        _prompt(checkpoint, messages, row)
        for messages, row in zip(meta["messages"], clips, strict=True)
    ]
    found = Differences()
    encoded = _encode_together(checkpoint, clips) if any(clips) else None
    if encoded is not None:
        valid_mel = _valid(encoded.mel, encoded.num_mel_frames)
        valid_states = _valid(
            encoded.states.transpose(1, 2), (encoded.num_mel_frames + 1) // 2
        )
        frames = torch.from_numpy(expected["in_audio_lens"])
        found.mel = _distance(
            valid_mel, _valid(torch.from_numpy(expected["in_audio_values"]), frames)
        )
        expected_states = torch.from_numpy(expected["exp_encoder_out"])
        found.encoder = _distance(
            valid_states, _valid(expected_states.transpose(1, 2), (frames + 1) // 2)
        )
        found.audio = _distance(encoded.vectors, expected["exp_audio_embeds"])
    vectors = encoded.vectors if encoded is not None else None
    _compare_text(checkpoint, prompts, vectors, expected, found)
    return found


def check_single_clips(checkpoint: Checkpoint, folder: Path) -> Differences:
    """All clips in one batch of ours against the reference, one clip at a time."""
    expected = np.load(folder / "single_clips.npz")
    waves = [_wave(folder / "cases" / f"{name}.npy") for name in expected.files]
    vectors = _encode_each(checkpoint, waves)
    wanted = [expected[name] for name in expected.files]
    ours = torch.cat(vectors).cpu()
    return Differences(audio=_distance(ours, np.concatenate(wanted)))


def check_history(checkpoint: Checkpoint, folder: Path) -> Differences:
    """A dialogue whose clips were each encoded alone."""
    meta = json.loads((folder / "history.json").read_text())
    waves = [_wave(folder / file) for file in meta["waves"]]
    prompt = _prompt(checkpoint, meta["messages"], waves)
    vectors = torch.cat(_encode_each(checkpoint, waves))
    found = Differences()
    expected = np.load(folder / "history.npz")
    _compare_text(checkpoint, [prompt], vectors, expected, found)
    return found


def engine_rows(checkpoint: Checkpoint, folder: Path) -> dict[str, list[Row]]:
    """Every case's prompts as requests for the engine."""
    rows: dict[str, list[Row]] = {}
    for file in [*sorted((folder / "cases").glob("*.json")), folder / "history.json"]:
        if not file.exists():
            continue
        meta = json.loads(file.read_text())
        expected = np.load(file.with_suffix(".npz"))["exp_greedy_tokens"]
        is_history = file.name == "history.json"
        messages = [meta["messages"]] if is_history else meta["messages"]
        waves = [meta["waves"]] if is_history else meta["waves"]
        # Padded side by side, clips end differently: then only ourselves to compare.
        is_exact = is_history or sum(map(len, waves)) <= 1
        for said, files, wanted in zip(messages, waves, expected, strict=True):
            clips = [_wave(file.parent / name) for name in files]
            tokens = wanted.tolist()
            ends = [i for i, t in enumerate(tokens) if t in checkpoint.stop_ids]
            row = Row(
                partial(_prompt, checkpoint, said, clips),
                len(tokens),
                tuple(tokens[: ends[0]] if ends else tokens) if is_exact else None,
            )
            rows.setdefault(f"engine/{file.stem}", []).append(row)
    return rows


def run(folder: Path, device: str = "cpu") -> dict[str, Differences]:
    """Every check that the folder has fixtures for, whole and split layouts.

    Raises:
        ModelLoadError: the checkpoint cannot be loaded, or there are no fixtures.
    """
    results: dict[str, Differences] = {}
    for label, checkpoint_folder in _layouts(folder):
        options = LoadOptions(device=device, dtype="float32")
        checkpoint = load_checkpoint(str(checkpoint_folder), options)
        with torch.inference_mode():
            cases = sorted((folder / "cases").glob("*.json"))
            for file in cases if device == "cpu" else []:
                key = f"{label}{file.stem}"
                results[key] = check_case(checkpoint, file.parent, file.stem)
            if (folder / "single_clips.npz").exists():
                found = check_single_clips(checkpoint, folder)
                results[f"{label}single_clips"] = found
            if (folder / "history.npz").exists() and device == "cpu":
                results[f"{label}history"] = check_history(checkpoint, folder)
        if not label:  # last: the engine takes the weights over
            rows = engine_rows(checkpoint, folder)
            for name, is_equal in check_engine(checkpoint, rows).items():
                results[name] = Differences(greedy_equal=is_equal)
    if not results:
        raise ModelLoadError(f"{folder} holds no cases", subject=str(folder))
    return results


def _layouts(folder: Path) -> Iterator[tuple[str, Path]]:
    yield "", folder
    if (folder / "split" / "ultravox").is_dir():
        yield "split/", folder / "split" / "ultravox"


def _wave(path: Path) -> NDArray[np.float32]:
    """A clip's int16 samples as a wave; long clips may be kept compressed."""
    packed = path.with_suffix(".npz")
    samples = np.load(packed)["pcm"] if packed.exists() else np.load(path)
    wave: NDArray[np.float32] = samples.astype(np.float32) / np.float32(32768)
    return wave


def _prompt(
    checkpoint: Checkpoint,
    messages: Sequence[Mapping[str, str]],
    waves: Sequence[NDArray[np.float32]],
) -> Prompt:
    """The messages through our dialogue; placeholders become clips in order."""
    dialogue = Dialogue(checkpoint.chat, None, today=_ANY_DAY)
    clips = iter([AudioClip(wave) for wave in waves])
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "system":
            dialogue.append_system(content)
        elif role == "assistant":
            dialogue.append_assistant_text(content)
        else:
            texts = content.split(_PLACEHOLDER)
            parts: list[str | AudioClip] = [texts[0]]
            for text in texts[1:]:
                parts += [next(clips), text]
            dialogue.append_user_parts(parts)
    return dialogue.prompt()


def _encode_together(
    checkpoint: Checkpoint, rows: Sequence[Sequence[NDArray[np.float32]]]
) -> EncodedBatch:
    """Encode a batch as the reference does: one row's clips padded together as
    sound, then everything as features, padding visible past each piece's end."""
    pieces: list[Tensor] = []
    lengths: list[int] = []
    for waves in rows:
        longest = max((len(wave) for wave in waves), default=0)
        for wave in waves:
            padded = F.pad(torch.from_numpy(wave), (0, longest - len(wave)))
            mel, _ = checkpoint.log_mel([padded])
            start = 0
            for length in piece_lengths(count_mel_frames(len(wave))):
                # Not cut at its end: features of the sound's padding are not zero.
                pieces.append(mel[0, :, start : start + MAX_PIECE_FRAMES])
                lengths.append(length)
                start += length
    num_mel_frames = torch.tensor(lengths)
    width = max(piece.shape[1] for piece in pieces)
    mel = torch.stack([F.pad(p, (0, width - p.shape[1])) for p in pieces])
    everything = torch.ones(len(pieces), dtype=torch.bool)
    network = checkpoint.network
    states = network.audio_tower(mel, num_mel_frames, everything)
    stack = checkpoint.config.stack_factor
    counts = [num_audio_tokens(length, stack) for length in lengths]
    projected = network.multi_modal_projector(states, torch.tensor(counts))
    vectors = torch.cat([v[:n] for v, n in zip(projected, counts, strict=True)])
    return EncodedBatch(mel, num_mel_frames, states, vectors)


def _encode_each(
    checkpoint: Checkpoint, waves: Sequence[NDArray[np.float32]]
) -> list[Tensor]:
    """Vectors of each clip as if it were alone, all in one batch."""
    return checkpoint.encode([torch.from_numpy(wave) for wave in waves])


def _compare_text(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    vectors: Tensor | None,
    expected: Any,
    found: Differences,
) -> None:
    """Ids, logits of the prompt and greedy continuation of a left-padded batch."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    is_audio = torch.zeros_like(ids, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        left = width - len(prompt)
        ids[row, left:] = torch.from_numpy(prompt.token_ids)
        mask[row, left:] = 1
        for span in prompt.audio:
            is_audio[row, left + span.start : left + span.start + span.num_tokens] = (
                True
            )

    wanted_ids = torch.from_numpy(expected["in_input_ids"])
    wanted_mask = torch.from_numpy(expected["in_attention_mask"])
    compared = (wanted_mask == 1) & ~is_audio if mask.equal(wanted_mask) else None
    found.prompt_equal = compared is not None and bool(
        (ids[compared] == wanted_ids[compared]).all()
    )
    if not found.prompt_equal:
        return
    network = checkpoint.network
    logits = network(ids, mask, is_audio=is_audio, audio_vectors=vectors)
    wanted_logits = torch.from_numpy(expected["exp_logits"])
    found.logits = _distance(logits[mask == 1], wanted_logits[mask == 1])

    wanted = torch.from_numpy(expected["exp_greedy_tokens"])
    ended = torch.zeros(len(prompts), dtype=torch.bool)
    eos = int(checkpoint.network.text_config.eos_token_id)
    produced: list[Tensor] = []
    for _ in range(wanted.shape[1]):
        best = logits[:, -1].argmax(-1)
        best = torch.where(ended, torch.tensor(eos), best)
        ended |= best == eos
        produced.append(best)
        ids = torch.cat([ids, best[:, None]], dim=1)
        mask = F.pad(mask, (0, 1), value=1)
        is_audio = F.pad(is_audio, (0, 1), value=False)
        logits = network(ids, mask, is_audio=is_audio, audio_vectors=vectors)
    found.greedy_equal = bool(torch.stack(produced, 1).equal(wanted))


def _valid(padded: Tensor, lengths: Tensor) -> Tensor:
    """(A, C, L) and lengths (A,) -> (C, sum of lengths), padding left out."""
    pieces = [row[:, :n] for row, n in zip(padded, lengths.tolist(), strict=True)]
    return torch.cat(pieces, dim=1)


def _distance(ours: Tensor, theirs: Tensor | NDArray[Any]) -> float:
    theirs = torch.as_tensor(theirs)
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours - theirs).abs().max())


def _table(results: Mapping[str, Differences]) -> str:
    def number(value: float | None) -> str:
        return f"{value:10.1e}" if value is not None else f"{'-':>10}"

    def truth(value: bool | None) -> str:
        return f"{'-' if value is None else 'equal' if value else 'DIFFER':>8}"

    lines = [
        f"{'case':<22}{'mel':>10}{'encoder':>10}{'audio':>10}{'logits':>10}"
        f"{'prompt':>8}{'greedy':>8}"
    ]
    for name, found in results.items():
        lines.append(
            f"{name:<22}{number(found.mel)}{number(found.encoder)}"
            f"{number(found.audio)}{number(found.logits)}"
            f"{truth(found.prompt_equal)}{truth(found.greedy_equal)}"
            f"{'' if found.ok else '   OUT OF TOLERANCE'}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; 0 if all hold, 1 if not, 2 if there was nothing to run on."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.check_parity",
        description="Check our Ultravox against the reference's numbers.",
    )
    parser.add_argument("folder", type=Path, help="a folder of fixtures")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args(arguments)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the fixtures are too small for more to pay
    try:
        results = run(options.folder, options.device)
    except ModelLoadError as exc:
        print(f"check_parity: {exc}", file=sys.stderr)
        print(json.dumps({"ok": False, "error": str(exc), "subject": exc.subject}))
        return 2
    finally:
        torch.set_num_threads(num_threads)
    print(_table(results))
    ok = all(found.ok for found in results.values())
    tolerances = {
        "mel": MEL_TOLERANCE,
        "audio": AUDIO_TOLERANCE,
        "logits": LOGITS_TOLERANCE,
    }
    cases = {name: {**asdict(d), "ok": d.ok} for name, d in results.items()}
    print(json.dumps({"ok": ok, "tolerances": tolerances, "cases": cases}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
