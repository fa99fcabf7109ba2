"""Every route does what its OpenAPI description says, whatever it is sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from rest_api.app import AppOptions, create_app
from rest_api.service_state import ServiceState
from tests.rest_api.serving import serving

_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
_METHODS = ("get", "post", "put", "delete", "patch")


def _description(folder: Path | None = None) -> dict[str, Any]:
    return create_app(ServiceState(), AppOptions(data_dir=folder)).openapi()


_OPERATIONS = [
    (method, path)
    for path, item in _description(Path("data")).get("paths", {}).items()
    for method in _METHODS
    if method in item
]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server in a thread of its own: what calls it here doesn't await."""
    found: list[str] = []
    is_up, loop_of = threading.Event(), list[Any]()

    async def serve() -> None:
        stop = asyncio.Event()
        loop_of.append((asyncio.get_running_loop(), stop))
        async with serving(replies=(), app=AppOptions(data_dir=tmp_path)) as address:
            found.append(address)
            is_up.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert is_up.wait(20)
        yield found[0]
    finally:
        loop, stop = loop_of[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), _OPERATIONS)
def test_answers_are_those_described(
    url: str, tmp_path: Path, method: str, path: str
) -> None:
    schema = schemathesis.openapi.from_dict(_description(tmp_path))
    operation = schema[path][method.upper()]

    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @settings(
            max_examples=25,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def run(case: schemathesis.Case[Any]) -> None:
            response = case.call(base_url=url, timeout=30)
            case.validate_response(response, checks=_CHECKS)

        try:
            run()
        except Unsatisfiable:
            # Nothing can be wrong in a request without parameters.
            assert mode is GenerationMode.NEGATIVE
