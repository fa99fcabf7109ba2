"""The talk page: its files, and a conversation held with it in a real browser."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from model.engine.scripted import ScriptedEngine, ScriptedOptions
from model.service import ServiceOptions
from rest_api.app import AppOptions
from rest_api.auth import KeyRing
from rest_api.talk.pages import PATHS
from tests.fakes.tone_synthesizer import ToneSynthesizer
from tests.rest_api.browser import DESKTOP, PHONE, browser, check_page, wait
from tests.rest_api.serving import serving

FOLDER = Path(__file__).resolve().parents[3] / "rest_api/talk"
HEARD = re.compile(r"I heard you speak for \d+\.\d seconds\.")
KEY = "signs-that-no-subprotocol-may-have/+=()@"
ELSEWHERE = "203.0.113.9"


async def test_files_are_open_to_all_and_nothing_else_is() -> None:
    keys = AppOptions(keys=KeyRing.parse("crm:" + "k" * 32))
    foreign = {"X-Forwarded-For": "203.0.113.9"}
    async with (
        serving(app=keys) as url,
        httpx.AsyncClient(base_url=url, headers=foreign) as client,
    ):
        for path in PATHS:
            answer = await client.get(path)
            assert answer.status_code == 200, path
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert (await client.get("/console/talk/pages.py")).status_code == 401
        assert (await client.get("/chat/live")).status_code == 401


def test_nothing_is_taken_from_other_hosts() -> None:
    for file in FOLDER.iterdir():
        if file.suffix in {".html", ".js", ".css"}:
            assert not re.search(r"https?://|//\w+\.\w", file.read_text()), file.name


def spoken_file(folder: Path) -> Path:
    """What the fake microphone hears, over and over: a second and a half, a pause."""
    rate_hz = 48_000
    time_s = np.arange(int(1.5 * rate_hz)) / rate_hz
    voice = 0.4 * np.sin(2 * np.pi * 200 * time_s) * (1 + np.sin(9 * time_s)) / 2
    wave = np.concatenate([np.zeros(rate_hz), voice, np.zeros(int(2.5 * rate_hz))])
    path = folder / "said.wav"
    soundfile.write(path, wave.astype(np.float32), rate_hz, subtype="PCM_16")
    return path


@asynccontextmanager
async def talk_server(keys: AppOptions | None = None) -> AsyncIterator[str]:
    engine = ScriptedEngine(ScriptedOptions(()))
    async with serving(engine=engine, synthesizer=ToneSynthesizer(), app=keys) as url:
        yield f"{url}/console/talk"


async def in_browser(
    url: str,
    work: Callable[[Any], None],
    folder: Path,
    size: tuple[int, int] = DESKTOP,
    *,
    dark: bool = False,
    allowed: str = "",
) -> None:
    """`allowed`: what a line of the browser's log may have."""

    def run() -> None:
        said_wav = spoken_file(folder)
        with browser(folder, size, dark=dark, said=said_wav) as driver:
            driver.get(url)
            try:
                work(driver)
                check_page(driver, size, allowed)
            finally:
                if shots := os.environ.get("PAGE_SCREENSHOTS"):
                    name = f"{folder.name}-{size[0]}.png"
                    driver.save_screenshot(str(Path(shots) / name))

    await asyncio.to_thread(run)


def said(driver: Any, who: str) -> list[str]:
    script = (
        "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
    )
    texts: list[str] = driver.execute_script(script, f"#turns .{who} span")
    return texts


def status(driver: Any) -> str:
    text: str = driver.find_element("id", "status").text
    return text


