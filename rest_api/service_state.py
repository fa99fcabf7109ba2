"""What the service can say of itself: starting, ready or failed, and who else is alive.

`health` puts model and telephony into one honest answer:

    unhealthy   the model is not there: still loading, or it failed (and why)
    degraded    dialogues are served, but something needs an operator: a phone half
                fell silent or drains, or every line of dialogue is taken
    healthy     the rest
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeAlias

from prometheus_client.core import Metric

from model.client import Heartbeat
from model.errors import SpeechUnavailable
from model.service import LocalSpeechService
from model.speech import SpeechStatus
from telemetry import ENGINE_REQUESTS, KV_BYTES

HealthStatus: TypeAlias = Literal["healthy", "degraded", "unhealthy"]

RANDOM_WEIGHTS_NOTE: Final = "random weights, replies are not language"
_STALE_INTERVALS: Final = 3.0
"""Heartbeats missed until a phone half counts as silent."""
_FORGET_AFTER_S: Final = 24 * 3600.0
_MAX_PHONES: Final = 100
"""Phone halves remembered; a name more, and the one longest silent is forgotten."""


@dataclass(frozen=True, slots=True)
class PhoneSeen:
    """A phone half's last heartbeat."""

    heartbeat: Heartbeat
    interval_s: float
    at_s: float
    metrics: Sequence[Metric] = ()


@dataclass(frozen=True, slots=True)
class LastError:
    """The newest failure of a request or dialogue."""

    code: str
    message: str
    at_s: float


