"""The server as a process: settings, ports, signals, and models that aren't there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from model.client import RemoteSpeechService
from model.speech import SessionOptions
from tests.free_port import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "ultravox_api_server.py"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Settings of a server of its own, without a model."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ULTRAVOX_")}
    return {
        **kept,
        "ULTRAVOX_HOST": "127.0.0.1",
        "ULTRAVOX_PORT": str(free_port()),
        "ULTRAVOX_DATA_DIR": str(tmp_path / "data"),
        "ULTRAVOX_TTS_WORKERS": "1",
        "ULTRAVOX_ENGINE": "scripted",
        "HF_HUB_OFFLINE": "1",
    }


def run(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Until it ends by itself."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env=environ,
        cwd=environ["ULTRAVOX_DATA_DIR"].removesuffix("/data"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Server:
    """A running server and its log."""

    def __init__(self, process: subprocess.Popen[str], log: Path, url: str) -> None:
        self.process = process
        self.log = log
        self.url = url

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and body; status 0 when nobody answers."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(  # noqa: S310 - our own address
                self.url + path, timeout=10, context=context
            ) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            return exc.code, json.load(exc)
        except (urllib.error.URLError, OSError):
            return 0, {}

    def wait_for(self, path: str, status: int) -> dict[str, Any]:
        """Poll until the path answers with this status."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            got, body = self.get(path)
            if got == status:
                return body
            time.sleep(0.1)
        pytest.fail(f"{path} never answered {status}: {self.log.read_text()}")


@contextmanager
def serving(environ: dict[str, str], *arguments: str) -> Iterator[Server]:
    folder = Path(environ["ULTRAVOX_DATA_DIR"]).parent
    log = folder / "log"
    scheme = "https" if "ULTRAVOX_TLS_KEY" in environ else "http"
    with (
        log.open("w") as out,
        subprocess.Popen(
            [sys.executable, str(SCRIPT), *arguments],
            env=environ,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            text=True,
        ) as process,
    ):
        try:
            yield Server(
                process, log, f"{scheme}://127.0.0.1:{environ['ULTRAVOX_PORT']}"
            )
        finally:
            process.kill()


def test_it_becomes_ready_and_ends_in_order(environ: dict[str, str]) -> None:
    with serving(environ) as server:
        server.wait_for("/health/ready", 200)
        assert server.get("/health")[1]["status"] == "healthy"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        log = server.log.read_text()
    assert "listening" in log
    assert "stopped" in log
    assert "Traceback" not in log


def test_a_key_is_shown_once(environ: dict[str, str]) -> None:
    shown = []
    for _ in range(2):
        with serving(environ) as server:
            server.wait_for("/health/live", 200)
            shown.append("shown this once" in server.log.read_text())
    assert shown == [True, False]


def test_keys_are_made_revoked_and_read_again_while_it_runs(
    environ: dict[str, str],
) -> None:
    def status(key: str) -> int:
        # as a proxy passes it on: not from this host
        head = {"X-API-Key": key, "X-Forwarded-For": "203.0.113.9"}
        request = urllib.request.Request(  # noqa: S310 - our own address
            f"{server.url}/memory", headers=head
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return int(answer.status)
        except urllib.error.HTTPError as exc:
            return exc.code

    def wait_for(key: str, wanted: int) -> None:
        deadline = time.monotonic() + 20
        while status(key) != wanted:
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.05)

    made = run(environ, "--new-key", "crm")
    assert made.returncode == 0, made.stderr
    key = made.stdout.split()[0]
    again = run(environ, "--new-key", "crm")
    assert again.returncode == 2
    assert "already" in again.stderr
    with serving(environ) as server:
        server.wait_for("/health/live", 200)
        assert status(key) == 200
        second = run(environ, "--new-key", "dialler").stdout.split()[0]
        assert run(environ, "--revoke-key", "crm").returncode == 0
        server.process.send_signal(signal.SIGHUP)
        wait_for(key, 401)
        assert status(second) == 200
        log = server.log.read_text()
    assert "keys_reloaded" in log
    assert key not in log
    assert second not in log


@pytest.mark.slow  # imports torch in a process of its own
def test_no_gpu_and_no_model_means_random_weights_and_says_so(
    environ: dict[str, str], tmp_path: Path
) -> None:
    environ |= {"ULTRAVOX_ENGINE": "local", "ULTRAVOX_DEVICE": "cpu"}
    if (ROOT / "model/checkpoints/demo/config.json").exists():
        pytest.skip("the demo model is there and is taken instead")
    with serving(environ) as server:
        server.wait_for("/health/ready", 200)
        report = server.get("/health")[1]
        log = server.log.read_text()
    assert report["model"]["weights"] == "random"
    assert report["model"]["detail"] == "random weights, replies are not language"
    assert "WARNING random weights, replies are not language" in log
    assert (tmp_path / "data" / "tiny-random-model" / "config.json").exists()


