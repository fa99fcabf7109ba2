"""The documentation page in a real browser: by keyboard, on phone and desktop."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from rest_api.app import AppOptions
from rest_api.auth import KeyRing
from tests.rest_api.browser import DESKTOP, PHONE, browser, check_page, wait
from tests.rest_api.serving import serving

pytestmark = pytest.mark.slow
KEY = "k" * 32


def focused(driver: Any) -> Any:
    return driver.switch_to.active_element


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def tab_to(driver: Any, reached: Any) -> None:
    """By Tab alone, as somebody without a mouse goes."""
    from selenium.webdriver.common.keys import Keys

    for _ in range(60):
        press(driver, Keys.TAB)
        if reached(focused(driver)):
            return
    pytest.fail("cannot be reached by Tab")


@pytest.mark.parametrize(("size", "dark"), [(PHONE, True), (DESKTOP, False)])
async def test_a_request_is_tried_by_keyboard(
    tmp_path: Path, size: tuple[int, int], dark: bool
) -> None:
    def open_and_send(driver: Any, path: str) -> str:
        from selenium.webdriver.common.keys import Keys

        tab_to(driver, lambda e: e.tag_name == "summary" and path in e.text)
        box = focused(driver).find_element("xpath", "..")
        if not box.get_attribute("open"):
            press(driver, Keys.ENTER)
        assert box.get_attribute("open")
        tab_to(driver, lambda e: e.tag_name == "button" and e.text == "Send")
        press(driver, Keys.ENTER)
        answer = box.find_element("css selector", ".answer")
        wait(driver, lambda: " ms" in answer.text)
        return str(answer.text)

    def run(url: str) -> None:
        with browser(tmp_path, size, dark=dark) as driver:
            driver.get(f"{url}/docs")
            wait(driver, lambda: driver.find_elements("tag name", "summary"))
            assert "401" in open_and_send(driver, "/chat/text")
            driver.find_element("id", "key").send_keys(KEY)
            told = open_and_send(driver, "/chat/text")
            try:
                assert "200" in told
                assert "Hello there." in told
                check_page(driver, size, allowed="401")
            finally:
                if shots := os.environ.get("PAGE_SCREENSHOTS"):
                    driver.save_screenshot(str(Path(shots) / f"docs-{size[0]}.png"))

    app = AppOptions(keys=KeyRing.parse(f"crm:{KEY}"))
    async with serving(app=app, seen_from="203.0.113.9") as url:
        await asyncio.to_thread(run, url)


async def test_a_path_and_its_query_are_filled_in(tmp_path: Path) -> None:
    def run(url: str) -> None:
        with browser(tmp_path, DESKTOP, dark=False) as driver:
            driver.get(f"{url}/docs")
            wait(driver, lambda: driver.find_elements("tag name", "summary"))
            for path, typed, expected in (
                ("/conversations/{conversation_id}", "no/such one", "404"),
                ("/health", "text", "200"),
            ):
                xpath = f"//details[summary/code[text()='{path}']]"
                box = driver.find_element("xpath", xpath)
                box.find_element("tag name", "summary").click()
                box.find_element("tag name", "input").send_keys(typed)
                box.find_element("xpath", ".//button").click()
                answer = box.find_element("css selector", ".answer")
                wait(driver, lambda answer=answer: " ms" in answer.text)
                assert answer.text.startswith(expected)
            assert "OK" in answer.text  # the plain line, so the query went along
            check_page(driver, DESKTOP, allowed="404")

    async with serving() as url:
        await asyncio.to_thread(run, url)
