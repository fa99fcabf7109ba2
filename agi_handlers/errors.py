"""The telephone half's errors.

::

    CallEnded(reason)            ends a call; no fault: hang-up, transfer, goodbye
    TelephonyError
      AgiProtocolError           Asterisk sent what we cannot parse
      AgiCommandRefused          510 / 520, with the command
      AgiArgumentInvalid         a command argument Asterisk would misread
      AgiTimeout                 Asterisk did not answer in time
      ChannelGone                511: the channel is dead, variables still work
        AgiConnectionLost        the AGI socket is closed as well
      AudioLegUnavailable        this audio leg cannot be had: try the next kind
      AudioLegLost               the audio leg broke during the talk
      TransferFailed             the other side of a transfer was not reached
      ListenFailed               a port of ours cannot be opened
      VicidialError
        VicidialUnavailable      timeout, connection, 5xx: worth another try
        VicidialRefused          it answered "ERROR: ...": another try is no use

The speech half's tree is in ``model/errors.py``.
"""

from __future__ import annotations

from typing import ClassVar


class CallEnded(Exception):
    """Ends a call from anywhere inside its task group.

    reason: a short fixed word for logs and records, such as
    ``"caller_hung_up"``, ``"bot_hung_up"``, ``"transferred"``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TelephonyError(Exception):
    """Something went wrong between us, Asterisk and VICIdial."""

    retryable: ClassVar[bool] = False


class AgiProtocolError(TelephonyError):
    """Asterisk, or whoever connected, sent what is not AGI or beyond a limit."""


class AgiCommandRefused(TelephonyError):
    """Asterisk does not know the command (510) or its arguments (520).

    code: the AGI status. command: its words without arguments.
    """

    def __init__(self, command: str, code: int, text: str) -> None:
        super().__init__(f"{command} refused with {code}: {text}")
        self.command = command
        self.code = code
        self.text = text


class AgiArgumentInvalid(TelephonyError, ValueError):
    """An argument that Asterisk would split, cut or read as a second command."""


class AgiTimeout(TelephonyError):
    """No response to a command, or no complete environment, in time."""


class ChannelGone(TelephonyError):
    """The channel is dead (511). Variables and the CDR are still in reach."""


class AgiConnectionLost(ChannelGone):
    """The AGI socket is closed: nothing can be told to the dialplan any more."""


class AudioLegUnavailable(TelephonyError):
    """An audio leg of this kind cannot be had for this call; another may be."""


class AudioLegLost(TelephonyError):
    """The audio leg broke while the call was still up."""


class TransferFailed(TelephonyError):
    """The caller is still ours: the transfer's target was not reached."""


class ListenFailed(TelephonyError):
    """A port of ours cannot be opened; the message says which and why."""


class VicidialError(TelephonyError):
    """VICIdial's HTTP APIs failed us."""


class VicidialUnavailable(VicidialError):
    """No usable answer: timeout, connection failure, 5xx, a page of HTML."""

    retryable: ClassVar[bool] = True


class VicidialRefused(VicidialError):
    """VICIdial understood and said no."""
