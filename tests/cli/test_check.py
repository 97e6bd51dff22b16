"""`metarl check`: what it tells, where a simulation fails, and the form of robot files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from metarl.api.checking import check
from metarl.cli.main import main
from metarl.envs import get
from tests.helpers.robot_files import EXAMPLE, forget, small


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    forget()


def test_it_tells_all_of_a_robot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = small(tmp_path, ("reward: {alive: 1}", "reward: {alive: 1, joint_speed: -1}"))
    assert main(["check", str(file), "--episodes", "6", "--threads", "1"]) == 0
    text = capsys.readouterr().out
    for part in ("velocity of rail", "m/s", "knee    0.1   0.9", "joint_speed", "0 to 1 m/s", "3 kg moving"):
        assert part in text, part
    assert "4 steps of 0.005 s (euler) for a control step of 0.02 s, 50 Hz; 10 of these an episode" in text
    assert "Saturated    0 of 3 simulations failed" in text
    pictures = list(tmp_path.glob("*.png"))
    assert [picture.name for picture in pictures] == ([] if "Picture      none" in text else ["leg@v1-check.png"])


def test_its_figures_are_those_of_the_episodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = small(tmp_path, ("reward: {alive: 1}", "reward: {alive: 1, action: -1}"))
    out = tmp_path / "picture.png"
    assert main(["check", str(file), "--episodes", "8", "--threads", "1", "--json", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["failures"] == 0
    assert found["advice"] == ""
    assert [action["name"] for action in found["actions"]] == ["rail", "knee"]
    played = found["played"]
    assert played["rest"]["rewards"] == {
        "alive": {"mean": 1.0, "low": 1.0, "high": 1.0},
        "action": {"mean": 0.0, "low": 0.0, "high": 0.0},
    }
    # At the ends of both bounds, in every step.
    assert played["saturated"]["rewards"]["action"] == pytest.approx({"mean": -2.0, "low": -2.0, "high": -2.0})
    assert played["random"]["steps"] == 4 * 10
    assert [played[kind]["episodes"] for kind in ("rest", "random", "saturated")] == [8, 4, 4]
    assert played["saturated"]["largest_speed"] > 0.0


def test_what_explodes_is_told_with_what_helps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stiff = ("{joints: knee, kp: 8, kd: 0.5, effort: 3}", "{joints: knee, kp: 8, kd: 40}")
    file = small(tmp_path, stiff, ("horizon: 10", "integrator: euler\nhorizon: 60"))
    out = tmp_path / "p.png"
    assert main(["check", str(file), "--episodes", "4", "--threads", "1", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "simulations failed. With integrator: implicitfast and time_step: 0.005 (frame_skip: 4) none did" in error
    forget()
    small(tmp_path, stiff, ("horizon: 10", "integrator: implicitfast\nhorizon: 60"))
    assert check(get(str(file)), 4, threads=1).failures == 0


def test_it_takes_any_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("bandit", "point-nav", "half-cheetah-vel+mass"):
        out = tmp_path / f"{name}.png"
        arguments = ["check", name, "--horizon", "5", "--episodes", "4", "--threads", "1", "--json", "--out", str(out)]
        assert main(arguments) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["played"]["random"]["episodes"] == 2
        assert (found["model"] is None) == (name != "half-cheetah-vel+mass")


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.validate(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")), schema)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Got no family. Give a robot file or the name of a family, or --schema."),
        (["point-nav", "--episodes", "1"], "Got --episodes 1. It must be from 2 to"),
        (["point-nav", "--out", "a.gif"], "Got --out a.gif. Choose a name that ends in .png"),
        (["point-nav", "--schema"], "Got --name point-nav, which changes nothing there: it needs no --schema."),
        (["point-naw"], "Did you mean 'point-nav'?"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
