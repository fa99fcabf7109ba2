"""Dialogues -> rows of token ids with audio places and targets.

A row is the chat format's text with its audio places, exactly as it is served. A
target is kept for the position that predicts it: replies after their header, and at
the last audio position of a turn either the end of the turn or, when the caller was
cut off, the word that would have come next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from model.training import tokenizer as special
from model.training.dialogue import GREETING
from model.training.grammar import vocabulary
from model.training.prompts import OPENINGS, TRANSCRIBE_PROMPTS, draw_instructions
from model.ultravox.lengths import num_audio_tokens

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from tokenizers import Tokenizer

IGNORE = -100
TOKEN_S = 0.16  # audio one token stands for
ROWS_THAT_BEGIN_ALIKE = 36  # of the short ones: what they share is read once
TOKENS_THAT_DECIDE = 8  # of a fixed reply: no two go on differently after so many
PIECES_A_TOKEN = 3  # at most so many pieces of words share an audio token


@dataclass(frozen=True, slots=True)
class Heard:
    """One turn's audio as far as a row needs it.

    `mixture`: for each audio token up to three (token id, share) of what is said in
    it; what is missing to 1 is silence.
    """

    num_tokens: int
    mixture: tuple[tuple[tuple[int, float], ...], ...]


@dataclass(frozen=True, slots=True)
class Beginning:
    """What stands before the caller's first turn, and what the bot greeted with."""

    ids: tuple[int, ...]
    greeting: str


@dataclass(slots=True)
class Row:
    """Ids, targets (`IGNORE` where there is none) and where which clip stands."""

    ids: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    audio: list[tuple[int, int]] = field(default_factory=list)  # (start, clip)

    def text(self, ids: Sequence[int]) -> None:
        """Given tokens, nothing to learn from them."""
        self.ids.extend(ids)
        self.targets.extend([IGNORE] * len(ids))

    def learn(self, ids: Sequence[int]) -> None:
        """Tokens to be produced."""
        for token_id in ids:
            self.targets[-1] = token_id
            self.ids.append(token_id)
            self.targets.append(IGNORE)

    def clip(self, index: int, num_tokens: int, pad_id: int) -> None:
        """Places for a clip's vectors."""
        self.audio.append((len(self.ids), index))
        self.text([pad_id] * num_tokens)


