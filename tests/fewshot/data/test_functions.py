"""Families of functions: their values, their ranges, and that an episode depends on nothing but its number."""

from __future__ import annotations

import json
import math

import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot.data import functions
from metarl.fewshot.episodes import Episodes, EpisodeShape, Source

SHAPE = EpisodeShape(way=5, shot=10, query=7)
NAMES = list(functions.FAMILIES)


def joined(episodes: Episodes) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.cat((episodes.support.x, episodes.query_x), 1)
    y = torch.cat((episodes.support.y, episodes.query_y), 1)
    return x.squeeze(-1).double(), y.squeeze(-1).double()


def test_sinusoid_by_hand() -> None:
    data = functions.load("sinusoid", None, 0)
    x, y = joined(data.episodes("train", range(20), SHAPE, 3))
    tasks = data.tasks("train", range(20), 3)
    for task in range(20):
        amplitude, phase = float(tasks["amplitude"][task]), float(tasks["phase"][task])
        expected = [amplitude * math.sin(float(value) - phase) for value in x[task]]
        assert y[task].tolist() == pytest.approx(expected, abs=1e-5)


def test_harmonic_by_hand() -> None:
    data = functions.load("harmonic", None, 0)
    x, y = joined(data.episodes("train", range(20), SHAPE, 3))
    tasks = data.tasks("train", range(20), 3)
    for task in range(20):
        (a1, a2), (b1, b2) = tasks["amplitude"][task].tolist(), tasks["phase"][task].tolist()
        omega = float(tasks["frequency"][task])
        expected = [a1 * math.sin(omega * v + b1) + a2 * math.sin(2 * omega * v + b2) for v in x[task].tolist()]
        # x is rounded to float32, and the angle is up to 14 times as large.
        assert y[task].tolist() == pytest.approx(expected, abs=1e-4)
        assert float((x[task] - tasks["place"][task]).abs().max()) < 6.0


def test_steps_by_hand() -> None:
    data = functions.load("steps", None, 0)
    x, y = joined(data.episodes("train", range(20), SHAPE, 3))
    tasks = data.tasks("train", range(20), 3)
    for task in range(20):
        edges, levels = sorted(tasks["edge"][task].tolist()), tasks["level"][task].tolist()
        expected = [levels[sum(value >= edge for edge in edges)] for value in x[task].tolist()]
        assert y[task].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_inputs_have_the_stated_distributions(name: str) -> None:
    data = functions.load(name, None, 0)
    family = functions.FAMILIES[name]
    tasks = data.tasks("train", range(4000), 0)
    x, _ = joined(data.episodes("train", range(4000), EpisodeShape(shot=1, query=1), 0))
    if "place" in tasks:
        x = x - tasks["place"]
    for drawn, draw in [(tasks[key], family.parameters[key]) for key in tasks] + [(x, family.inputs)]:
        if draw.law == "uniform":
            assert draw.a <= float(drawn.min())
            # Inputs were rounded to float32.
            assert float(drawn.max()) <= draw.b + 1e-6
            middle, deviation = (draw.a + draw.b) / 2, (draw.b - draw.a) / math.sqrt(12)
        else:
            middle, deviation = draw.a, draw.b
        assert float(drawn.mean()) == pytest.approx(middle, abs=0.1 * deviation)
        assert float(drawn.std()) == pytest.approx(deviation, rel=0.05)


def test_steps_spread_about_as_far_as_sinusoids() -> None:
    spread = [
        float(joined(functions.load(name, None, 0).episodes("train", range(4000), SHAPE, 0))[1].std())
        for name in ("sinusoid", "steps")
    ]
    assert spread[1] == pytest.approx(spread[0], rel=0.25)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_types(name: str) -> None:
    data = functions.load(name, None, 0)
    assert isinstance(data, Source)
    assert (data.name, data.item_shape, data.outputs) == (name, (1,), 1)
    episodes = data.episodes("validation", [4, 9], SHAPE, 0)
    assert episodes.support.way == 0
    assert episodes.support.x.shape == episodes.support.y.shape == (2, 10, 1)
    assert episodes.query_x.shape == episodes.query_y.shape == (2, 7, 1)
    assert {t.dtype for t in (episodes.support.x, episodes.support.y, episodes.query_x)} == {torch.float32}
    assert len(torch.cat((episodes.support.x, episodes.query_x), 1).unique()) == 34


