from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from metarl.errors import UserError
from metarl.fewshot import Source, Trained, config_class, from_arrays, load, score, train
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data import Collection
from metarl.fewshot.data.fingerprints import lingo
from metarl.fewshot.data.molecules import MoleculeData, from_csv
from metarl.fewshot.episodes import Episodes, EpisodeShape
from metarl.fewshot.run import FewShotRun, fitted, stored
from metarl.run.checkpoint import read_header
from metarl.run.folder import RunFolder
from metarl.run.settings import RunConfig
from metarl.run.tracking import read_progress
from tests.helpers.run_folders import saved
from tests.helpers.same import assert_same
from tests.helpers.tiny_fewshot import RUN, Lines, arrays, vectors

EVERY = replace(RUN, checkpoint_every=4, log_every=3)


def start(folder: Path, run: FewShotRun = EVERY, source: Source | None = None, **options: Any) -> Trained:
    """Train for 12 iterations, if not told otherwise."""
    options = {"iterations": 12, "console": Console(file=io.StringIO()), **options}
    config = config_class("proto")(tasks=2, train_way=8) if run.learner == "proto" else config_class("maml")(tasks=2)
    return train(folder, run, source or vectors(), config, **options)


def start_default(folder: Path, run: FewShotRun, source: Source) -> Trained:
    return train(folder, run, source, iterations=1, console=Console(file=io.StringIO()))


def few_classes(seed: int) -> ClassData:
    """Return vectors of 20 classes."""
    items, classes = arrays(seed)
    return from_arrays(items[classes < 20], classes[classes < 20], name=f"few{seed}")


def assays(path: Path) -> MoleculeData:
    """Return ten assays of 40 molecules."""
    rows = [["C" * (m + 1), *(str(int((m + a) % 3 == 0)) for a in range(10))] for m in range(40)]
    path.write_text("\n".join(",".join(row) for row in [["smiles", *(f"NR-{a}" for a in range(10))], *rows]))
    return from_csv(path, fingerprint=lingo)


