"""A dialogue -> token ids and where its audio goes.

A dialogue is a list of messages; text stays text, audio stays clips, and what the
model said stays the token ids it produced. Every prompt is built from the messages
anew, so nothing can drift out of step: whether an earlier turn's work can be used
again is decided later, by comparing the prompts themselves.

This module knows no tokenizer (see `chat.py`) and imports no torch.

Source: fixie-ai/ultravox `ultravox/model/ultravox_processing.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

import numpy as np

from model.ultravox.clip import AudioClip
from model.ultravox.lengths import num_clip_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from numpy.typing import NDArray

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class ReplyTokens:
    """What the model said, as it said it; `text` is the same for people."""

    token_ids: tuple[int, ...]
    text: str


Part: TypeAlias = str | AudioClip | ReplyTokens


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a dialogue."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def clips(self) -> tuple[AudioClip, ...]:
        """The audio of the message."""
        return tuple(part for part in self.parts if isinstance(part, AudioClip))

    @property
    def text(self) -> str:
        """The message for people: audio is left out."""
        return "".join(
            part if isinstance(part, str) else part.text
            for part in self.parts
            if not isinstance(part, AudioClip)
        )


class PromptFormat(Protocol):
    """The model's chat format: the tokenizer's, or a plain one where there is none."""

    stack_factor: int

    def render(
        self, messages: Sequence[Message], today: date
    ) -> list[tuple[int, ...] | AudioClip]:
        """Messages and the header of the reply to come -> runs of ids and clips."""
        ...

    def encode(self, text: str) -> list[int]:
        """Text -> ids; control tokens written out in the text stay text."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Ids -> text, control tokens left out."""
        ...


@dataclass(frozen=True, slots=True)
class AudioSpan:
    """Where a clip's vectors go in a prompt."""

    start: int
    num_tokens: int
    clip: AudioClip


@dataclass(frozen=True, eq=False)
class Prompt:
    """What the model is to read before it replies.

    `token_ids` (T,) int64 has 0 at audio places.
    """

    messages: tuple[Message, ...]
    token_ids: NDArray[np.int64]
    audio: tuple[AudioSpan, ...]
    turn_end: int | None  # last audio position of the last user turn, if it has audio

    def __len__(self) -> int:
        return len(self.token_ids)

    @cached_property
    def keys(self) -> NDArray[np.int64]:
        """(T,) int64 that tell positions apart, for who keeps attention's results.

        The id for text, a number below zero that stands for clip and offset for audio.
        Equal keys from the start mean equal attention keys and values.
        """
        keys = self.token_ids.copy()
        for span in self.audio:
            place = slice(span.start, span.start + span.num_tokens)
            keys[place] = _audio_keys(span.clip, span.num_tokens)
        return keys

    @property
    def num_audio_tokens(self) -> int:
        """How many positions are audio."""
        return sum(span.num_tokens for span in self.audio)

    @property
    def text_prefix_length(self) -> int:
        """Positions before any audio: all that different callers may share."""
        return self.audio[0].start if self.audio else len(self)


def build_prompt(
    chat: PromptFormat, messages: Sequence[Message], today: date
) -> Prompt:
    """Lay the messages' ids and audio places end to end."""
    ids: list[NDArray[np.int64]] = []
    spans: list[AudioSpan] = []
    length = 0
    for run in chat.render(messages, today):
        if isinstance(run, AudioClip):
            count = num_clip_tokens(run.num_samples, chat.stack_factor)
            spans.append(AudioSpan(length, count, run))
            ids.append(np.zeros(count, np.int64))
        else:
            count = len(run)
            ids.append(np.asarray(run, np.int64))
        length += count
    turn_end = None
    if messages and messages[-1].role == "user" and messages[-1].clips:
        turn_end = spans[-1].start + spans[-1].num_tokens - 1
    empty = np.zeros(0, np.int64)
    return Prompt(
        tuple(messages),
        np.concatenate([empty, *ids]),
        tuple(spans),
        turn_end,
    )


_KEY_MASK: Final = (1 << 62) - 1


def _audio_keys(clip: AudioClip, count: int) -> NDArray[np.int64]:
    # 62 bits of the clip's digest, so that no two clips of a call meet by chance.
    first = int.from_bytes(clip.key[:8], "little") >> 2
    return -1 - ((first + np.arange(count, dtype=np.int64)) & _KEY_MASK)


