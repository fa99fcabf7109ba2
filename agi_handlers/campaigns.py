"""Campaigns: one TOML file a bot persona, read and checked at the start.

The file's name without `.toml` is the campaign's name in `agi://bot/ultravox?campaign=`.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from agi_handlers.conversation.turn_taking import PhraseName
from agi_handlers.errors import TelephonyError
from agi_handlers.vicidial.api_text import is_status
from agi_handlers.vicidial.lead import (
    Lead,
    fill_instructions,
    fill_phrase,
    unknown_placeholders,
)

DEFAULT_CAMPAIGN = "default"
KNOWN_ACTIONS = ("transfer", "hangup", "dnc", "callback", "disposition", "note")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
# A target is pasted into the dialplan: letters, digits and what extensions may hold.
_TARGET = re.compile(r"(?:(?:ingroup|extension):)?[A-Za-z0-9_*#+.-]{0,60}")
_EXTENSION = re.compile(r"[0-9*#+]+")
Text = Annotated[str, Field(min_length=1, max_length=1000)]


class CampaignsInvalid(TelephonyError):
    """Campaign files are wrong; `problems` holds one line for each mistake."""

    code = "campaigns_invalid"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class TransferTarget:
    """Where a transfer leads: `SALESLINE`, `8600`, `ingroup:8600`, or empty: people."""

    kind: Literal["people", "in_group", "extension"]
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> TransferTarget:
        """Digits alone are an extension, any other name an in-group."""
        prefix, colon, name = text.rpartition(":")
        if not name:
            return cls("people")
        if colon:
            return cls("in_group" if prefix == "ingroup" else "extension", name)
        return cls("extension" if _EXTENSION.fullmatch(name) else "in_group", name)


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
    opted_out: Text = "You will get no more calls from us. Goodbye."

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
    transcribe: bool = True
    """Have the model write down what callers say: for the record, and to hear "give me
    a person" and "stop calling me" whatever the model makes of them."""
    opt_out_key: Annotated[str, Field(pattern=r"^[1-9*]?$")] = ""

    @field_validator("actions")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for action in value:
            if action not in KNOWN_ACTIONS:
                raise ValueError(
                    f"unknown action {action!r}; known: {', '.join(KNOWN_ACTIONS)}"
                )
        return value


class Dispositions(_Table):
    """How a call ended -> the shop's own status; the defaults are VICIdial's own.

    `codes`: what the model may write in `[[disposition CODE]]`, where it differs.
    """

    completed: str = "PU"
    no_input: str = "N"
    caller_hung_up: str = "PU"
    transfer: str = "XFER"
    opt_out: str = "DNC"
    callback: str = "CALLBK"
    codes: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _six_characters(self) -> Dispositions:
        for name, value in [*self.model_dump(exclude={"codes"}).items(),
                            *self.codes.items()]:  # fmt: skip
            if not is_status(value):
                raise ValueError(
                    f"{name} = {value!r}: a VICIdial status has 1 to 6 letters or "
                    "digits"
                )
        return self

    def of_code(self, code: str) -> str:
        """The status for a code the model gave; empty when it can be none."""
        for known, status in self.codes.items():
            if known.lower() == code.lower():
                return status
        return code if is_status(code) else ""


class VicidialRules(_Table):
    """What a campaign says about VICIdial; the rest is in the service's settings."""

    agent_user: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,20}$")] = ""
    """User ID Start of the remote agent this campaign's calls come from."""
    campaign_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,20}$")] = ""
    """For callbacks and campaign DNC lists; empty: the call's, or its line's."""
    dnc: Literal["system", "campaign", "both"] = "system"


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
    dispositions: Dispositions = Dispositions()
    vicidial: VicidialRules = VicidialRules()
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

    @model_validator(mode="after")
    def _known_lead_fields(self) -> Campaign:
        for text in (self.instructions, *self.phrases.as_mapping().values()):
            unknown = unknown_placeholders(text)
            if unknown:
                raise ValueError(f"no lead has a field {{{unknown[0]}}}")
        return self

    @cached_property
    def version(self) -> str:
        """Changes with anything in the file: which words and rules a call had."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def for_lead(self, lead: Lead) -> Campaign:
        """The same with the lead's fields in instructions and phrases."""
        phrases = {
            # a phrase that was nothing but a missing value is the usual one
            name: fill_phrase(text, lead) or Phrases.model_fields[name].default
            for name, text in self.phrases.as_mapping().items()
        }
        filled = {
            "instructions": fill_instructions(self.instructions, lead),
            "phrases": self.phrases.model_copy(update=dict(phrases.items())),
        }
        return self.model_copy(update=filled)

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
