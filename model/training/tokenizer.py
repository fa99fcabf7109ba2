"""A small byte-level BPE with Llama 3's special tokens and chat template."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from model.training import grammar
from model.training.dialogue import draw_dialogue
from model.training.prompts import PROMPT_SENTENCES, TRANSCRIBE_PROMPTS

if TYPE_CHECKING:
    from pathlib import Path

BEGIN, END_OF_TEXT = "<|begin_of_text|>", "<|end_of_text|>"
HEADER, HEADER_END = "<|start_header_id|>", "<|end_header_id|>"
END_OF_TURN, AUDIO = "<|eot_id|>", "<|audio|>"
# Embeddings with a meaning of their own in training: silence, and words that are not
# in the grammar. Never produced.
SILENCE, OUTSIDE = "<|reserved_special_token_0|>", "<|reserved_special_token_1|>"
SPECIAL_TOKENS = (
    BEGIN,
    END_OF_TEXT,
    HEADER,
    HEADER_END,
    END_OF_TURN,
    AUDIO,
    SILENCE,
    OUTSIDE,
)
# Room for every word of the grammar as one token: a word in five pieces, of which each
# sounds for 60 ms, is neither heard nor understood.
VOCAB_SIZE = 3584
_TIMES_A_WORD = 10

# The way Llama 3 cuts text before merging, digits one by one.
_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def train_tokenizer(
    seed: int = 1, num_dialogues: int = 20_000, vocab_size: int = VOCAB_SIZE
) -> Tokenizer:
    """Merges learned on what callers and bot say; the same seed gives the same."""
    rng = random.Random(seed)
    texts = ["system\n\n", "user\n\n", "assistant\n\n"] * 200
    texts += list(PROMPT_SENTENCES) * 20 + [b + a for b, a in TRANSCRIBE_PROMPTS] * 20
    for _ in range(num_dialogues):
        for turn in draw_dialogue(rng).turns:
            texts += [turn.reply, turn.transcript, " " + turn.transcript]
    # Held-out phrasings may use words that no other does; they are words all the same.
    for intent in grammar.INTENTS:
        texts += [grammar.draw(rng, intent, "held_out").text for _ in range(60)]
    texts += [f" {word}" for word in sorted(grammar.vocabulary())] * _TIMES_A_WORD
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CUT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_or_train_tokenizer(folder: Path, num_dialogues: int) -> Tokenizer:
    """The folder's tokenizer; made and saved there when there is none."""
    path = folder / "tokenizer.json"
    if path.exists():
        return Tokenizer.from_file(str(path))
    tokenizer = train_tokenizer(num_dialogues=num_dialogues)
    save_tokenizer(tokenizer, folder)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """`tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`."""
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens: dict[str, Any] = {"bos_token": BEGIN, "eos_token": END_OF_TURN}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 2048,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
        **tokens,
    }
    for name, content in (
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", tokens),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
