"""Health for people, load balancers and Nagios; memory; metrics; heartbeats.

/health         200 healthy or degraded, 503 unhealthy; ?format=text one line
/health/live    200 as long as the process answers
/health/ready   200 when dialogues are taken, else 503
"""

from __future__ import annotations

import resource
from http import HTTPStatus
from typing import Any, Final, Literal

import psutil
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, REGISTRY

from model.client import Heartbeat
from rest_api.chat import State
from rest_api.errors import RequestRefused
from rest_api.metrics import MetricsUnreadable, exposition, parse
from rest_api.schemas import HeartbeatBody
from rest_api.service_state import ServiceState

router = APIRouter(tags=["operations"])

_NAGIOS: Final = {"healthy": "OK", "degraded": "WARNING", "unhealthy": "CRITICAL"}


_EXAMPLE: Final = {
    "status": "healthy",
    "detail": "",
    "uptime_s": 3600.0,
    "model_loaded": True,
    "model": {"is_ready": True, "name": "fixie-ai/ultravox-v0_5-llama-3_1-8b"},
    "sessions": {"now": 3, "max": 40},
    "telephony": [],
    "last_error": None,
}
_REPORT: Final[dict[str, Any]] = {
    "application/json": {"schema": {"type": "object"}, "example": _EXAMPLE},
    "text/plain": {
        "schema": {"type": "string"},
        "example": "OK - healthy; model m on cuda; 3 of 40 dialogues | sessions=3",
    },
}
_JSON_OBJECT: Final = {"application/json": {"schema": {"type": "object"}}}


@router.get(
    "/health",
    response_model=None,
    responses={
        200: {"description": "healthy or degraded", "content": _REPORT},
        503: {"description": "unhealthy", "content": _REPORT},
    },
)
async def health(
    request: Request, state: State, format: Literal["json", "text"] = "json"
) -> Response:
    """One answer for model and telephony."""
    report = await state.health()
    if not getattr(request.state, "is_trusted", True):
        report["last_error"] = None  # may quote what a user sent
    status = (
        HTTPStatus.SERVICE_UNAVAILABLE
        if report["status"] == "unhealthy"
        else HTTPStatus.OK
    )
    if format == "text":
        return PlainTextResponse(_one_line(report) + "\n", status)
    return JSONResponse(report, status)


@router.get("/health/live")
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get(
    "/health/ready",
    response_model=None,
    responses={
        200: {"description": "dialogues are taken", "content": _JSON_OBJECT},
        503: {"description": "not ready", "content": _JSON_OBJECT},
    },
)
async def ready(state: State) -> Response:
    """Dialogues are taken."""
    speech = await state.speech_status()
    body = {"status": "ready" if speech.is_ready else "not_ready"}
    if not speech.is_ready:
        body["detail"] = speech.detail
    code = HTTPStatus.OK if speech.is_ready else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse(body, code)


@router.get("/memory")
async def memory(state: State) -> dict[str, Any]:
    """Bytes in use: this process, its children, the machine, the model."""
    process = psutil.Process()
    machine = psutil.virtual_memory()
    rss_bytes = process.memory_info().rss
    # The kernel counts the two apart, and its peak lags behind by some pages.
    peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "process": {
            "rss_bytes": rss_bytes,
            "peak_rss_bytes": max(rss_bytes, peak_bytes),
        },
        "workers": {"rss_bytes": _children_rss_bytes(process)},
        "system": {
            "total_bytes": machine.total,
            "available_bytes": machine.available,
            "percent": machine.percent,
        },
        "model": state.service.engine.memory() if state.service else None,
        "turn_model": _turn_model_bytes(state),
        "gpu": _gpu_bytes(),
    }


@router.get("/metrics", response_model=None, response_class=PlainTextResponse)
async def metrics(state: State) -> Response:
    """For Prometheus: ours, and those of the phone halves."""
    state.measure_engine()
    text = exposition(REGISTRY.collect(), state.phone_metrics())
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


@router.post("/internal/heartbeat", include_in_schema=False)
async def heartbeat(body: HeartbeatBody, state: State) -> dict[str, bool]:
    """A phone half says how it is."""
    said = body.model_dump(exclude={"name", "interval_s", "metrics"})
    try:
        metrics = parse(body.metrics)
    except MetricsUnreadable as exc:
        raise RequestRefused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            str(exc),
            code="invalid_request",
            field="metrics",
        ) from exc
    state.note_heartbeat(body.name, Heartbeat(**said), body.interval_s, metrics)
    return {"success": True}


def _one_line(report: dict[str, Any]) -> str:
    """The line of a Nagios plugin: word, reason, performance data."""
    model, sessions = report["model"], report["sessions"]
    parts = [f"{_NAGIOS[report['status']]} - {report['status']}"]
    if report["detail"]:
        parts.append(f": {report['detail']}")
    weights = f" ({model['detail']})" if model["detail"] and model["is_ready"] else ""
    parts.append(f"; model {model['name']}{weights} on {model['device'] or 'none'}")
    parts.append(f"; {sessions['now']} of {sessions['max']} dialogues")
    phones = report["telephony"] or []
    if phones:
        calls = sum(phone["num_calls"] for phone in phones)
        lines = sum(phone["max_calls"] for phone in phones)
        parts.append(f"; {calls} of {lines} calls")
    parts.append(
        f" | sessions={sessions['now']};;;0;{sessions['max']}"
        f" uptime={report['uptime_s']}s"
    )
    return " ".join("".join(parts).split())


def _children_rss_bytes(process: psutil.Process) -> int:
    total = 0
    for child in process.children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def _turn_model_bytes(state: ServiceState) -> dict[str, int] | None:
    model = state.service.turn_model if state.service else None
    return model.engine.memory() if model else None


def _gpu_bytes() -> dict[str, int] | None:
    # The scripted engine needs no torch: it is asked only if somebody loaded it.
    import sys

    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    # Ours only: to look at another card takes some of its memory for good.
    ours = [
        n for n in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(n)
    ]
    cards = [torch.cuda.mem_get_info(card) for card in ours]
    return {
        "cards": len(ours),
        "total_bytes": sum(total for _, total in cards),
        "free_bytes": sum(free for free, _ in cards),
        "allocated_bytes": sum(torch.cuda.memory_allocated(n) for n in ours),
        "reserved_bytes": sum(torch.cuda.memory_reserved(n) for n in ours),
        "peak_bytes": sum(torch.cuda.max_memory_allocated(n) for n in ours),
    }
