"""A synthesiser behind HTTP: any server with OpenAI's `/v1/audio/speech`.

The answer is read as it comes: raw 16-bit samples, or a WAV stream whose header then
tells the rate.  How loud a voice is becomes known with its first text, which is heard
only when it is complete; from then on speech streams.
Source: OpenAI's API reference, "Create speech"; `pcm` is 24 kHz, 16 bit, mono.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import httpx
import numpy as np

from model.audio.pcm import Wave, wave_from_pcm16
from model.errors import SynthesisFailed
from model.http_bodies import plain_client, read_bounded
from model.tts.errors import SynthesisOverloaded, SynthesizerUnavailable, VoiceUnknown
from model.tts.shaping import ShapingOptions, SpeechShaper, gain_for
from model.tts.synthesizer import MAX_TEXT_CHARS, SynthesizerStatus
from model.tts.voice import Voice

_NORMAL_WPM = Voice().speed_wpm
_MAX_SPEECH_S = 120.0
_WAV_FORMAT = struct.Struct("<HHIIHH")
_WAV_HEADER_BYTES = 4096
"""A `data` chunk that begins later than this is no speech."""


@dataclass(frozen=True, slots=True)
class OpenAiSpeechOptions:
    url: str
    """Of the server, with or without /v1: http://tts:8880."""
    api_key: str = field(default="", repr=False)
    model: str = "tts-1"
    """OpenAI's fast one; most servers ignore it."""
    default_voice: str = "alloy"
    """The one voice every such server has."""
    rate_hz: int = 24_000
    """Of raw samples; a WAV answer brings its own."""
    connect_timeout_s: float = 2.0
    silence_timeout_s: float = 5.0
    """Without a byte for so long the request has failed."""
    max_requests: int = 64
    """At once; the rest wait in line."""
    wait_timeout_s: float = 5.0
    """In that line."""


class OpenAiSpeech:
    """A SpeechSynthesizer; make it with `open`."""

    def __init__(
        self, options: OpenAiSpeechOptions, shaping: ShapingOptions | None = None
    ) -> None:
        self._options = options
        self._shaping = shaping or ShapingOptions()
        self._url = options.url.rstrip("/").removesuffix("/v1") + "/v1/audio/speech"
        key = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
        self._http = plain_client(
            headers=key,
            timeout=httpx.Timeout(
                options.silence_timeout_s,
                connect=options.connect_timeout_s,
                pool=options.wait_timeout_s,
            ),
            limits=httpx.Limits(max_connections=options.max_requests),
        )
        self._gains: dict[str, float] = {}  # by voice name
        self._num_requests = 0
        self._num_busy = 0
        self._num_retries = 0
        self._num_failures = 0

    @property
    def backend(self) -> str:
        return "openai"

    async def open(self) -> None:
        """Speak a word, so that a wrong address or key shows at the start.

        Raises:
            SynthesizerUnavailable: the server does not answer, or refuses.
        """
        try:
            await self.check_voice(Voice())
        except (SynthesisFailed, SynthesisOverloaded, VoiceUnknown) as exc:
            raise SynthesizerUnavailable(f"{self._url}: {exc}") from exc

    async def aclose(self) -> None:
        await self._http.aclose()

    async def check_voice(self, voice: Voice) -> None:
        """Say a word with it unless it has spoken before."""
        if self._voice_name(voice) not in self._gains:
            async for _ in self.synthesize("One, two, three.", voice):
                pass

    def status(self) -> SynthesizerStatus:
        return SynthesizerStatus(
            backend=self.backend,
            version=self._options.model,
            num_workers=self._options.max_requests,
            num_busy=self._num_busy,
            num_waiting=max(0, self._num_busy - self._options.max_requests),
            num_requests=self._num_requests,
            num_retries=self._num_retries,
            num_failures=self._num_failures,
            num_replaced=0,
        )

    async def synthesize(
        self, text: str, voice: Voice, *, rate_hz: int = 8000
    ) -> AsyncGenerator[bytes, None]:
        """See SpeechSynthesizer; retried once if no audio had come yet."""
        if len(text) > MAX_TEXT_CHARS:
            raise SynthesisFailed(
                f"the text is longer than {MAX_TEXT_CHARS} characters"
            )
        self._num_requests += 1
        self._num_busy += 1
        has_audio = False
        try:
            for is_retry in (False, True):
                try:
                    async with aclosing(self._shaped(text, voice, rate_hz)) as chunks:
                        async for chunk in chunks:
                            has_audio = True
                            yield chunk
                    return
                except httpx.PoolTimeout as exc:
                    raise SynthesisOverloaded("every connection is in use") from exc
                except httpx.HTTPError as exc:
                    if is_retry or has_audio:
                        self._num_failures += 1
                        raise SynthesisFailed(f"speech server: {exc!r}") from exc
                    self._num_retries += 1
        finally:
            self._num_busy -= 1

    def _voice_name(self, voice: Voice) -> str:
        return voice.name or self._options.default_voice

    async def _shaped(
        self, text: str, voice: Voice, rate_hz: int
    ) -> AsyncGenerator[bytes, None]:
        request = {
            "model": self._options.model,
            "input": text,
            "voice": self._voice_name(voice),
            "response_format": "pcm",
            "speed": round(voice.speed_wpm / _NORMAL_WPM, 2),
        }
        async with self._http.stream("POST", self._url, json=request) as response:
            if response.is_error:
                raise await _refusal(response)
            samples = _Samples(self._options.rate_hz)
            async with aclosing(_waves(response, samples)) as waves:
                async for pcm16 in self._shape(waves, samples, voice, rate_hz):
                    yield pcm16

    async def _shape(
        self,
        waves: AsyncGenerator[Wave, None],
        samples: _Samples,
        voice: Voice,
        rate_hz: int,
    ) -> AsyncGenerator[bytes, None]:
        name = self._voice_name(voice)
        first: list[Wave] = []
        if name not in self._gains:
            heard = [wave async for wave in waves]
            first = [np.concatenate(heard)] if heard else []
            target_dbfs = self._shaping.target_dbfs
            self._gains[name] = (
                gain_for(first[0], samples.rate_hz, target_dbfs) if first else 1.0
            )
        shaper: SpeechShaper | None = None
        async for wave in _after(first, waves):
            shaper = shaper or SpeechShaper(
                samples.rate_hz, rate_hz, self._gains[name], self._shaping
            )
            if pcm16 := shaper.feed(wave):
                yield pcm16
        if shaper is not None and (pcm16 := shaper.flush()):
            yield pcm16


