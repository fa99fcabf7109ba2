"""Where an installation's call records are, for the tools that read or delete them."""

from __future__ import annotations

from pathlib import Path

from agi_handlers.records.store import StoreOptions
from config import Settings


def store_of(settings: Settings, data_dir: Path | None = None) -> StoreOptions:
    """By its settings; a folder that is named goes before them."""
    if data_dir is not None:
        return StoreOptions(data_dir)
    return StoreOptions(
        settings.data_dir,
        settings.records_url.get_secret_value(),
        settings.caller_key.get_secret_value(),
    )
