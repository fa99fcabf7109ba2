"""Dialogues and the prompts made of them, in a plain chat format."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from model.engine.plain_chat import PlainChat
from model.errors import InvalidAudio
from model.ultravox.clip import AudioClip
from model.ultravox.inputs import Dialogue, Prompt

_TODAY = date(2025, 3, 4)


def _dialogue(instructions: str | None = "Be kind.") -> Dialogue:
    return Dialogue(PlainChat(), instructions, today=_TODAY)


def _wave(value: float, num_samples: int = 16_000) -> np.ndarray:
    return np.full(num_samples, value, np.float32)


def _text(prompt: Prompt) -> str:
    """The prompt with one '#' for each audio token."""
    keys = prompt.keys
    return bytes(35 if k < 0 else int(k) for k in keys).decode()


def test_audio_takes_as_many_places_as_it_has_tokens() -> None:
    dialogue = _dialogue()
    dialogue.append_user_audio(_wave(0.1), before="hear: ", after="!")
    prompt = dialogue.prompt()
    assert _text(prompt) == "system: Be kind.\nuser: hear: #######!\nassistant: "
    (span,) = prompt.audio
    assert span.num_tokens == prompt.num_audio_tokens == 7
    assert prompt.token_ids[span.start : span.start + 7].tolist() == [0] * 7
    assert prompt.text_prefix_length == span.start
    assert prompt.turn_end == span.start + 6


def test_a_long_clip_has_the_tokens_of_all_its_pieces() -> None:
    dialogue = _dialogue()
    clip = dialogue.append_user_audio(_wave(0.1, 31 * 16_000))
    assert clip.num_pieces() == 2
    assert dialogue.prompt().num_audio_tokens == 195


def test_audio_is_told_apart_by_what_it_sounds_like() -> None:
    def keys(value: float) -> list[int]:
        dialogue = _dialogue()
        dialogue.append_user_audio(_wave(value))
        prompt = dialogue.prompt()
        return [int(k) for k in prompt.keys if k < 0]

    assert keys(0.1) == keys(0.1)
    assert not set(keys(0.1)) & set(keys(0.2))
    assert len(set(keys(0.1))) == 7


def test_the_end_of_a_turn_is_only_known_for_a_spoken_last_turn() -> None:
    dialogue = _dialogue()
    dialogue.append_user_audio(_wave(0.1))
    dialogue.append_assistant_text("Yes?")
    assert dialogue.prompt().turn_end is None
    dialogue.append_user_text("typed")
    assert dialogue.prompt().turn_end is None


def test_a_fork_goes_its_own_way() -> None:
    dialogue = _dialogue()
    fork = dialogue.fork()
    fork.append_user_text("maybe")
    assert _text(dialogue.prompt()) == "system: Be kind.\nassistant: "
    assert "maybe" in _text(fork.prompt())


def test_a_reply_is_trimmed_to_what_was_heard() -> None:
    dialogue = _dialogue(None)
    reply = list(b"We open at nine. We close at five.")
    dialogue.append_assistant_tokens(reply)
    dialogue.trim_last_reply("We open at nine. ")
    (message,) = dialogue.messages()
    assert message.text == "We open at nine."
    assert dialogue.prompt().token_ids[11:27].tolist() == reply[:16]


def test_heard_words_that_are_not_the_replys_are_tokenised_anew() -> None:
    dialogue = _dialogue(None)
    dialogue.append_assistant_tokens(list(b"It is 5 pm."))
    dialogue.trim_last_reply("It is five")
    (message,) = dialogue.messages()
    assert message.text == "It is five"
    assert _text(dialogue.prompt()).startswith("assistant: It is five\n")


def test_a_reply_of_which_nothing_was_heard_is_gone() -> None:
    dialogue = _dialogue(None)
    dialogue.append_assistant_text("Hello")
    dialogue.trim_last_reply("  ")
    assert dialogue.messages() == ()


def test_only_a_reply_can_be_trimmed_and_only_a_turn_taken_back() -> None:
    dialogue = _dialogue()
    with pytest.raises(ValueError, match="not a reply"):
        dialogue.trim_last_reply("x")
    with pytest.raises(ValueError, match="not a user turn"):
        dialogue.drop_last_user_turn()
    dialogue.append_user_text("x")
    dialogue.drop_last_user_turn()
    assert dialogue.num_user_turns == 0


def test_a_clip_can_stand_in_two_dialogues() -> None:
    reply, transcript = _dialogue(), _dialogue("Write it down.")
    clip = reply.append_user_audio(_wave(0.1))
    transcript.append_user_clip(clip)
    assert transcript.last_clip is reply.last_clip is clip


@pytest.mark.parametrize(
    "wave",
    [
        np.zeros(0, np.float32),
        np.zeros((2, 100), np.float32),
        np.array([0.0, np.nan], np.float32),
        np.array([np.inf], np.float32),
    ],
)
def test_what_is_not_audio_is_refused(wave: np.ndarray) -> None:
    with pytest.raises(InvalidAudio):
        AudioClip(wave)


def test_a_clip_of_16_bit_samples_is_the_same_sound() -> None:
    pcm16 = np.array([0, 1, -32768, 32767], "<i2").tobytes()
    clip = AudioClip.of_pcm16(pcm16)
    assert clip.wave.tolist() == [0.0, 1 / 32768, -1.0, 32767 / 32768]
    assert clip.key == AudioClip.of_pcm16(bytes(memoryview(pcm16))).key
    assert clip.key != AudioClip.of_pcm16(pcm16[::-1]).key
    # float samples that are the very same bytes are another sound
    assert AudioClip.of_pcm16(bytes(8)).key != AudioClip(np.zeros(2, np.float32)).key
    for wrong in (b"", b"odd"):
        with pytest.raises(InvalidAudio):
            AudioClip.of_pcm16(wrong)


def test_samples_are_let_go_once_they_are_encoded() -> None:
    import torch

    clip = AudioClip(_wave(0.1))
    clip.set_vectors(torch.zeros(7, 4))
    assert clip.vectors is not None
    with pytest.raises(ValueError, match="let go"):
        _ = clip.wave
