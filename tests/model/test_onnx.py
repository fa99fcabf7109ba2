from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import os
from model.vad.silero import SileroDetector
SileroDetector.load()
opened = []
for entry in os.scandir("/proc/self/fd"):
    try:
        opened.append(os.readlink(entry.path))
    except OSError:
        pass
assert not [name for name in opened if "Microsoft" in name], opened
"""


def test_loading_a_network_sends_nothing_home(tmp_path: Path) -> None:
    """With telemetry on, onnxruntime opens its database in the home directory."""
    # Set by test environments, these two would switch it off as well.
    unset = {"CI", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY"}
    environ = {name: value for name, value in os.environ.items() if name not in unset}
    environ["HOME"] = str(tmp_path)
    environ.pop("XDG_CACHE_HOME", None)
    subprocess.run([sys.executable, "-c", _SCRIPT], check=True, env=environ, timeout=60)
    assert list(tmp_path.rglob("*onnxruntime*")) == []
