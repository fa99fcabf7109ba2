"""Campaigns: one TOML file a bot persona, read and checked before it is used.

The file's name without `.toml` is the campaign's name in `agi://bot/ultravox?campaign=`.
Which persona takes which call, and how files are read again, is in `campaign_shelf`.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from agi_handlers.campaign_hours import Hours
from agi_handlers.conversation.turn_actions import PhraseName
from agi_handlers.errors import TelephonyError
from agi_handlers.languages.english import ENGLISH
from agi_handlers.languages.known import language_of
from agi_handlers.vicidial.api_text import is_status
from agi_handlers.vicidial.lead import (
    LEAD_FIELDS,
    Lead,
    fill_instructions,
    fill_phrase,
    placeholders,
    unknown_placeholders,
)
from model.vad.options import Expected

DEFAULT_CAMPAIGN = "default"
AUTO = "auto"
"""In place of a name: VICIdial's campaign or in-group chooses."""
KNOWN_ACTIONS = (
    "transfer", "hangup", "dnc", "callback", "disposition", "note", "update",
    "pause_recording", "resume_recording", "expect",
)  # fmt: skip
STAY = "stay"
"""In `[transfer_fallback]`: with nobody free the talk goes on."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
# A target is pasted into the dialplan: letters, digits and what extensions may hold.
_TARGET = re.compile(
    r"(?:ingroup:[A-Za-z0-9_-]{1,20}|(?:extension|did):[A-Za-z0-9_*#+.-]{1,60}"
    r"|agent:[A-Za-z0-9_-]{1,20}|[A-Za-z0-9_*#+.-]{0,60})"
)
# VICIdial's own; changing them by word of mouth would lose the lead.
_FIXED_FIELDS = frozenset(
    ("lead_id", "list_id", "status", "called_count", "comments", "source_id", "owner",
     "rank", "vendor_lead_code", "phone_number")
)  # fmt: skip
_ID = r"^[A-Za-z0-9_-]{1,20}$"
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
    """Where a transfer leads: `SALESLINE`, `8600`, `ingroup:8600`, `did:17275551000`,
    `agent:1001` (one person, by his user id), or empty: people."""

    kind: Literal["people", "in_group", "extension", "agent"]
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> TransferTarget:
        """Digits alone are an extension, any other name an in-group."""
        prefix, colon, name = text.rpartition(":")
        if not name:
            return cls("people")
        if colon and prefix in ("ingroup", "agent"):
            return cls("in_group" if prefix == "ingroup" else "agent", name)
        if colon:
            return cls("extension", name)
        return cls("extension" if _EXTENSION.fullmatch(name) else "in_group", name)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Phrases(_Table):
    """What the bot says without asking the model.

    A campaign that leaves one out gets that of its language (`agi_handlers.languages`).
    """

    disclosure: Annotated[str, Field(max_length=1000)] = ""
    """What the law wants every caller to hear, before the greeting and to its end."""
    greeting: Text = ENGLISH.phrases["greeting"]
    still_there: Text = ENGLISH.phrases["still_there"]
    say_again: Text = ENGLISH.phrases["say_again"]
    goodbye_no_input: Text = ENGLISH.phrases["goodbye_no_input"]
    time_warning: Text = ENGLISH.phrases["time_warning"]
    time_limit: Text = ENGLISH.phrases["time_limit"]
    transferring: Text = ENGLISH.phrases["transferring"]
    opted_out: Text = ENGLISH.phrases["opted_out"]
    nobody_free: Text = ENGLISH.phrases["nobody_free"]
    callback_noted: Text = ENGLISH.phrases["callback_noted"]
    callback_unclear: Text = ENGLISH.phrases["callback_unclear"]
    closed: Text = ENGLISH.phrases["closed"]
    demo_notice: Annotated[str, Field(max_length=200)] = ENGLISH.phrases["demo_notice"]
    """Before the greeting while the bundled demo model answers, or random weights, so
    that no caller takes them for more.  Empty: the greeting says so itself."""

    def as_mapping(self) -> Mapping[PhraseName, str]:
        """Name -> text."""
        return cast("Mapping[PhraseName, str]", self.model_dump())


class Rules(_Table):
    """How the bot behaves; what is left out follows the service's settings."""

    barge_in: bool | None = None
    record: bool | None = None
    pause_recording_for_keys: bool = True
    """Silence in the recording from the first key until the caller speaks again."""
    redact_digits: bool | None = None
    """No numbers in the record of what was said."""
    protect_greeting: bool = False
    expect: Expected = "anything"
    """What callers mostly say here: how long a pause of theirs is waited through.  The
    model changes it for the next answer by `[[expect digits]]`."""
    no_input_s: float | None = Field(default=None, ge=1, le=120)
    max_reprompts: int = Field(default=2, ge=0, le=10)
    max_call_s: float | None = Field(default=None, ge=10, le=86_400)
    max_retries: int = Field(default=1, ge=0, le=3)
    """How often a reply that failed is tried again before people take the call."""
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


