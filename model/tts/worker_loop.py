"""The inside of a synthesiser process: requests in, speech out, over one socket.

The socket is descriptor 0.  When it ends, the service is gone, and so is the process.
Synthesis runs in this one thread; between two chunks it looks for a Cancel.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Final, Protocol

import numpy as np

from model.audio.pcm import Wave
from model.errors import SynthesisFailed
from model.tts import wire
from model.tts.errors import SynthesizerUnavailable, VoiceUnknown
from model.tts.shaping import ShapingOptions, SpeechShaper, gain_for
from model.tts.voice import Voice

_SOCKET_FD: Final = 0
_READ_BYTES: Final = 65536
# After the first audio, which goes at once: speech is shaped and sent in larger steps,
# a third of the work of doing it for each of espeak's 60 ms.
_MESSAGE_S: Final = 0.48
# Two minutes: a text of the longest length allowed, spoken slowly, is under one.
_MAX_SPEECH_S: Final = 120

EmitWave = Callable[[Wave, int], bool]
"""Takes a wave and its rate in Hz; False: stop, nobody listens any more."""


class Engine(Protocol):
    """What turns text into sound in this process."""

    @property
    def version(self) -> str: ...

    def speak(self, text: str, voice: Voice, emit: EmitWave) -> None:
        """Synthesise, calling `emit` for each chunk.

        Raises:
            VoiceUnknown: there is no such voice.
            SynthesisFailed: this text cannot be spoken; the process is sound.
        """
        ...

    def identify(self, voice: Voice) -> str:
        """A name for what decides a voice's loudness; raises VoiceUnknown."""
        ...

    def calibration_text(self) -> str:
        """Some seconds of ordinary speech, to learn how loud a voice is."""
        ...

    def warm_voices(self) -> list[Voice]:
        """Voices to try before the first request comes."""
        ...


class ServiceGone(Exception):
    """The other end of the socket was closed."""


def run_worker(open_engine: Callable[[], Engine]) -> None:
    """Serve requests until the service closes the socket."""
    # Ctrl-C and a service manager's SIGTERM reach the whole group; the service decides
    # when calls have drained and then closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    line = _Line()
    try:
        engine = open_engine()
        worker = Worker(engine, line)
        worker.warm_up()
        line.send(wire.Ready(engine.version))
        worker.serve()
    except SynthesizerUnavailable as exc:
        line.send(wire.Failed(0, "unavailable", str(exc)))
        sys.exit(1)
    except (ServiceGone, BrokenPipeError, ConnectionResetError):
        return


class _Line:
    """The socket to the service, with what was read ahead."""

    def __init__(self) -> None:
        self._reader = wire.MessageReader()
        self._waiting: list[wire.Message] = []

    def send(self, message: wire.Message) -> None:
        data = memoryview(wire.encode(message))
        while data:
            data = data[os.write(_SOCKET_FD, data) :]

    def next_message(self) -> wire.Message:
        while not self._waiting:
            self._read()
        return self._waiting.pop(0)

    def is_cancelled(self, request_id: int) -> bool:
        """Has a Cancel for this request come meanwhile?  Never waits."""
        while select.select([_SOCKET_FD], [], [], 0)[0]:
            self._read()
        cancel = wire.Cancel(request_id)
        if cancel not in self._waiting:
            return False
        self._waiting.remove(cancel)
        return True

    def _read(self) -> None:
        data = os.read(_SOCKET_FD, _READ_BYTES)
        if not data:
            raise ServiceGone
        self._waiting += self._reader.receive_data(data)


class Worker:
    """Requests one after another."""

    def __init__(
        self, engine: Engine, line: _Line, options: ShapingOptions | None = None
    ) -> None:
        self._engine = engine
        self._line = line
        self._options = options or ShapingOptions()
        self._gains: dict[str, float] = {}

    def serve(self) -> None:
        while True:
            message = self._line.next_message()
            if isinstance(message, wire.Speak):
                self._line.send(self._answer(message))
            # Anything else is the Cancel of a request already done.

    def _answer(self, request: wire.Speak) -> wire.Message:
        try:
            speech = _Speech(
                request, self._line, self._gain(request.voice), self._options
            )
            self._engine.speak(request.text, request.voice, speech.emit)
            speech.finish()
        except VoiceUnknown as exc:
            return wire.Failed(request.request_id, "voice_unknown", str(exc))
        except SynthesisFailed as exc:
            return wire.Failed(request.request_id, "failed", str(exc))
        return wire.Done(request.request_id)

    def warm_up(self) -> None:
        for voice in self._engine.warm_voices():
            self._gain(voice)

    def _gain(self, voice: Voice) -> float:
        """How much louder the voice must be, measured once."""
        name = self._engine.identify(voice)
        if name not in self._gains:
            self._gains[name] = self._measure_gain(voice)
        return self._gains[name]

    def _measure_gain(self, voice: Voice) -> float:
        waves: list[Wave] = []
        rates: list[int] = []

        def collect(wave: Wave, rate_hz: int) -> bool:
            waves.append(wave)
            rates.append(rate_hz)
            return True

        self._engine.speak(self._engine.calibration_text(), voice, collect)
        if not waves:
            return 1.0
        return gain_for(np.concatenate(waves), rates[0], self._options.target_dbfs)


class _Speech:
    """One request's audio on its way out."""

    def __init__(
        self, request: wire.Speak, line: _Line, gain: float, options: ShapingOptions
    ) -> None:
        self._request = request
        self._line = line
        self._gain = gain
        self._options = options
        self._shaper: SpeechShaper | None = None
        self._left_s = float(_MAX_SPEECH_S)
        self._unshaped: list[Wave] = []
        self._unshaped_s = 0.0
        self._has_sent = False

    def emit(self, wave: Wave, rate_hz: int) -> bool:
        if self._shaper is None:
            self._shaper = SpeechShaper(
                rate_hz, self._request.rate_hz, self._gain, self._options
            )
        duration_s = len(wave) / rate_hz
        self._unshaped.append(wave)
        self._unshaped_s += duration_s
        if not self._has_sent or self._unshaped_s >= _MESSAGE_S:
            self._send(self._shape())
        self._left_s -= duration_s
        return self._left_s > 0 and not self._line.is_cancelled(
            self._request.request_id
        )

    def finish(self) -> None:
        if self._shaper is not None:
            self._send(self._shape() + self._shaper.flush())

    def _shape(self) -> bytes:
        assert self._shaper is not None
        if not self._unshaped:
            return b""
        wave = np.concatenate(self._unshaped)
        self._unshaped.clear()
        self._unshaped_s = 0.0
        return self._shaper.feed(wave)

    def _send(self, pcm16: bytes) -> None:
        if pcm16:
            self._line.send(wire.Audio(self._request.request_id, pcm16))
            self._has_sent = True
