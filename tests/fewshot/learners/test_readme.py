"""The learner that metarl/fewshot/learners/README.md adds is trained by the command that stands there, and learns."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from metarl.cli.main import main
from metarl.fewshot import LEARNERS, score, train
from tests.helpers.readme import block, commands
from tests.helpers.tiny_fewshot import RUN, store, vectors

README = "metarl/fewshot/learners/README.md"


@pytest.fixture
def medians(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # As a file of the folder: the command reads what stands under the fields.
    (tmp_path / "medians.py").write_text(block(README, "class Medians"))
    package = import_module("metarl.fewshot.learners")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setitem(LEARNERS, "medians", ("medians", "MediansConfig", "a class is the median of its features"))
    yield
    sys.modules.pop("metarl.fewshot.learners.medians", None)


@pytest.mark.usefixtures("medians")
def test_own_learner_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store(tmp_path / "mine")
    (line,) = commands(README)
    line = line.replace("glyphs", "arrays --data-root mine")
    assert main(f"{line} --query 3 --iterations 2 --validation 5 --test-episodes 5 --threads 1".split()[1:]) == 0
    assert (tmp_path / "runs" / "arrays-medians-5way-1shot-seed0" / "checkpoints" / "best.pt").is_file()


@pytest.mark.usefixtures("medians")
def test_own_learner_learns(tmp_path: Path) -> None:
    data = vectors()
    run = type(RUN)(**{**vars(RUN), "learner": "medians", "shot": 3})
    found = [
        score(train(tmp_path / str(n), run, data, iterations=n).learner, data, episodes=200).estimate for n in (0, 100)
    ]
    assert found[0] + 0.1 < found[1]
