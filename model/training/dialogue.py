"""The bot's side: one deterministic answer to every turn, and whole conversations.

`Policy` is the teacher: what the model should say after a caller's turn, given what
was said before. Actions stand in the text as ``[[name argument]]``. The policy never
claims to know what only the operator's systems know (balances, deliveries).
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field, replace

from model.training import grammar
from model.training.grammar import Slots, Split, Spoken
from model.training.phrasings import AGENT, COMPANY

GREETING = f"Hello, this is {AGENT} from {COMPANY}. How can I help you?"
NOT_HEARD = "Sorry, I did not hear you. Could you say that again?"
NOT_UNDERSTOOD = (
    "Sorry, I did not understand. I can help with appointments, orders and hours."
)
GO_ON = "Yes, go on."
# The second time in a row.
STILL_NOT_HEARD = "Sorry, I still can not hear you. Shall I connect you to a person?"
STILL_NOT_UNDERSTOOD = (
    "Sorry, I still do not understand. Shall I connect you to a person?"
)
_ACTION = re.compile(r"\s*\[\[[^\[\]]*\]\]\s*")


def without_actions(text: str) -> str:
    """The words of a reply that are spoken."""
    return _ACTION.sub(" ", text).strip()


@dataclass(slots=True)
class Policy:
    """The state of one call, as far as it follows from the words."""

    pending: str | None = None
    day: str | None = None
    time: str | None = None
    number: str | None = None
    noted: str | None = None
    last: str = GREETING
    misses: int = 0

    def answer(self, intent: str, slots: Slots) -> str:
        """The reply to one caller's turn."""
        if intent in _MISSES:
            self.misses += 1
            text = self._missed(intent)
        else:
            self.misses = 0
            text = self._answer(intent, slots)
        self.last = without_actions(text) or self.last
        return text

    def _answer(self, intent: str, slots: Slots) -> str:
        if intent in _KEEPS_STATE:
            return self._keeping(intent)
        if intent in {"yes", "no"}:
            return self._yes_no(agreed=intent == "yes")
        if intent in _SCHEDULING:
            return self._schedule(intent, slots)
        if intent in _ORDERS:
            return self._order(intent, slots)
        self.pending = None
        if intent in _OFFERS:
            text, self.pending = _OFFERS[intent]
            return text
        if intent == "hours_day":
            return _hours(slots.day)
        if intent == "recall_appointment":
            if self.noted:
                return f"I have noted {self.noted}."
            self.pending = "person"
            return "I can not see your appointments. Shall I connect you to a person?"
        return _FIXED[intent]

    def _missed(self, intent: str) -> str:
        """Ask again; the second time in a row, offer a person."""
        if self.misses < 2:
            return _MISSES[intent][0]
        self.pending = "person"
        return _MISSES[intent][1]

    def _keeping(self, intent: str) -> str:
        if intent == "repeat":
            return self.last
        if intent == "slower":
            return f"Sure. {self.last.removeprefix('Sure. ')}"
        return _FIXED[intent]

    def _yes_no(self, *, agreed: bool) -> str:
        pending, self.pending = self.pending, None
        when = _when(self.day, self.time)
        if pending in {"book", "move"}:
            if agreed:
                self.noted, self.day, self.time = when, None, None
                self.pending = "else"
                note = f"[[note {pending} {_arg(when)}]]"
                return f"I have noted {when}. Anything else? {note}"
            self.pending, self.day, self.time = f"{pending}_when", None, None
            return "All right. Which day and time would you like?"
        if pending == "cancel":
            self.pending = "else"
            if agreed:
                return "I have noted that. Anything else? [[note cancel appointment]]"
            return "All right, it stays as it is. Anything else?"
        if pending == "person":
            if agreed:
                return _FIXED["person"]
            self.pending = "else"
            return "All right. Anything else?"
        if pending == "dnc":
            if agreed:
                return _FIXED["dnc"]
            self.pending = "else"
            return "All right. Anything else?"
        if pending == "number":
            if agreed:
                return self._checked()
            self.pending, self.number = "order", None
            return "Sorry. What is your order number?"
        if pending == "else":
            return "What else can I do for you?" if agreed else _FIXED["done"]
        return "Good. How can I help you?" if agreed else "All right. How can I help?"

    def _schedule(self, intent: str, slots: Slots) -> str:
        kind = {"book": "book", "move": "move", "call": "call"}.get(
            intent.split("_")[0][:4]
        )
        waiting = (self.pending or "").removesuffix("_when")
        if kind is None:
            kind = waiting if waiting in {"book", "move", "call"} else "book"
        elif kind != waiting:
            self.day = self.time = None
        self.day = slots.day or self.day
        self.time = slots.time or self.time
        self.pending = f"{kind}_when"
        if kind != "call" and self.day == "sunday":
            self.day = None
            return "We are closed on Sunday. Which other day would you like?"
        if self.day and self.time:
            when = _when(self.day, self.time)
            if kind == "call":
                self.pending, self.day, self.time = "else", None, None
                return (
                    f"We will call you back {_on(when)}. Anything else? "
                    f"[[callback {_arg(when)}]]"
                )
            self.pending = kind
            asked = "book" if kind == "book" else "move it to"
            return f"Shall I {asked} {when}?"
        if self.day:
            on_day = _on(_say_day(self.day))
            return f"{on_day[0].upper()}{on_day[1:]}. At what time?"
        if self.time:
            return f"At {self.time}. On which day?"
        if kind == "call":
            return "Of course. When shall we call you back?"
        return "Sure. Which day and time would you like?"

    def _order(self, intent: str, slots: Slots) -> str:
        waiting, self.pending = self.pending, None
        if intent == "recall_number":
            if self.number:
                return f"You said {self.number}."
            return "You have not told me a number yet."
        if slots.number:
            self.number = slots.number
            if intent == "order_number" or waiting == "order":
                return self._checked()
            self.pending = "number"
            return f"Is {slots.number} your order number?"
        if self.number:
            return self._checked()
        self.pending = "order"
        return "Sure. What is your four digit order number?"

    def _checked(self) -> str:
        self.pending = "else"
        return f"I will have order {self.number} checked. Anything else?"


