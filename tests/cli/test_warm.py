from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import threading
from typing import Any

import pytest
import torch

from metarl import devices
from metarl.cli import warm
from metarl.cli.main import main
from metarl.envs import get
from metarl.envs.family import MujocoFamily
from tests.helpers.commands import refused

if importlib.util.find_spec("mujoco_warp") is None:
    pytest.skip("mujoco_warp is not installed (the extra `gpu`)", allow_module_level=True)

from metarl.envs.engines.gpu import WarpPhysics

CHEETAH = "half-cheetah-vel@v5"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("warm", "families"),
        ("warm half-cheetah-vol", "Did you mean 'half-cheetah-vel'?"),
        ("warm half-cheetah-vel point-nav", "point-nav@maml17 is no robot on MuJoCo"),
        ("warm all half-cheetah-vel", "Name families, or `all` alone."),
        ("warm half-cheetah-vel --device tpu", "Unknown device 'tpu'"),
    ],
)
def test_what_cannot_be_compiled_is_said(line: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in refused(line.split(), capsys)


@pytest.mark.warp_cpu
def test_one_robot_is_compiled_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made: list[bool] = []
    real = WarpPhysics.__init__

    def noted(physics: WarpPhysics, *given: Any, **options: Any) -> None:
        made.append(torch.are_deterministic_algorithms_enabled())
        if made[-1]:
            raise InterruptedError
        real(physics, *given, **options)

    monkeypatch.setattr(WarpPhysics, "__init__", noted)
    assert main(["warm", CHEETAH, "--device", "cpu", "--json"]) == 0
    with pytest.raises(InterruptedError):
        warm.warm(CHEETAH, "cpu", deterministic=True)
    assert made == [False, True]
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["family"] == CHEETAH
    assert found["seconds"] > 0.0
    warm.show(found, warm.WarmOptions(families=(CHEETAH,)))
    assert capsys.readouterr().out == f"{CHEETAH}: ready after {found['seconds']} s\n"


def test_several_have_a_process_each_and_one_that_fails_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    class Warmed(contextlib.nullcontext[Any]):
        def __init__(self, command: list[str], **_: Any) -> None:
            super().__init__(self)
            commands.append(command)
            self.returncode = 2 if "ant-dir" in command else 0

        def communicate(self) -> tuple[str, str]:
            if self.returncode:
                return "", "a line\nmetarl: error: no room\n"
            return f'noise\n{{"family": "{commands[-1][4]}", "seconds": 2.5}}\n', ""

    monkeypatch.setattr(subprocess, "Popen", Warmed)
    monkeypatch.setattr(devices, "resolve_threads", lambda threads: 1)
    assert main(["warm", CHEETAH, "ant-dir", "hopper-rand-params", "--device", "cpu", "--json"]) == 2
    captured = capsys.readouterr()
    assert [json.loads(line) for line in captured.out.splitlines()] == [
        {"family": CHEETAH, "seconds": 2.5},
        {"family": "ant-dir", "error": "metarl: error: no room"},
        {"family": "hopper-rand-params", "seconds": 2.5},
    ]
    assert "3 families for the GPU engine, 1 at a time" in captured.err or "at a time" in captured.err
    assert [command[2:] for command in commands] == [
        ["metarl", "warm", name, "--device", "cpu", "--json"] for name in (CHEETAH, "ant-dir", "hopper-rand-params")
    ]
    assert main(["warm", CHEETAH, "ant-dir", "--device", "cpu", "--deterministic"]) == 2
    assert commands[-1][-2:] == ["--json", "--deterministic"]
    assert capsys.readouterr().out.splitlines() == [
        f"{CHEETAH}: ready after 2.5 s",
        "ant-dir: metarl: error: no room",
    ]


def test_an_interruption_ends_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    popen, started = subprocess.Popen, {}

    def sleeper(command: list[str], **options: Any) -> subprocess.Popen[str]:
        if command[1:3] != ["-m", "metarl"]:
            return popen(command, **options)
        name = command[4].partition("@")[0]
        started[name] = popen(["sleep", "60"], **options)
        if len(started) == 2:
            # The first of the names, whichever was started first: its result is waited for.
            threading.Timer(0.2, started[CHEETAH.partition("@")[0]].kill).start()
        return started[name]

    def shown(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", sleeper)
    monkeypatch.setattr(devices, "resolve_threads", lambda threads: 6)
    # The first one that ends is shown, and then comes the interruption.
    monkeypatch.setattr(warm, "show", shown)
    assert main(["warm", CHEETAH, "ant-dir", "hopper-rand-params", "--device", "cpu"]) == 130
    assert 2 <= len(started) <= 3
    assert all(process.poll() == -9 for process in started.values())


def test_all_are_the_robots() -> None:
    names = warm.robots(("all",))
    assert {"half-cheetah-vel@v5", "ant-dir@v5", "grasp-shape@v1"} <= set(names)
    assert all(isinstance(get(name), MujocoFamily) for name in names)
