"""Text that VICIdial's APIs store as it was sent.

With non-latin support off, which is the usual, names lose non-ASCII letters, some
signs vanish, `+` becomes a space, and every column cuts silently.  So what we send is
made to fit first: `María` is sent as `Maria`, not stored as `Mara`.
Source: non_agent_api.php's filters, schema 1720.
"""

from __future__ import annotations

import re
import unicodedata

# Columns of vicidial_list and what else we write, in characters.
_LIMITS = {
    "status": 6,
    "comments": 255,
    "callback_comments": 255,
    "vendor_lead_code": 20,
    "source_id": 50,
    "phone_number": 18,
    "phone_code": 10,
    "title": 4,
    "first_name": 30,
    "middle_initial": 1,
    "last_name": 30,
    "address1": 100,
    "address2": 100,
    "address3": 100,
    "city": 50,
    "state": 2,
    "province": 50,
    "postal_code": 10,
    "country_code": 3,
    "alt_phone": 12,
    "email": 70,
    "security_phrase": 100,
    "owner": 20,
}
_CUSTOM_FIELD_CHARS = 255
BLANK = "--BLANK--"
"""Empties a field; an empty value means "leave it"."""

_PLAIN = {
    **{ord(c): "'" for c in "\u2018\u2019\u201a\u201b`"},
    **{ord(c): "-" for c in "\u2010\u2011\u2012\u2013\u2014\u2212"},
    ord("\u2026"): "...",
    ord("\u00df"): "ss",
    ord("\u00e6"): "ae",
    ord("\u00c6"): "AE",
    ord("\u00f8"): "o",
    ord("\u00d8"): "O",
    ord("\u0142"): "l",
    ord("\u0141"): "L",
}
_LOST = re.compile(r"[;#\"\\+&|<>{}\[\]^~]")
_STATUS = re.compile(r"[A-Za-z0-9_-]{1,6}", re.ASCII)
_PASSWORD = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def stored_text(text: str, field: str = "") -> str:
    """`text` in the letters and the length that a field keeps."""
    plain = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    plain = plain.encode("ascii", "ignore").decode("ascii")
    plain = " ".join(_LOST.sub(" ", plain).split())
    plain = "".join(c for c in plain if c.isprintable())
    return plain[: _LIMITS.get(field, _CUSTOM_FIELD_CHARS)].rstrip()


def is_status(text: str) -> bool:
    """A disposition: 1 to 6 letters, digits, `-`, `_`."""
    return _STATUS.fullmatch(text) is not None


def phone_digits(number: str) -> str:
    """Only the digits, as VICIdial keeps numbers."""
    return "".join(c for c in number if c in "0123456789")[:18]


def password_problem(password: str) -> str | None:
    """Why the Non-Agent API would never accept this password; None: it may."""
    if not password:
        return "is empty"
    if not _PASSWORD.fullmatch(password):
        return (
            "has characters that VICIdial's API deletes before it compares; "
            "use letters, digits, - and _ only"
        )
    return None
