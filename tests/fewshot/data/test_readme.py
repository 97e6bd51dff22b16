"""The data set that metarl/fewshot/data/README.md adds is there for the commands that stand there."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch

from metarl.cli.main import main
from metarl.fewshot import DATA, load_data
from metarl.fewshot.classes import ClassData
from tests.helpers.readme import block, commands

README = "metarl/fewshot/data/README.md"


def test_own_data_set_by_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a file of the folder: the command reads what stands under the fields.
    (tmp_path / "stripes.py").write_text(block(README, "VARIANTS ="))
    package = import_module("metarl.fewshot.data")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setitem(DATA, "stripes", ("stripes", "stripes in many directions"))
    data = load_data("stripes")
    assert isinstance(data, ClassData)
    assert {name: len(part.names) for name, part in data.splits.items()} == {"train": 38, "validation": 10, "test": 12}
    monkeypatch.chdir(tmp_path)
    _, audit, show, train = commands(README)
    assert main(audit.split()[1:]) == 0
    assert main(show.split()[1:]) == 0
    assert main(f"{train} --width 4 --iterations 2 --validation 5 --test-episodes 5 --threads 1".split()[1:]) == 0
    assert (tmp_path / "stripes.png").is_file()
    assert (tmp_path / "runs" / "stripes-proto-5way-1shot-seed0" / "checkpoints" / "best.pt").is_file()


def test_own_assays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{'C' * (m + 1)}N,assay{a},{5 + (m + a) % 3}" for a in range(5) for m in range(30)]
    (tmp_path / "pic50.csv").write_text("\n".join(["smiles,assay,value", *rows]))
    # RDKit may not be there.
    train = commands(README)[0].replace("molecules", "molecules@lingo")
    assert main(f"{train} --iterations 2 --validation 0 --test-episodes 5 --threads 1".split()[1:]) == 0


def test_own_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(block(README, "from_functions(x, y)"), names)
    pascals = names["pascals"]
    assert isinstance(pascals, torch.Tensor)
    assert pascals.shape == (15, 1)
    assert 1e3 < float(pascals.mean()) < 1e5
