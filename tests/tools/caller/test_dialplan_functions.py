"""Expressions and arguments as the dialplan reads them."""

from __future__ import annotations

import pytest

from tools.caller.dialplan_functions import function_call, split_arguments, substitute

VALUES = {"A": "1", "B": "A", "IFMODULE(x.so)": "0", "LOOP": "${LOOP}"}


def evaluated(text: str) -> str:
    return substitute(text, VALUES.get)


def test_plain_text_is_itself() -> None:
    assert evaluated("interrupt12ab") == "interrupt12ab"


def test_variables_and_functions() -> None:
    assert evaluated("${A}-${IFMODULE(x.so)}-${NOSUCH}.") == "1-0-."


def test_the_innermost_first() -> None:
    assert evaluated("${${B}}") == "1"


def test_a_value_that_names_itself_ends() -> None:
    assert evaluated("${LOOP}") == "${LOOP}"


def test_function_call() -> None:
    assert function_call("CALLERID(name)") == ("CALLERID", "name")
    assert function_call("CALLERID") is None


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", [""]),
        ("a,b c,", ["a", "b c", ""]),
        ('a,"b,c",d', ["a", "b,c", "d"]),
        ("/bin/bash,-c,(P) x;f(a,b)", ["/bin/bash", "-c", "(P) x;f(a,b)"]),
        (r"a\,b,c", ["a,b", "c"]),
        ("a),b", ["a)", "b"]),
        ("$[1,2],x", ["$[1,2]", "x"]),
    ],
)
def test_arguments(text: str, arguments: list[str]) -> None:
    assert split_arguments(text) == arguments
