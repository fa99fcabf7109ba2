"""The interactive documentation: complete, and without other hosts."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.rest_api.serving import serving


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with serving(replies=()) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


async def test_the_page_takes_nothing_from_elsewhere(
    client: httpx.AsyncClient,
) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    taken = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert "docs/docs.js" in taken
    for address in taken:
        assert "//" not in address
        if not address.startswith("data:"):
            assert (await client.get("/" + address)).status_code == 200
    script = (await client.get("/docs/docs.js")).text
    assert "innerHTML" not in script
    assert "http://" not in script
    assert "https://" not in script


async def test_the_description_has_every_route_and_the_live_protocol(
    client: httpx.AsyncClient,
) -> None:
    api = (await client.get("/openapi.json")).json()
    assert {
        "/chat/text",
        "/chat/audio",
        "/chat/conversation",
        "/health",
        "/health/live",
        "/health/ready",
        "/memory",
        "/metrics",
    } <= set(api["paths"])
    assert "utterance" in api["x-live-protocol"]


@pytest.mark.parametrize("path", ["/chat/text", "/chat/conversation"])
async def test_the_examples_work(client: httpx.AsyncClient, path: str) -> None:
    api = (await client.get("/openapi.json")).json()
    body = api["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    schema = api["components"]["schemas"][body["schema"]["$ref"].rsplit("/", 1)[1]]
    answer = await client.post(path, json=schema["examples"][0])
    assert answer.json()["success"] is True