class _Samples:
    """Bytes of the answer, cut anywhere, to waves; a WAV header is taken off."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._received = b""
        self._is_past_header = False

    def receive_data(self, data: bytes) -> Wave:
        """Raises SynthesisFailed for a WAV header that isn't 16-bit mono."""
        self._received += data
        if not self._is_past_header and not self._take_header():
            return np.zeros(0, np.float32)
        whole = len(self._received) & ~1
        wave = wave_from_pcm16(self._received[:whole])
        self._received = self._received[whole:]
        return wave

    def _take_header(self) -> bool:
        """Is the header, if there is one, complete and taken off?"""
        if len(self._received) < 4:
            return False
        if self._received.startswith(b"RIFF"):
            at = self._received.find(b"data", 12)
            if at < 0 or len(self._received) < at + 8:
                if len(self._received) > _WAV_HEADER_BYTES:
                    raise SynthesisFailed("the speech server's WAV has no data chunk")
                return False
            kind = self._received.find(b"fmt ", 12)
            if not 0 <= kind <= at - 8 - _WAV_FORMAT.size:
                raise SynthesisFailed("the speech server's WAV has no format chunk")
            form, channels, rate_hz, _, _, bits = _WAV_FORMAT.unpack_from(
                self._received, kind + 8
            )
            if (form, channels, bits) != (1, 1, 16) or not 8000 <= rate_hz <= 48_000:
                raise SynthesisFailed(
                    f"the speech server sends {bits} bit, {channels} channels, "
                    f"{rate_hz} Hz, format {form}; 16-bit mono PCM is needed"
                )
            self.rate_hz = rate_hz
            self._received = self._received[at + 8 :]
        self._is_past_header = True
        return True


async def _waves(
    response: httpx.Response, samples: _Samples
) -> AsyncGenerator[Wave, None]:
    num_samples = 0
    async for chunk in response.aiter_bytes():
        wave = samples.receive_data(chunk)
        num_samples += len(wave)
        if num_samples > _MAX_SPEECH_S * samples.rate_hz:
            raise SynthesisFailed("the speech server sends audio without end")
        if len(wave):
            yield wave
        await asyncio.sleep(0)  # shaping takes a while; let calls have their turn


async def _after(
    first: list[Wave], rest: AsyncGenerator[Wave, None]
) -> AsyncGenerator[Wave, None]:
    for wave in first:
        yield wave
    async for wave in rest:
        yield wave


async def _refusal(response: httpx.Response) -> Exception:
    """What an error status means to us."""
    body = (await read_bounded(response, 200)).decode(errors="replace")
    reason = f"speech server answered {response.status_code}: {' '.join(body.split())}"
    if response.status_code in (429, 503):
        return SynthesisOverloaded(reason)
    if response.status_code in (400, 404, 422) and "voice" in body.lower():
        return VoiceUnknown(reason)
    return SynthesisFailed(reason)
