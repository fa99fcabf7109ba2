"""Campaigns: one TOML file a bot persona, read and checked at the start.

The file's name without `.toml` is the campaign's name in `agi://bot/ultravox?campaign=`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agi_handlers.conversation.turn_taking import PhraseName
from agi_handlers.errors import TelephonyError

DEFAULT_CAMPAIGN = "default"
KNOWN_ACTIONS = ("transfer", "hangup", "dnc", "callback", "disposition", "note")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
# A target is pasted into the dialplan: letters, digits and what extensions may hold.
_TARGET = re.compile(r"[A-Za-z0-9_*#+.-]{0,60}")
Text = Annotated[str, Field(min_length=1, max_length=1000)]


class CampaignsInvalid(TelephonyError):
    """Campaign files are wrong; `problems` holds one line for each mistake."""

    code = "campaigns_invalid"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Phrases(_Table):
    """What the bot says without asking the model."""

    greeting: Text = "Hello, this is the automated assistant. How can I help you?"
    still_there: Text = "Are you still there?"
    say_again: Text = "Sorry, I did not get that. Could you say it again?"
    goodbye_no_input: Text = "I can't hear you, so I will hang up now. Goodbye."
    time_limit: Text = "I have to end here. I will pass you on to a person now."
    transferring: Text = "One moment please, I am transferring you to a person."

    def as_mapping(self) -> Mapping[PhraseName, str]:
        """Name -> text."""
        return cast("Mapping[PhraseName, str]", self.model_dump())


class Rules(_Table):
    """How the bot behaves; what is left out follows the service's settings."""

    barge_in: bool | None = None
    record: bool | None = None
    protect_greeting: bool = False
    no_input_s: float | None = Field(default=None, ge=1, le=120)
    max_reprompts: int = Field(default=2, ge=0, le=10)
    max_call_s: float | None = Field(default=None, ge=10, le=86_400)
    actions: tuple[str, ...] = ("transfer", "hangup")

    @field_validator("actions")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for action in value:
            if action not in KNOWN_ACTIONS:
                raise ValueError(
                    f"unknown action {action!r}; known: {', '.join(KNOWN_ACTIONS)}"
                )
        return value


class Campaign(_Table):
    """One bot persona."""

    name: str = ""
    title: Annotated[str, Field(max_length=200)] = ""
    language: str | None = None
    voice: str = ""
    instructions: Annotated[str, Field(max_length=20_000)] = (
        "You are a friendly assistant on the telephone. Answer in one or two short "
        "spoken sentences, without lists or markup."
    )
    max_new_tokens: int | None = Field(default=None, ge=1, le=4096)
    temperature: float = Field(default=0.0, ge=0, le=2)
    phrases: Phrases = Phrases()
    rules: Rules = Rules()
    transfer: Mapping[str, str] = Field(default_factory=dict)
    """What the model may call a destination -> what the dialplan gets.  `default` is
    taken for a person without further words; empty: the dialplan's own people."""

    @field_validator("transfer")
    @classmethod
    def _targets(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for target in value.values():
            if not _TARGET.fullmatch(target):
                raise ValueError(f"transfer target {target!r} is no extension")
        return value

    def target_of(self, destination: str) -> str | None:
        """The dialplan target for a destination's name; None: not allowed."""
        key = destination.strip().lower() or "default"
        if key in self.transfer:
            return self.transfer[key]
        return "" if key == "default" else None


def load_campaigns(directory: Path) -> Mapping[str, Campaign]:
    """Every campaign of a folder.

    Raises:
        CampaignsInvalid: with every mistake of every file.
    """
    problems: list[str] = []
    campaigns: dict[str, Campaign] = {}
    try:
        files = sorted(directory.glob("*.toml"))
    except OSError as exc:
        raise CampaignsInvalid([f"{directory}: cannot be read: {exc}"]) from exc
    for file in files:
        if not _NAME.fullmatch(file.stem):
            problems.append(f"{file}: a name of letters, digits, - and _ is wanted")
            continue
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
            campaigns[file.stem] = Campaign(**{**table, "name": file.stem})
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
            problems.append(f"{file}: {exc}")
        except ValidationError as exc:
            for error in exc.errors():
                where = ".".join(str(part) for part in error["loc"])
                problems.append(f"{file}: {where}: {error['msg']}")
    if DEFAULT_CAMPAIGN not in campaigns and not problems:
        problems.append(f"{directory}: no {DEFAULT_CAMPAIGN}.toml in it")
    if problems:
        raise CampaignsInvalid(problems)
    return campaigns
