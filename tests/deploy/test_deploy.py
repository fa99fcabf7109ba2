"""What operators install is valid, and names only what exists."""

from __future__ import annotations

import configparser
import grp
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry, Gauge

import telemetry  # noqa: F401 - declares the metrics
from config import PREFIX, Settings
from rest_api.metrics import exposition

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
DASHBOARD = DEPLOY / "grafana/ultravox-bot.json"


def _tool(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units, pointing to an installation that is there."""
    python = tmp_path / "opt/.venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    for unit in UNITS:
        text = unit.read_text().replace("/opt/ultravox", str(tmp_path / "opt"))
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def test_units_are_valid(installed: Path) -> None:
    paths = [f"./{unit.name}" for unit in UNITS]
    told = _run(_tool("systemd-analyze"), "verify", *paths, cwd=installed)
    assert "ultravox" not in told


@pytest.mark.parametrize("name", ["ultravox-bot", "ultravox-api"])
def test_services_are_hardened(installed: Path, name: str) -> None:
    told = _run(
        *(_tool("systemd-analyze"), "security", "--offline=true", "--threshold=25"),
        f"./{name}.service",
        cwd=installed,
    )
    assert "Overall exposure level" in told


@pytest.mark.parametrize("name", ["ultravox-bot", "ultravox-api"])
def test_services_run_a_script_that_exists_and_not_as_root(name: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / f"systemd/{name}.service")
    service = unit["Service"]
    assert service["User"] == "ultravox"
    script = service["ExecStart"].split()[-1]
    assert (ROOT / script).is_file()
    drain_s = Settings.model_fields["drain_s"].default
    if name == "ultravox-bot":
        assert int(service["TimeoutStopSec"]) > drain_s + 10


def test_settings_named_anywhere_exist() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    # the watchdog's own, and the prefix in prose
    known |= {"ULTRAVOX_WATCHDOG_URL", "ULTRAVOX_NAME", "ULTRAVOX_"}
    for path in DEPLOY.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            named = set(re.findall(r"ULTRAVOX_[A-Z_]*", path.read_text()))
            assert named <= known, path


def _metric_names() -> set[str]:
    families = list(REGISTRY.collect())
    # counters with labels have no sample until they count
    counters = {f"{one.name}_total" for one in families if one.type == "counter"}
    samples = {sample.name for one in families for sample in one.samples}
    return samples | counters | {one.name for one in families}


def _expressions() -> Iterator[str]:
    rules = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())
    for group in rules["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def test_alerts_and_dashboard_use_metrics_that_are_measured() -> None:
    known = _metric_names()
    for expression in _expressions():
        for name in re.findall(r"voicebot_\w+", expression):
            assert name in known, expression


def test_alert_rules_are_valid_and_fire_when_they_should() -> None:
    promtool = _tool("promtool")
    folder = DEPLOY / "prometheus"
    _run(promtool, "check", "rules", "rules.yaml", cwd=folder)
    _run(promtool, "test", "rules", "rules_test.yaml", cwd=folder)


def test_dashboard_queries_are_valid(tmp_path: Path) -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = [
        {"record": f"x:{number}", "expr": text.replace("$__rate_interval", "5m")}
        for number, text in enumerate(expressions)
    ]
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "x", "rules": rules}]})
    )
    _run(_tool("promtool"), "check", "rules", "rules.yaml", cwd=tmp_path)


@pytest.mark.slow
def test_prometheus_scrapes_both_halves_and_evaluates_the_rules(
    tmp_path: Path,
) -> None:
    """A real one, with our rules, against our own exposition."""
    prometheus = _tool("prometheus")
    phone = CollectorRegistry()
    Gauge("voicebot_max_calls", "Calls", registry=phone).set(40)
    Gauge("voicebot_calls_in_progress", "Calls", registry=phone).set(39)
    body = exposition(REGISTRY.collect(), {"dialer:4573": list(phone.collect())})
    shutil.copy(DEPLOY / "prometheus/rules.yaml", tmp_path)
    with _serving(body) as address, _free_address() as own:
        (tmp_path / "prometheus.yml").write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": ["rules.yaml"],
                    "scrape_configs": [
                        {
                            "job_name": "ultravox",
                            "static_configs": [{"targets": [address]}],
                        }
                    ],
                }
            )
        )
        command = (
            *(prometheus, f"--config.file={tmp_path}/prometheus.yml"),
            *(f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address={own}"),
        )
        with (
            (tmp_path / "log").open("wb") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as process,
        ):
            try:
                lines = _queried(own, 'voicebot_max_calls{process="dialer:4573"}')
                assert lines[0]["value"][1] == "40"
                (alert,) = _queried(own, 'ALERTS{alertname="UltravoxNearlyFull"}')
                assert alert["metric"]["alertstate"] == "pending"
                assert _queried(own, "up")[0]["value"][1] == "1"
            finally:
                process.terminate()


@contextmanager
def _serving(body: bytes) -> Iterator[str]:
    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Metrics) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _free_address() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    yield f"127.0.0.1:{port}"


def _queried(address: str, expression: str) -> list[dict[str, Any]]:
    """The result of a query once there is one."""
    url = f"http://{address}/api/v1/query?" + urlencode({"query": expression})
    for _ in range(300):
        with suppress(URLError, ConnectionError), urlopen(url, timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            if found:
                return found
        time.sleep(0.1)
    raise AssertionError(f"{expression}: nothing")


def test_compose_files_keep_the_container_small_in_rights() -> None:
    compose = yaml.safe_load((DEPLOY / "docker/compose.yaml").read_text())
    bot: dict[str, Any] = compose["services"]["bot"]
    assert bot["cap_drop"] == ["ALL"]
    assert bot["read_only"] is True
    assert "privileged" not in bot
    assert (DEPLOY / "docker" / bot["build"]["context"]).resolve() == ROOT
    assert (ROOT / bot["build"]["dockerfile"]).is_file()
    grace_s = int(bot["stop_grace_period"].removesuffix("s"))
    assert grace_s > Settings.model_fields["drain_s"].default + 10
    cuda = yaml.safe_load((DEPLOY / "docker/compose.cuda.yaml").read_text())
    assert set(cuda["services"]) == {"bot"}


def test_image_copies_what_exists_and_runs_without_root() -> None:
    text = (DEPLOY / "docker/Dockerfile").read_text()
    lines = text.replace("\\\n", " ").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001"]  # a number: Kubernetes can see that it is not root
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            assert (ROOT / line.split()[1]).exists(), line
    for script in re.findall(r'"([\w/]+\.py)"', text):
        assert (ROOT / script).is_file(), script
    ignored = (DEPLOY / "docker/Dockerfile.dockerignore").read_text().split()
    assert {".git", ".venv", "data", "ultravox.toml"} <= set(ignored)


class _Alive(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health/live" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return


def test_health_check_tells_an_answering_port_from_a_silent_one() -> None:
    script = DEPLOY / "docker/health_check.py"
    with HTTPServer(("127.0.0.1", 0), _Alive) as server:
        port = server.server_address[1]
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            environment = {"ULTRAVOX_PORT": str(port)}
            well = subprocess.run(
                [sys.executable, script], env=environment, timeout=60, check=False
            )
        finally:
            server.shutdown()
            thread.join()
    ill = subprocess.run(
        [sys.executable, script],
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (well.returncode, ill.returncode) == (0, 1)


def test_log_is_rotated_under_the_feet_of_its_writer(tmp_path: Path) -> None:
    logrotate = _tool("logrotate")
    user = pwd.getpwuid(os.getuid()).pw_name
    group = grp.getgrgid(os.getgid()).gr_name
    text = (DEPLOY / "logrotate/ultravox").read_text()
    text = text.replace("/var/log/ultravox", str(tmp_path))
    text = text.replace("ultravox ultravox", f"{user} {group}")
    rules = tmp_path / "rules"
    rules.write_text(text)
    rules.chmod(0o644)
    log = tmp_path / "bot.log"
    with log.open("ab", buffering=0) as file:
        file.write(b"before\n")
        _run(logrotate, "--force", "--state", tmp_path / "state", rules, cwd=tmp_path)
        file.write(b"after\n")
    assert log.read_bytes() == b"after\n"
    assert (tmp_path / "bot.log.1").read_bytes() == b"before\n"
