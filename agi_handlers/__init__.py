"""The route table: which AGI script a dialplan may call."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agi_handlers.agi.server import Handler
    from agi_handlers.phone import Phone


def routes(phone: Phone) -> Mapping[str, Handler]:
    """`agi://bot/NAME` -> what serves it, for this phone half."""
    # imported here: importing one module of the package must not import all of it
    from agi_handlers.echo import echo
    from agi_handlers.health import health
    from agi_handlers.recorded_turns import recorded_turns
    from agi_handlers.ultravox import ultravox

    scripts = (ultravox, recorded_turns, health, echo)
    table: dict[str, Handler] = {
        script.__name__: partial(script, phone) for script in scripts
    }
    return table
