"""A caller's number as a keyed digest: finds his calls, does not show who he is.

Only digits count, the last ten of them, so that `+1 212 555 0100`, `12125550100` and
`2125550100` are one caller.  The key lies in the data folder: without it the digests
cannot be tried against all numbers there are.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

KEY_FILE: Final = "caller.key"
_DIGITS_THAT_COUNT: Final = 10
_KEY_BYTES: Final = 32


class CallerKey:
    """Numbers to digests, under one installation's key."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, number: str) -> str:
        """The digest; empty for a call without a number."""
        digits = "".join(c for c in number if c in "0123456789")
        if not digits:
            return ""
        tail = digits[-_DIGITS_THAT_COUNT:].encode()
        return hmac.new(self._secret, tail, hashlib.sha256).hexdigest()


def load_caller_key(data_dir: Path, secret: str = "") -> CallerKey:
    """The installation's key, made when it is not there yet.

    secret: ULTRAVOX_CALLER_KEY, where several hosts must have the same; not empty:
    the key is made of it and no file is read.

    Raises:
        OSError: it can neither be read nor made.
    """
    if secret:
        return CallerKey(hashlib.sha256(secret.encode()).digest())
    path = data_dir / KEY_FILE
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        # exclusive: two phone halves starting at once must agree on one key
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return CallerKey(_read(path))
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(_KEY_BYTES) + "\n")
    return CallerKey(_read(path))


def _read(path: Path) -> bytes:
    try:
        secret = bytes.fromhex(path.read_text().strip())
    except ValueError as exc:
        raise OSError(f"{path} is no key") from exc
    if len(secret) != _KEY_BYTES:
        raise OSError(f"{path} is no key")
    return secret
