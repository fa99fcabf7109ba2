"""What was kept of calls: search, one call, its recording, figures over time.

The phone half writes `recordings/` below ULTRAVOX_DATA_DIR, and its records into
`calls.sqlite` there or into a database that hosts share.  This half reads them, so both
need the same folder: by default they run on one host beside each other.  On different
hosts, share the folder or read the records on the phone half's host (`python -m
tools.export_calls`).
"""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import soundfile
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from agi_handlers.records.archive import (
    MAX_PAGE_CALLS,
    BadCursor,
    CallQuery,
    NoRecords,
    RecordsUnreadable,
    SearchTooSlow,
)
from agi_handlers.records.recording_files import MEDIA_TYPES, recording_files
from agi_handlers.records.store import Archive, StoreOptions, open_archive
from rest_api.errors import RequestRefused, error_response

# Everything here is somebody's conversation: no cache may keep it.
_PRIVATE: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_MAX_BUCKETS: Final = 1000
_READ_FRAMES: Final = 1 << 20
CallStatus = Literal[
    "running", "completed", "transfer", "no_input", "caller_hung_up", "failed",
    "refused", "interrupted",
]  # fmt: skip


class CallFiles:
    """Where this installation keeps what it knows of calls."""

    def __init__(self, store: StoreOptions) -> None:
        """Raises StoreUnavailable, OSError."""
        self.archive: Archive = open_archive(store)
        self._data_dir = store.data_dir

    def recording(self, name: str) -> Path | None:
        """The file of a recording a record names; None: none was made, or expired."""
        return next(recording_files(self._data_dir, name), None)


def _no_store(response: Response) -> None:
    response.headers.update(_PRIVATE)


def _files(request: Request) -> CallFiles:
    files = getattr(request.app.state, "call_files", None)
    if files is None:
        raise RequestRefused(
            HTTPStatus.SERVICE_UNAVAILABLE, "this server was started without records"
        )
    assert isinstance(files, CallFiles)
    return files


Files = Annotated[CallFiles, Depends(_files)]
router = APIRouter(prefix="/calls", tags=["calls"], dependencies=[Depends(_no_store)])


def add_calls(app: FastAPI, store: StoreOptions) -> None:
    """Serve the calls kept there; raises StoreUnavailable, OSError."""
    app.state.call_files = CallFiles(store)
    app.include_router(router)
    app.add_exception_handler(RecordsUnreadable, _unreadable)
    app.add_exception_handler(SearchTooSlow, _too_slow)
    app.add_exception_handler(BadCursor, _bad_cursor)


# Plain functions: the framework runs them in threads, as their file access wants.


@router.get("")
def search(
    files: Files,
    number: Annotated[str, Query(max_length=40)] = "",
    campaign: Annotated[str, Query(max_length=40)] = "",
    status: CallStatus | None = None,
    disposition: Annotated[str, Query(max_length=10)] = "",
    lead: Annotated[str, Query(max_length=20)] = "",
    text: Annotated[str, Query(max_length=200)] = "",
    since: datetime | None = None,
    until: datetime | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_CALLS)] = 50,
    cursor: Annotated[str, Query(max_length=200)] = "",
) -> dict[str, Any]:
    """Calls, newest first.  `next_cursor` leads to the next page, null at the end.

    `number`: a caller's whole number, or its last digits as far as records show them.
    `text`: words that bot or caller said in the call, all of them (`deliv*` for what
    begins so); or a call id, uniqueid or VICIdial's call id, whole.  `lead`: VICIdial's
    number of the lead.
    """
    query = CallQuery(
        number=number,
        lead=lead,
        campaign=campaign,
        status=status or "",
        disposition=disposition,
        text=text,
        since_at=_seconds(since, "since") if since else None,
        until_at=_seconds(until, "until") if until else None,
        limit=limit,
        cursor=cursor,
    )
    try:
        page = files.archive.search(query)
    except NoRecords as exc:
        return _data(calls=[], next_cursor=None, note=str(exc))
    return _data(calls=page.calls, next_cursor=page.next_cursor)


@router.get("/campaigns")
def campaigns(files: Files) -> dict[str, Any]:
    """Names of campaigns that have calls."""
    try:
        return _data(campaigns=files.archive.campaigns())
    except NoRecords:
        return _data(campaigns=[])


