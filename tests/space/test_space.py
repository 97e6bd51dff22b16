from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metarl.errors import UserError
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import SPLITS, FixedTasks, ParameterSpace
from metarl.types import Record
from tests.helpers.toys import seeded as generator


def parameter(name: str, scale: Any, **fields: Any) -> Parameter:
    return Parameter(name=name, unit="m", description="test", scale=scale, **fields)


VELOCITY = parameter("velocity", "uniform", low=0.0, high=2.0, ood=((2.0, 3.0),))
GOAL = parameter("goal", "uniform", low=-0.5, high=0.5, size=2, ood=((-1.0, -0.5), (0.5, 1.0)))
DAMPING = parameter("damping", "log-uniform", low=0.1, high=10.0, ood=(10.0, 30.0))
POSITION = parameter("position", "disc", radius=3.0, ood=(3.0, 4.0))
RING = parameter("ring", "disc", low=1.0, radius=2.0)
DIRECTION = parameter("direction", "sphere", size=2)
AXIS = parameter("axis", "sphere", size=5)
SIGN = parameter("sign", "choice", choices=(-1.0, 1.0))
SHAPE = parameter("shape", "choice", choices=(0.0, 1.0, 2.0), ood=(3.0,))
REWARDS = parameter("rewards", "normal", mean=1.0, std=2.0, size=3)
CHANCES = parameter("chances", "simplex", size=4, rows=3)
CONTINUOUS = (VELOCITY, GOAL, DAMPING, POSITION, RING, DIRECTION, AXIS, REWARDS, CHANCES)
ALL = (*CONTINUOUS, SIGN, SHAPE)


SEEDS = st.integers(0, 2**32)
RANGES = st.tuples(st.floats(-100.0, 100.0), st.floats(0.01, 100.0))
PARAMETERS = st.lists(st.sampled_from(ALL), max_size=4, unique_by=lambda p: p.name)


def build(chosen: list[Parameter], bounds: tuple[float, float], *, first: bool) -> ParameterSpace:
    """Return a space of the chosen parameters and one with a drawn range, which comes first or last."""
    drawn = parameter("drawn", "uniform", low=bounds[0], high=bounds[0] + bounds[1])
    return ParameterSpace("test@drawn", tuple([drawn, *chosen] if first else [*chosen, drawn]))


@given(PARAMETERS, RANGES, st.booleans(), SEEDS)
def test_every_task_lies_in_its_own_split_only(
    chosen: list[Parameter], bounds: tuple[float, float], first: bool, seed: int
) -> None:
    space = build(chosen, bounds, first=first)
    splits = SPLITS if space.has_ood else ("train", "test")
    for split in splits:
        tasks = space.sample(60, split, generator(seed))
        for other in splits:
            assert bool((space.contains(tasks, other) == (split == other)).all())


@given(PARAMETERS, RANGES, st.booleans(), SEEDS)
def test_records_bring_back_the_same_bits(
    chosen: list[Parameter], bounds: tuple[float, float], first: bool, seed: int
) -> None:
    space = build(chosen, bounds, first=first)
    for split in SPLITS if space.has_ood else ("train", "test"):
        tasks = space.sample(5, split, generator(seed))
        again = space.from_records(tasks.records())
        assert all(torch.equal(again[name], tasks[name]) for name in tasks.values)


@given(PARAMETERS, RANGES, st.booleans(), SEEDS)
def test_features_of_the_training_range_are_within_one(
    chosen: list[Parameter], bounds: tuple[float, float], first: bool, seed: int
) -> None:
    space = build(chosen, bounds, first=first)
    features = space.features(space.sample(50, "train", generator(seed)))
    assert features.shape == (50, space.feature_size)
    assert features.dtype == torch.float64
    if REWARDS not in chosen:
        assert features.abs().max() <= 1.0


