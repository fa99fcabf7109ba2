"""How the dialplan reads text: ``${...}`` expressions, and application arguments."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

# Innermost first: what is left has no ${ inside.
_INNERMOST: Final = re.compile(r"\$\{([^${}]*)\}")
_CLOSING: Final = {")": "(", "]": "["}
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


def split_arguments(text: str) -> list[str]:
    """An application's arguments: commas split, not within quotes or brackets.

    Quotes and backslashes are taken away. Source: ``__ast_app_separate_args``.
    """
    arguments = [""]
    num_open = {"(": 0, "[": 0}
    is_quoted = is_escaped = False
    for char in text:
        if is_escaped:
            is_escaped = False
        elif char == "\\":
            is_escaped = True
            continue
        elif char == '"':
            is_quoted = not is_quoted
            continue
        elif char in num_open:
            num_open[char] += 1
        elif char in _CLOSING:
            num_open[_CLOSING[char]] = max(0, num_open[_CLOSING[char]] - 1)
        elif char == "," and not is_quoted and not any(num_open.values()):
            arguments.append("")
            continue
        arguments[-1] += char
    return arguments
