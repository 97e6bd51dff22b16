from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from metarl.fewshot import EpisodeShape
from metarl.fewshot.manifest import make as make_manifest
from metarl.fewshot.summary import Test, label, summarise
from tests.helpers.tiny_fewshot import SHAPE, Lines, made_up, row, vectors


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


def test_labels_tell_the_size() -> None:
    data = vectors()
    assert label(make_manifest(data, "test", 1, SHAPE, 0)) == "5-way 1-shot"
    assert label(make_manifest(Lines(), "test", 1, EpisodeShape(shot=10), 0)) == "10-shot"
