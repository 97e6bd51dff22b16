"""What stands in metarl/fewshot/README.md runs as it is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metarl import fewshot
from metarl.cli.main import main
from metarl.fewshot import DATA
from tests.helpers.readme import block, commands
from tests.helpers.tiny_fewshot import pictures

README = "metarl/fewshot/README.md"


def test_quick_start_with_own_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    originals = generator.integers(0, 128, (60, 8, 8))
    images = (originals.repeat(12, 0) + generator.integers(0, 128, (720, 8, 8))).astype(np.uint8)
    names: dict = {"images": images, "labels": np.arange(60).repeat(12)}
    names |= {"few_images": images[:36:12], "few_labels": ["oak", "elm", "ash"], "other_images": images[1:36:12]}
    code = block(README, "fewshot.from_arrays").replace("iterations=300", "iterations=60")
    exec(compile(code, "README.md", "exec"), names)
    assert names["answers"] == ["oak", "elm", "ash"]
    assert names["probabilities"].shape == (3, 3)
    assert (tmp_path / "runs" / "mine" / "checkpoints" / "best.pt").is_file()


def test_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (400, 28, 28), dtype=np.uint8)
    names: dict = {"fewshot": fewshot, "data": fewshot.from_arrays(images, np.arange(400) // 10)}
    exec(compile(block(README, "backbone=network"), "README.md", "exec"), names)
    assert names["trained"].iteration == 5


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Omniglot is not everywhere, and glyphs take long to be written: other pictures in their place, of the same size.
    pictures(tmp_path / "DATA", classes=40, side=28)
    monkeypatch.setenv("METARL_DATA", str(tmp_path / "DATA"))
    for name in ("glyphs", "omniglot"):
        monkeypatch.setitem(DATA, name, ("arrays", DATA[name][1]))
    for name in ("few", "others"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "items.npy", np.load(tmp_path / "DATA" / "items.npy")[:20:10])
        np.save(tmp_path / name / "labels.npy", np.array(["oak", "elm"]))
    lines = commands(README)
    assert len(lines) == 8
    for line in lines:
        if " train " in line:
            line += " --iterations 2 --validation 5 --test-episodes 5 --threads 1"
            line += "" if "sinusoid" in line else " --width 4 --tasks 2"
        elif " predict " in line:
            line += " --threads 1"
        elif " evaluate " in line:
            line += " --episodes 5 --threads 1"
        # A compiled graph would break at the checks of annotations that tests run with.
        assert main(line.replace("compiled", "grouped").split()[1:]) == 0, line
    assert (tmp_path / "sheet.png").is_file()
    assert (tmp_path / "runs" / "maml" / "evaluation" / "test" / "fewshot.json").is_file()
    assert (tmp_path / "runs" / "maml" / "predictions.csv").read_text().startswith("item,answer,p(elm),p(oak)")
