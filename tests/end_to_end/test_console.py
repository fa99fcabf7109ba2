"""The console in a real browser, during real calls of the real service.

One service and one browser for the module; calls come from `tools.place_call`.  Set
CONSOLE_SCREENSHOTS to a folder to look at every page.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import pytest

from tests.end_to_end.asterisk_lab import ROOT, die_with_parent
from tests.end_to_end.bot_service import BotService
from tests.rest_api.browser import DESKTOP, PHONE, browser

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

KEY: Final = "k" * 32
RUNNING: Final = "ul.running > li"
SERIOUS: Final = ("serious", "critical")


@dataclass(slots=True)
class Console:
    """The service, the browser at its console, and callers."""

    service: BotService
    driver: Any
    callers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def call(self, *say: str, campaign: str = "default", caller: str = "") -> None:
        """Somebody calls and does what `say` says."""
        command = (
            *(sys.executable, "-m", "tools.place_call"),
            *("--agi", f"127.0.0.1:{self.service.agi_port}", "--seconds", "60"),
            *("--script", f"ultravox?campaign={campaign}", "--caller", caller),
            *("--say", *say),
        )
        self.callers.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                preexec_fn=die_with_parent,
            )
        )

    def hang_up_all(self) -> None:
        for caller in self.callers:
            caller.kill()
            caller.wait()
        self.callers.clear()

    def open(self, page: str) -> None:
        self.driver.get(f"http://127.0.0.1:{self.service.http_port}/console#/{page}")
        self.wait(lambda: self.texts("h1"))

    def texts(self, css: str) -> list[str]:
        script = (
            "return [...document.querySelectorAll(arguments[0])]"
            ".filter(e => e.offsetParent).map(e => e.textContent)"
        )
        found: list[str] = self.driver.execute_script(script, css)
        return found

    def press(self, css: str, text: str) -> None:
        """Click the first visible element with that text."""
        script = (
            "const found = [...document.querySelectorAll(arguments[0])].find(e =>"
            " e.offsetParent && e.textContent.trim() === arguments[1]);"
            " found?.click(); return Boolean(found)"
        )
        self.wait(lambda: self.driver.execute_script(script, css, text))

    def fill(self, css: str, text: str) -> None:
        from selenium.webdriver.common.by import By

        self.driver.find_element(By.CSS_SELECTOR, css).send_keys(text)

    def log_in(self) -> None:
        self.press("button", "Log in")
        self.fill("#key", KEY + "\n")
        self.wait(lambda: "Log out ada" in self.texts("header button"))

    def wait(self, condition: Callable[[], object]) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 40, 0.1).until(lambda _: condition())

    def asked(self, path: str) -> dict[str, Any]:
        """What the HTTP port answers to a program on this host."""
        url = f"http://127.0.0.1:{self.service.http_port}/{path}"
        with urlopen(url, timeout=10) as response:
            found: dict[str, Any] = json.load(response)["data"]
        return found

    def events_of(self, call_id: str) -> list[tuple[str, str]]:
        events = self.asked(f"calls/{call_id}")["call"]["events"]
        return [(e["name"], e["detail"]) for e in events if e["kind"] == "operator"]


@contextmanager
def _running_console(folder: Path) -> Iterator[Console]:
    settings = {
        "API_KEYS": f"ada:{KEY}",
        "RECORDINGS": "true",
        "NO_INPUT_S": "120",
        "RECORDINGS_MIN_FREE_MB": "0",
        "RECORDINGS_FORMAT": "flac",
    }
    service = BotService.start(folder, settings=settings)
    try:
        with browser(folder, DESKTOP, dark=False) as driver:
            service.wait_until_ready()
            console = Console(service, driver)
            try:
                yield console
            finally:
                console.hang_up_all()
    finally:
        service.stop()


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with _running_console(tmp_path_factory.mktemp("console")) as console:
        yield console


def _on_the_list(console: Console, caller: str) -> str:
    """The id of a caller's running call, once the live page shows it."""
    console.wait(lambda: any(caller in text for text in console.texts(f"{RUNNING} h3")))
    script = (
        "return [...document.querySelectorAll('ul.running > li')].find(e =>"
        " e.querySelector('h3').textContent.endsWith(arguments[0])).dataset.call"
    )
    call_id: str = console.driver.execute_script(script, caller)
    return call_id