def start_by_keyboard(driver: Any) -> None:
    """Tab to Start and press it, as somebody without a mouse does."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    for _ in range(12):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        if driver.switch_to.active_element.get_attribute("id") == "connect":
            break
    else:
        pytest.fail("Start cannot be reached by Tab")
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    wait(driver, lambda: status(driver).startswith("Connected to scripted replies"))
    wait(driver, lambda: said(driver, "bot") == ["Hello, how can I help you?"])
    assert driver.switch_to.active_element.get_attribute("id") == "talk"


@pytest.mark.slow
@pytest.mark.parametrize(("size", "dark"), [(PHONE, False), (DESKTOP, True)])
async def test_push_to_talk_by_keyboard(
    tmp_path: Path, size: tuple[int, int], dark: bool
) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def work(driver: Any) -> None:
        start_by_keyboard(driver)
        ActionChains(driver).key_down(Keys.SPACE).pause(1.5).key_up(
            Keys.SPACE
        ).perform()
        wait(driver, lambda: len(said(driver, "bot")) == 2)
        (caller,) = said(driver, "caller")
        seconds = float(caller.removeprefix("spoke for ").removesuffix(" s"))
        assert 0.8 < seconds < 4.0
        wait(driver, lambda: HEARD.fullmatch(said(driver, "bot")[-1]))
        driver.find_element("id", "typed").send_keys("What then?", Keys.ENTER)
        wait(driver, lambda: said(driver, "bot")[-1] == "You said: What then?")

    async with talk_server() as url:
        await in_browser(url, work, tmp_path, size, dark=dark)


@pytest.mark.slow
async def test_an_open_microphone_takes_turns_by_itself(tmp_path: Path) -> None:
    def work(driver: Any) -> None:
        driver.find_element("css selector", "input[value=open]").click()
        start_by_keyboard(driver)
        wait(driver, lambda: len(said(driver, "caller")) >= 2)
        heard = [text for text in said(driver, "bot") if HEARD.fullmatch(text)]
        assert heard
        driver.find_element("id", "hang-up").click()
        wait(driver, lambda: status(driver) == "Ended")
        assert driver.find_element("id", "connect").is_enabled()

    async with talk_server() as url:
        await in_browser(url, work, tmp_path)


@pytest.mark.slow
async def test_no_room_is_said_and_can_be_tried_again(tmp_path: Path) -> None:
    def work(driver: Any) -> None:
        driver.find_element("id", "connect").click()
        wait(driver, lambda: "open already" in status(driver))
        wait(driver, lambda: driver.find_element("id", "connect").is_enabled())
        assert not driver.find_element("id", "talk").is_enabled()

    full = ServiceOptions(max_sessions=0)
    async with serving(service=full) as url:
        await in_browser(f"{url}/console/talk", work, tmp_path)


@pytest.mark.slow
async def test_from_another_host_a_key_is_asked_for_and_kept_for_the_tab(
    tmp_path: Path,
) -> None:
    def start(driver: Any, key: str) -> None:
        field = driver.find_element("id", "key")
        field.clear()
        field.send_keys(key)
        driver.find_element("id", "connect").click()
        wait(driver, lambda: driver.find_element("id", "connect").is_enabled() or key)

    def work(driver: Any) -> None:
        driver.find_element("css selector", "details summary").click()
        for wrong in ("", "not the key, ünïcode"):
            start(driver, wrong)
            wait(driver, lambda: "API key may be needed" in status(driver))
            assert not driver.find_element("id", "talk").is_enabled()
        start(driver, KEY)
        wait(driver, lambda: status(driver).startswith("Connected to scripted"))
        driver.find_element("id", "typed").send_keys("Hello", "\n")
        wait(driver, lambda: said(driver, "bot")[-1] == "You said: Hello")
        driver.refresh()
        assert driver.find_element("id", "key").get_attribute("value") == KEY
        assert KEY not in driver.current_url

    keys = AppOptions(keys=KeyRing.parse(f"crm:{KEY}"))
    async with serving(
        script=ScriptedOptions(()), app=keys, seen_from=ELSEWHERE
    ) as url:
        page = f"{url}/console/talk"
        await in_browser(page, work, tmp_path, allowed="/chat/live")


@pytest.mark.slow
async def test_without_https_the_page_says_why_there_is_no_microphone(
    tmp_path: Path,
) -> None:
    def work(driver: Any) -> None:
        driver.execute_script(
            "Object.defineProperty(navigator, 'mediaDevices', {value: undefined})"
        )
        driver.find_element("id", "connect").click()
        wait(driver, lambda: "HTTPS" in status(driver))
        assert driver.find_element("id", "connect").is_enabled()

    async with talk_server() as url:
        await in_browser(url, work, tmp_path)
