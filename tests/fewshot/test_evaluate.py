from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.errors import NotFiniteError, UserError
from metarl.fewshot import EpisodeShape, Source, Support, predict, score
from metarl.fewshot.evaluate import (
    BINS,
    Measured,
    PixelNeighbour,
    Row,
    Test,
    calibration_bins,
    calibration_error,
    items_at_once,
    label,
    measure,
    summarise,
    table,
    table_of_steps,
    tasks_at_once,
    write,
)
from metarl.fewshot.learners import config_class, make
from metarl.fewshot.manifest import make as make_manifest
from metarl.fewshot.parts.backbones import BatchNorm, MlpBackbone
from metarl.fewshot.parts.learner import Setting
from metarl.run.glossary import look_up
from metarl.seeding import Streams
from tests.helpers.tiny_fewshot import SHAPE, Lines, vectors


def learner(name: str, **settings: Any) -> Any:
    """Return an untrained learner for `vectors()`."""
    setting = Setting(shape=SHAPE, backbone=MlpBackbone(item_shape=(12,), hidden=(16,)))
    return make(name, config_class(name)(**settings), setting, Streams(0), torch.device("cpu"))


@dataclass(frozen=True)
class Mean:
    """Predicts the mean of the support values plus so much; a step halves what is added."""

    added: float = 0.0
    support: Support | None = None

    def fit(self, support: Support, batch_norm: BatchNorm | None = None) -> Mean:
        return Mean(self.added, support)

    def path(self, support: Support, steps: int, batch_norm: BatchNorm | None = None) -> Sequence[Mean]:
        return [Mean(self.added / 2.0**step, support) for step in range(steps + 1)]

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        assert self.support is not None
        return self.support.y.mean(1, keepdim=True).expand(-1, x.shape[1], -1) + self.added


# -- one learner ------------------------------------------------------------------------------------------------------


def test_accuracy_of_every_episode() -> None:
    data = vectors()
    manifest = make_manifest(data, "test", 50, SHAPE, 0)
    proto = learner("proto")
    found = measure(proto, data, manifest)
    assert found.path is None
    for number in (0, 17, 49):
        episode = manifest.episodes(data, number, number + 1)
        answers = proto.fit(episode.support).predict(episode.query_x)[0].argmax(-1)
        assert found.values[number].item() == pytest.approx((answers == episode.query_y[0]).double().mean().item())


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    data = vectors()
    manifest = make_manifest(data, "test", 30, SHAPE, 0)
    for name in ("proto", "maml"):
        whole = measure(learner(name), data, manifest, steps=2)
        monkeypatch.setattr("metarl.fewshot.evaluate.MEMORY", 1)
        parts = measure(learner(name), data, manifest, steps=2)
        monkeypatch.undo()
        torch.testing.assert_close(parts.values, whole.values)
        assert (parts.path is None) == (whole.path is None) == (name == "proto")


def test_chunks_are_smaller_for_larger_items() -> None:
    sizes = [items_at_once(shape) for shape in ((1,), (1, 28, 28), (3, 84, 84), (3, 10_000, 10_000))]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    small, large = learner("maml"), learner("maml", rates="parameter")
    assert tasks_at_once(small, 1) > tasks_at_once(small, 50) > tasks_at_once(large, 50) > 1
    assert tasks_at_once(small, 10**9) == 1


def test_error_and_curve_in_regression() -> None:
    data = Lines()
    shape = EpisodeShape(shot=4, query=6)
    manifest = make_manifest(data, "test", 20, shape, 0)
    found = measure(Mean(added=1.0), data, manifest, steps=3)
    assert found.bins is None
    assert found.path is not None
    episodes = data.episodes("test", range(20), shape, 0)
    for step, values in enumerate(found.path):
        wrong = episodes.support.y.mean(1, keepdim=True) + 0.5**step - episodes.query_y
        torch.testing.assert_close(values, wrong.double().square().mean((1, 2)), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.values, found.path[0])


def test_a_curve_starts_at_chance_and_its_steps_are_those_of_the_learner() -> None:
    data = vectors()
    manifest = make_manifest(data, "test", 200, SHAPE, 0)
    maml = learner("maml", inner_steps=2)
    found = measure(maml, data, manifest, steps=3)
    assert found.path is not None
    assert found.path.shape == (4, 200)
    torch.testing.assert_close(found.path[2], found.values)
    deviation = found.path[0].std().item() / math.sqrt(200)
    assert abs(found.path[0].mean().item() - 0.2) < 4.0 * deviation


def test_scores_that_are_not_finite_are_refused() -> None:
    data = Lines()
    manifest = make_manifest(data, "test", 4, EpisodeShape(shot=4, query=6), 0)
    with pytest.raises(NotFiniteError, match="not finite"):
        measure(Mean(added=math.nan), data, manifest)


