"""Training on a tiny size: it learns, resumes exactly, and exports what is served."""

from __future__ import annotations

import multiprocessing
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.training.corpus import CorpusOptions, Studio, record_dialogue, write_shard
from model.training.dataset import StoredDialogue, read_corpus, spoken_batch
from model.training.export import export
from model.training.options import TrainOptions
from model.training.rows import RowMaker
from model.training.start import Sizes
from model.training.together import Group
from model.training.tokenizer import save_tokenizer, train_tokenizer
from model.training.train import Job, Run, check, num_processes
from model.training.trainer import Trainer
from model.ultravox.checkpoint import LoadOptions, load_checkpoint

TINY = Sizes(
    d_model=32,
    encoder_layers=2,
    encoder_heads=2,
    encoder_ffn=48,
    projector=32,
    text_width=32,
    text_layers=2,
    text_heads=2,
    text_ffn=48,
)
OPTIONS = TrainOptions(
    max_steps=20,
    sizes=TINY,
    dialogues_a_step=3,
    imagined_a_step=4,
    imagined_beside=2,
    openings_a_step=2,
    openings_beside=2,
    read_a_step=3,
    spliced_a_step=6,
    ear_every=3,
    tokenizer_dialogues=1000,
    warm_up_steps=2,
    text_until=0.2,
    heads_until=0.5,
    reading_from=0.8,
    decay_from=0.65,
    learning_rate=1.5e-3,
    arithmetic="float32",
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_shard(folder, 0, 5, CorpusOptions(flite_share=0.0, dialogues_a_shard=12))
    return folder


def _steps(trainer: Trainer, count: int) -> list[dict[str, float]]:
    return [trainer.take_step() for _ in range(count)]


@pytest.mark.slow
def test_losses_fall_through_all_stages(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(replace(OPTIONS, max_steps=45), tmp_path, corpus)
    numbers = _steps(trainer, 45)
    text, heads, everything = numbers[:9], numbers[9:23], numbers[23:36]
    reading = numbers[36:]
    assert text[-1]["reply"] < text[0]["reply"]
    assert "frame" not in text[0]
    assert "reply" not in heads[0]
    assert heads[-1]["frame"] < heads[0]["frame"]
    assert {"frame", "word", "reply", "heard_reply"} <= everything[0].keys()
    # The ear is updated in some steps only; the language model in all.
    with_ear = ["hearing_norm" in n for n in everything]
    assert with_ear[:6].count(True) == 2
    assert all("reading_norm" in n for n in everything + reading)
    # In the end the ear is as it is, and nothing is imagined.
    assert not any({"hearing_norm", "frame", "reply"} & n.keys() for n in reading)
    assert reading[-1]["heard_reply"] < everything[0]["heard_reply"]
    assert trainer.progress == 1
    assert trainer.learning_rate() == pytest.approx(0.03 * 1.5e-3)


def test_a_resumed_run_is_the_unbroken_one(corpus: Path, tmp_path: Path) -> None:
    unbroken = Trainer(OPTIONS, tmp_path / "a", corpus)
    whole = [n["loss"] for n in _steps(unbroken, 19)]
    broken = Trainer(OPTIONS, tmp_path / "b", corpus)
    losses = [n["loss"] for n in _steps(broken, 7)]
    for count in (10, 2):  # the second break is where the ear has done its part
        broken.save()
        broken = Trainer(OPTIONS, tmp_path / "b", corpus)
        broken.resume()
        losses += [n["loss"] for n in _steps(broken, count)]
    assert losses == whole
    ours, theirs = unbroken.everything.state_dict(), broken.everything.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_the_ear_gives_for_a_word_stays_while_the_embeddings_move_on(
    corpus: Path, tmp_path: Path
) -> None:
    trainer = Trainer(OPTIONS, tmp_path, corpus)
    look_up = trainer.network.language_model.get_input_embeddings()
    _steps(trainer, 4)
    trainer.save()
    assert torch.load(tmp_path / "state.pt")["word_table"] is None
    _steps(trainer, 1)  # the first with a clip
    table = look_up.weight.detach().clone()
    _steps(trainer, 8)
    assert not torch.equal(look_up.weight, table)
    trainer.save()
    assert torch.equal(torch.load(tmp_path / "state.pt")["word_table"], table)
    resumed = Trainer(OPTIONS, tmp_path, corpus)
    resumed.resume()
    resumed.save()
    assert torch.equal(torch.load(tmp_path / "state.pt")["word_table"], table)


def test_some_of_what_is_read_was_heard_in_noise_and_always_the_same(
    corpus: Path, tmp_path: Path
) -> None:
    trainer = Trainer(OPTIONS, tmp_path, corpus)
    shards: dict[str, list[StoredDialogue]] = {}
    read_corpus(corpus, shards)
    spoken = shards["00000"][:6]
    quiet = spoken_batch(
        *(trainer.maker, random.Random(1), spoken),
        augment=False,
        noisy=False,
        clips_a_group=OPTIONS.clips_a_group,
    )
    with torch.no_grad():
        as_stored, _ = trainer.listen(quiet, {})
    is_as_stored = [
        all(map(torch.equal, trainer._hear(name, spoken), as_stored))
        for name in "abcdefghijkl"
    ]
    assert 0 < sum(is_as_stored) < 12
    assert all(map(torch.equal, trainer._hear("a", spoken), trainer._hear("a", spoken)))


@pytest.mark.slow
def test_other_processes_make_the_same_batches(corpus: Path, tmp_path: Path) -> None:
    alone = Trainer(replace(OPTIONS, max_steps=8), tmp_path / "a", corpus)
    beside = Trainer(replace(OPTIONS, max_steps=8, workers=1), tmp_path / "b", corpus)
    try:
        ours, theirs = _steps(alone, 8), _steps(beside, 8)
    finally:
        beside.close()
    assert [n["loss"] for n in ours] == [n["loss"] for n in theirs]


def _take_part(rank: int, meeting: Path, corpus: Path, out: Path) -> None:
    group = Group(rank, 2, meeting)
    trainer = Trainer(replace(OPTIONS, max_steps=6), out, corpus, together=group)
    losses = [n["loss"] for n in _steps(trainer, 6)]
    values = {k: v.clone() for k, v in trainer.everything.state_dict().items()}
    torch.save({"losses": losses, "values": values}, out / f"{rank}.pt")
    trainer.close()


@pytest.mark.slow
def test_processes_share_each_step_and_keep_the_same_values(
    corpus: Path, tmp_path: Path
) -> None:
    alone = Trainer(replace(OPTIONS, max_steps=6), tmp_path, corpus)
    own = _steps(alone, 1)
    context = multiprocessing.get_context("spawn")
    parts = [
        context.Process(target=_take_part, args=(r, tmp_path / "m", corpus, tmp_path))
        for r in range(2)
    ]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
        assert part.exitcode == 0
    first, second = (torch.load(tmp_path / f"{r}.pt") for r in range(2))
    assert first["losses"][0] == pytest.approx(own[0]["loss"], rel=1e-4)
    assert not set(first["losses"]) & set(second["losses"])
    ours, theirs = first["values"], second["values"]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_a_run_of_two_processes_can_be_stopped_and_goes_on(
    corpus: Path, tmp_path: Path
) -> None:
    options = replace(OPTIONS, max_steps=8, processes=2)
    Job(options, tmp_path, corpus, None, None, stop_after_s=0.0).do()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 1
    assert not (tmp_path / "done").exists()
    Job(options, tmp_path, corpus, None, None, stop_after_s=600.0).do()
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 8
    assert (tmp_path / "done").exists()


def test_one_process_takes_the_batches_that_others_prepare() -> None:
    assert num_processes(replace(OPTIONS, workers=3)) == 1
    with pytest.raises(ValueError, match="leave processes out"):
        num_processes(replace(OPTIONS, workers=3, processes=2))


def test_a_run_can_start_from_a_checkpoint(corpus: Path, tmp_path: Path) -> None:
    first = Trainer(OPTIONS, tmp_path / "a", corpus)
    _steps(first, 4)
    first.save()
    export(tmp_path / "a", tmp_path / "checkpoint", TINY)
    other = replace(OPTIONS, seed=5, tokenizer_dialogues=50)
    second = Trainer(other, tmp_path / "b", corpus, tmp_path / "checkpoint")
    ours, theirs = first.network.state_dict(), second.network.state_dict()
    assert all(torch.allclose(ours[n], theirs[n], atol=2e-3) for n in ours)
    larger = replace(OPTIONS, sizes=replace(TINY, text_layers=3))
    with pytest.raises(ValueError, match="another size"):
        Trainer(larger, tmp_path / "c", corpus, tmp_path / "checkpoint")


def test_a_word_that_the_checkpoint_spells_begins_between_its_pieces(
    corpus: Path, tmp_path: Path
) -> None:
    spells = train_tokenizer(num_dialogues=50, vocab_size=400)
    save_tokenizer(spells, _made(tmp_path / "a"))
    export_of = Trainer(OPTIONS, tmp_path / "a", corpus)
    export_of.save()
    export(tmp_path / "a", tmp_path / "checkpoint", TINY)
    knows = train_tokenizer(num_dialogues=50)
    save_tokenizer(knows, _made(tmp_path / "b"))
    trainer = Trainer(OPTIONS, tmp_path / "b", corpus, tmp_path / "checkpoint")
    ours, theirs = (
        t.network.language_model.get_input_embeddings().weight.detach()
        for t in (trainer, export_of)
    )
    pieces = spells.encode(" unsubscribe", add_special_tokens=False).ids
    (word,) = knows.encode(" unsubscribe", add_special_tokens=False).ids
    assert len(pieces) > 2
    likeness = torch.cosine_similarity(ours[word], theirs[pieces].mean(0), dim=0)
    assert likeness > 0.7
    for sign in (".", "<|eot_id|>"):
        here, there = knows.token_to_id(sign), spells.token_to_id(sign)
        assert torch.allclose(ours[here], theirs[there], atol=2e-3)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.slow
def test_the_faster_arithmetic_is_taken(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(replace(OPTIONS, arithmetic="auto"), tmp_path, corpus)
    assert trainer.arithmetic.name in {"float32", "bfloat16"}
    trainer.save()
    again = Trainer(replace(OPTIONS, arithmetic="auto"), tmp_path, corpus)
    again.resume()
    assert again.arithmetic.name == trainer.arithmetic.name
    with pytest.raises(ValueError, match="float8"):
        Trainer(replace(OPTIONS, arithmetic="float8"), tmp_path, corpus)


def test_a_run_logs_and_saves_and_stops_at_its_budget(
    corpus: Path, tmp_path: Path
) -> None:
    trainer = Trainer(replace(OPTIONS, max_steps=3), tmp_path, corpus)
    Run(trainer).go()
    assert trainer.step == 3
    again = Trainer(replace(OPTIONS, max_steps=3), tmp_path, corpus)
    again.resume()
    assert again.step == 3
    rates = check(again, corpus, num_dialogues=4)
    assert {"00000_reply", "00000_transcript", "word_right"} <= rates.keys()
    assert all(0 <= rates[k] <= 1 for k in ("00000_reply", "word_right"))


def test_what_is_exported_loads_and_hears(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(OPTIONS, tmp_path / "run", corpus)
    _steps(trainer, 2)
    trainer.save()
    num_bytes = export(tmp_path / "run", tmp_path / "checkpoint", TINY)
    checkpoint = load_checkpoint(
        str(tmp_path / "checkpoint"), LoadOptions(device="cpu")
    )
    assert checkpoint.weights_kind == "demo"
    assert num_bytes < 2.2 * checkpoint.num_parameters + 20_000
    wave = torch.from_numpy(np.random.default_rng(1).normal(0, 0.1, 9000)).float()
    mel, frames = checkpoint.log_mel([wave])
    with torch.no_grad():
        ours = checkpoint.network.encode(mel, frames)[0]
        trained = trainer.network.encode(mel, frames)[0]
    # Only half precision's rounding lies between them.
    assert torch.allclose(ours, trained, atol=2e-2)


def test_a_corpus_says_the_same_for_a_seed_and_is_read_whole(tmp_path: Path) -> None:
    options = CorpusOptions(flite_share=0.0, dialogues_a_shard=4)
    said = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name, 0, 9, options)
        shards: dict[str, list[StoredDialogue]] = {}
        read_corpus(tmp_path / name, shards)
        dialogues = shards["00000"]
        # espeak-ng draws its noise from a generator of its own: the words are the
        # same, their samples are not.
        said.append([(t["transcript"], t["reply"]) for d in dialogues for t in d.turns])
        mel = np.load(tmp_path / name / "00000.mel.npy")
        assert sum(c.num_frames for d in dialogues for c in d.clips) == len(mel)
    assert said[0] == said[1]
    assert len(dialogues) == 4


def test_words_in_no_order_have_a_transcript_and_no_reply(tmp_path: Path) -> None:
    options = CorpusOptions(flite_share=0.0, dialogues_a_shard=3, words_only=True)
    write_shard(tmp_path, 0, 9, options)
    shards: dict[str, list[StoredDialogue]] = {}
    read_corpus(tmp_path, shards)
    maker = RowMaker(train_tokenizer(num_dialogues=500))
    batch = spoken_batch(maker, random.Random(1), shards["00000"], transcripts=0.0)
    assert not batch.reply_rows
    assert len(batch.transcript_rows) == 3


def test_words_lie_inside_their_clips() -> None:
    studio = Studio(3, CorpusOptions(flite_share=0.0))
    num_words = 0
    for _ in range(15):
        dialogue, clips = record_dialogue(studio)
        for turn, clip in zip(dialogue.turns, clips, strict=True):
            assert len(clip.phone_classes) == -(-len(clip.mel) // 2)
            if turn.kind in {"speech", "cut"}:
                labels = [w.label for w in clip.words]
                assert labels == turn.transcript.split()
            for word in clip.words:
                num_words += 1
                assert -0.07 <= word.start_s < word.end_s
                assert word.end_s <= len(clip.mel) / 100 + 0.05
    assert num_words > 50
