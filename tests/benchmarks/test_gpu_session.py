"""The command for a GPU session: its steps can be started, its failures are kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import bench_engine, gpu_session


@pytest.mark.parametrize("shape", ["1b", "8b"])
def test_every_step_is_a_command_that_exists(shape: str) -> None:
    steps = gpu_session.steps(shape, "1,8,32,64")
    for name, command in steps.items():
        assert command[:2] == [sys.executable, "-m"], name
        for word in command:
            if word.startswith("tests/"):
                assert (gpu_session.ROOT / word).exists(), word
    speeds = [command for command in steps.values() if "--fast-paths" in command]
    assert len(speeds) == 2
    for command in speeds:
        options = bench_engine.parse(command[3:])
        assert (options.shape, options.device) == (shape, "cuda")
        assert options.audio_s == "2-8"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_session.main(["--results", str(tmp_path)]) == 1
    assert "no CUDA device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_step_that_fails_keeps_what_it_said() -> None:
    good = gpu_session.run([sys.executable, "-c", "print('x'); print('{\"a\": 1}')"])
    assert good["ok"]
    assert good["result"] == {"a": 1}
    bad = gpu_session.run([sys.executable, "-c", "raise SystemExit('out of memory')"])
    assert not bad["ok"]
    assert "out of memory" in bad["error"]