def test_calibration_by_hand() -> None:
    # Two classes: confidences .9, .9, .6, .8; right, wrong, right, right. Bins of 1/15: .9 in the 14th, .6 in the
    # 9th (its upper end), .8 in the 12th.
    sure = torch.tensor([0.9, 0.9, 0.6, 0.8], dtype=torch.float64)
    scores = torch.stack([sure, 1.0 - sure], dim=-1).log()[None]
    bins = calibration_bins(scores, torch.tensor([[0, 1, 0, 0]]))
    assert bins.shape == (BINS, 3)
    assert bins[13].tolist() == pytest.approx([2.0, 1.8, 1.0])
    assert bins[:, 0].sum() == 4.0
    expected = 2 / 4 * abs(0.5 - 0.9) + 1 / 4 * abs(1.0 - 0.6) + 1 / 4 * abs(1.0 - 0.8)
    assert calibration_error(bins) == pytest.approx(expected)
    certain = calibration_bins(torch.tensor([[[0.0, 200.0]]]), torch.tensor([[1]]))
    assert certain[-1].tolist() == [1.0, 1.0, 1.0]


def test_pixel_neighbour_by_hand() -> None:
    support = Support(x=torch.tensor([[[0.0], [1.0], [5.0], [9.0]]]), y=torch.tensor([[0, 1, 1, 0]]), way=2)
    scores = PixelNeighbour().fit(support).predict(torch.tensor([[[0.2], [4.0], [8.0]]]))
    torch.testing.assert_close(scores, torch.tensor([[[-0.2, -0.8], [-4.0, -1.0], [-1.0, -3.0]]]))
    with pytest.raises(UserError, match="Leave --baseline out"):
        PixelNeighbour().fit(Support(x=support.x, y=support.x, way=0))


# -- several learners -------------------------------------------------------------------------------------------------


def row(name: str, *values: torch.Tensor, **settings: Any) -> Row:
    settings = {"batch_norm": "none", "own": True, **settings}
    seeds = tuple(range(len(values)))
    measured = tuple(Measured(values=of) for of in values)
    return Row(learner=name, measured=measured, seeds=seeds, runs=tuple(f"runs/{s}" for s in seeds), **settings)


def made_up() -> tuple[Test, Source]:
    """Accuracies of two learners, the second .1 better on each of 300 episodes but for a little noise."""
    generator = torch.Generator().manual_seed(0)
    data = vectors()
    first = 0.5 + 0.2 * torch.randn(300, generator=generator, dtype=torch.float64)
    second = first + 0.1 + 0.01 * torch.randn(300, generator=generator, dtype=torch.float64)
    bins = torch.zeros(BINS, 3, dtype=torch.float64)
    bins[8] = torch.tensor([10.0, 6.0, 5.0])
    path = torch.stack([first - 0.3, first])
    mine = Measured(values=first, path=path, bins=bins)
    steps = Row(learner="steps", batch_norm="support", own=True, measured=(mine,), seeds=(4,))
    manifest = make_manifest(data, "test", 300, SHAPE, 0)
    return Test(manifest=manifest, file="some.manifest", rows=(steps, row("other", second))), data


def test_the_interval_is_that_of_scipy() -> None:
    test, data = made_up()
    summary = summarise([test], data, seed=0)
    found, values = summary["tests"][0]["rows"][0], test.rows[0].values[0].numpy()
    assert found["mean"] == pytest.approx(values.mean())
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=0)
    by_t = scipy.stats.t.interval(0.95, len(values) - 1, values.mean(), scipy.stats.sem(values))
    for low, high in (theirs.confidence_interval, by_t):
        # 2,000 resamples give the ends within a few hundredths of the width.
        assert found["lower"] == pytest.approx(low, abs=0.05 * (high - low))
        assert found["upper"] == pytest.approx(high, abs=0.05 * (high - low))


def test_learners_are_compared_episode_by_episode() -> None:
    test, data = made_up()
    one = summarise([test], data, seed=0)["tests"][0]
    (pair,) = one["pairs"]
    assert (pair["first"], pair["second"]) == ("steps", "other")
    difference = (test.rows[0].values[0] - test.rows[1].values[0]).numpy()
    low, high = scipy.stats.t.interval(0.95, 299, difference.mean(), scipy.stats.sem(difference))
    assert pair["difference"] == pytest.approx(-0.1, abs=0.002)
    assert (pair["lower"], pair["upper"]) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))
    # Each by itself is ten times as uncertain.
    assert one["rows"][0]["upper"] - one["rows"][0]["lower"] > 5.0 * (pair["upper"] - pair["lower"])


def test_training_seeds_make_one_row() -> None:
    test, data = made_up()
    values = test.rows[1].values[0]
    pooled = Test(manifest=test.manifest, file="", rows=(row("both", values, values + 0.2),))
    (found,) = summarise([pooled], data, seed=0)["tests"][0]["rows"]
    assert found["training_seeds"] == [0, 1]
    assert found["mean"] == pytest.approx(values.mean().item() + 0.1)
    # Within seeds: the seeds' own difference adds nothing, twice the episodes make it narrower.
    alone = summarise([test], data, seed=0)["tests"][0]["rows"][1]
    ratio = (found["upper"] - found["lower"]) / (alone["upper"] - alone["lower"])
    assert ratio == pytest.approx(1.0 / math.sqrt(2.0), rel=0.1)