_KEEPS_STATE = frozenset({"repeat", "slower", "hold", "unfinished"})
_MISSES = {
    "noise": (NOT_HEARD, STILL_NOT_HEARD),
    "outside": (NOT_UNDERSTOOD, STILL_NOT_UNDERSTOOD),
}
_SCHEDULING = frozenset(
    [
        "book",
        "book_day",
        "book_day_time",
        "move",
        "move_day_time",
        "day",
        "time",
        "day_time",
        "correct_day",
        "correct_time",
        "callback",
        "callback_day_time",
    ]
)
_ORDERS = frozenset({"order", "order_number", "number", "correct_number"}) | {
    "recall_number"
}
_OFFERS: dict[str, tuple[str, str]] = {
    "balance": (
        "I can not see your balance. Shall I connect you to a person?",
        "person",
    ),
    "payment": ("I can not take payments. Shall I connect you to a person?", "person"),
    "price": ("I do not know the price. Shall I connect you to a person?", "person"),
    "complaint": (
        "I am sorry to hear that. Shall I connect you to a person?",
        "person",
    ),
    "language": ("I only speak English. Shall I connect you to a person?", "person"),
    "cancel": ("Shall I cancel your appointment?", "cancel"),
    "number_source": (
        "You are on our customer list. Shall I take your number off it?",
        "dnc",
    ),
    "busy": ("Of course. When shall we call you back?", "call_when"),
    "thanks": ("You are welcome. Anything else?", "else"),
}
_FIXED: dict[str, str] = {
    "greeting": "Hello. How can I help you?",
    "how_are_you": "I am fine, thank you. How can I help you?",
    "can_you_hear": "Yes, I can hear you. How can I help you?",
    "who": f"This is the assistant of {COMPANY}. How can I help you?",
    "name": f"My name is {AGENT}. I am an automated assistant.",
    "robot": "I am an automated assistant. I can also connect you to a person.",
    "help": "I can help with appointments, orders and opening hours.",
    "hours": "We are open Monday to Friday from nine to five.",
    "location": "We are at twelve River Street.",
    "person": "One moment, I will connect you. [[transfer]]",
    "dnc": "I am sorry. We will not call you again. Goodbye. [[dnc]] [[hangup]]",
    "not_interested": (
        "All right. Thank you for your time. Goodbye. [[disposition NI]] [[hangup]]"
    ),
    "wrong_number": (
        "I am sorry for the mistake. Goodbye. [[disposition WN]] [[hangup]]"
    ),
    "done": "Thank you for calling. Goodbye. [[hangup]]",
    "goodbye": "Goodbye. [[hangup]]",
    "voicemail": "[[disposition A]] [[hangup]]",
    "hold": "Sure, take your time.",
    "unfinished": GO_ON,
}


def _say_day(day: str) -> str:
    return day if day in {"today", "tomorrow"} else day.capitalize()


def _when(day: str | None, time: str | None) -> str:
    return f"{_say_day(day)} at {time}" if day and time else ""


def _on(when: str) -> str:
    return when if when.split()[0] in {"today", "tomorrow"} else f"on {when}"


def _arg(when: str) -> str:
    """ "Tuesday at three pm" -> "tuesday 3 pm"."""
    day, _, time = when.partition(" at ")
    return f"{day.lower()} {grammar.digits_for_action(time)}"


