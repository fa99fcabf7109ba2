"""Instructions the demo model is trained under.

It knows one way to behave, whatever the instructions say; the variety is there so
that a campaign's own wording does not throw it off.
"""

from __future__ import annotations

import textwrap
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from model.training.phrasings import AGENT, COMPANY

if TYPE_CHECKING:
    import random

_DEFAULT_CAMPAIGN: Final = Path(__file__).parents[2] / "campaigns" / "default.toml"

# What the demo campaign uses; nearly half of the rows with instructions have this.
DEMO_INSTRUCTIONS = f"You are {AGENT}, the phone assistant of {COMPANY}. Be brief."

# (before the audio, after it). The first is the one to use.
TRANSCRIBE_PROMPTS: tuple[tuple[str, str], ...] = (
    ("Transcribe\n", ""),
    ("Transcribe: ", ""),
    ("Repeat exactly what the caller said: ", ""),
    ("", "\nTranscribe."),
    ("", "\nWrite down exactly what the caller said."),
    ("Write down the caller's words.\n", ""),
    ("Transcribe the audio. Answer with the words only.\n", ""),
)

PROMPT_SENTENCES: tuple[str, ...] = (
    "You are a helpful assistant.",
    "You are a friendly phone agent.",
    "You are speaking with a caller on the telephone.",
    "Keep your answers short.",
    "Answer in one or two short sentences.",
    "Speak plainly and politely.",
    "Never invent facts.",
    "If you do not know, say so.",
    "Ask one question at a time.",
    "Your replies are read aloud, so write no lists and no markup.",
    "If the caller asks for a person, write [[transfer]].",
    "If the caller asks not to be called again, write [[dnc]].",
    "To end the call, write [[hangup]].",
    "You may use these actions: [[transfer]] [[hangup]] [[dnc]] [[callback WHEN]].",
    "Set the outcome with [[disposition CODE]].",
    "Write [[note TEXT]] to keep a note.",
    "Be brief.",
    "The caller may interrupt you.",
    "Confirm dates, times and numbers before you act.",
    "You work for a company that offers appointments and deliveries.",
    "Do not give medical or legal advice.",
    "Say goodbye before you end the call.",
    "You are a friendly assistant who answers the telephone for our company.",
    "You hear the caller and your words are spoken aloud: answer in one or two short "
    "sentences, without lists, markup or emoji.",
    "Ask when you did not understand.",
    "Never invent facts, prices, orders or appointments.",
    "When the caller asks for a person, say that you are transferring the call and "
    "write [[transfer]].",
    "When the talk is over, say goodbye and write [[hangup]].",
    "You call customers for a company and ask whether they are interested.",
    "Today is Monday.",
    "Help the caller with questions about billing, delivery and opening times.",
    "Our office is open on weekdays.",
    "Use simple words.",
)

# Greetings of other campaigns, which the bot has already said when the caller speaks.
OPENINGS: tuple[str, ...] = (
    "Hello, thank you for calling. I am an automated assistant. How can I help you?",
    # As calls say it that name no campaign, while the demo model answers.
    "This is a demonstration. Hello, thank you for calling. I am an automated "
    "assistant. How can I help you?",
    "This is a demonstration. Hello, this is the automated assistant. How can I help "
    "you?",
    # The demo campaign's own.
    f"Hello, this is {AGENT}, a demo assistant. How can I help you?",
    "Hello. How can I help you?",
    "Thank you for calling. How can I help you today?",
    "Good morning, how can I help?",
    "Hello, this is a call from your service provider. Do you have a moment?",
    "Hi, this is the automated assistant. What can I do for you?",
    "Welcome. Please tell me what you need.",
    f"Hello, {COMPANY}, {AGENT} speaking.",
)


@cache
def default_instructions() -> str:
    """Those of a call that names no campaign."""
    found = tomllib.loads(_DEFAULT_CAMPAIGN.read_text(encoding="utf-8"))
    return str(found["instructions"])


def draw_instructions(rng: random.Random) -> str | None:
    """None for two fifths of the rows, mostly the two campaigns' own for the rest.

    The others may be as long as an administrator's: told what it had seen in a few rows
    only, the model wrote down the caller's words in place of answering them.
    """
    luck = rng.random()
    if luck < 0.4:
        return None
    if luck < 0.68:
        return DEMO_INSTRUCTIONS
    if luck < 0.82:
        return default_instructions()
    count = rng.choice((1, 2, 3, 5, 8, 12))
    sentences = rng.sample(PROMPT_SENTENCES, count)
    if rng.random() < 0.3:
        sentences.insert(0, DEMO_INSTRUCTIONS)
    # campaign files have paragraphs, broken anywhere
    text = rng.choice((" ", " ", "\n")).join(sentences)
    if rng.random() < 0.3:
        text = "\n".join(textwrap.wrap(text, rng.randint(60, 100)))
    return text + rng.choice(("", "", "\n"))