@dataclass(slots=True)
class ServiceState:
    """One process's service, from start to end."""

    model_wanted: str = ""
    device: str = ""
    clock: Callable[[], float] = time.monotonic
    service: LocalSpeechService | None = None
    phase: str = "starting"
    """What start-up is at, or why it failed; for people."""
    has_failed: bool = False
    last_error: LastError | None = None
    _phones: dict[str, PhoneSeen] = field(default_factory=dict)
    _started_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._started_s = self.clock()

    @property
    def uptime_s(self) -> float:
        """Since the process started."""
        return self.clock() - self._started_s

    def ready(self, service: LocalSpeechService) -> None:
        """The model is loaded and has replied once."""
        self.service, self.has_failed, self.phase = service, False, "ready"

    def fail(self, reason: str) -> None:
        """The model cannot be had; the reason is what health answers."""
        self.service, self.has_failed, self.phase = None, True, reason

    def require(self) -> LocalSpeechService:
        """The service.

        Raises:
            SpeechUnavailable: not ready; says why.
        """
        if self.service is None:
            prefix = "the model is not available: " if self.has_failed else "starting: "
            raise SpeechUnavailable(prefix + self.phase)
        return self.service

    def note_error(self, code: str, message: str) -> None:
        """Remember a failure for health."""
        self.last_error = LastError(code, message, self.clock())

    def note_heartbeat(
        self,
        name: str,
        heartbeat: Heartbeat,
        interval_s: float,
        metrics: Sequence[Metric] = (),
    ) -> None:
        """A phone half is alive."""
        self._phones[name] = PhoneSeen(heartbeat, interval_s, self.clock(), metrics)
        if len(self._phones) > _MAX_PHONES:
            oldest = min(self._phones, key=lambda known: self._phones[known].at_s)
            del self._phones[oldest]

    def measure_engine(self) -> None:
        """Bring the engine's gauges up to date, for a scrape."""
        if self.service is None:
            return
        engine = self.service.engine
        load, memory = engine.load(), engine.memory()
        ENGINE_REQUESTS.labels(state="running").set(load.num_active)
        ENGINE_REQUESTS.labels(state="waiting").set(load.num_waiting)
        for state, name in (("all", "kv_bytes"), ("used", "kv_used_bytes")):
            if name in memory:  # another server's is not ours to see
                KV_BYTES.labels(state=state).set(memory[name])

    def phone_metrics(self) -> dict[str, Sequence[Metric]]:
        """The metrics of every phone half that isn't silent, by its name."""
        now = self.clock()
        return {
            name: phone.metrics
            for name, phone in self._phones.items()
            if now - phone.at_s <= _STALE_INTERVALS * phone.interval_s
        }

    async def speech_status(self) -> SpeechStatus:
        """Of the service, or of the attempt to start it."""
        if self.service is None:
            return SpeechStatus(
                is_ready=False,
                model=self.model_wanted,
                weights="random",
                device=self.device,
                detail=self.phase,
            )
        return await self.service.status()

    async def health(self) -> dict[str, Any]:
        """The whole answer of `/health`."""
        status = await self.speech_status()
        phones = self._phone_reports()
        problems = self._problems(status, phones)
        return {
            "status": self._overall(status, problems),
            "detail": "; ".join(problems),
            "uptime_s": round(self.uptime_s, 1),
            "model_loaded": status.is_ready,
            "model": {
                "is_ready": status.is_ready,
                "name": status.model,
                "weights": status.weights if status.is_ready else None,
                "device": status.device,
                "version": status.version,
                "decoding": self._decoding(),
                "turn_model": self._turn_model(),
                "voice": status.voice,
                "detail": _model_detail(status),
            },
            "sessions": {"now": status.num_sessions, "max": status.max_sessions},
            "queue": self._queue(),
            "last_error": self._last_error(),
            "telephony": phones or None,
        }

    def _decoding(self) -> str:
        if self.service is None:
            return ""
        return self.service.engine.description.decoding

    def _turn_model(self) -> str | None:
        model = self.service.turn_model if self.service else None
        return model.name if model else None

    def _queue(self) -> dict[str, Any] | None:
        if self.service is None:
            return None
        load = self.service.engine.load()
        return {
            "active": load.num_active,
            "slots": load.max_slots,
            "waiting": load.num_waiting,
            "max_waiting": load.max_waiting,
            "busy_share": round(load.busy_share, 3),
            "step_ms": round(load.step_ms, 1),
        }

    def _last_error(self) -> dict[str, Any] | None:
        if self.last_error is None:
            return None
        age_s = round(self.clock() - self.last_error.at_s, 1)
        return {
            "code": self.last_error.code,
            "message": self.last_error.message,
            "age_s": age_s,
        }

    def _phone_reports(self) -> list[dict[str, Any]]:
        now = self.clock()
        reports = []
        for name, phone in sorted(self._phones.items()):
            age_s = now - phone.at_s
            is_stale = age_s > _STALE_INTERVALS * phone.interval_s
            # One that said it was draining and then fell silent has left in order.
            if age_s > _FORGET_AFTER_S or (is_stale and phone.heartbeat.is_draining):
                continue
            reports.append(
                {
                    "name": name,
                    "age_s": round(age_s, 1),
                    "is_stale": is_stale,
                    **asdict(phone.heartbeat),
                }
            )
        return reports

    def _problems(
        self, status: SpeechStatus, phones: list[dict[str, Any]]
    ) -> list[str]:
        problems = []
        if not status.is_ready:
            problems.append(self.phase)
        elif status.num_sessions >= status.max_sessions:
            problems.append(f"all {status.max_sessions} dialogues are in use")
        for phone in phones:
            if phone["is_stale"]:
                problems.append(
                    f"phone half {phone['name']} silent for {phone['age_s']:.0f} s"
                )
            elif phone["is_draining"]:
                problems.append(f"phone half {phone['name']} is draining")
        return problems

    def _overall(self, status: SpeechStatus, problems: list[str]) -> HealthStatus:
        if not status.is_ready:
            return "unhealthy"
        return "degraded" if problems else "healthy"


def _model_detail(status: SpeechStatus) -> str:
    if status.is_ready and status.weights == "random":
        return RANDOM_WEIGHTS_NOTE
    return status.detail
