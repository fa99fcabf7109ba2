"""Which weights these are, told by their bytes: two checkpoints of one name differ.

Reading all of an 8B model would cost every start many seconds, so that of each tensor
only both ends count; any training changes those.  It is no proof against forgery.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Final

_END_BYTES: Final = 4096
_DIGEST_BYTES: Final = 6
_LENGTH_BYTES: Final = 8  # of the header, at a safetensors file's start
# Where the hub's cache keeps what it downloaded: snapshots/COMMIT/FILE.
_COMMIT: Final = re.compile(r"/snapshots/([0-9a-f]{40})/")
_COMMIT_SHOWN: Final = 12


def weights_version(files: Iterable[Path]) -> str:
    """ "weights 5f0c…", and the hub's commit where the files come from there.

    Raises:
        OSError, ValueError: a file cannot be read, or is not safetensors.
    """
    files = list(files)
    whole = blake2b(digest_size=_DIGEST_BYTES)
    for file in files:
        with file.open("rb") as opened:
            for part in _telling_parts(opened):
                whole.update(part)
    commits = dict.fromkeys(
        found[1][:_COMMIT_SHOWN]
        for file in files
        if (found := _COMMIT.search(file.as_posix()))
    )
    return " ".join(["weights", whole.hexdigest(), *(f"commit {c}" for c in commits)])


def _telling_parts(file: BinaryIO) -> Iterator[bytes]:
    header_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    header = file.read(header_bytes)
    yield header
    begin = _LENGTH_BYTES + header_bytes
    for name, tensor in json.loads(header).items():
        if name == "__metadata__":
            continue
        first, end = tensor["data_offsets"]
        for at in (first, max(first, end - _END_BYTES)):
            file.seek(begin + at)
            yield file.read(min(_END_BYTES, end - at))