@pytest.mark.slow  # imports torch in a process of its own
def test_a_model_that_was_asked_for_is_never_replaced(
    environ: dict[str, str], tmp_path: Path
) -> None:
    missing = str(tmp_path / "no-such-model")
    environ |= {
        "ULTRAVOX_ENGINE": "local",
        "ULTRAVOX_DEVICE": "cpu",
        "ULTRAVOX_MODEL": missing,
    }
    with serving(environ) as server:
        deadline = time.monotonic() + 60
        report = server.wait_for("/health", 503)
        while "model_load_failed" not in report["detail"]:
            assert time.monotonic() < deadline, report
            time.sleep(0.1)
            report = server.wait_for("/health", 503)
        assert report["status"] == "unhealthy"
        assert report["model"]["name"] == missing
        assert missing in report["detail"]
        assert server.get("/health/live")[0] == 200
        assert server.process.poll() is None


def test_supervised_it_ends_with_its_parents_pipe(environ: dict[str, str]) -> None:
    with serving(environ, "--supervised") as server:
        server.wait_for("/health/ready", 200)
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(20) == 0


def test_alone_it_does_not_need_its_standard_input(environ: dict[str, str]) -> None:
    with serving(environ) as server:
        assert server.process.stdin is not None
        server.process.stdin.close()
        server.wait_for("/health/ready", 200)


def test_a_port_in_use_is_one_line_and_status_1(environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(environ["ULTRAVOX_PORT"]))):
        done = run(environ)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{environ['ULTRAVOX_PORT']}" in done.stderr
    assert "in use" in done.stderr.lower()


def test_an_address_that_is_not_ours_is_one_line_and_status_1(
    environ: dict[str, str],
) -> None:
    done = run(environ | {"ULTRAVOX_HOST": "no.such.host.invalid"})
    assert done.returncode == 1
    assert "ULTRAVOX_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_wrong_setting_is_a_line_and_status_2(environ: dict[str, str]) -> None:
    done = run(environ | {"ULTRAVOX_PROT": "1", "ULTRAVOX_MAX_CALLS": "many"})
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert any("ULTRAVOX_PROT" in line for line in lines)
    assert any("ULTRAVOX_MAX_CALLS" in line for line in lines)
    assert len(lines) == 2


def test_malformed_keys_are_a_wrong_setting(environ: dict[str, str]) -> None:
    done = run(environ | {"ULTRAVOX_API_KEYS": "nothing-but-a-key-1234"})
    assert done.returncode == 2
    assert "ULTRAVOX_API_KEYS" in done.stderr
    assert "1234" not in done.stderr


def test_a_certificate_that_cannot_be_used_is_a_wrong_setting(
    environ: dict[str, str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("not a certificate")
    environ |= {
        "ULTRAVOX_TLS_CERTIFICATE": str(broken),
        "ULTRAVOX_TLS_KEY": str(broken),
    }
    done = run(environ)
    assert done.returncode == 2
    assert "ULTRAVOX_TLS_CERTIFICATE" in done.stderr
    assert "Traceback" not in done.stderr


def make_certificate(key: Path, certificate: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "1"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *(
                "-subj",
                "/CN=bot.example",
                "-keyout",
                str(key),
                "-out",
                str(certificate),
            ),
        ],
        check=True,
        capture_output=True,
    )


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
async def test_with_a_certificate_everything_is_encrypted(
    environ: dict[str, str], tmp_path: Path
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    make_certificate(key, certificate)
    environ |= {
        "ULTRAVOX_TLS_CERTIFICATE": str(certificate),
        "ULTRAVOX_TLS_KEY": str(key),
    }
    with serving(environ) as server:
        await asyncio.to_thread(server.wait_for, "/health/ready", 200)
        # on loopback the certificate's name need not match
        async with RemoteSpeechService([server.url]) as speech:
            assert (await speech.status()).is_ready
            async with (
                speech.open_session(SessionOptions("c", "")) as session,
                aclosing(session.say(0, "Hello.")) as events,
            ):
                assert [event async for event in events]


def test_help_is_there_and_opens_nothing(environ: dict[str, str]) -> None:
    done = run(environ, "--help")
    assert done.returncode == 0
    assert "--supervised" in done.stdout
