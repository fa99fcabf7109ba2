"""Numbers are taken out of what was said, and nothing else."""

from __future__ import annotations

import pytest

from agi_handlers.records.redaction import redact


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("My card is 4111 1111-1111 1111.", "My card is **** ****-**** ****."),
        ("It's four one one, one, and so on", "It's ***, and so on"),
        ("Double seven zero oh five please", "*** please"),
        ("Soy cuatro, cinco, seis y ocho.", "Soy ***."),
        ("One moment, I have two questions.", "One moment, I have two questions."),
        ("Twenty five dollars", "Twenty five dollars"),
        ("٤١١١", "****"),
        ("", ""),
    ],
)
def test_numbers_become_stars(said: str, kept: str) -> None:
    assert redact(said) == kept


def test_very_long_text_takes_no_time() -> None:
    words = redact("one two " * 4_000)
    assert words == "*** "
