"""VICIdial's text answers -> typed results.  Pure: an HTTP status and bytes go in.

HTTP says 200 for errors too.  A body is one or more lines; `SUCCESS:`, `ERROR:` and
`NOTICE:` start the ones that judge, everything else is data.  After the prefix comes
the function's phrase, then fields behind ` - ` or `: ` (both occur).  Only prefix and
phrase are looked at: documentation and code differ in the fields, and those of a
failed login hold user and password, so the fields of an error are dropped here.
Source: agc/api.php, vicidial/non_agent_api.php (2.14).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

from agi_handlers.errors import VicidialError, VicidialRefused, VicidialUnavailable

MAX_BODY_BYTES = 1 << 20  # a lead is 2 kB; anything near this is no answer to us
_MAX_PHRASE_CHARS = 120
_SEPARATOR = re.compile(r" - |: |\|")
# A page begins a line with one of these; PHP's own warnings begin with a line break.
_PAGE = re.compile(r"<\s*(?:!doctype|html|head|body|title|form|meta|script)\b", re.I)
_WARNING = re.compile(r"<br\s*/?>", re.I)


class Refusal(StrEnum):
    """Why VICIdial said no, as far as the bot has to tell reasons apart."""

    LOGIN = "login"
    PERMISSION = "permission"
    API_OFF = "api_off"
    UNKNOWN_FUNCTION = "unknown_function"
    NO_ACTIVE_CALL = "no_active_call"
    AGENT_NOT_LOGGED_IN = "agent_not_logged_in"
    INGROUP_INVALID = "ingroup_invalid"
    PHONE_INVALID = "phone_invalid"
    GROUP_NOT_FOUND = "group_not_found"
    NOT_FOUND = "not_found"
    ALREADY = "already"
    UNCHANGED = "unchanged"
    OTHER = "other"


class Refused(VicidialRefused):
    """VICIdial answered ERROR; the message is its phrase, never its fields."""

    def __init__(self, function: str, reason: Refusal, phrase: str) -> None:
        super().__init__(f"{function}: {phrase}")
        self.function = function
        self.reason = reason


class LoginRefused(Refused):
    """Wrong user or password: ten of these lock the user, so no call follows."""

    def __init__(self, function: str) -> None:
        super().__init__(function, Refusal.LOGIN, "user or password not accepted")


# The first that fits decides; written as VICIdial writes them, compared in lower case.
_ENGLISH: tuple[tuple[str, Refusal], ...] = (
    ("login incorrect", Refusal.LOGIN),
    ("invalid username/password", Refusal.LOGIN),
    ("does not have permission", Refusal.PERMISSION),
    ("user does not have access", Refusal.PERMISSION),
    ("system api not active", Refusal.API_OFF),
    ("no function specified", Refusal.UNKNOWN_FUNCTION),
    ("no active call found", Refusal.NO_ACTIVE_CALL),
    ("agent_user is not logged in", Refusal.AGENT_NOT_LOGGED_IN),
    ("agent not logged in", Refusal.AGENT_NOT_LOGGED_IN),
    ("ingroup is not valid", Refusal.INGROUP_INVALID),
    ("phone_number is not valid", Refusal.PHONE_INVALID),
    ("dnc number already exists", Refusal.ALREADY),
    ("duplicate phone number", Refusal.ALREADY),
    ("no records updated", Refusal.UNCHANGED),
    ("group not found", Refusal.GROUP_NOT_FOUND),
    ("not found", Refusal.NOT_FOUND),
    ("no matches found", Refusal.NOT_FOUND),
    ("no records found", Refusal.NOT_FOUND),
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """VICIdial's words; an API user of another language needs translations."""

    success: str = "SUCCESS"
    error: str = "ERROR"
    notice: str = "NOTICE"
    callback: str = "SCHEDULED CALLBACK"
    """In the notice of a callback that was made."""
    translations: Mapping[str, Refusal] = field(
        default_factory=lambda: MappingProxyType({})
    )
    """A part of the translated phrase -> what it means; asked before the English."""

    @classmethod
    def parse(cls, entries: Sequence[str]) -> Vocabulary:
        """From `no_active_call=kein aktiver Anruf`, `error=FEHLER` ….

        Raises:
            ValueError: an entry without a known name; the message says which.
        """
        words: dict[str, str] = {}
        translations: dict[str, Refusal] = {}
        for entry in entries:
            name, equals, phrase = (part.strip() for part in entry.partition("="))
            if not equals or not phrase:
                raise ValueError(f"{entry!r}: name=phrase is wanted")
            if name in ("success", "error", "notice", "callback"):
                words[name] = phrase
            elif name in set(Refusal):
                translations[phrase] = Refusal(name)
            else:
                known = ", ".join(("success", "error", "notice", "callback", *Refusal))
                raise ValueError(f"{name!r} is none of {known}")
        return cls(**words, translations=MappingProxyType(translations))

    def has_callback(self, notices: Sequence[str]) -> bool:
        """A callback was made; `... NOT ADDED, CAMPAIGN NOT VALID` is none."""
        return any(
            self.callback.casefold() in notice.casefold()
            and not re.search(r"\b(?:NOT|INVALID)\b", notice)
            for notice in notices
        )

    def reason_of(self, phrase: str) -> Refusal:
        lowered = phrase.casefold()
        for part, reason in self.translations.items():
            if part.casefold() in lowered:
                return reason
        for part, reason in _ENGLISH:
            if part in lowered:
                return reason
        return Refusal.OTHER