def logged(folder: Path) -> list[dict[str, float]]:
    """Return progress.csv without the times, which no two runs share."""
    rows = read_progress(folder)
    return [{tag: value for tag, value in row.items() if not tag.startswith("time/")} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    start(folder)
    return folder


def test_a_run_folder_holds_everything(whole: Path) -> None:
    content = yaml.safe_load((whole / "config.yaml").read_text())
    assert content["run"]["backbone"] == "mlp"
    assert content["run"]["fingerprint"] == vectors().fingerprint
    assert stored(whole) == (fitted(EVERY, vectors()), config_class("proto")(tasks=2, train_way=8), 12)
    rows = logged(whole)
    # Every third iteration, and every fourth with its checkpoint.
    assert [row["step"] for row in rows] == [3, 4, 6, 8, 9, 12]
    assert ["validation/accuracy" in row for row in rows] == [False, True, False, True, False, True]
    scores = {int(row["step"]): row["validation/accuracy"] for row in rows if "validation/accuracy" in row}
    best = max(scores, key=lambda step: scores[step])
    assert saved(whole, "best")["iteration"] == best
    assert read_header(whole / "checkpoints" / "best.pt")["score"] == scores[best]


def test_validation_is_on_the_same_episodes(whole: Path, tmp_path: Path) -> None:
    trained = load(whole, "last", source=vectors())
    accuracy = score(trained.learner, vectors(), split="validation", episodes=20).estimate
    assert logged(whole)[-1]["validation/accuracy"] == pytest.approx(accuracy)
    # Of another training seed too.
    other = start(tmp_path / "other", replace(EVERY, seed=1), iterations=0)
    assert other.checkpoint == "last"
    assert other.run.seed == 1


@pytest.mark.parametrize("after", [4, 5])
def test_a_run_goes_on_bit_for_bit(whole: Path, tmp_path: Path, after: int) -> None:
    folder = tmp_path / "parts"
    start(folder, iterations=after)
    start(folder, resume=True)
    for name in ("last", "best"):
        if after == 4 or name == "last":
            assert_same(saved(folder, name), saved(whole, name))
    # Where the first part ended, it ended a row.
    assert [row for row in logged(folder) if row["step"] > 6] == [row for row in logged(whole) if row["step"] > 6]


def test_it_learns_and_the_best_checkpoint_is_given(tmp_path: Path) -> None:
    untrained = start(tmp_path / "untrained", iterations=0)
    trained = start(tmp_path / "run", replace(EVERY, checkpoint_every=25), iterations=150)
    assert trained.checkpoint == "best"
    assert trained.result is not None
    assert (trained.result.iteration, trained.result.interrupted) == (150, False)
    before, after = (score(of.learner, vectors()) for of in (untrained, trained))
    assert after.lower > before.upper + 0.1


def test_regression_is_chosen_by_its_error(tmp_path: Path) -> None:
    run = replace(EVERY, data="lines", learner="maml", shot=5, query=10)
    trained = start(tmp_path, run, Lines())
    losses = {int(row["step"]): row["validation/loss"] for row in logged(tmp_path) if "validation/loss" in row}
    assert trained.iteration == min(losses, key=lambda step: losses[step])
    assert read_header(tmp_path / "checkpoints" / "best.pt")["score"] == -min(losses.values())
    assert "train/accuracy" not in logged(tmp_path)[0]


def test_without_validation_the_last_checkpoint_counts(tmp_path: Path) -> None:
    classes = vectors()
    data = replace(classes, splits={name: part for name, part in classes.splits.items() if name != "validation"})
    for json_lines in (False, True):
        console = Console(file=io.StringIO(), width=200)
        trained = start(tmp_path / str(json_lines), source=data, console=console, json=json_lines)
        assert (trained.checkpoint, trained.iteration) == ("last", 12)
        assert isinstance(console.file, io.StringIO)
        first = console.file.getvalue().splitlines()[0]
        text = json.loads(first)["message"] if json_lines else first
        assert text.startswith("No validation, the last checkpoint counts: Unknown split 'validation'.")
    trained = start(tmp_path / "none", replace(EVERY, validation=0))
    assert trained.checkpoint == "last"
    assert not any("validation/accuracy" in row for row in logged(tmp_path / "none"))


def test_other_data_are_refused(whole: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    for attempt in (
        lambda: load(whole, source=vectors(seed=1)),
        lambda: start(whole, source=vectors(seed=1), resume=True),
        lambda: start(tmp_path / "new", replace(EVERY, fingerprint="0" * 64)),
    ):
        with pytest.raises(UserError, match=r"fingerprint|other settings"):
            attempt()
    with pytest.raises(UserError, match=r"vectors with fingerprint .{12}, and the run was made with .{12} \(vectors\)"):
        load(whole, source=vectors(seed=1))
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "new").exists()


def test_where_data_lie_and_how_often_is_saved_may_change(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    start(folder, iterations=4)
    moved = replace(EVERY, data_root=tmp_path, log_every=1, checkpoint_every=6, threads=0)
    start(folder, moved, resume=True)
    assert stored(folder)[0].data_root == tmp_path
    assert_same(saved(folder, "last")["agent"], saved(whole, "last")["agent"])
    with pytest.raises(UserError, match="other settings"):
        start(folder, replace(EVERY, way=4), resume=True)


@pytest.mark.parametrize(
    ("run", "says"),
    [
        ({"learner": "maml", "way": 50}, r"Got 50 ways, and the split 'train' of vectors has"),
        ({"shot": 20}, r"Got 20 shots and 3 queries, 23 items of a class, and the class '\d+' .* has 12"),
        ({"learner": "prot"}, "Did you mean 'proto'"),
        ({"device": "cuda"}, "finds no CUDA device"),
        ({"backbone": "conv4"}, "Use --backbone mlp"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing(
    run: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = tmp_path / "run"
    with pytest.raises(UserError, match=says):
        train(folder, replace(EVERY, **run), vectors(), iterations=1, console=Console(file=io.StringIO()))
    assert not folder.exists()


def test_too_many_training_ways_are_explained(tmp_path: Path) -> None:
    class Unknown(Lines):
        """A source that does not say how many ways it can have."""

        outputs = 0

        def episodes(self, split: str, numbers: Any, shape: EpisodeShape, seed: int) -> Episodes:
            if shape.way > 12:
                raise UserError(f"Got {shape.way} ways, and there are 12 classes.")
            return vectors().episodes(split, numbers, shape, seed)

    with pytest.raises(UserError, match=r"Got 30 ways, .* Training has 30 ways: --train-way\."):
        train(tmp_path / "run", EVERY, Unknown(), config_class("proto")(train_way=30))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("learner", ["proto", "matching", "siamese", "relation", "r2d2", "logistic"])
def test_training_ways_follow_the_data(learner: str, tmp_path: Path) -> None:
    members = tuple(few_classes(seed) for seed in (0, 1))
    sources = {"collection": Collection(members=members), "assays": assays(tmp_path / "assays.csv")}
    for name, source in sources.items():
        run = replace(EVERY, learner=learner, way=2, shot=1, validation=0)
        # With the settings that a learner has by default.
        trained = start_default(tmp_path / name, run, source)
        ways = 2 if name == "assays" else min(len(member.splits["train"].names) for member in members)
        assert ways < 20
        learned: Any = trained.learner
        assert learned.shape(0).way == ways


def test_settings_out_of_range_are_refused() -> None:
    for field in ("way", "shot", "query", "log_every", "checkpoint_every"):
        with pytest.raises(UserError, match=field.replace("_", "[-_]")):
            replace(RUN, **{field: 0})


def test_runs_of_another_kind_are_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a run of another kind, few-shot: use metarl fewshot evaluate, or metarl"):
        RunFolder(whole).settings(RunConfig)
    rl = tmp_path / "rl"
    rl.mkdir()
    settings = {"version": "0.1.0", "iterations": 1, "run": {"family": "point-nav", "agent": "rl2"}, "config": {}}
    (rl / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match=r"is a run of another kind, RL: use metarl evaluate, or metarl train --resume"):
        load(rl)


def test_what_arrays_were_taken_for_is_told(tmp_path: Path) -> None:
    x, classes = np.random.default_rng(0).random((160, 2, 32)), np.arange(160) // 8
    for json_lines in (False, True):
        console = Console(file=io.StringIO(), width=200)
        folder = tmp_path / str(json_lines)
        run = replace(RUN, hidden=FewShotRun.hidden, width=4)
        trained = start(folder, run, source=from_arrays(x, classes), iterations=1, console=console, json=json_lines)
        assert isinstance(console.file, io.StringIO)
        first = console.file.getvalue().splitlines()[0]
        text = json.loads(first)["message"] if json_lines else first
        assert text == "Items: signals, 2 channels x 32 values, from the layout ncl; backbone conv1d."
        assert trained.run.backbone == "conv1d"
    with pytest.raises(UserError, match="Of an earlier version: arrays with the layout 'plain'"):
        load(folder, source=from_arrays(x + 1.0, classes))
