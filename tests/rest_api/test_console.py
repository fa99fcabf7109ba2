"""The console: files that take nothing from elsewhere, and show data as text only."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from agi_handlers.records.rows import CallRow, Row, TurnRow
from rest_api.app import AppOptions
from rest_api.auth import OPEN_PATHS, KeyRing
from rest_api.console.pages import PATHS
from tests.agi_handlers.records.stored_calls import T0, store
from tests.rest_api.browser import chromium
from tests.rest_api.serving import serving

KEY = "k" * 32
ELSEWHERE = {"X-Forwarded-For": "203.0.113.9"}


@pytest.fixture
async def client(data_dir: Path) -> AsyncIterator[httpx.AsyncClient]:
    options = AppOptions(data_dir=data_dir, keys=KeyRing.parse(f"a:{KEY}"))
    async with (
        serving(app=options) as url,
        httpx.AsyncClient(base_url=url, headers=ELSEWHERE) as client,
    ):
        yield client


async def test_files_are_open_to_all_and_guarded_by_a_strict_policy(
    client: httpx.AsyncClient,
) -> None:
    for path in PATHS:
        answer = await client.get(path)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_data_behind_the_pages_still_needs_a_key(
    client: httpx.AsyncClient, data_dir: Path
) -> None:
    store(data_dir)
    for path in ("/calls", "/calls/campaigns", "/calls/call-1", "/memory"):
        assert path not in OPEN_PATHS
        assert (await client.get(path)).status_code == 401


async def test_nothing_comes_from_another_host_and_every_file_named_is_there(
    client: httpx.AsyncClient,
) -> None:
    page = (await client.get("/console")).text
    named = re.findall(r'(?:src|href)="([^"#:]+)"', page)
    for path in PATHS:
        text = (await client.get(path)).text
        # the namespace of SVG is a name, not an address
        foreign = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text)
        assert [a for a in foreign if "www.w3.org" not in a] == []
        assert not re.search(r"@import|url\(", text)
        named += [f"console/{name}" for name in re.findall(r'from "\./(.+?)"', text)]
    assert {f"/{name}" for name in named if name.startswith("console/")} == {
        path for path in PATHS if path != "/console"
    }


async def test_no_script_makes_html_or_code_of_text(client: httpx.AsyncClient) -> None:
    banned = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\("
    for path in PATHS:
        text = (await client.get(path)).text
        assert not re.search(banned, text), path
        assert not re.search(r"<script>|\son\w+=\"|style=\"", text), path


async def test_unknown_file_is_not_found(client: httpx.AsyncClient) -> None:
    for name in ("nothing.js", "pages.py", "..%2Fauth.py"):
        answer = await client.get(f"/console/{name}", headers={"X-API-Key": KEY})
        assert answer.status_code == 404


@pytest.mark.slow
async def test_browser_shows_a_call_with_its_words_as_text(data_dir: Path) -> None:
    browser = chromium()
    attack = "<img src=x onerror=\"document.title='owned'\">"
    rows: list[Row] = [
        CallRow("c-1", T0, ended_at=T0 + 9, status="completed", campaign=attack),
        TurnRow(
            "c-1",
            1,
            "reply",
            released_ms=0,
            reply_text=f"We are open. {attack}",
            heard_text="We are",
            heard_ms=900,
            fate="interrupted",
            played_ms=10,
        ),
    ]
    store(data_dir, rows)
    async with serving(app=AppOptions(data_dir=data_dir)) as url:
        process = await asyncio.create_subprocess_exec(
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--no-first-run", "--disable-background-networking"),
            *("--disable-component-update", "--disable-sync"),
            f"--user-data-dir={data_dir / 'browser'}",
            *("--virtual-time-budget=5000", "--dump-dom"),
            f"{url}/console#/call/c-1",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(90):
            shown, _ = await process.communicate()
    page = shown.decode()
    assert "&lt;img src=x" in page
    assert "<img" not in page
    assert "interrupted after 0.9 s" in page
    assert "<title>Call" in page
