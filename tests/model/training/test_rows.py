"""Rows are what is served, with targets in the right places."""

from __future__ import annotations

import random
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from model.training import tokenizer as special
from model.training.dialogue import GREETING
from model.training.prompts import DEMO_INSTRUCTIONS, TRANSCRIBE_PROMPTS
from model.training.rows import IGNORE, Heard, RowMaker, imagined_words
from model.ultravox.chat import ChatFormat
from model.ultravox.inputs import Dialogue
from model.ultravox.lengths import num_audio_tokens


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return special.train_tokenizer(num_dialogues=1500)


@pytest.fixture(scope="module")
def maker(tokenizer: Tokenizer) -> RowMaker:
    return RowMaker(tokenizer)


class FirstChoice(random.Random):
    """Always takes the usual way: no variation of prompts, openings or history."""

    def __init__(self, luck: float) -> None:
        super().__init__(0)
        self.luck = luck

    def random(self) -> float:
        return self.luck


def _turn(**changes: Any) -> dict[str, Any]:
    turn = {
        "kind": "speech",
        "intent": "hours",
        "transcript": "when are you open",
        "reply": "We are open Monday to Friday from nine to five.",
        "rest": None,
    }
    return turn | changes


def _silence(num_tokens: int) -> Heard:
    return Heard(num_tokens, ((),) * num_tokens)


@pytest.mark.parametrize(
    "text",
    [
        "Hello, this is Robin from Riverside Services. How can I help you?",
        "[[callback tuesday 3:30 pm]] [[hangup]]",
        "what's my balance i don't know",
        "Größe 漢字 🙂 never seen",
        "  two  spaces\n\nand lines ",
        "",
    ],
)
def test_tokens_spell_the_text_again(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_tokenizer_is_the_same_each_time(tokenizer: Tokenizer) -> None:
    again = special.train_tokenizer(num_dialogues=1500)
    assert again.to_str() == tokenizer.to_str()


def test_a_reply_row_is_the_served_prompt(maker: RowMaker, tmp_path: Path) -> None:
    special.save_tokenizer(maker.tokenizer, tmp_path)
    vocab_size = maker.tokenizer.get_vocab_size()
    chat = ChatFormat.load(tmp_path, stack_factor=8, vocab_size=vocab_size)
    dialogue = Dialogue(chat, DEMO_INSTRUCTIONS, today=date(2026, 1, 1))
    dialogue.append_assistant_text(GREETING)
    dialogue.append_user_audio(np.full(16_000, 0.01, np.float32))
    served = dialogue.prompt()
    assert dialogue.last_clip is not None

    luck = 0.6  # instructions: the demo's own; opening: ours
    rng = FirstChoice(luck)
    begun = maker.begin_call(rng, GREETING)
    row = maker.reply_row(rng, begun, [_turn()], [_silence(7)], 0)
    ids = np.array(row.ids[: len(served)])
    is_audio = np.array(served.keys) < 0
    assert np.array_equal(ids[~is_audio], served.token_ids[~is_audio])
    assert row.audio == [(int(np.flatnonzero(is_audio)[0]), 0)]
    assert served.turn_end is not None
    assert row.targets[served.turn_end] == maker.end_of_turn
    produced = [t for t in row.targets[len(served) - 1 :] if t != IGNORE]
    assert chat.decode(produced) == _turn()["reply"]
    assert produced[-1] == maker.end_of_turn


def test_a_transcript_row_is_the_served_prompt(maker: RowMaker, tmp_path: Path) -> None:
    special.save_tokenizer(maker.tokenizer, tmp_path)
    vocab_size = maker.tokenizer.get_vocab_size()
    chat = ChatFormat.load(tmp_path, stack_factor=8, vocab_size=vocab_size)
    dialogue = Dialogue(chat, None, today=date(2026, 1, 1))
    before, after = TRANSCRIBE_PROMPTS[0]
    dialogue.append_user_audio(np.full(16_000, 0.01, np.float32), before, after)
    served = dialogue.prompt()
    row = maker.transcript_row(FirstChoice(0.3), _turn(), _silence(7), 0)
    ids = np.array(row.ids[: len(served)])
    is_audio = np.array(served.keys) < 0
    assert np.array_equal(ids[~is_audio], served.token_ids[~is_audio])


def test_a_cut_turn_wants_its_next_word_not_the_end(maker: RowMaker) -> None:
    turn = _turn(kind="cut", transcript="when are", rest="you", reply="Yes, go on.")
    rng = FirstChoice(0.4)
    row = maker.reply_row(rng, maker.begin_call(rng, None), [turn], [_silence(5)], 0)
    start, _ = row.audio[0]
    target = row.targets[start + 4]
    assert target == maker.encode(" you")[0] != maker.end_of_turn
    assert row.ids[start + 5] == maker.end_of_turn


def test_targets_follow_their_positions(maker: RowMaker) -> None:
    turns = [_turn(), _turn(intent="thanks", reply="You are welcome. Anything else?")]
    heard = [_silence(4), _silence(6)]
    rng = FirstChoice(0.4)
    row = maker.reply_row(rng, maker.begin_call(rng, None), turns, heard, 10)
    assert [clip for _, clip in row.audio] == [10, 11]
    assert len(row.ids) == len(row.targets)
    ends = {start + heard[i].num_tokens - 1 for i, (start, _) in enumerate(row.audio)}
    for at, target in enumerate(row.targets[:-1]):
        if target != IGNORE and at not in ends:
            assert row.ids[at + 1] == target


def test_what_is_heard_adds_up(maker: RowMaker) -> None:
    rng = random.Random(8)
    for _ in range(50):
        words, num_frames = imagined_words(rng, "my order number is one two three four")
        heard = maker.hear(words, num_frames, is_outside=False)
        assert heard.num_tokens == num_audio_tokens(num_frames)
        total = 0.0
        for slot in heard.mixture:
            share = sum(s for _, s in slot)
            assert share <= 1.0 + 1e-6
            total += share * 0.16
        spoken_s = sum(end - start for _, start, end in words)
        assert total <= spoken_s + 1e-6
        assert total > 0.9 * spoken_s


def test_words_outside_the_grammar_have_one_mark(maker: RowMaker) -> None:
    heard = maker.hear([("giraffe", 0.0, 0.5)], 60, is_outside=True)
    assert {token for slot in heard.mixture for token, _ in slot} == {maker.outside}
