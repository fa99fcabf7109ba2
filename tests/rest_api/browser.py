"""A real browser for the pages: Chromium without a window, with a fake microphone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PHONE, DESKTOP = (390, 844), (1280, 900)
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--disable-dev-shm-usage"),
)


def chromium() -> str:
    """The program's path; without it a test is skipped, on a build server it fails."""
    return _program("chromium")


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is not None:
        return path
    if os.environ.get("CI"):
        pytest.fail(f"{name} is part of the checks here; run_tests.sh installs it")
    pytest.skip(f"needs {name} (Debian: apt-get install chromium chromium-driver)")


@contextmanager
def browser(
    folder: Path, size: tuple[int, int], *, dark: bool, said: Path | None = None
) -> Iterator[Any]:
    """A selenium driver; `said`: what its microphone hears, over and over."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium()
    for flag in (
        *_FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={size[0]},{size[1]}",
    ):
        options.add_argument(flag)
    if said is not None:
        options.add_argument("--use-fake-device-for-media-stream")
        options.add_argument("--use-fake-ui-for-media-stream")
        options.add_argument(f"--use-file-for-fake-audio-capture={said}")
    service = webdriver.ChromeService(_program("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        scheme = {
            "name": "prefers-color-scheme",
            "value": "dark" if dark else "light",
        }
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1}
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {**metrics, "mobile": size == PHONE}
        )
        yield driver
    finally:
        driver.quit()


def check_page(driver: Any, size: tuple[int, int], allowed: str = "") -> None:
    """Nothing to scroll sideways, and no errors but some with `allowed` in them."""
    width = driver.execute_script("return document.documentElement.scrollWidth")
    assert width <= size[0]
    noise = [e["message"] for e in driver.get_log("browser") if e["level"] == "SEVERE"]
    assert not [line for line in noise if not allowed or allowed not in line]


def wait(driver: Any, what: Any) -> None:
    """Until `what()` is true; fails after 40 s."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 40, 0.1).until(lambda _: what())
