"""``${...}`` as GET FULL VARIABLE evaluates it: variables and a few functions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

# Innermost first: what is left has no ${ inside.
_INNERMOST: Final = re.compile(r"\$\{([^${}]*)\}")
_FUNCTION: Final = re.compile(r"([A-Z_]+)\((.*)\)")


def substitute(text: str, lookup: Callable[[str], str | None]) -> str:
    """Every ``${name}`` replaced by what lookup says; nothing where it says None."""
    for _ in range(100):  # a value may contain ${ itself, as text: it ends somewhere
        replaced = _INNERMOST.sub(lambda m: lookup(m[1]) or "", text, count=1)
        if replaced == text:
            break
        text = replaced
    return text


def function_call(name: str) -> tuple[str, str] | None:
    """("IFMODULE", "app_audiosocket.so"), or None for a plain variable."""
    match = _FUNCTION.fullmatch(name)
    return (match[1], match[2]) if match else None