def test_a_call_comes_on_the_list_with_its_state_and_leaves_it(
    console: Console,
) -> None:
    console.open("live")
    assert "No call is running." in console.texts("p")
    console.call("say:Hello?", "+30", caller="2125550141")
    _on_the_list(console, "41")
    console.wait(lambda: "bot speaks" in "".join(console.texts(RUNNING)))
    console.wait(lambda: " ms" in "".join(console.texts(RUNNING)))
    levels = "return [...document.querySelectorAll('meter')].map(e => e.value)"
    console.wait(lambda: max(console.driver.execute_script(levels)) > -40)
    # the first heartbeat may have come too early for the speech half: the next in 5 s
    console.wait(lambda: any("audiosocket" in t for t in console.texts("table")))
    _check_accessibility(console, "live")
    console.hang_up_all()
    console.wait(lambda: "No call is running." in console.texts("p"))


def test_steering_asks_for_a_key_and_wrong_ones_are_refused(console: Console) -> None:
    console.open("live")
    console.call("+40", caller="2125550142")
    call_id = _on_the_list(console, "42")
    console.press(f"{RUNNING} button", "Pause recording")
    console.fill("#key", "w" * 32 + "\n")
    console.wait(lambda: "This key was not accepted." in console.texts("#key-problem"))
    _check_accessibility(console, "login")
    console.press("dialog button", "Cancel")
    assert console.events_of(call_id) == []
    console.log_in()
    cookies = console.driver.execute_script("return document.cookie")
    assert cookies == ""  # no script can read it
    console.press(f"{RUNNING} button", "Pause recording")
    console.wait(lambda: "Resume recording" in console.texts(f"{RUNNING} button"))
    console.press(f"{RUNNING} button", "Resume recording")
    console.wait(lambda: "Pause recording" in console.texts(f"{RUNNING} button"))
    wanted = ["pause_recording", "resume_recording"]  # written by another thread
    console.wait(lambda: [one for one, _ in console.events_of(call_id)] == wanted)
    console.hang_up_all()


def test_an_operator_listens_says_something_and_hangs_up(console: Console) -> None:
    console.open("live")
    console.call("say:Hello there, is anybody there?", "+40", caller="2125550143")
    call_id = _on_the_list(console, "43")
    # a later test finds this call by the model's word: what the operator says ends it
    console.wait(lambda: "seconds" in str(console.asked(f"calls/{call_id}")))
    console.press(f"{RUNNING} button", "Listen")
    heard = "return Number(document.querySelector('[data-heard]')?.dataset.heard ?? 0)"
    console.wait(lambda: console.driver.execute_script(heard) > 1.5)
    console.press(f"{RUNNING} button", "Say")
    console.fill("dialog textarea", "A person is <b>on</b> the way.")
    _check_accessibility(console, "say")
    console.press("dialog button", "Say it")
    console.wait(lambda: any(name == "say" for name, _ in console.events_of(call_id)))
    console.press(f"{RUNNING} button", "Stop listening")
    console.press(f"{RUNNING} button", "Hang up")
    console.press("dialog button", "Hang up")
    console.wait(lambda: "No call is running." in console.texts("p"))
    assert console.events_of(call_id) == [
        ("listen", "ada"),
        ("say", "ada: A person is <b>on</b> the way."),
        ("hangup", "ada"),
    ]
    console.hang_up_all()
    call = console.asked(f"calls/{call_id}")["call"]
    assert (call["status"], call["reason"]) == ("completed", "operator_hung_up")


def test_a_transfer_and_a_drain_act(console: Console) -> None:
    console.open("live")
    console.call("+40", caller="2125550144")
    call_id = _on_the_list(console, "44")
    console.press("button", "Take no new calls")
    console.wait(lambda: "Take new calls" in console.texts("button"))
    assert console.service.status() == "draining"
    console.press(f"{RUNNING} button", "Transfer")
    console.press("dialog button", "Transfer")
    console.wait(lambda: "No call is running." in console.texts("p"))
    console.hang_up_all()
    assert console.asked(f"calls/{call_id}")["call"]["status"] == "transfer"
    console.press("button", "Take new calls")
    console.wait(lambda: "Take no new calls" in console.texts("button"))
    assert console.service.status() == "ready"


