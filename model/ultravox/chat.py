"""The backbone's chat format: its template and its tokenizer.

The template is rendered with the messages' real text, so whatever it does to text
(trimming, headers, dates) is done. Three things must not pass through it or the
tokenizer as text, and travel as private-use marks instead:

    audio clips          the placeholder never becomes a token
    replies as ids       what the model said is never tokenised again
    control tokens that someone wrote out in a message, such as "<|eot_id|>":
                         they are tokenised in two halves and so stay plain text
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from model.errors import InvalidRequest, ModelLoadError
from model.ultravox.chat_template import ChatTemplate
from model.ultravox.clip import AudioClip
from model.ultravox.inputs import Message, ReplyTokens

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date
    from pathlib import Path

AUDIO_PLACEHOLDER = "<|audio|>"

# Tokens that end a turn in the published backbones' formats, beside the declared EOS.
_TURN_ENDS = ("<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|endoftext|>")

_OPEN, _CLOSE = "\ue000", "\ue001"  # private use: in no template and no vocabulary
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
_LOOKS_LIKE_CONTROL = re.compile(r"^[<\[].+[>\]]$")

# Framing text repeats in every prompt; a few thousand strings are a few hundred kB.
_MAX_CACHED_RUNS = 4096

_Hidden: TypeAlias = AudioClip | ReplyTokens | str


class ChatFormat:
    """Renders and tokenises dialogues for one checkpoint."""

    def __init__(self, tokenizer: Any, *, stack_factor: int, vocab_size: int) -> None:
        self.stack_factor = stack_factor
        self.vocab_size = vocab_size
        self._eos_id: int | None = tokenizer.eos_token_id
        self._backend = tokenizer.backend_tokenizer
        if not tokenizer.chat_template:
            raise ModelLoadError(
                "the tokenizer has no chat_template; an instruction-tuned backbone "
                "is wanted",
                subject="chat_template",
            )
        self._template = ChatTemplate(
            tokenizer.chat_template, tokenizer.special_tokens_map
        )
        self._control = _control_pattern(tokenizer)
        self._encode_run = lru_cache(_MAX_CACHED_RUNS)(self._encode_run_uncached)

    @classmethod
    def load(cls, folder: Path, *, stack_factor: int, vocab_size: int) -> ChatFormat:
        """Read `tokenizer.json`, its config and the chat template; no remote code.

        Raises:
            ModelLoadError: naming what is missing or broken.
        """
        from transformers import PreTrainedTokenizerFast

        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(  # nosec B615 # a folder
                str(folder), local_files_only=True
            )
        except (OSError, ValueError, TypeError, KeyError) as exc:
            raise ModelLoadError(
                f"cannot load the tokenizer in {folder}: {exc}", subject=str(folder)
            ) from exc
        return cls(tokenizer, stack_factor=stack_factor, vocab_size=vocab_size)

    def stop_ids(self) -> frozenset[int]:
        """Ids after which a reply is over, as far as the tokenizer knows."""
        ids = {self._eos_id}
        ids.update(self._backend.token_to_id(token) for token in _TURN_ENDS)
        return frozenset(i for i in ids if i is not None and i < self.vocab_size)

    def encode(self, text: str) -> list[int]:
        """Text -> ids; control tokens written out in the text stay text."""
        hidden: list[_Hidden] = []
        runs = self._tokenise(self._hide(text, hidden), hidden)
        return [token_id for run in runs if isinstance(run, tuple) for token_id in run]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Ids -> text, control tokens left out."""
        return str(self._backend.decode(list(token_ids), skip_special_tokens=True))

    def render(
        self, messages: Sequence[Message], today: date
    ) -> list[tuple[int, ...] | AudioClip]:
        """Messages and the header of the reply to come -> runs of ids and clips.

        Raises:
            InvalidRequest: the template refuses these messages.
        """
        if not self._template.takes_any_order:
            messages = _alternating(messages)
        hidden: list[_Hidden] = []
        contents = [
            {
                "role": message.role,
                "content": "".join(self._hide(part, hidden) for part in message.parts),
            }
            for message in messages
        ]
        return self._tokenise(self._template.render(contents, today), hidden)

    def _hide(self, part: str | AudioClip | ReplyTokens, hidden: list[_Hidden]) -> str:
        """Replace what must not be rendered or tokenised as text by a mark."""
        if not isinstance(part, str):
            hidden.append(part)
            return f"{_OPEN}{len(hidden) - 1}{_CLOSE}"

        def mark(match: re.Match[str]) -> str:
            hidden.append(match.group())
            return f"{_OPEN}{len(hidden) - 1}{_CLOSE}"

        return self._control.sub(mark, part)

    def _tokenise(
        self, text: str, hidden: list[_Hidden]
    ) -> list[tuple[int, ...] | AudioClip]:
        runs: list[tuple[int, ...] | AudioClip] = []
        run = ""
        # re.split with one group: text, mark, text, mark, ..., text
        pieces = _MARK.split(text)
        for plain, mark in zip(pieces[::2], [*pieces[1::2], None], strict=True):
            run += plain
            if mark is None:
                break
            content = hidden[int(mark)]
            if isinstance(content, str):
                # Cut inside the control token: neither half is one.
                runs.append(self._encode_run(run + content[0]))
                run = content[1:]
                continue
            runs.append(self._encode_run(run))
            run = ""
            runs.append(
                content if isinstance(content, AudioClip) else content.token_ids
            )
        runs.append(self._encode_run(run))
        return [run for run in runs if run != ()]

    def _encode_run_uncached(self, text: str) -> tuple[int, ...]:
        ids = tuple(self._backend.encode(text, add_special_tokens=False).ids)
        # Some published tokenizers know <|audio|> as an id past the embedding table.
        beyond = [i for i in ids if i >= self.vocab_size]
        if beyond:
            raise InvalidRequest(
                f"text holds token {beyond[0]}, which has no embedding"
            )
        return ids


def _control_pattern(tokenizer: Any) -> re.Pattern[str]:
    """Matches whatever would turn into a control token, and our own marks."""
    tokens = {AUDIO_PLACEHOLDER}
    for added in tokenizer.added_tokens_decoder.values():
        # Some vocabularies add plain words or runs of blanks; those are just text.
        if added.special or _LOOKS_LIKE_CONTROL.match(added.content):
            tokens.add(added.content)
    # A one-letter token cannot be cut in two.
    longest_first = sorted((t for t in tokens if len(t) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) + f"|[{_OPEN}{_CLOSE}]")


def _alternating(messages: Sequence[Message]) -> list[Message]:
    """The same dialogue for templates that insist on user, assistant, user, ...

    A leading greeting gets the words it answers, and turns in a row become one.
    """
    result: list[Message] = []
    for message in messages:
        previous = result[-1].role if result else "system"
        if message.role == "assistant" and previous == "system":
            result.append(Message("user", ("Hello?",)))
        if result and result[-1].role == message.role:
            joined = (*result[-1].parts, "\n", *message.parts)
            result[-1] = Message(message.role, joined)
        else:
            result.append(message)
    return result
