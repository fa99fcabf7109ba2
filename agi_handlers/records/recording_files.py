"""Where a call's recording is on the disk, in whichever format it is by now.

While a call runs its recording is a WAV, valid at any moment; afterwards it may be
made into FLAC or Opus.  The record names the WAV, and the stem stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

FOLDER: Final = "recordings"
MEDIA_TYPES: Final[Mapping[str, str]] = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".opus": "audio/ogg",
}
UNREADY: Final = ".unready"
"""Added to the name of a file that is being written from a WAV."""


def recording_files(data_dir: Path, name: str) -> Iterator[Path]:
    """Every file there is of a recording that a record names; none leads elsewhere."""
    if not name:
        return
    folder = (data_dir / FOLDER).resolve()
    path = (data_dir / name).resolve()
    if not path.is_relative_to(folder):
        return
    for suffix in MEDIA_TYPES:
        found = path.with_suffix(suffix)
        if found.is_file():
            yield found


def all_recordings(data_dir: Path) -> Iterator[Path]:
    """Every recording there is, of any call."""
    for path in (data_dir / FOLDER).glob("*/*"):
        if path.suffix in MEDIA_TYPES:
            yield path