def test_a_call_is_found_by_its_words_and_its_page_plays_it(console: Console) -> None:
    console.open("calls?text=person+way")  # spoken by the operator: a phrase
    console.wait(lambda: "No call fits." in console.texts("p"))
    console.press("nav a", "Calls")
    asked = "return document.querySelector('input[name=text]').value"
    console.wait(lambda: console.driver.execute_script(asked) == "")
    console.fill("input[name=text]", "seconds\n")  # the scripted model's word
    console.wait(lambda: any("+" in t or "*" in t for t in console.texts("tbody td")))
    _check_accessibility(console, "calls")
    console.press("tbody a", console.texts("tbody a")[0])
    console.wait(lambda: console.texts("audio"))
    duration = "return document.querySelector('audio').duration"
    console.wait(lambda: (console.driver.execute_script(duration) or 0) > 1)
    assert (
        console.driver.execute_script(
            "return document.querySelectorAll('svg.wave polygon').length"
        )
        == 2
    )
    at = "return document.querySelector('audio').currentTime"
    console.driver.execute_script(
        "document.querySelector('svg.wave').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'ArrowRight'}))"
    )
    assert console.driver.execute_script(at) == pytest.approx(1.0, abs=0.1)
    assert "Where each reply's time went" in console.texts("h2")
    console.wait(
        lambda: console.driver.execute_script(
            "return document.querySelectorAll('rect.fill').length"
        )
    )
    words = " ".join(console.texts(".talk li"))
    assert "A person is <b>on</b> the way." in words
    assert "operator ada" in words
    _check_accessibility(console, "call")


def test_figures_show_the_calls_and_nobody_is_locked_out(console: Console) -> None:
    console.open("figures")
    console.wait(lambda: "Calls by outcome" in console.texts("h2"))
    _check_accessibility(console, "figures")
    console.press("header button", "Log out ada")
    console.wait(lambda: "Log in" in console.texts("header button"))
    noise = [e for e in console.driver.get_log("browser") if e["level"] == "SEVERE"]
    # what the browser itself says of the two refusals that were wanted
    assert [e for e in noise if "401" not in e["message"]] == []


@pytest.mark.parametrize("page", ["live", "calls", "figures"])
def test_pages_fit_a_phone_in_the_dark(console: Console, page: str) -> None:
    try:
        _look(console, PHONE, dark=True)
        console.open(page)
        time.sleep(0.3)
        width = console.driver.execute_script("return document.body.scrollWidth")
        assert width <= PHONE[0]
        _check_accessibility(console, f"{page}-phone")
    finally:
        _look(console, DESKTOP, dark=False)


def _look(console: Console, size: tuple[int, int], *, dark: bool) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1}
    command = console.driver.execute_cdp_cmd
    command("Emulation.setEmulatedMedia", {"features": [scheme]})
    command("Emulation.setDeviceMetricsOverride", {**metrics, "mobile": size == PHONE})


def _check_accessibility(console: Console, name: str) -> None:
    """axe-core finds nothing serious; contrast and names are among what it looks at."""
    from axe_core_python.selenium import Axe

    if folder := os.environ.get("CONSOLE_SCREENSHOTS"):
        console.driver.save_screenshot(f"{folder}/{name}.png")
    found = Axe().run(console.driver)["violations"]
    serious = [
        (problem["id"], [node["html"][:200] for node in problem["nodes"]])
        for problem in found
        if problem["impact"] in SERIOUS
    ]
    assert serious == [], name


async def test_a_thousand_idle_sockets_disturb_nobody(console: Console) -> None:
    address = ("127.0.0.1", console.service.http_port)
    hello = (
        b"GET /chat/live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    lines = []
    try:
        for _ in range(1000):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(hello)
            lines.append(writer)
            if len(lines) % 50 == 0:
                assert b"101" in await reader.readline()
        call = asyncio.to_thread(
            subprocess.run,
            (
                *(sys.executable, "-m", "tools.place_call"),
                *("--agi", f"127.0.0.1:{console.service.agi_port}"),
                *("--say", "+1", "say:Hello?"),
            ),
            cwd=ROOT,
            capture_output=True,
            timeout=60,
            check=False,
        )
        done = await call
    finally:
        for writer in lines:
            writer.close()
    said = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, said
    assert said["turns"][0]["response_ms"] is not None
