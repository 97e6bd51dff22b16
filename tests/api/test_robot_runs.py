"""Runs on robot files: used from anywhere, told what has changed, and executing only what may be executed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import metarl
from metarl.cli.main import main
from metarl.envs import get
from metarl.envs.external import child
from metarl.envs.registry import address, is_family, sources_of
from metarl.errors import UserError
from metarl.run.folder import RunFolder
from metarl.run.settings import RunConfig
from tests.helpers.robot_files import forget, small
from tests.helpers.run_folders import logged
from tests.helpers.tiny_trainings import FEW, SMALL

OWN = (("{alive: 1}", "{mine: {term: own, weight: 1, function: 'reward_of_leg.py:mine'}}"),)
"""Changes of the small file that make it execute a file."""
FUNCTION = "def mine(robot, before, state, action, tasks):\n    return -state['qpos'][:, 0].abs()\n"


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(child, "FOLDERS", [])
    monkeypatch.setattr(child, "AVOIDED", set())
    yield
    forget()


def trained_in(folder: Path, *changes: tuple[str, str], **settings: Any) -> Path:
    """Train on the small file in a folder, in its folder `r`, then be a session that does not know it."""
    folder.mkdir(exist_ok=True)
    (folder / "reward_of_leg.py").write_text(FUNCTION)
    metarl.train("maml-trpo", str(small(folder, *changes)), out=folder / "r", **{**SMALL, "iterations": 1, **settings})
    forget()
    return folder / "r"


def unsigned(run: Path) -> Path:
    """Make a run one that somebody else has made."""
    content = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**content, "signature": "0" * 64}))
    return run


def test_a_run_goes_on_where_its_project_was_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = trained_in(tmp_path / "whole", iterations=2)
    trained_in(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    run = tmp_path / "b" / "r"
    capsys.readouterr()
    metarl.resume(run, iterations=2)
    assert "changed" not in capsys.readouterr().err
    assert logged(run) == logged(whole)
    settings, _ = RunFolder(run).settings(RunConfig)
    assert settings.family == "leg.yaml:leg@v1"
    assert [(s.role, s.path) for s in settings.sources] == [("robot", "../leg.yaml"), ("robot leg.xml", "../leg.xml")]


def test_a_strangers_robot_needs_no_trust_and_tells_what_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = unsigned(trained_in(tmp_path / "a"))
    model = tmp_path / "a" / "leg.xml"
    model.write_text(model.read_text().replace('mass="2"', 'mass="3"'))
    capsys.readouterr()
    assert metarl.load(run).family.full_name == "leg@v1"
    assert f"{model} (robot leg.xml) has changed since {run} was trained with it" in capsys.readouterr().err
    forget()
    (tmp_path / "a" / "leg.yaml").unlink()
    with pytest.raises(UserError, match=r"needs leg.yaml \(robot\), which is not at .* --source FILE"):
        metarl.load(run)
    (tmp_path / "elsewhere").mkdir()
    assert metarl.load(run, source=small(tmp_path / "elsewhere")).family.full_name == "leg@v1"


def test_functions_of_a_strangers_are_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained_in(tmp_path / "a", *OWN)
    # One's own is, from anywhere.
    assert metarl.evaluate([run], **FEW).arrays()["returns"].size
    forget()
    unsigned(run)
    trap, file = tmp_path / "trapped", tmp_path / "a" / "reward_of_leg.py"
    file.write_text(f"from pathlib import Path\nPath({str(trap)!r}).write_text('x')\n{FUNCTION}")
    with pytest.raises(UserError, match=r"would execute .*reward_of_leg.py \(own reward_of_leg.py, sha256 .*--trust"):
        metarl.load(run)
    assert not trap.exists()
    capsys.readouterr()
    assert metarl.load(run, trust=True).family.full_name == "leg@v1"
    assert "has changed since" in capsys.readouterr().err
    assert trap.exists()


def test_a_function_that_a_file_names_since_is_not_executed(tmp_path: Path) -> None:
    run = trained_in(tmp_path / "a")
    small(tmp_path / "a", *OWN)
    with pytest.raises(UserError, match=r"would execute .*reward_of_leg.py, which .*leg.yaml names now, .* --trust"):
        metarl.load(run)
    assert "reward_of_leg" not in sys.modules
    assert metarl.load(run, trust=True).family.full_name == "leg@v1"


def test_a_file_is_read_again_where_it_changed(tmp_path: Path) -> None:
    file = small(tmp_path)
    family = get(str(file))
    assert get(str(file)) is family
    assert get(f"{file}+mass") is get("leg@v1+mass")
    assert is_family(str(file))
    assert address(family) == f"{file}:leg@v1"
    assert [source.role for source in sources_of(family)] == ["robot", "robot leg.xml"]
    small(tmp_path, ("horizon: 10", "horizon: 12"))
    assert get(str(file)).horizon == 12
    assert get("leg@v1+mass").horizon == 12
    (tmp_path / "b").mkdir()
    other = small(tmp_path / "b", ("horizon: 10", "name: leg\nhorizon: 13"), name="other.yaml")
    with pytest.raises(UserError, match=r"other.yaml: name: leg@v1 is a family of .*leg.yaml already"):
        get(str(other))
    taken = small(tmp_path / "b", ("horizon: 10", "name: ant-dir\nvariant: v5\nhorizon: 13"), name="taken.yaml")
    with pytest.raises(UserError, match="name: ant-dir@v5 is a family of metarl itself already"):
        get(str(taken))


def test_commands_take_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = small(tmp_path)
    assert main(["list", str(file)]) == 0
    assert "position from its start of knee" in capsys.readouterr().out
    small(tmp_path, ("horizon: 10", "horizn: 10"))
    forget()
    for arguments in (["list", str(file)], ["train", "rl2", "--family", str(file)], ["check", str(file)]):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("metarl: error: leg.yaml: horizn: unknown key. Did you mean 'horizon'?")
        assert error.count("\n") == 1