@pytest.mark.parametrize("divided", CONTINUOUS, ids=lambda p: p.name)
@pytest.mark.parametrize("split", ["train", "test"])
def test_both_splits_cover_the_whole_range(divided: Parameter, split: str) -> None:
    space = ParameterSpace("test", (divided,))
    u = divided.coordinate(space.sample(4000, split, generator())[divided.name])
    # In every one of the 40 cells, so no part of the range is left to one split.
    assert torch.bincount((u * 40).long(), minlength=40).min() > 0
    assert (u * 40 % 1.0 < 0.8).all() == (split == "train")


def test_the_uniform_distribution_is_uniform() -> None:
    values = VELOCITY.sample(20_000, generator())
    assert values.shape == (20_000,)
    assert float(values.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(values.var()) == pytest.approx(4.0 / 12.0, abs=0.01)


def test_the_log_uniform_distribution_is_uniform_in_the_logarithm() -> None:
    values = DAMPING.sample(20_000, generator())
    assert float(values.log10().mean()) == pytest.approx(0.0, abs=0.02)
    assert float((values < 1.0).double().mean()) == pytest.approx(0.5, abs=0.02)


def test_a_normal_has_its_moments_and_scaled_features() -> None:
    values = REWARDS.sample(20_000, generator())
    assert values.shape == (20_000, 3)
    assert values.mean(0).tolist() == pytest.approx([1.0] * 3, abs=0.05)
    assert values.std(0).tolist() == pytest.approx([2.0] * 3, abs=0.05)
    assert REWARDS.features(torch.tensor([[1.0, 3.0, -3.0]], dtype=torch.float64)).tolist() == [[0.0, 1.0, -2.0]]


def test_a_simplex_is_a_flat_dirichlet() -> None:
    values = CHANCES.sample(20_000, generator()).reshape(20_000, 3, 4)
    assert bool((values >= 0.0).all())
    assert (values.sum(2) - 1.0).abs().max() < 1e-12
    # Mean 1/n, variance (n - 1) / (n^2 (n + 1)), covariance -1 / (n^2 (n + 1)), for every row.
    for row in range(3):
        assert values[:, row].mean(0).tolist() == pytest.approx([0.25] * 4, abs=0.005)
        covariance = torch.cov(values[:, row].T)
        expected = torch.full((4, 4), -1.0 / 80.0) + torch.eye(4) * 4.0 / 80.0
        assert (covariance - expected).abs().max() < 0.002
    # Rows are independent.
    assert torch.corrcoef(values[:, :, 0].T).fill_diagonal_(0.0).abs().max() < 0.03


def test_probabilities_typed_with_few_decimals_are_made_exact() -> None:
    space = ParameterSpace("test", (parameter("chances", "simplex", size=3),))
    tasks = space.from_records([{"chances": [0.333, 0.333, 0.333]}])
    assert tasks["chances"].tolist() == [pytest.approx([1.0 / 3.0] * 3, abs=1e-15)]
    for wrong in ([0.5, 0.6, 0.2], [1.2, -0.1, -0.1]):
        with pytest.raises(UserError, match=r"out of range. Allowed: 1 times 3 probabilities that sum to 1"):
            space.from_records([{"chances": wrong}])


@pytest.mark.parametrize(
    ("scale", "fields", "message"),
    [
        ("normal", {"mean": 0.0, "std": 0.0}, "needs a std above 0"),
        ("normal", {"mean": 0.0}, "needs \\['mean', 'std'\\]"),
        ("simplex", {"size": 2, "rows": 0}, "a simplex takes size 2 or more"),
        ("uniform", {"low": 0.0, "high": 1.0, "rows": 2}, "may have"),
    ],
)
def test_fields_of_normal_and_simplex_are_checked(scale: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parameter("p", scale, **fields)


def test_a_disc_is_uniform_over_its_area() -> None:
    radius = POSITION.sample(20_000, generator()).norm(dim=1)
    # Half of the area lies within the radius R / sqrt(2).
    assert float((radius < 3.0 / math.sqrt(2.0)).double().mean()) == pytest.approx(0.5, abs=0.02)
    ring = RING.sample(20_000, generator()).norm(dim=1)
    assert ring.min() >= 1.0
    assert ring.max() <= 2.0
    assert float((ring < math.sqrt(2.5)).double().mean()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("sphere", [DIRECTION, AXIS], ids=lambda p: p.name)
def test_a_sphere_has_no_preferred_direction(sphere: Parameter) -> None:
    values = sphere.sample(40_000, generator())
    torch.testing.assert_close(values.norm(dim=1), torch.ones(40_000, dtype=torch.float64))
    covariance = values.T @ values / len(values)
    expected = torch.eye(sphere.size, dtype=torch.float64) / sphere.size
    torch.testing.assert_close(covariance, expected, atol=0.01, rtol=0.0)
    torch.testing.assert_close(values.mean(0), torch.zeros_like(values[0]), atol=0.01, rtol=0.0)


def test_ood_intervals_are_drawn_by_their_length() -> None:
    gaps = parameter("x", "uniform", low=0.0, high=1.0, ood=((-3.0, 0.0), (1.0, 2.0)))
    values = gaps.sample_ood(20_000, generator())
    assert float((values < 0.0).double().mean()) == pytest.approx(0.75, abs=0.02)


def test_ood_parameters_without_an_ood_range_stay_in_their_training_range() -> None:
    tasks = ParameterSpace("test", (RING, VELOCITY, SHAPE)).sample(200, "ood", generator())
    assert RING.in_range(tasks["ring"]).all()
    assert (tasks["velocity"] > 2.0).all()
    assert (tasks["shape"] == 3.0).all()


def test_one_ood_component_is_enough_to_be_out_of_distribution() -> None:
    space = ParameterSpace("test", (GOAL,))
    tasks = space.from_records([{"goal": [0.7, 0.1]}])
    assert [bool(space.contains(tasks, split)) for split in SPLITS] == [False, False, True]


def test_the_ends_of_the_range_belong_to_exactly_one_split() -> None:
    space = ParameterSpace("test", (VELOCITY,))
    tasks = space.from_records([{"velocity": 0.0}, {"velocity": 2.0}, {"velocity": 3.0}])
    inside = torch.stack([space.contains(tasks, split) for split in SPLITS])
    assert inside.sum(0).tolist() == [1, 1, 1]
    assert inside[2].tolist() == [False, False, True]


def test_a_family_without_ood_says_so() -> None:
    with pytest.raises(UserError, match="test-dir has no out-of-distribution part"):
        ParameterSpace("test-dir", (SIGN,)).sample(2, "ood", generator())
    with pytest.raises(UserError, match=r"unknown split 'tset'\. Did you mean 'test'"):
        ParameterSpace("test-dir", (SIGN,)).sample(2, "tset", generator())


def test_choices_alone_are_balanced_and_shuffled_and_coincide() -> None:
    space = ParameterSpace("test", (SIGN,))
    assert space.coincide
    train = space.sample(40, "train", generator())["sign"]
    assert train.sum() == 0.0
    assert sorted(train.tolist()) != train.tolist()
    assert space.contains(space.sample(4, "train", generator()), "test").all()

    both = ParameterSpace("test", (SIGN, SHAPE))
    assert (space.train_tasks, both.train_tasks) == (2, 6)
    pairs = [tuple(record.values()) for record in both.sample(14, "train", generator()).records()]
    counts = [pairs.count(pair) for pair in set(pairs)]
    assert sorted(counts) == [2, 2, 2, 2, 3, 3]


def test_choices_beside_continuous_parameters_do_not_coincide() -> None:
    assert not ParameterSpace("test", (SIGN, VELOCITY)).coincide


def test_sampling_depends_on_the_passed_generator_only() -> None:
    space = ParameterSpace("test", ALL)
    before = torch.get_rng_state()
    first, second = (space.sample(20, "ood", generator(3)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first.values)
    assert not torch.equal(space.sample(20, "ood", generator(4))["velocity"], first["velocity"])
    assert torch.equal(torch.get_rng_state(), before)


def test_fixed_sets_are_fixed_disjoint_and_given_without_repetition() -> None:
    space = ParameterSpace("test", (VELOCITY,), FixedTasks(train=100, test=30, seed=1))
    again = ParameterSpace("test", (VELOCITY,), FixedTasks(train=100, test=30, seed=1))
    train, test = (
        set(space.sample(n, s, generator(5))["velocity"].tolist()) for n, s in [(100, "train"), (30, "test")]
    )
    assert (len(train), len(test), len(train & test)) == (100, 30, 0)
    assert torch.equal(
        space.sample(30, "test", generator(8))["velocity"], again.sample(30, "test", generator(9))["velocity"]
    )

    few = space.sample(40, "train", generator(2))["velocity"].tolist()
    assert len(set(few)) == 40
    assert set(few) <= train
    many = space.sample(250, "train", generator(2))["velocity"].tolist()
    assert set(many) == train
    assert max(many.count(value) for value in train) == 3

    endless = ParameterSpace("test", (VELOCITY,))
    assert (space.train_tasks, endless.train_tasks) == (100, None)
    fresh = endless.sample(50, "train", generator(2))
    assert not space.contains(fresh, "train").any()
    assert space.contains(space.sample(250, "train", generator(2)), "train").all()
    assert not space.contains(space.sample(30, "test", generator(2)), "train").any()
    assert space.contains(space.sample(10, "ood", generator(2)), "ood").all()


def test_changing_a_sample_does_not_change_the_fixed_set() -> None:
    space = ParameterSpace("test", (VELOCITY,), FixedTasks(train=5, test=5))
    space.sample(5, "test", generator())["velocity"].zero_()
    assert space.sample(5, "test", generator())["velocity"].min() > 0.0


def test_features_by_hand() -> None:
    space = ParameterSpace("test", (VELOCITY, DAMPING, POSITION, SIGN, SHAPE))
    record: Record = {"velocity": 0.5, "damping": 1.0, "position": [1.5, -3.0], "sign": 1.0, "shape": 2.0}
    expected = [[-0.5, 0.0, 0.5, -1.0, 1.0, 0.0, 0.0, 1.0, 0.0]]
    features = space.features(space.from_records([{**record, "position": [1.5, -2.0]}]))
    expected[0][3] = -2.0 / 3.0
    torch.testing.assert_close(features, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"velocty": 1.0, "goal": [0.0, 0.0]}, "unknown task field 'velocty'. Did you mean 'velocity'"),
        ({"velocity": 1.0}, "lacks the field 'goal'"),
        (
            {"velocity": 5.0, "goal": [0.0, 0.0]},
            "velocity got 5.0, out of range. Allowed: 0 to 2 m .*2 to 3 m",
        ),
        ({"velocity": math.nan, "goal": [0.0, 0.0]}, "velocity got nan, not finite"),
        ({"velocity": "1", "goal": [0.0, 0.0]}, "velocity got '1', not finite numbers"),
        ({"velocity": True, "goal": [0.0, 0.0]}, "velocity got True, not finite numbers"),
        ({"velocity": [1.0], "goal": [0.0, 0.0]}, "needs one number"),
        ({"velocity": 1.0, "goal": [0.0, 0.0, 0.0]}, "needs a list of 2 numbers"),
        ({"velocity": 1.0, "goal": 0.0}, "needs a list of 2 numbers"),
        ({"velocity": 1.0, "goal": [[0.0], [0.0, 1.0]]}, "no plain list"),
        ({"velocity": 1.0, "goal": [0.0, 7.0]}, r"goal got \[0.0, 7.0\], out of range"),
        ([1.0], "Give a record such as"),
    ],
)
def test_bad_records_are_refused(record: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        # A list annotation would be refused by the shape checker before it reaches the shipped check.
        inspect.unwrap(ParameterSpace.from_records)(ParameterSpace("test", (VELOCITY, GOAL)), [record])


def test_a_rounded_direction_becomes_a_unit_vector_and_a_wrong_one_is_refused() -> None:
    space = ParameterSpace("test", (DIRECTION,))
    tasks = space.from_records([{"direction": [0.7071, 0.7071]}])
    assert float(tasks["direction"].norm()) == pytest.approx(1.0, abs=1e-15)
    with pytest.raises(UserError, match="unit vector of 2 numbers"):
        space.from_records([{"direction": [1.0, 1.0]}])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": "uniform", "low": 2.0, "high": 1.0}, "needs low < high"),
        ({"scale": "uniform", "low": 0.0}, "needs"),
        ({"scale": "uniform", "low": 0.0, "high": 1.0, "radius": 2.0}, "may have"),
        ({"scale": "log-uniform", "low": 0.0, "high": 1.0}, "takes no range from 0"),
        ({"scale": "choice", "choices": (1.0, 1.0)}, "appears twice"),
        ({"scale": "choice", "choices": (1.0,), "ood": (1.0,)}, "appears twice"),
        ({"scale": "uniform", "low": 0.0, "high": 1.0, "ood": ((0.5, 2.0),)}, "must not overlap"),
        ({"scale": "uniform", "low": 0.0, "high": 1.0, "ood": (2.0, 3.0, 4.0)}, "several of those"),
        ({"scale": "disc", "radius": 1.0, "ood": (0.5, 2.0)}, "must not overlap"),
        ({"scale": "sphere", "size": 2, "ood": (0.5, 2.0)}, "may have"),
    ],
)
def test_impossible_parameters_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Parameter(name="x", unit="", description="", **fields)