@pytest.mark.parametrize("name", NAMES)
def test_any_partition_of_the_numbers_gives_the_same_episodes(name: str) -> None:
    data = functions.load(name, None, 0)
    whole = joined(data.episodes("test", range(12), SHAPE, 5))
    for parts in ([range(12)], [range(5), range(5, 12)], [[i] for i in range(12)]):
        pieces = [joined(data.episodes("test", part, SHAPE, 5)) for part in parts]
        for axis in range(2):
            assert torch.equal(torch.cat([piece[axis] for piece in pieces]), whole[axis])
    x, y = joined(data.episodes("test", [7, 2], SHAPE, 5))
    assert torch.equal(x, whole[0][[7, 2]])
    assert torch.equal(y, whole[1][[7, 2]])


@pytest.mark.parametrize("name", NAMES)
def test_ways_do_not_matter_and_more_shots_add_to_the_first(name: str) -> None:
    data = functions.load(name, None, 0)
    few = data.episodes("train", range(3), EpisodeShape(way=2, shot=4, query=2), 0)
    many = data.episodes("train", range(3), EpisodeShape(way=9, shot=6, query=5), 0)
    assert torch.equal(few.support.x, many.support.x[:, :4])
    assert torch.equal(few.support.y, many.support.y[:, :4])


@pytest.mark.parametrize("name", NAMES)
def test_splits_and_seeds_have_no_task_in_common(name: str) -> None:
    data = functions.load(name, None, 0)
    streams = [("train", 0), ("validation", 0), ("test", 0), ("train", 1)]
    parameters = [torch.cat(list(data.tasks(split, range(500), seed).values()), 1) for split, seed in streams]
    assert len(torch.cat(parameters).unique(dim=0)) == 500 * len(streams)
    # Not a single parameter is shared either.
    assert len(torch.cat(parameters)[:, 0].unique()) == 500 * len(streams)


@pytest.mark.parametrize("name", NAMES)
def test_the_grid_is_the_episodes_function(name: str) -> None:
    data = functions.load(name, None, 0)
    x, y = data.grid("train", range(8), 3, points=20001)
    assert x.shape == (20001,)
    assert y.shape == (8, 20001)
    seen_x, seen_y = joined(data.episodes("train", range(8), SHAPE, 3))
    inside = (seen_x > x[0]) & (seen_x < x[-1])
    nearest = ((seen_x - x[0]) / (x[-1] - x[0]) * 20000).round().long().clamp(0, 20000)
    difference = (y.gather(1, nearest) - seen_y).abs()[inside]
    # A step may lie between the two.
    assert float((difference < 0.02).double().mean()) > 0.99


def test_descriptions_tell_families_apart() -> None:
    found = [functions.load(name, None, 0).describe() for name in NAMES]
    assert len({description["fingerprint"] for description in found}) == len(NAMES)
    assert [description["name"] for description in found] == NAMES
    assert found[0]["parameters"]["amplitude"] == {"law": "uniform", "a": 0.1, "b": 5.0, "count": 1}
    assert json.loads(json.dumps(found)) == found


def test_bad_names_are_refused() -> None:
    with pytest.raises(UserError, match="Did you mean 'sinusoid'"):
        functions.load("sinusiod", None, 0)
    with pytest.raises(UserError, match="Unknown split 'training'"):
        functions.load("steps", None, 0).episodes("training", [0], SHAPE, 0)


def test_normal_numbers_are_finite_at_both_ends() -> None:
    ends = torch.tensor([[0.0, 1.0 - 2.0**-53]], dtype=torch.float64)
    assert bool(functions.Draw(law="normal", a=0.0, b=1.0).of(ends).isfinite().all())