ENGLISH = Vocabulary()
# What any function may answer in place of its own errors.
_GENERAL = frozenset(
    (Refusal.LOGIN, Refusal.PERMISSION, Refusal.API_OFF, Refusal.UNKNOWN_FUNCTION)
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """`SUCCESS:`, or only notices."""

    phrase: str
    values: tuple[str, ...] = field(default=(), repr=False)
    notices: tuple[str, ...] = ()
    """Phrases of the NOTICE lines, e.g. `update_lead SCHEDULED CALLBACK ADDED`."""


@dataclass(frozen=True, slots=True)
class Data:
    """Lines without a verdict; none at all for an empty body."""

    lines: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Denied:
    """`ERROR:`."""

    reason: Refusal
    phrase: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """No answer of the API at all; another try may bring one."""

    why: str


Response: TypeAlias = Accepted | Data | Denied | Unusable


def read_response(
    http_status: int,
    body: bytes,
    vocabulary: Vocabulary = ENGLISH,
    secret: str = "",
    *,
    bare_function: str = "",
) -> Response:
    """What VICIdial answered.

    bare_function: the function answers with what somebody typed, which may begin with
    `ERROR:` as well; then only its own errors and those of any function count.

    secret: the API password.  An error that repeats it is one about the login, in
    whatever language it is written.
    """
    if len(body) > MAX_BODY_BYTES:
        return Unusable(f"an answer of {len(body)} bytes")
    if 300 <= http_status < 400:
        return Unusable(f"HTTP {http_status}: a redirect; set the URL it leads to")
    if not 200 <= http_status < 300:
        return Unusable(f"HTTP {http_status}")
    text = body.decode("utf-8", errors="replace").replace("\x00", "")
    # not splitlines(): it divides at signs that people's comments may hold
    raw_lines = text.replace("\r", "\n").split("\n")
    lines = tuple(line for raw in raw_lines if (line := raw.strip()))
    verdict = _verdict(lines, vocabulary, secret)
    if bare_function and not _is_of(bare_function, verdict):
        verdict = None
    if verdict is not None:
        return verdict
    # not just anywhere: people write tags into comments, too
    is_page = any(_PAGE.match(line) for line in lines)
    if is_page or (lines and _WARNING.match(lines[0])):
        return Unusable("a page of HTML: is ULTRAVOX_VICIDIAL_URL the dialer's web?")
    return Data(lines)


def _is_of(function: str, verdict: Accepted | Denied | None) -> bool:
    if not isinstance(verdict, Denied):
        return False
    is_own = verdict.phrase.casefold().startswith(function)
    return is_own or verdict.reason in _GENERAL


def _verdict(
    lines: Sequence[str], vocabulary: Vocabulary, secret: str
) -> Accepted | Denied | None:
    accepted: Accepted | None = None
    notices = []
    for line in lines:
        if (rest := _after(vocabulary.error, line)) is not None:
            if accepted is not None:
                continue  # something beside the point failed: DNC, hopper, callback
            return _denied(rest, vocabulary, secret)
        if (rest := _after(vocabulary.notice, line)) is not None:
            notices.append(_phrase(rest))
        elif (rest := _after(vocabulary.success, line)) is not None:
            found = _SEPARATOR.search(rest)
            values = rest[found.end() :].split("|") if found else []
            accepted = accepted or Accepted(_phrase(rest), tuple(values))
    if accepted is not None:
        return Accepted(accepted.phrase, accepted.values, tuple(notices))
    return Accepted(notices[0], (), tuple(notices)) if notices else None


def _denied(rest: str, vocabulary: Vocabulary, secret: str) -> Denied:
    phrase = _phrase(rest)
    reason = vocabulary.reason_of(phrase)
    if rest.rstrip().endswith(("|BAD|", "|LOCK|")) or (
        secret and f"|{secret}|" in f"{rest}|"
    ):
        reason = Refusal.LOGIN
    if reason is Refusal.LOGIN:
        phrase = "user or password not accepted"
    elif secret and secret in phrase:
        phrase = "(not shown)"
    return Denied(reason, phrase)


def _after(word: str, line: str) -> str | None:
    prefix = word + ":"
    return line[len(prefix) :].strip() if line.startswith(prefix) else None


def _phrase(rest: str) -> str:
    return _SEPARATOR.split(rest, maxsplit=1)[0].strip(" -:")[:_MAX_PHRASE_CHARS]


# --- verdict -> result or error -----------------------------------------------------


def accepted(function: str, response: Response) -> Accepted:
    """The success of a function that changes something.

    Raises:
        Refused, LoginRefused: it said no.  VicidialUnavailable: no usable answer.
    """
    if isinstance(response, Accepted):
        return response
    if isinstance(response, Data):
        what = "an answer of another function" if response.lines else "an empty answer"
        raise VicidialUnavailable(f"{function}: {what}")
    raise _error(function, response)


def data_lines(function: str, response: Response) -> tuple[str, ...]:
    """The data of a look-up; empty when VICIdial had nothing to say.

    Raises: as `accepted`.
    """
    if isinstance(response, Data):
        return response.lines
    if isinstance(response, Accepted):
        raise VicidialUnavailable(f"{function}: an answer of another function")
    raise _error(function, response)


def _error(function: str, response: Denied | Unusable) -> VicidialError:
    if isinstance(response, Unusable):
        return VicidialUnavailable(f"{function}: {response.why}")
    if response.reason is Refusal.LOGIN:
        return LoginRefused(function)
    return Refused(function, response.reason, response.phrase)
