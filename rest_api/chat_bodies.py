"""What a chat request brings, in any of the forms it may come in.

application/json           the fields, audio in base64
multipart/form-data        the file `audio`; the fields as form fields, turns as JSON
audio/*, application/octet-stream
                           the audio is the body; the fields in the query string
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from rest_api.errors import RequestRefused
from rest_api.schemas import AudioChat, AudioUpload, Conversation, ReplyWishes, TextChat

_MAX_FORM_FIELDS: Final = 32
_MAX_FIELD_BYTES: Final = 8 * 1024 * 1024
_JSON: Final = "application/json"
_FORM: Final = "multipart/form-data"
_RAW: Final = ("audio/", "application/octet-stream")

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class AudioRequest:
    """A request with audio in it, or beside it."""

    wishes: AudioUpload
    encoded: bytes | None
    """The audio as it came; None: it is in the fields, in base64, or there is none."""


async def read_json(request: Request, model: type[M]) -> M:
    """A body that has to be JSON.

    Raises:
        RequestRefused: 415, something else.
        RequestValidationError: not JSON, or wrong fields.
    """
    kind = _media_type(request)
    if kind and kind != _JSON and not kind.endswith("+json"):
        raise _unsupported(kind, _JSON)
    return validated(model, await request.body())


async def read_audio_request(
    request: Request, json_model: type[AudioChat] | type[Conversation]
) -> AudioRequest:
    """A body that may be JSON, a form, or the audio itself; raises as `read_json`."""
    kind = _media_type(request)
    if kind == _FORM:
        return await _form(request)
    if kind.startswith(_RAW):
        fields = _with_turns(dict(request.query_params))
        return AudioRequest(_checked(AudioUpload, fields), await request.body())
    if kind and kind != _JSON and not kind.endswith("+json"):
        raise _unsupported(kind, f"{_JSON}, {_FORM}, audio/*")
    return AudioRequest(validated(json_model, await request.body()), None)


def validated(model: type[M], body: bytes) -> M:
    """The model a JSON body holds; raises RequestValidationError."""
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        raise _wrong(exc) from exc


async def _form(request: Request) -> AudioRequest:
    try:
        form = await request.form(
            max_files=1, max_fields=_MAX_FORM_FIELDS, max_part_size=_MAX_FIELD_BYTES
        )
    except HTTPException as exc:  # starlette's word for a form it cannot read
        raise RequestRefused(
            HTTPStatus.BAD_REQUEST, str(exc.detail), code="invalid_form"
        ) from exc
    try:
        return await _from_form(form)
    finally:
        await form.close()


async def _from_form(form: FormData) -> AudioRequest:
    file = form.get("audio")
    if not isinstance(file, UploadFile):
        raise RequestRefused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "the form has no file named audio",
            code="invalid_request",
            field="audio",
        )
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    return AudioRequest(_checked(AudioUpload, _with_turns(fields)), await file.read())


def _with_turns(fields: Mapping[str, str]) -> dict[str, Any]:
    """Form fields or a query: turns are JSON in them.

    Raises:
        RequestRefused: they aren't.
    """
    made: dict[str, Any] = dict(fields)
    if "turns" in made:
        try:
            made["turns"] = json.loads(made["turns"])
        except (ValueError, RecursionError) as exc:
            raise RequestRefused(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "turns must be JSON",
                code="invalid_request",
                field="turns",
            ) from exc
    return made


def _checked(model: type[M], fields: Mapping[str, Any]) -> M:
    try:
        return model.model_validate(fields)
    except ValidationError as exc:
        raise _wrong(exc) from exc


def _wrong(error: ValidationError) -> RequestValidationError:
    """In FastAPI's form, for the one place that words such answers."""
    return RequestValidationError(
        [
            {**detail, "loc": ("body", *detail["loc"])}
            for detail in error.errors(include_url=False, include_input=False)
        ]
    )


def _media_type(request: Request) -> str:
    kind, _, _ = request.headers.get("content-type", "").partition(";")
    return kind.strip().lower()


def _unsupported(kind: str, wanted: str) -> RequestRefused:
    return RequestRefused(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        f"a body of {kind[:80]}; {wanted} is wanted",
    )


def text_body() -> dict[str, Any]:
    """The documentation of a JSON body."""
    return {"requestBody": {"required": True, "content": {_JSON: _ref(TextChat)}}}


def audio_body(json_model: type[AudioChat] | type[Conversation]) -> dict[str, Any]:
    """The documentation of a body with audio, in its three forms."""
    form = {
        "type": "object",
        "required": ["audio"],
        "properties": {
            "audio": {"type": "string", "format": "binary"},
            "turns": {"type": "string", "description": "JSON, as in the JSON body"},
            **_plain_fields(),
        },
    }
    binary = {"schema": {"type": "string", "format": "binary"}}
    content = {
        _JSON: _ref(json_model),
        _FORM: {"schema": form},
        "audio/wav": binary,
        "application/octet-stream": binary,
    }
    parameters = [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": schema,
            "description": "with a body that is the audio itself",
        }
        for name, schema in {
            "turns": {"type": "string", "description": "JSON"},
            **_plain_fields(),
        }.items()
    ]
    return {
        "requestBody": {"required": True, "content": content},
        "parameters": parameters,
    }


def _plain_fields() -> dict[str, Any]:
    """The fields of an upload but its turns, as JSON Schema."""
    properties: dict[str, Any] = AudioUpload.model_json_schema()["properties"]
    return {name: schema for name, schema in properties.items() if name != "turns"}


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}


DOCUMENTED: Final[tuple[type[ReplyWishes], ...]] = (TextChat, AudioChat, Conversation)
"""Models of bodies that the routes read themselves."""