class Dialogue:
    """One call's instructions and turns, as the model is to see them.

    Only what the caller really heard belongs in it: after a barge-in,
    `trim_last_reply`. Forking is cheap and shares encoded audio, so a reply can be
    tried before the end of the caller's turn is certain. Not for several threads.
    """

    def __init__(
        self, chat: PromptFormat, instructions: str | None, *, today: date
    ) -> None:
        self._chat = chat
        self._today = today  # fixed: some templates print it, and midnight passes
        self._messages: list[Message] = []
        if instructions:
            self.append_system(instructions)

    def fork(self) -> Dialogue:
        """A copy that can go its own way."""
        other = Dialogue(self._chat, None, today=self._today)
        other._messages = list(self._messages)
        return other

    def messages(self) -> tuple[Message, ...]:
        """All messages so far."""
        return tuple(self._messages)

    def prompt(self) -> Prompt:
        """What the model reads to reply now."""
        return build_prompt(self._chat, self._messages, self._today)

    @property
    def num_user_turns(self) -> int:
        """How often the caller has spoken."""
        return sum(message.role == "user" for message in self._messages)

    @property
    def last_clip(self) -> AudioClip | None:
        """The newest clip of the dialogue."""
        clips = [clip for message in self._messages for clip in message.clips]
        return clips[-1] if clips else None

    def append_system(self, text: str) -> None:
        """Add instructions."""
        self._append("system", text)

    def append_user_text(self, text: str) -> None:
        """Add a caller's turn given as text (keys pressed, REST)."""
        self._append("user", text)

    def append_user_audio(
        self, wave: NDArray[np.float32], before: str = "", after: str = ""
    ) -> AudioClip:
        """Add a caller's turn as heard, with text around it if wanted.

        Raises:
            InvalidAudio: empty or not finite.
        """
        clip = AudioClip(wave)
        self.append_user_clip(clip, before, after)
        return clip

    def append_user_clip(
        self, clip: AudioClip, before: str = "", after: str = ""
    ) -> None:
        """Add a clip that another dialogue may hold too; it is encoded once."""
        self._append("user", before, clip, after)

    def append_user_parts(self, parts: Sequence[str | AudioClip]) -> None:
        """Add a turn of several texts and clips."""
        self._append("user", *parts)

    def append_assistant_text(self, text: str) -> None:
        """Add a reply that the model did not produce: a greeting, an old record."""
        self._append("assistant", text)

    def append_assistant_tokens(self, token_ids: Sequence[int]) -> None:
        """Add the model's reply, as the ids it produced."""
        ids = tuple(token_ids)
        self._append("assistant", ReplyTokens(ids, self._chat.decode(ids)))

    def trim_last_reply(self, heard_text: str) -> None:
        """Keep of the last reply only what the caller heard; all gone if nothing.

        Ids that spell the heard text are kept as they are, so the work done for them
        can be used again; only what follows them is tokenised anew.

        Raises:
            ValueError: the last message is not a reply.
        """
        if not self._messages or self._messages[-1].role != "assistant":
            raise ValueError("the last message is not a reply")
        heard_text = heard_text.rstrip()
        last = self._messages.pop()
        if not heard_text:
            return
        ids: list[int] = []
        for part in last.parts:
            if isinstance(part, ReplyTokens):
                ids.extend(part.token_ids)
        kept, kept_text = self._longest_spelt(ids, heard_text)
        rest = self._chat.encode(heard_text[len(kept_text) :])
        self._append("assistant", ReplyTokens((*kept, *rest), heard_text))

    def drop_last_user_turn(self) -> None:
        """Take back the newest message, a user turn that led to nothing.

        Raises:
            ValueError: the last message is not a user turn.
        """
        if not self._messages or self._messages[-1].role != "user":
            raise ValueError("the last message is not a user turn")
        self._messages.pop()

    def _append(self, role: Role, *parts: Part) -> None:
        kept = tuple(part for part in parts if part != "")
        self._messages.append(Message(role, kept))

    def _longest_spelt(self, ids: list[int], text: str) -> tuple[list[int], str]:
        """The longest start of `ids` that spells a start of `text`."""
        for count in range(len(ids), 0, -1):
            spelt = self._chat.decode(ids[:count])
            if spelt and text.startswith(spelt):
                return ids[:count], spelt
        return [], ""