class Answering(_Table):
    """What to do when no person answers a call that the shop's dialer placed."""

    machine: Literal["off", "note", "hang_up", "leave_message"] = "off"
    """off: greet at once and listen for nothing; note: find out, and only record it;
    the others end calls that machines answer.  Menus, faxes and dead numbers get no
    message."""
    message: Annotated[str, Field(max_length=1000)] = ""
    """For machines that take one."""
    listen_first_s: float = Field(default=2.0, ge=0.5, le=10)
    """How long a silent line is listened to before the bot greets."""

    @model_validator(mode="after")
    def _has_its_message(self) -> Answering:
        if self.machine == "leave_message" and not self.message:
            raise ValueError('machine = "leave_message" needs a message')
        return self


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
    closed: str = "AFTHRS"
    machine: str = "A"
    """An answering machine, or a menu."""
    message_left: str = "AL"
    fax: str = "AFAX"
    no_service: str = "ADC"
    """The network's tones: no such number."""
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
    campaigns: tuple[Annotated[str, Field(pattern=_ID)], ...] = ()
    """VICIdial campaigns whose calls this persona takes when it is to choose itself."""
    in_groups: tuple[Annotated[str, Field(pattern=_ID)], ...] = ()
    """In-groups whose calls it takes."""
    update_fields: tuple[str, ...] = ()
    """Fields of a lead that `[[update FIELD value]]` may change."""
    custom_fields: tuple[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,50}$")], ...
    ] = ()
    """The same for fields of the list's own custom table."""
    new_lead_list: int = Field(default=0, ge=0, lt=10**14)
    """A caller nobody knows, at a DID, becomes a lead of this list; 0: of none."""
    phone_code: Annotated[str, Field(pattern=r"^[0-9]{1,4}$")] = "1"
    """The country code that callers' numbers may have in front; leads have it apart."""

    @field_validator("update_fields")
    @classmethod
    def _may_change(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in LEAD_FIELDS - _FIXED_FIELDS:
                raise ValueError(f"{name!r} is no field that a caller may change")
        return value


class Campaign(_Table):
    """One bot persona."""

    name: str = ""
    version: str = ""
    """A short digest of the file it was read from."""
    title: Annotated[str, Field(max_length=200)] = ""
    language: str | None = None
    voice: str = ""
    instructions: Annotated[str, Field(max_length=20_000)] = ENGLISH.instructions
    max_new_tokens: int | None = Field(default=None, ge=1, le=4096)
    temperature: float = Field(default=0.0, ge=0, le=2)
    phrases: Phrases = Phrases()
    rules: Rules = Rules()
    dispositions: Dispositions = Dispositions()
    vicidial: VicidialRules = VicidialRules()
    hours: Hours = Hours()
    answering: Answering = Answering()
    transfer: Mapping[str, str] = Field(default_factory=dict)
    """What the model may call a destination -> what the dialplan gets.  `default` is
    taken for a person without further words; empty: the dialplan's own people."""
    transfer_fallback: Mapping[str, str] = Field(default_factory=dict)
    """A destination nobody is free at -> another one, or `stay`.  Only what stands
    here is looked at before a transfer; the others queue."""

    @model_validator(mode="before")
    @classmethod
    def _in_its_language(cls, values: dict[str, Any]) -> dict[str, Any]:
        """What is left out, in the campaign's language."""
        tag, phrases = values.get("language"), values.get("phrases", {})
        if not isinstance(tag, str) or not isinstance(phrases, dict):
            return values
        language = language_of(tag)
        if language is not None:
            values = {"instructions": language.instructions, **values}
            return {**values, "phrases": {**language.phrases, **phrases}}
        wanted = [*ENGLISH.phrases]
        missing = [name for name in wanted if name not in phrases]
        if missing:
            raise ValueError(
                f"no phrases are known in the language {tag!r}; set in [phrases]: "
                + ", ".join(missing)
            )
        return values

    @field_validator("transfer")
    @classmethod
    def _targets(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for target in value.values():
            if not _TARGET.fullmatch(target):
                raise ValueError(f"transfer target {target!r} is no extension")
        return value

    @model_validator(mode="after")
    def _known_lead_fields(self) -> Campaign:
        texts: dict[str, str] = dict(self.phrases.as_mapping().items())
        texts["instructions"] = self.instructions
        texts["message"] = self.answering.message
        for name, text in texts.items():
            for unknown in unknown_placeholders(text):
                if (name, unknown) != ("callback_noted", "value"):
                    raise ValueError(f"no lead has a field {{{unknown}}}")
        return self

    @model_validator(mode="after")
    def _fallbacks_lead_somewhere(self) -> Campaign:
        for name, other in self.transfer_fallback.items():
            for wanted in (name, other):
                if wanted not in (*self.transfer, "default", STAY):
                    raise ValueError(f"transfer_fallback: [transfer] has no {wanted!r}")
        for name in self.transfer_fallback:
            if len(self.ways(name)) > len(self.transfer) + 1:
                raise ValueError(f"transfer_fallback: {name!r} leads in a circle")
        return self

    @property
    def wants_lead(self) -> bool:
        """Its words or its hours depend on who is called."""
        texts = (self.instructions, *self.phrases.as_mapping().values())
        names = {name for text in texts for name in placeholders(text)}
        is_for_hours = self.hours.clock == "lead"
        is_for_new_leads = bool(self.vicidial.new_lead_list)
        return bool(names & LEAD_FIELDS) or is_for_hours or is_for_new_leads

    def for_lead(self, lead: Lead) -> Campaign:
        """The same with the lead's fields in instructions and phrases."""
        usual = (language_of(self.language or "") or ENGLISH).phrases
        phrases = {
            # a phrase that was nothing but a missing value is the usual one
            name: fill_phrase(text, lead) or (usual.get(name, "") if text else "")
            for name, text in self.phrases.as_mapping().items()
        }
        filled = {
            "instructions": fill_instructions(self.instructions, lead),
            "phrases": self.phrases.model_copy(update=dict(phrases.items())),
            "answering": self.answering.model_copy(
                update={"message": fill_phrase(self.answering.message, lead)}
            ),
        }
        return self.model_copy(update=filled)

    def ways(self, destination: str) -> list[str]:
        """The destination and what takes its place, in order; the last may be `stay`.

        One more than there are destinations: a circle.
        """
        ways = [destination.strip().lower() or "default"]
        while (
            ways[-1] in self.transfer_fallback and len(ways) <= len(self.transfer) + 1
        ):
            ways.append(self.transfer_fallback[ways[-1]])
        return ways

    def target_of(self, destination: str) -> str | None:
        """The dialplan target for a destination's name; None: not allowed."""
        key = destination.strip().lower() or "default"
        if key in self.transfer:
            return self.transfer[key]
        return "" if key == "default" else None


def load_campaign(file: Path, language: str = "en-us") -> Campaign:
    """One campaign, named as its file; `language` is its own unless it names one.

    Raises:
        CampaignsInvalid: with every mistake of the file.
    """
    try:
        text = file.read_text(encoding="utf-8")
        own = {"name": file.stem, "version": _version(text)}
        return Campaign(**{"language": language, **tomllib.loads(text), **own})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise CampaignsInvalid([f"{file}: {exc}"]) from exc
    except RecursionError as exc:  # tomllib goes down as deep as brackets do
        raise CampaignsInvalid([f"{file}: tables or lists in too many others"]) from exc
    except ValidationError as exc:
        problems = []
        for error in exc.errors():
            where = ".".join(str(part) for part in error["loc"])
            problems.append(f"{file}: {where}: {error['msg']}")
        raise CampaignsInvalid(problems) from exc


def load_campaigns(directory: Path, language: str = "en-us") -> Mapping[str, Campaign]:
    """Every campaign of a folder; `language` is that of those that name none.

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
        if not _NAME.fullmatch(file.stem) or file.stem == AUTO:
            problems.append(f"{file}: a name of letters, digits, - and _ is wanted")
            continue
        try:
            campaigns[file.stem] = load_campaign(file, language)
        except CampaignsInvalid as exc:
            problems += exc.problems
    if DEFAULT_CAMPAIGN not in campaigns and not problems:
        problems.append(f"{directory}: no {DEFAULT_CAMPAIGN}.toml in it")
    problems += _claimed_twice(directory, campaigns)
    if problems:
        raise CampaignsInvalid(problems)
    return campaigns


def _claimed_twice(directory: Path, campaigns: Mapping[str, Campaign]) -> list[str]:
    """A group of VICIdial's can have one persona only."""
    problems = []
    for kind in ("campaigns", "in_groups"):
        owners: dict[str, str] = {}
        for name, campaign in campaigns.items():
            for group in getattr(campaign.vicidial, kind):
                other = owners.setdefault(group.upper(), name)
                if other != name:
                    problems.append(
                        f"{directory}/{name}.toml: vicidial.{kind}: {group} is "
                        f"{other}.toml's already"
                    )
    return problems


def _version(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