class RowMaker:
    """Knows the tokenizer's ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

        def one(token: str) -> int:
            found = tokenizer.token_to_id(token)
            assert found is not None, token
            return int(found)

        self.begin, self.end_of_turn = one(special.BEGIN), one(special.END_OF_TURN)
        self.silence, self.outside = one(special.SILENCE), one(special.OUTSIDE)
        self._header, self._header_end = one(special.HEADER), one(special.HEADER_END)
        self._cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Text -> ids, remembered: few texts come back often."""
        found = self._cache.get(text)
        if found is None:
            found = self.tokenizer.encode(text, add_special_tokens=False).ids
            if len(self._cache) < 200_000:
                self._cache[text] = found
        return found

    def header(self, role: str) -> list[int]:
        """A message's header."""
        return [
            self._header,
            *self.encode(role),
            self._header_end,
            *self.encode("\n\n"),
        ]

    def hear(
        self, words: Sequence[Sequence[Any]], num_frames: int, *, is_outside: bool
    ) -> Heard:
        """What each audio token holds. `words`: (word, start_s, end_s)."""
        count = num_audio_tokens(num_frames)
        shares: list[dict[int, float]] = [{} for _ in range(count)]
        for word, start_s, end_s in words:
            is_known = not is_outside or word in vocabulary()
            pieces = self.encode(" " + word) if is_known else [self.outside]
            each_s = (end_s - start_s) / len(pieces)
            for i, piece in enumerate(pieces):
                begin, end = start_s + i * each_s, start_s + (i + 1) * each_s
                first, last = int(begin / TOKEN_S), int(max(end - 1e-6, 0) / TOKEN_S)
                for slot in range(max(first, 0), min(last, count - 1) + 1):
                    overlap = min(end, (slot + 1) * TOKEN_S) - max(
                        begin, slot * TOKEN_S
                    )
                    if overlap > 0:
                        share = shares[slot]
                        share[piece] = share.get(piece, 0.0) + overlap / TOKEN_S
        mixture = tuple(
            tuple(sorted(s.items(), key=lambda p: -p[1])[:PIECES_A_TOKEN])
            for s in shares
        )
        return Heard(count, mixture)

    def begin_call(self, rng: random.Random, opening: str | None) -> Beginning:
        """A call's instructions, if it has any, and the bot's greeting, if it spoke."""
        ids = [self.begin]
        instructions = draw_instructions(rng)
        if instructions is not None:
            ids += [*self.header("system"), *self.encode(instructions)]
            ids.append(self.end_of_turn)
        if opening is None:
            return Beginning(tuple(ids), GREETING)
        greeting = rng.choice(OPENINGS) if rng.random() < 0.35 else opening
        ids += [*self.header("assistant"), *self.encode(greeting), self.end_of_turn]
        return Beginning(tuple(ids), greeting)

    def reply_row(
        self,
        rng: random.Random,
        beginning: Beginning,
        turns: Sequence[dict[str, Any]],
        heard: Sequence[Heard],
        first_clip: int,
        *,
        as_text: float = 0.0,
        longest_reply: int | None = None,
    ) -> Row:
        """A whole dialogue.

        Args:
            as_text: how often a turn is given as its words.
            longest_reply: tokens of the last reply that are learnt; the rest says
                nothing about what the caller meant.
        """
        row = Row()
        row.text(beginning.ids)
        for i, turn in enumerate(turns):
            row.text(self.header("user"))
            if turn["kind"] == "speech" and rng.random() < as_text:
                row.text(self.encode(_as_typed(rng, turn["transcript"])))
            else:
                row.clip(first_clip + i, heard[i].num_tokens, self.silence)
                rest = turn["rest"]
                row.targets[-1] = (
                    self.end_of_turn if rest is None else self.encode(" " + rest)[0]
                )
            row.text([self.end_of_turn, *self.header("assistant")])
            # Asked to repeat, the bot repeats what it really began with.
            reply = self.encode(turn["reply"].replace(GREETING, beginning.greeting))
            following = turns[i + 1]["intent"] if i + 1 < len(turns) else "repeat"
            if following not in {"repeat", "slower"} and rng.random() < 0.08:
                # The caller broke in: history holds what was heard of the reply.
                row.learn(reply[: rng.randint(1, len(reply))])
                row.text([self.end_of_turn])
            else:
                whole = [*reply, self.end_of_turn]
                is_last = i + 1 == len(turns)
                row.learn(whole[:longest_reply] if is_last else whole)
        return row

    def opening_row(
        self,
        rng: random.Random,
        beginning: Beginning,
        turn: dict[str, Any],
        heard: Heard,
        clip: int,
    ) -> Row:
        """A first turn; of most fixed replies only what decides them is learnt."""
        is_fixed = not any(turn["spoken"]["slots"].values())
        shortened = is_fixed and rng.random() < 0.75
        longest = TOKENS_THAT_DECIDE if shortened else None
        return self.reply_row(
            rng, beginning, [turn], [heard], clip, longest_reply=longest
        )

    def transcript_row(
        self, rng: random.Random, turn: dict[str, Any], heard: Heard, clip: int
    ) -> Row:
        """One clip and what was said in it."""
        row = Row()
        row.text([self.begin])
        if rng.random() < 0.15:
            instructions = draw_instructions(rng)
            if instructions is not None:
                row.text([*self.header("system"), *self.encode(instructions)])
                row.text([self.end_of_turn])
        first = rng.random() < 0.6
        before, after = (
            TRANSCRIBE_PROMPTS[0] if first else rng.choice(TRANSCRIBE_PROMPTS)
        )
        row.text([*self.header("user"), *self.encode(before)] if before else [])
        if not before:
            row.text(self.header("user"))
        row.clip(clip, heard.num_tokens, self.silence)
        row.text([*self.encode(after), self.end_of_turn, *self.header("assistant")])
        row.learn([*self.encode(turn["transcript"]), self.end_of_turn])
        return row


def _as_typed(rng: random.Random, words: str) -> str:
    """The way a REST user may type it."""
    if rng.random() < 0.5:
        words = words[0].upper() + words[1:]
        words = words.replace(" i ", " I ")
    return words + rng.choice(("", "", ".", "?", "!"))


def imagined_words(
    rng: random.Random, text: str
) -> tuple[list[tuple[str, float, float]], int]:
    """Word times as a speaker might have them, and the clip's mel frames."""
    at = rng.uniform(0.04, 0.5)
    pace = rng.uniform(0.7, 1.3)
    words = []
    for word in text.split():
        long_s = pace * (0.07 + 0.05 * len(word)) * rng.uniform(0.7, 1.3)
        words.append((word, at, at + long_s))
        at += long_s
        if rng.random() < 0.03:
            at += rng.uniform(0.1, 0.6)
    return words, round((at + rng.uniform(0.06, 0.6)) * 100)
