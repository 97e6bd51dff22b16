"""scripts/compare: its budgets, and what it leaves."""

from __future__ import annotations

import json
import shlex
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from metarl.agents import config_class
from metarl.cli.main import main
from metarl.cli.options import joined, parse
from metarl.cli.train import TrainOptions
from metarl.envs.registry import resolve
from metarl.evaluation.wording import gap_closed, in_interval
from tests.helpers.readme import ROOT

TINY = {
    "maml-trpo": "--horizon 10 --tasks 2 --episodes 2 --hidden 4 --iterations 2",
    "rl2": "--horizon 10 --tasks 2 --episodes 2 --width 4 --minibatches 1 --iterations 2",
    "ppo": "--horizon 10 --tasks 2 --episodes 2 --hidden 4 --minibatches 1 --iterations 1",
    "teacher": "--horizon 10 --tasks 2 --episodes 2 --hidden 4 --minibatches 1 --iterations 1",
}


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which runs its commands in this process."""
    loader = SourceFileLoader("compare_script", str(ROOT / "scripts" / "compare"))
    spec = spec_from_loader("compare_script", loader)
    assert spec is not None
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = module_from_spec(spec)
    loader.exec_module(module)

    def metarl(log: Path, *arguments: str) -> None:
        few = ["--tasks", "3", *(["--probe-tasks", "10"] if "--probe" in arguments else [])]
        words = [*arguments, *(few if arguments[0] == "evaluate" else [])]
        with log.open("a") as file:
            file.write(f"{shlex.join(words)}\n")
        assert main(words) == 0

    monkeypatch.setattr(module, "metarl", metarl)
    return module


def options_of(agent: str, options: str) -> Any:
    combined = joined(run=TrainOptions, agent=config_class(agent))
    return parse(combined, shlex.split(options), "metarl train", "")


def test_all_agents_of_a_family_have_the_same_steps(compare: ModuleType) -> None:
    for family, agents in compare.FAMILIES.items():
        horizon = resolve(family).spec().horizon
        steps = {}
        for agent, options in agents.items():
            config = options_of(agent, options).agent
            per_world = getattr(config, "inner_steps", 0) + 1 if agent in compare.MANY else 1
            episodes = config.episodes if agent in ("rl2", "varibad", "dpt") else 1
            steps[agent] = config.iterations * config.worlds * per_world * episodes * horizon
        oracle, pearl = steps.pop(compare.ORACLE), steps.pop("pearl")
        assert max(steps.values()) <= 1.01 * min(steps.values()), (family, steps)
        assert oracle > min(steps.values())
        assert pearl < min(steps.values())


def test_the_oracle_is_trained_until_nothing_is_gained(compare: ModuleType) -> None:
    for agents in compare.FAMILIES.values():
        run = options_of(compare.ORACLE, agents[compare.ORACLE]).run
        assert run.validation >= 40
        assert run.patience >= 5


def test_what_is_trained_is_kept_measured_and_told(
    compare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "compare"
    monkeypatch.setattr(compare, "FAMILIES", {"point-nav": TINY, "half-cheetah-vel": TINY})
    monkeypatch.setattr(sys, "argv", ["compare", "--out", str(out), "--measure"])
    compare.main()
    assert not out.exists()
    monkeypatch.setattr(sys, "argv", ["compare", "point-nav", "--out", str(out), "--jobs", "1", "--agents", "rl2"])
    compare.main()
    assert "point-nav: nothing to measure before teacher and ppo are trained" in capsys.readouterr().err
    assert not (out / "compare.md").exists()

    # The one of them that has ended is left as it is, another that was stopped goes on.
    before = (out / "point-nav" / "rl2-seed0" / "checkpoints" / "last.pt").stat().st_mtime_ns
    assert (
        main(
            [
                "train",
                "maml-trpo",
                "--family",
                "point-nav",
                "--out",
                str(out / "point-nav" / "maml-trpo-seed0"),
                *shlex.split(TINY["maml-trpo"].replace("--iterations 2", "--iterations 1")),
            ]
        )
        == 0
    )
    monkeypatch.setattr(sys, "argv", ["compare", "point-nav", "--out", str(out), "--jobs", "1"])
    compare.main()
    assert (out / "point-nav" / "rl2-seed0" / "checkpoints" / "last.pt").stat().st_mtime_ns == before
    assert "train --resume" in (out / "point-nav" / "maml-trpo-seed0.log").read_text()
    printed = capsys.readouterr().out
    text = (out / "compare.md").read_text()
    assert text.strip() in printed
    assert "point-nav, 3 held-out tasks" in text
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for cells in (line.split("|") for line in text.splitlines() if line.startswith("| "))
    }
    assert list(rows) == ["agent", "---", "maml-trpo", "rl2", "ppo", "teacher", "random"]
    summary = json.loads((out / "point-nav" / "evaluation" / "adaptation.json").read_text())
    (seeds, steps, minutes, first, second, third, adapted, closed, probe) = rows["maml-trpo"]
    assert first.startswith(f"{summary['agents'][0]['points'][0]['mean']:.1f}"[:4])
    assert seeds == "1"
    assert all((steps, minutes, second, third))
    assert adapted.endswith("after 6")
    assert probe == ""
    assert summary["floor"]["runs"] == summary["agents"][2]["runs"]
    # It was trained in trials of two episodes, and has a third one here; a fourth is not in the table.
    points = summary["agents"][1]["points"]
    assert (len(points), rows["rl2"][5]) == (4, in_interval(points[2]))
    assert [bool(cell) for cell in rows["rl2"]] == [*[True] * 6, False, bool(closed), True]
    assert rows["rl2"][7] == gap_closed(points[2])
    with Image.open(out / "compare.png") as picture:
        assert picture.width > 1000


def test_agents_without_a_memory_are_measured_alone(
    compare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "compare"
    monkeypatch.setattr(compare, "FAMILIES", {"point-nav": TINY})
    monkeypatch.setattr(sys, "argv", ["compare", "--out", str(out), "--jobs", "1", "--agents", "ppo", "teacher"])
    compare.main()
    summary = json.loads((out / "point-nav" / "evaluation" / "adaptation.json").read_text())
    assert [part["agent"] for part in (*summary["agents"], summary["floor"])] == ["ppo", "floor"]
    assert not (out / "point-nav" / "evaluation" / "probe.json").exists()


def test_what_has_no_budget_is_refused(compare: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for words, told in (
        (["bandit"], "no budget for the family 'bandit'"),
        (["--agents", "dqn"], "the agent 'dqn'"),
        (["--seeds", "0"], "--seeds and --jobs are 1 or more"),
    ):
        monkeypatch.setattr(sys, "argv", ["compare", *words])
        with pytest.raises(SystemExit) as ended:
            compare.main()
        assert ended.value.code == 2
        assert told in capsys.readouterr().err
