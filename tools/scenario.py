"""Scenario files: what a caller says, and what must come of it.

    title = "A person is wanted"
    campaign = "demo"                   # of the bot; default: default

    [[turns]]
    say = "Can I talk to a person?"     # or audio = "FILE.wav", or keys = "0#"
    reply_has = ["connect"]             # each of these in the bot's reply
    reply_has_any = ["moment", "wait"]  # one of these
    within_ms = 1500                    # end of speech to first sound of the reply

    [expect]
    status = "transfer"                 # BOT_STATUS; one, or a list of allowed ones
    actions = ["transfer"]              # the model, the caller or a key brought about
    forbidden = ["as an AI"]            # nowhere in what the bot says

A turn begins when the bot has been quiet for `after_quiet_s`; with `interrupt_after_s`
it begins so long after the bot's next sound instead.  `silent_s` waits before it.
Words are compared without case and punctuation.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tools.caller.say_items import BadItem, Item, Pause, WaitForQuiet, parse_item

_HEARD_RMS: Final = 200.0
"""Louder than this is the bot speaking."""

Texts = tuple[Annotated[str, Field(min_length=1)], ...]


class ScenarioInvalid(Exception):
    """The file is no scenario; `problems`, a line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScenarioTurn(_Table):
    """One thing the caller does."""

    say: str = ""
    audio: str = ""
    keys: str = ""
    after_quiet_s: float = Field(default=0.8, ge=0.1, le=30)
    interrupt_after_s: float | None = Field(default=None, ge=0, le=30)
    silent_s: float = Field(default=0.0, ge=0, le=120)
    reply_has: Texts = ()
    reply_has_any: Texts = ()
    within_ms: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if sum(bool(text) for text in (self.say, self.audio, self.keys)) != 1:
            raise ValueError("one of say, audio, keys is wanted")
        if self.keys and (self.reply_has or self.reply_has_any or self.within_ms):
            raise ValueError("keys have no reply of their own: see [expect]")
        return self

    @property
    def is_spoken(self) -> bool:
        return not self.keys


class Expectation(_Table):
    """What must be true of the whole call."""

    status: Texts | str = ()
    reason: str = ""
    disposition: str = ""
    transfer_to: str = ""
    actions: Texts = ()
    no_actions: Texts = ()
    forbidden: Texts = ()
    said: Texts = ()
    """Somewhere in what the bot says."""
    min_barge_ins: int = Field(default=0, ge=0)
    greeting_within_ms: int | None = Field(default=None, ge=1)
    max_s: float | None = Field(default=None, gt=0)
    """The call's length."""

    @property
    def statuses(self) -> Sequence[str]:
        return (self.status,) if isinstance(self.status, str) else self.status


class Scenario(_Table):
    """One call."""

    title: str
    campaign: str = "default"
    variables: Mapping[str, str] = Field(default_factory=dict)
    """Channel variables that a dialplan would have set."""
    linger_s: float = Field(default=3.0, ge=0.5, le=120)
    """Quiet of the bot, after the last turn, that ends the call."""
    longest_s: float = Field(default=90.0, ge=1, le=900)
    turns: tuple[ScenarioTurn, ...] = ()
    expect: Expectation = Expectation()

    @property
    def script(self) -> str:
        return f"ultravox?campaign={self.campaign}"

    def without_deadlines(self) -> Scenario:
        """The same, however long anything takes."""
        none = {"within_ms": None}
        turns = tuple(turn.model_copy(update=none) for turn in self.turns)
        expect = self.expect.model_copy(
            update={"greeting_within_ms": None, "max_s": None}
        )
        return self.model_copy(update={"turns": turns, "expect": expect})


def load_scenario(path: Path) -> Scenario:
    """Read and check a file.

    Raises:
        ScenarioInvalid: with every mistake.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return Scenario.model_validate(table)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ScenarioInvalid([f"{path}: {exc}"]) from exc
    except ValidationError as exc:
        raise ScenarioInvalid(
            [f"{path}: {_line(error)}" for error in exc.errors()]
        ) from (exc)


def _line(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg']}" if where else str(error["msg"])


def caller_items(scenario: Scenario, folder: Path) -> list[Item]:
    """What `tools.caller` does in this call; recordings are found from `folder`.

    Raises:
        BadItem: a text cannot be spoken, or a recording cannot be read.
    """
    items: list[Item] = []
    for turn in scenario.turns:
        items += _pause_before(turn)
        items.append(_act(turn, folder))
    return items


def _pause_before(turn: ScenarioTurn) -> Iterator[Item]:
    if turn.interrupt_after_s is not None:
        yield parse_item(f"wait:{_HEARD_RMS:g},{turn.interrupt_after_s:g}")
    else:
        # the bot's reply to what was said before, then the quiet behind it
        yield parse_item(f"wait:{_HEARD_RMS:g},0")
        yield WaitForQuiet(_HEARD_RMS, turn.after_quiet_s)
    if turn.silent_s:
        yield Pause(turn.silent_s)


def _act(turn: ScenarioTurn, folder: Path) -> Item:
    if turn.say:
        return parse_item(f"say:{turn.say}")
    if turn.keys:
        return parse_item(f"dtmf:{turn.keys}")
    path = folder / turn.audio
    if not path.is_file():
        raise BadItem(f"{path}: no such file")
    return parse_item(str(path))