def _hours(day: str | None) -> str:
    if day == "sunday":
        return "We are closed on Sunday."
    if day == "saturday":
        return "On Saturday we are open from ten to two."
    if day in grammar.WEEKDAYS:
        return f"On {_say_day(day)} we are open from nine to five."
    return _FIXED["hours"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One caller's turn and the reply to it.

    `kind` is ``speech``, ``cut`` (broken off), ``outside``, ``noise`` or ``words``
    (words in no order, which have a transcript and no reply). `transcript` is what a
    transcription should say, `rest` the next word of a turn that was cut.
    """

    kind: str
    spoken: Spoken | None
    intent: str
    transcript: str
    reply: str
    rest: str | None = None


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A whole conversation: an optional opening by the bot, then turns."""

    opening: str | None
    turns: tuple[Turn, ...] = field(default_factory=tuple)


# What a caller is likely to say while the bot waits for something.
_LIKELY: dict[str, tuple[str, ...]] = {
    "book": ("yes", "yes", "no", "correct_day", "correct_time", "time", "day"),
    "move": ("yes", "yes", "no", "correct_day", "correct_time"),
    "book_when": ("day", "time", "day_time", "day_time", "hold"),
    "move_when": ("day", "time", "day_time", "day_time", "hold"),
    "call_when": ("day", "time", "day_time", "day_time"),
    "cancel": ("yes", "yes", "no"),
    "person": ("yes", "yes", "no", "person"),
    "dnc": ("yes", "yes", "no", "dnc"),
    "number": ("yes", "yes", "no", "correct_number", "correct_number"),
    "order": ("number", "number", "number", "hold"),
    "else": ("no", "done", "yes", "thanks", "goodbye", "recall_number", "order"),
}
_SLOTS_ARE_HARD = ("number", "order_number") * 3 + (
    "book_day_time",
    "move_day_time",
    "callback_day_time",
    "hours_day",
)
_ANY_TIME = ("repeat", "slower", "recall_number", "recall_appointment", "order")


def draw_dialogue(rng: random.Random, split: Split = "train") -> Dialogue:
    """One random conversation of one to four turns."""
    policy = Policy()
    opening = GREETING if rng.random() < 0.55 else None
    turns: list[Turn] = []
    for left in reversed(range(rng.choice((1, 1, 2, 2, 3, 3, 4)))):
        turn = _draw_turn(rng, policy, split, last=left == 0)
        turns.append(turn)
        if "[[hangup]]" in turn.reply or "[[transfer]]" in turn.reply:
            break
    return Dialogue(opening, tuple(turns))


def draw_opening(rng: random.Random) -> Turn:
    """A whole turn that opens a call; intents equally often but for what is hard."""
    common = rng.random() < 0.3
    intent = rng.choice(grammar.INTENTS + _SLOTS_ARE_HARD)
    spoken = _loosened(rng, grammar.draw(rng, intent, common=common))
    reply = Policy().answer(spoken.intent, spoken.slots)
    return Turn("speech", spoken, spoken.intent, spoken.text, reply)


def words_only(rng: random.Random) -> Dialogue:
    """Words in no order, as one turn without a reply."""
    text = grammar.draw_words(rng)
    spoken = Spoken(text, "words", Slots(), "", len(text.split()))
    return Dialogue(None, (Turn("words", spoken, "words", text, ""),))


def _draw_turn(rng: random.Random, policy: Policy, split: Split, *, last: bool) -> Turn:
    luck = rng.random()
    if policy.misses:  # what was not understood once is often not understood again
        luck *= 0.25
    if luck < 0.05:
        return Turn("noise", None, "noise", "", policy.answer("noise", Slots()))
    if luck < 0.11:
        spoken = grammar.outside(rng, split)
        reply = policy.answer("outside", Slots())
        return Turn("outside", spoken, "outside", "[unclear]", reply)
    likely = _LIKELY.get(policy.pending or "")
    if likely and rng.random() < 0.72:
        intent = rng.choice(likely)
    elif rng.random() < 0.2:
        intent = rng.choice(_ANY_TIME)
    else:
        intent = rng.choice(grammar.INTENTS + _SLOTS_ARE_HARD)
    spoken = grammar.draw(rng, intent, split)
    breaks_off = rng.random() < (0.12 if last else 0.04)
    cuts = grammar.cut_points(spoken) if breaks_off else []
    if cuts:
        count = rng.choice(cuts)
        words = spoken.text.split()
        reply = policy.answer("unfinished", Slots())
        said = " ".join(words[:count])
        return Turn("cut", spoken, "unfinished", said, reply, words[count])
    if split == "train":
        spoken = _loosened(rng, spoken)
    reply = policy.answer(intent, spoken.slots)
    return Turn("speech", spoken, intent, spoken.text, reply)


def _loosened(rng: random.Random, spoken: Spoken) -> Spoken:
    if rng.random() >= 0.5:
        return spoken
    return replace(spoken, text=grammar.loosen(rng, spoken.text))
