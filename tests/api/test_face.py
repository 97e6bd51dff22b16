"""What `import metarl` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import metarl
from metarl.envs.worlds import Worlds
from tests.helpers.readme import ROOT, block, blocks

OFFERED = [
    "agents",
    "envs",
    "evaluate",
    "export",
    "families",
    "fewshot",
    "identify",
    "load",
    "resume",
    "train",
    "worlds",
]


def test_importing_it_imports_nothing_that_takes_long() -> None:
    code = (
        "import sys, metarl; dir(metarl); metarl.__version__; "
        "print([name for name in ('torch', 'mujoco', 'numpy', 'gymnasium', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_offers_what_it_lists_and_no_more() -> None:
    assert sorted(dir(metarl)) == sorted(["__version__", *OFFERED])
    for name in OFFERED:
        found = getattr(metarl, name)
        assert found.__doc__, name
        # The head of the module tells of each.
        assert name in (metarl.__doc__ or "")


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    misspelt = "trian"
    with pytest.raises(AttributeError, match=r"no attribute 'trian'; it offers .*evaluate.*train"):
        getattr(metarl, misspelt)
    assert not hasattr(metarl, "np")


def test_families_are_a_table_and_a_dict() -> None:
    found = metarl.families()
    assert found["point-nav"][0] is metarl.envs.get("point-nav")
    assert found.keys() == metarl.envs.families().keys()
    rows = repr(found).splitlines()
    assert len(rows) == 1 + len(found)
    assert any(row.startswith("half-cheetah-dir") and "v5, maml17" in row for row in rows)


def test_worlds_are_made_by_name() -> None:
    worlds = metarl.worlds("point-nav", 3, threads=1)
    assert isinstance(worlds, Worlds)
    assert worlds.num_worlds == 3


def test_the_example_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(blocks("metarl/api/README.md")) == 2
    code = block("metarl/api/README.md", "metarl.train(")
    for whole, small in {
        "iterations=50": "iterations=2, tasks=2, episodes=2",
        "iterations=100": "iterations=3",
    }.items():
        assert code.count(whole) == 1
        code = code.replace(whole, small)
    names: dict = {}
    exec(compile(code, "metarl/api/README.md", "exec"), names)
    assert names["run"].iteration == 3
    assert names["arrays"]["mean"].shape == (4,)
    assert (tmp_path / "curve.pdf").stat().st_size > 1000
    assert (tmp_path / "runs" / "point" / "evaluation" / "ood" / "adaptation.csv").is_file()
    exec(compile(block("metarl/api/README.md", "metarl.worlds("), "metarl/api/README.md", "exec"), names)
    assert names["step"].reward.shape == (8,)
