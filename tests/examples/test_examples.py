"""The short programs of scripts/examples, each in a process of its own and in another folder than they lie in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from metarl.plain import parse_yaml
from tests.helpers.processes import Started
from tests.helpers.readme import ROOT

EXAMPLES = ROOT / "scripts" / "examples"


def run(name: str, folder: Path, *arguments: str) -> str:
    """Run an example and return what it prints."""
    process = Started(str(EXAMPLES / name), *arguments, folder=folder)
    printed, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    return printed


def curve(folder: Path) -> tuple[list[dict[str, Any]], float]:
    """Return the points of the first agent, and what an untrained policy has, of an evaluation beside a run."""
    summary = json.loads((folder / "evaluation" / "test" / "adaptation.json").read_text())
    return summary["agents"][0]["points"], summary["random"]["points"][0]["mean"]


def accuracy(printed: str) -> float:
    (percent,) = re.findall(r"^Held-out classes, 5 at a time: ([0-9.]+)%", printed, flags=re.MULTILINE)
    return float(percent)


def test_every_example_has_a_test_and_a_line_in_the_readme() -> None:
    files = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert len(files) == 10
    code, text = Path(__file__).read_text(), (EXAMPLES / "README.md").read_text()
    for name in files:
        assert f'run("{name}"' in code
        assert f"[{name}]({name})" in text


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_explains_itself(name: str) -> None:
    lines = (EXAMPLES / name).read_text().splitlines()
    assert len(lines) <= 105
    head = "\n".join(lines).split('"""')[1]
    assert f"    python scripts/examples/{name}" in head


def test_own_environment(tmp_path: Path) -> None:
    printed = run("own_environment.py", tmp_path, "--iterations", "4")
    points, untrained = curve(tmp_path / "runs" / "own-environment")
    # It adapts to a current that it does not know.
    assert points[-1]["mean"] > untrained
    assert points[-1]["gain_lower"] > 0.0
    assert f"{points[-1]['mean']:.1f}" in printed
    assert (tmp_path / "runs" / "own-environment" / "evaluation" / "test" / "adaptation.png").is_file()


def test_own_family(tmp_path: Path) -> None:
    printed = run("own_family.py", tmp_path, "--iterations", "3", "--out", "mine")
    points, untrained = curve(tmp_path / "mine")
    assert points[1]["lower"] > untrained
    assert points[1]["gain_lower"] > 0.0
    assert "tilted-rail@v1, 40 held-out tasks" in printed
    # The commands find the family of such a run.
    settings = parse_yaml((tmp_path / "mine" / "config.yaml").read_text(), "config.yaml")["run"]
    assert settings["family"] == "own_family.py:tilted-rail@v1"


@pytest.mark.slow
def test_own_robot(tmp_path: Path) -> None:
    printed = run("own_robot.py", tmp_path, "--iterations", "1", "--horizon", "10", "--out", "mine")
    summary = json.loads((tmp_path / "mine" / "evaluation" / "test" / "adaptation.json").read_text())
    assert [there["reality"]["name"] for there in summary["realities"]] == ["slow", "worn"]
    # 0.3 s of rewards tell the speed, also to a network that was hardly trained.
    (speed,) = re.findall(r"R2 of the speed: (\S+), (\S+), (\S+)$", printed, flags=re.MULTILINE)
    assert float(speed[0]) < 0.3 < float(speed[2])
    assert "R2 of the payload" in printed
    assert len(re.findall(r"^Driven with NumPy alone, episode [12] at 0.6 m/s", printed, flags=re.MULTILINE)) == 2
    assert {"manifest.json", "policy.py", "weights.safetensors"} <= {
        p.name for p in (tmp_path / "mine/policy").iterdir()
    }


def test_own_agent(tmp_path: Path) -> None:
    printed = run("own_agent.py", tmp_path, "--iterations", "8", "--out", "mine")
    points, untrained = curve(tmp_path / "mine")
    # Before it has learned to wander, the best place that it has seen is not far from the start.
    assert untrained < -60.0
    assert points[1]["lower"] > -15.0
    assert "seeker" in printed
    assert "Learned spreads: [" in printed


def test_own_arrays(tmp_path: Path) -> None:
    printed = run("own_arrays.py", tmp_path, "--iterations", "40", "--out", "mine")
    # An untrained network has 34%, and names 19 of the new ones.
    assert accuracy(printed) > 65.0
    (right,) = re.findall(r"^New classes: ([0-9]+) of 30 right", printed, flags=re.MULTILINE)
    assert int(right) > 22


def test_own_backbone(tmp_path: Path) -> None:
    printed = run("own_backbone.py", tmp_path, "--iterations", "10", "--out", "mine")
    # 41.8% and 54.3%, with intervals of 0.9.
    found = dict(re.findall(r"^(raw numbers|the network): ([0-9.]+)%", printed, flags=re.MULTILINE))
    raw, network = float(found["raw numbers"]), float(found["the network"])
    assert network > raw + 6.0


def test_own_pictures(tmp_path: Path) -> None:
    printed = run("own_pictures.py", tmp_path, "--iterations", "12", "--out", "mine")
    # An untrained network has 60%.
    assert accuracy(printed) > 72.0
    assert re.search(r"^New figures a, b, c, three of each:( [abc]){9}$", printed, flags=re.MULTILINE)
    assert len(list((tmp_path / "mine" / "pictures").glob("*/*.png"))) == 480
    # Everything lies there, the decoded pictures too.
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["cache", "pictures", "run"]


def test_compare_agents(tmp_path: Path) -> None:
    printed = run("compare_agents.py", tmp_path, "--iterations", "1", "--out", "both")
    for agent in ("maml-trpo", "multitask", "random"):
        assert agent in printed
    with Image.open(tmp_path / "both" / "compare.png") as picture:
        assert picture.width > 500


def test_read_curve(tmp_path: Path) -> None:
    printed = run("read_curve.py", tmp_path, "--iterations", "2", "--out", "small")
    assert "maml-trpo on point-nav@maml17, 2 iterations; logged: step, return/pre" in printed
    assert re.findall(r"^ +([0-9]+) episodes: +-[0-9.]+ \[-", printed, flags=re.MULTILINE) == ["0", "10", "20", "30"]
    # One gradient step of an untrained policy already helps: it learns where the goal is.
    (helped,) = re.findall(r"Adaptation helped on ([0-9]+)% of the tasks", printed)
    assert int(helped) > 70
    assert run("read_curve.py", tmp_path, "small") == "\n".join(printed.splitlines()[-7:]) + "\n"


def test_identify_known(tmp_path: Path) -> None:
    few = ("--families", "half-cheetah-vel+mass", "--tasks", "1", "--segments", "4")
    printed = run("identify_known.py", tmp_path, *few)
    assert "mass_factor" in printed
    assert "of 2 intervals of 90% hold the truth so far" in printed