def test_files_hold_what_was_measured(tmp_path: Path) -> None:
    test, data = made_up()
    summary = summarise([test], data, seed=0)
    (tmp_path / "steps-old.png").touch()
    (picture,) = write([test], summary, tmp_path)
    write([test], summary, tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "fewshot.csv",
        "fewshot.json",
        "steps-5-way-1-shot.png",
        "steps",
        "other",
    }
    assert json.loads((tmp_path / "fewshot.json").read_text()) == summary
    one = summary["tests"][0]
    assert (one["manifest"], one["episodes"], one["label"]) == (test.manifest.hash, 300, "5-way 1-shot")
    assert one["rows"][0]["ece"] == pytest.approx(0.1)
    assert one["rows"][1]["ece"] is None
    with (tmp_path / "fewshot.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 300 * (1 + 2 + 1)
    assert {(r["learner"], r["training_seed"], r["step"]) for r in rows} == {
        ("steps", "4", ""),
        ("steps", "4", "0"),
        ("steps", "4", "1"),
        ("other", "0", ""),
    }
    assert float(rows[7]["value"]) == test.rows[0].values[0, 7].item()
    with Image.open(picture) as image:
        assert image.width > 1000

    def logged(folder: str, tag: str) -> list[tuple[int, float]]:
        events = EventAccumulator(str(tmp_path / folder))
        events.Reload()
        for known in events.Tags()["scalars"]:
            look_up(known)
        return [(event.step, event.value) for event in events.Scalars(tag)]

    points = one["rows"][0]["points"]
    assert logged("steps", "steps/accuracy") == [(n, pytest.approx(points[n]["mean"])) for n in (0, 1)]
    assert logged("steps", "steps/upper") == [(n, pytest.approx(points[n]["upper"])) for n in (0, 1)]
    assert logged("other", "test/accuracy") == [(1, pytest.approx(one["rows"][1]["mean"]))]
    assert logged("steps", "test/ece") == [(1, pytest.approx(0.1))]


def test_tables_fit_the_terminal() -> None:
    test, data = made_up()
    many = (*test.rows, row("maml first-order=True inner-rate=0.01", *test.rows[1].values, *test.rows[0].values))
    one = summarise([Test(manifest=test.manifest, file="", rows=many)], data, seed=0)["tests"][0]
    console = Console(width=80, record=True)
    console.print(table(one, "accuracy"))
    console.print(table_of_steps(one, "accuracy"))
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 80
    assert f"{100.0 * one['rows'][0]['mean']:.1f}% [{100.0 * one['rows'][0]['lower']:.1f}," in shown
    assert "10.0%" in shown
    assert "…" not in shown
    error = table(one, "mse")
    assert [column.header for column in error.columns][2:] == ["seeds", "mse \\[95%]", "first - this"]


def test_labels_tell_the_size() -> None:
    data = vectors()
    assert label(make_manifest(data, "test", 1, SHAPE, 0)) == "5-way 1-shot"
    assert label(make_manifest(Lines(), "test", 1, EpisodeShape(shot=10), 0)) == "10-shot"


# -- in short ---------------------------------------------------------------------------------------------------------


def test_score_is_mean_and_interval() -> None:
    data = vectors()
    proto = learner("proto")
    found = score(proto, data, episodes=100)
    values = measure(proto, data, make_manifest(data, "test", 100, SHAPE, 0)).values
    assert found.estimate == pytest.approx(values.mean().item())
    assert found.lower < found.estimate < found.upper
    assert score(proto, data, episodes=100, shape=EpisodeShape(way=2, shot=5, query=3)).estimate > found.estimate


def test_predict_answers_with_the_labels_given() -> None:
    data = vectors()
    part = data.split("test")
    support, queries = part.items[: 12 * 3 : 12], part.items[1 : 12 * 3 : 12]
    answers, probabilities = predict(learner("proto"), data, support.numpy(), ["c", "a", "b"], queries.numpy())
    assert set(answers) <= {"a", "b", "c"}
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3))
    # The items themselves are answered right, whatever the learner.
    answers, _ = predict(learner("proto"), data, support, ["c", "a", "b"], support)
    assert answers == ["c", "a", "b"]
    with pytest.raises(UserError, match="Got 3 items and 2 labels"):
        predict(learner("proto"), data, support, ["c", "a"], queries)
    with pytest.raises(UserError, match=r"items of the shape \(11,\), and vectors has \(12,\)"):
        predict(learner("proto"), data, support[:, 1:], ["c", "a", "b"], queries)
    with pytest.raises(UserError, match=r"torch\.uint8, and vectors has torch\.float32"):
        predict(learner("proto"), data, support.to(torch.uint8), ["c", "a", "b"], queries)