def test_impossible_spaces_are_refused() -> None:
    with pytest.raises(UserError, match="each name once"):
        ParameterSpace("test", (SIGN, SIGN))
    with pytest.raises(UserError, match="fixed sets need a continuous parameter"):
        ParameterSpace("test", (SIGN,), FixedTasks(train=2, test=2))
    other = ParameterSpace("other", (SIGN,)).sample(2, "train", generator())
    with pytest.raises(UserError, match="Got tasks of other"):
        ParameterSpace("test", (VELOCITY,)).features(other)


def test_describe_names_range_unit_and_meaning() -> None:
    lines = ParameterSpace("test", (VELOCITY, SIGN), FixedTasks(train=3, test=2)).describe()
    assert lines == [
        "velocity: 0 to 2 m (out of distribution: 2 to 3 m), uniform; test",
        "sign: one of -1, 1 m, choice; test",
        "3 train and 2 test tasks, fixed by seed 0",
    ]


def test_choices_are_read_by_their_names_and_stay_numbers() -> None:
    shape = parameter("shape", "choice", choices=(2.0, 0.0), ood=(5.0,), choice_names=("T", "bar", "cross"))
    assert [shape.in_words(torch.tensor(value)) for value in (0.0, 2.0, 5.0)] == [
        "shape bar m",
        "shape T m",
        "shape cross m",
    ]
    assert shape.ranges() == ("one of 2, 0 m (T, bar)", "5 m (cross)")
    assert shape.allowed() == "one of 2, 0 m (out of distribution: 5 m)"
    space = ParameterSpace("test", (shape, POSITION, REWARDS, CHANCES))
    tasks = space.sample(1, "train", generator())
    assert tasks.records()[0]["shape"] in (0.0, 2.0)
    tasks["shape"][:], tasks["position"][:], tasks["rewards"][:] = 2.0, torch.tensor([1.0, -2.5]), 0.25
    assert space.in_words(tasks) == [
        "shape T m, position (1, -2.5) m, rewards (0.25, 0.25, 0.25) m, chances (12 numbers) m"
    ]
    signs = ParameterSpace("test", (SIGN,))
    assert signs.in_words(signs.from_records([{"sign": -1.0}])) == ["sign -1 m"]


@pytest.mark.parametrize("names", [("one",), ("one", "two", "three")])
def test_every_choice_has_a_name_or_none(names: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="Name each"):
        parameter("sign", "choice", choices=(-1.0, 1.0), choice_names=names)
