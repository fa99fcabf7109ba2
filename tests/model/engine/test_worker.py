"""Real batches of a real (tiny) model: nothing a request gets depends on others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from model.engine.request import GenerationRequest, Priority, Session
from model.engine.sequence import Sequence
from model.engine.stream import Delivery
from model.errors import GenerationFailed
from model.ultravox.inputs import Dialogue, Prompt
from tests.model.engine.prompts import TODAY, wave
from tests.model.ultravox.parity_data import V0_4

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model.engine.worker import Worker
    from model.ultravox.checkpoint import Checkpoint
    from tests.model.engine.conftest import WorkerFactory

_EOT = 260


class Desk:
    """Submits prompts to a worker and collects what comes back."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.replies: dict[Sequence, list[Delivery]] = {}

    def submit(
        self,
        prompt: Prompt,
        *,
        session: Session | None = None,
        priority: Priority = Priority.PHONE,
        max_new_tokens: int = 12,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Sequence:
        request = GenerationRequest(
            prompt,
            session=session,
            priority=priority,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
        )
        sequence = Sequence(len(self.replies), request, submitted_at_s=0.0)
        self.replies[sequence] = []
        self.note(self.worker.admit(sequence))
        return sequence

    def note(self, results: Iterable[tuple[Sequence, Delivery]]) -> None:
        for sequence, delivery in results:
            self.replies[sequence].append(delivery)

    def step(self) -> None:
        self.note(self.worker.step())

    def finish(self) -> None:
        for _ in range(500):
            if not self.worker.has_work:
                return
            self.step()
        raise AssertionError("the worker does not come to an end")

    def tokens(self, sequence: Sequence) -> list[int]:
        return [i for delivery in self.replies[sequence] for i in delivery.token_ids]

    def error(self, sequence: Sequence) -> Exception | None:
        return self.replies[sequence][-1].error

    def cached(self, sequence: Sequence) -> int:
        usage = self.replies[sequence][-1].usage
        assert usage is not None
        return usage.cached_tokens


def _spoken(
    checkpoint: Checkpoint,
    seed: int,
    num_samples: int = 16_000,
    text: str = "Be brief.",
) -> Prompt:
    dialogue = Dialogue(checkpoint.chat, text, today=TODAY)
    dialogue.append_user_audio(wave(seed, num_samples))
    return dialogue.prompt()


def mixed_prompts(checkpoint: Checkpoint) -> list[Prompt]:
    """Prompts of very different lengths, most with audio."""
    typed = Dialogue(checkpoint.chat, None, today=TODAY)
    typed.append_user_text("hello")
    return [
        _spoken(checkpoint, 1),
        _spoken(checkpoint, 2, 40_000),
        typed.prompt(),
        _spoken(checkpoint, 3, 5_000, "You are a much longer set of instructions."),
        _spoken(checkpoint, 4, 321),
    ]


def _alone(make_worker: WorkerFactory, prompt: Prompt) -> list[int]:
    desk = Desk(make_worker(slots=1))
    sequence = desk.submit(prompt)
    desk.finish()
    return desk.tokens(sequence)


def test_the_references_greedy_replies(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    expected = np.load(V0_4 / "history.npz")["exp_greedy_tokens"][0].tolist()
    meta = json.loads((V0_4 / "history.json").read_text())
    dialogue = Dialogue(checkpoint.chat, "You are a test.", today=TODAY)
    clips = [np.load(V0_4 / name).astype(np.float32) / 32768 for name in meta["waves"]]
    dialogue.append_user_audio(clips[0])
    dialogue.append_assistant_text("ok then")
    dialogue.append_user_audio(clips[1], before="now ")
    desk = Desk(make_worker())
    sequence = desk.submit(dialogue.prompt(), max_new_tokens=32)
    desk.finish()
    assert desk.tokens(sequence) == expected


@pytest.mark.parametrize(("slots", "step_tokens"), [(8, 512), (8, 30), (2, 512)])
def test_tokens_do_not_depend_on_neighbours_or_on_how_prompts_are_cut(
    checkpoint: Checkpoint, make_worker: WorkerFactory, slots: int, step_tokens: int
) -> None:
    prompts = mixed_prompts(checkpoint)
    expected = [_alone(make_worker, prompt) for prompt in prompts]
    assert len({tuple(tokens) for tokens in expected}) == len(prompts)
    desk = Desk(make_worker(slots=slots, step_tokens=step_tokens))
    sequences = []
    for prompt in prompts:  # joining one by one, while others decode
        sequences.append(desk.submit(prompt))
        desk.step()
    desk.finish()
    assert [desk.tokens(sequence) for sequence in sequences] == expected


def test_the_same_ids_with_other_audio_are_another_prompt(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    one, other = _spoken(checkpoint, 1), _spoken(checkpoint, 2)
    assert (one.token_ids == other.token_ids).all()
    desk = Desk(make_worker())
    first = desk.submit(one, session=Session())
    desk.finish()
    second = desk.submit(other, session=Session())
    desk.finish()
    assert desk.tokens(first) != desk.tokens(second)
    assert desk.tokens(second) == _alone(make_worker, _spoken(checkpoint, 2))
    assert desk.cached(second) == other.text_prefix_length


def test_a_turn_that_builds_on_the_last_is_the_same_as_from_the_start(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    desk, session = Desk(make_worker()), Session()
    dialogue = Dialogue(checkpoint.chat, "Be brief.", today=TODAY)
    read_before = 0
    for turn in range(3):
        dialogue.append_user_audio(wave(turn, 12_000 + 3_000 * turn))
        prompt = dialogue.prompt()
        sequence = desk.submit(prompt, session=session)
        desk.finish()
        assert desk.tokens(sequence) == _alone(make_worker, prompt)
        assert desk.cached(sequence) == read_before
        dialogue.append_assistant_tokens(desk.tokens(sequence))
        # All but the newest token of the reply has been read as well.
        read_before = len(prompt) + len(desk.tokens(sequence)) - 1
    dialogue.trim_last_reply(dialogue.messages()[-1].text[:1])
    dialogue.append_user_text("go on")
    sequence = desk.submit(dialogue.prompt(), session=session)
    desk.finish()
    assert desk.tokens(sequence) == _alone(make_worker, dialogue.prompt())
    assert len(prompt) <= desk.cached(sequence) < read_before


def test_calls_with_long_common_instructions_get_what_they_get_alone(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    instructions = "Answer in one sentence. " * 15
    prompts = [
        _spoken(checkpoint, seed, 5_000 * seed, instructions) for seed in range(1, 6)
    ]
    prompts.append(_spoken(checkpoint, 9))  # and one that has others
    expected = [_alone(make_worker, prompt) for prompt in prompts]
    assert len({tuple(tokens) for tokens in expected}) > 3
    desk = Desk(make_worker(slots=8))
    sequences = []
    for prompt in prompts:
        sequences.append(desk.submit(prompt, session=Session()))
        desk.step()
    desk.finish()
    assert [desk.tokens(sequence) for sequence in sequences] == expected
    assert [desk.cached(sequence) > 360 for sequence in sequences[1:5]] == [True] * 4


def test_a_reply_that_lost_its_slot_goes_on_as_if_nothing_had_happened(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    prompt = _spoken(checkpoint, 1)
    desk = Desk(make_worker(slots=1))
    transcript = desk.submit(prompt, priority=Priority.TRANSCRIPT)
    for _ in range(4):
        desk.step()
    phone = desk.submit(_spoken(checkpoint, 2))
    desk.finish()
    assert desk.tokens(transcript) == _alone(make_worker, prompt)
    assert desk.tokens(phone) == _alone(make_worker, _spoken(checkpoint, 2))


def test_a_seed_gives_the_same_reply_in_any_company(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    replies = []
    for company in (0, 3):
        desk = Desk(make_worker(slots=8))
        for number in range(company):
            desk.submit(_spoken(checkpoint, 10 + number))
        one = desk.submit(_spoken(checkpoint, 1), temperature=1.0, seed=5)
        desk.finish()
        replies.append(desk.tokens(one))
    assert replies[0] == replies[1]
    desk = Desk(make_worker())
    other = desk.submit(_spoken(checkpoint, 1), temperature=1.0, seed=6)
    desk.finish()
    assert desk.tokens(other) != replies[0]


def test_a_prompt_can_be_read_without_a_reply(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    desk = Desk(make_worker())
    prompt = _spoken(checkpoint, 1)
    sequence = desk.submit(prompt, max_new_tokens=0)
    desk.finish()
    (delivery,) = desk.replies[sequence]
    assert delivery.token_ids == ()
    assert delivery.finish_reason == "length"
    assert delivery.end_of_turn_probability is not None


def test_the_end_of_turn_is_read_at_the_last_audio_position(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    import torch

    prompt = _spoken(checkpoint, 1)
    probabilities = []
    for step_tokens in (512, 20):
        desk = Desk(make_worker(step_tokens=step_tokens))
        sequence = desk.submit(prompt)
        desk.finish()
        probabilities.append(desk.replies[sequence][0].end_of_turn_probability)

    # The same from a plain forward pass, one position at a time.
    from model.ultravox.checkpoint import load_checkpoint

    plain = load_checkpoint(str(V0_4))
    ids = torch.from_numpy(prompt.token_ids)[None]
    is_audio = torch.from_numpy(prompt.keys < 0)[None]
    (span,) = prompt.audio
    assert span.clip.vectors is not None
    with torch.inference_mode():
        logits = plain.network(ids, is_audio=is_audio, audio_vectors=span.clip.vectors)
    assert prompt.turn_end is not None
    expected = logits[0, prompt.turn_end].softmax(-1)[_EOT].item()
    assert probabilities == pytest.approx([expected, expected], rel=1e-3)


def test_the_end_of_turn_is_told_before_the_rest_of_the_prompt_is_read(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    prompt = _spoken(checkpoint, 1)
    assert prompt.turn_end is not None
    # As many tokens a step as end with the audio, so that the header comes later.
    desk = Desk(make_worker(step_tokens=prompt.turn_end + 1))
    sequence = desk.submit(prompt, max_new_tokens=1)
    desk.note(desk.worker.step())
    (told,) = desk.replies[sequence]
    assert told.end_of_turn_probability is not None
    assert told.token_ids == ()
    assert not told.is_last
    desk.finish()
    rest = desk.replies[sequence][1:]
    assert rest[-1].is_last
    assert all(delivery.end_of_turn_probability is None for delivery in rest)


def test_a_clip_is_encoded_once_for_reply_and_transcript(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    desk, session = Desk(make_worker()), Session()
    dialogue = Dialogue(checkpoint.chat, "Be brief.", today=TODAY)
    clip = dialogue.append_user_audio(wave(1))
    desk.submit(dialogue.prompt(), session=session)
    desk.finish()
    vectors = clip.vectors
    transcript = Dialogue(checkpoint.chat, None, today=TODAY)
    transcript.append_user_clip(clip, after="\nWrite it down.")
    desk.submit(transcript.prompt(), priority=Priority.TRANSCRIPT)
    desk.finish()
    assert clip.vectors is vectors


def test_a_step_encodes_what_fits_most_important_first(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    prompts = [_spoken(checkpoint, seed, 16_000) for seed in range(4)]
    expected = [_alone(make_worker, _spoken(checkpoint, s, 16_000)) for s in range(4)]
    desk = Desk(make_worker(step_audio_s=2.0))
    transcript = desk.submit(prompts[0], priority=Priority.TRANSCRIPT)
    phones = [desk.submit(prompt) for prompt in prompts[1:]]
    desk.step()
    encoded = [prompt.audio[0].clip.vectors is not None for prompt in prompts]
    assert encoded == [False, True, True, False]
    assert [len(desk.replies[phone]) for phone in phones] == [1, 1, 0]
    desk.finish()
    assert [desk.tokens(one) for one in (transcript, *phones)] == expected


def test_a_clip_longer_than_a_steps_share_is_encoded_all_the_same(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    prompt = _spoken(checkpoint, 1, 40_000)
    desk = Desk(make_worker(step_audio_s=0.5))
    sequence = desk.submit(prompt)
    desk.step()
    assert len(desk.tokens(sequence)) == 1


def test_a_step_that_fails_fails_only_the_request_at_fault(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    prompts = mixed_prompts(checkpoint)
    expected = [_alone(make_worker, prompt) for prompt in prompts]
    desk = Desk(make_worker(slots=8))
    sequences = [desk.submit(prompt) for prompt in prompts]
    desk.step()
    desk.step()
    # Vectors of the wrong width, as a fault in the middle of a call would leave them.
    broken = _spoken(checkpoint, 9)
    import torch

    broken.audio[0].clip.set_vectors(torch.zeros(7, 5))
    at_fault = desk.submit(broken)
    desk.finish()
    assert isinstance(desk.error(at_fault), GenerationFailed)
    assert [desk.tokens(sequence) for sequence in sequences] == expected


def test_audio_that_cannot_be_encoded_fails_only_its_request(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    import torch

    good, bad = _spoken(checkpoint, 1), _spoken(checkpoint, 2)
    expected = _alone(make_worker, _spoken(checkpoint, 1))
    assert (bad.keys < 0).any()  # made from the samples, as an engine does first
    bad.audio[0].clip._samples = None
    desk = Desk(make_worker())
    sequences = [desk.submit(good), desk.submit(bad)]
    desk.finish()
    assert desk.tokens(sequences[0]) == expected
    assert isinstance(desk.error(sequences[1]), GenerationFailed)
    assert isinstance(good.audio[0].clip.vectors, torch.Tensor)


def test_what_is_not_a_number_stays_with_its_request(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    import torch

    expected = _alone(make_worker, _spoken(checkpoint, 1))
    desk = Desk(make_worker(slots=2))
    good = desk.submit(_spoken(checkpoint, 1), max_new_tokens=12)
    poisoned = _spoken(checkpoint, 2)
    poisoned.audio[0].clip.set_vectors(torch.full((7, 64), torch.nan))
    bad = desk.submit(poisoned)
    desk.finish()
    assert isinstance(desk.error(bad), GenerationFailed)
    assert desk.tokens(good) == expected
    # And what is left of it in its slot harms nobody who comes after.
    later = [desk.submit(_spoken(checkpoint, 1)) for _ in range(2)]
    desk.finish()
    assert [desk.tokens(sequence) for sequence in later] == [expected, expected]


def test_a_dropped_request_gives_its_slot_back_between_two_steps(
    checkpoint: Checkpoint, make_worker: WorkerFactory
) -> None:
    desk = Desk(make_worker(slots=1))
    dropped = desk.submit(_spoken(checkpoint, 1))
    desk.step()
    desk.step()
    waiting = desk.submit(_spoken(checkpoint, 2))
    desk.step()
    assert desk.replies[waiting] == []
    desk.worker.drop(dropped)
    desk.step()
    assert desk.tokens(waiting) != []
    desk.finish()
    assert desk.tokens(waiting) == _alone(make_worker, _spoken(checkpoint, 2))