@router.get("/figures")
def figures(
    files: Files,
    since: datetime,
    until: datetime,
    bucket_s: Annotated[int, Query(ge=60, le=31 * 86_400)] = 3600,
) -> dict[str, Any]:
    """Calls by outcome and percentiles of the response delay, over time."""
    since_at, until_at = _seconds(since, "since"), _seconds(until, "until")
    if not since_at < until_at:
        raise _invalid("since", "since must be before until")
    if until_at - since_at > _MAX_BUCKETS * bucket_s:
        raise _invalid("bucket_s", f"these are over {_MAX_BUCKETS} buckets")
    try:
        found = files.archive.figures(since_at, until_at, bucket_s)
    except NoRecords as exc:
        return _data(num_calls=0, response_ms=None, buckets=[], note=str(exc))
    return _data(**found)


@router.get("/{call_id}")
def one_call(files: Files, call_id: str) -> dict[str, Any]:
    """A call with its turns, their timings, and what happened."""
    call = _call(files, call_id)
    call["has_recording"] = files.recording(call["recording"]) is not None
    return _data(call=call)


@router.get("/{call_id}/recording", response_class=FileResponse)
def recording(files: Files, call_id: str) -> FileResponse:
    """The recording: WAV, FLAC or Opus, caller left, bot right.  Ranges are served."""
    path = _recording(files, call_id)
    return FileResponse(
        path,
        media_type=MEDIA_TYPES[path.suffix],
        filename=path.name,
        content_disposition_type="inline",
        headers=_PRIVATE,
    )


@router.get("/{call_id}/waveform")
def waveform(
    files: Files, call_id: str, points: Annotated[int, Query(ge=10, le=4000)] = 600
) -> dict[str, Any]:
    """Peaks of both sides, each from 0 to 1, `points` of them over the recording."""
    path = _recording(files, call_id)
    try:
        return _data(**peaks(path, points))
    except (soundfile.SoundFileError, OSError) as exc:
        raise RequestRefused(
            HTTPStatus.SERVICE_UNAVAILABLE, f"the recording is unreadable: {exc}"
        ) from exc


def peaks(path: Path, points: int) -> dict[str, Any]:
    """The waveform of a stereo recording.

    Raises:
        soundfile.SoundFileError, OSError: not readable as one.
    """
    with soundfile.SoundFile(path) as file:
        num_frames, rate_hz = file.frames, file.samplerate
        found = np.zeros((points, 2), dtype=np.int32)
        at = 0
        for block in file.blocks(_READ_FRAMES, dtype="int16", always_2d=True):
            if block.shape[1] != 2:
                raise OSError("it has not two channels")
            frames = np.abs(block.astype(np.int32))
            where = (np.arange(at, at + len(frames)) * points) // max(1, num_frames)
            np.maximum.at(found, np.minimum(where, points - 1), frames)
            at += len(frames)
    shares = np.round(found / 32768.0, 3)
    return {
        "duration_s": round(num_frames / rate_hz, 3),
        "caller": shares[:, 0].tolist(),
        "bot": shares[:, 1].tolist(),
    }


def _call(files: CallFiles, call_id: str) -> dict[str, Any]:
    try:
        call = files.archive.call(call_id)
    except NoRecords:
        call = None
    if call is None:
        raise RequestRefused(HTTPStatus.NOT_FOUND, "no call of this id is recorded")
    return call


def _recording(files: CallFiles, call_id: str) -> Path:
    path = files.recording(_call(files, call_id)["recording"])
    if path is None:
        raise RequestRefused(
            HTTPStatus.NOT_FOUND, "this call has no recording, or it has expired"
        )
    return path


def _data(**values: Any) -> dict[str, Any]:
    return {"success": True, "data": values}


def _seconds(moment: datetime, field: str) -> float:
    """Since 1970; a time without a zone is this host's."""
    try:
        return moment.timestamp()
    except (ValueError, OverflowError, OSError) as exc:
        raise _invalid(field, "a time that computers know is wanted") from exc


def _invalid(field: str, message: str) -> RequestRefused:
    return RequestRefused(
        HTTPStatus.UNPROCESSABLE_ENTITY, message, code="invalid_request", field=field
    )


async def _unreadable(_: Request, exc: Exception) -> JSONResponse:
    return error_response(
        HTTPStatus.SERVICE_UNAVAILABLE, "records_unreadable", str(exc)
    )


async def _too_slow(_: Request, exc: Exception) -> JSONResponse:
    return error_response(HTTPStatus.GATEWAY_TIMEOUT, "search_too_slow", str(exc))


async def _bad_cursor(_: Request, exc: Exception) -> JSONResponse:
    return error_response(
        HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", str(exc), "cursor"
    )
