"""The posterior where it can be had by hand: straight lines with normal noise."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.identification.posterior import Posterior, Seen, posterior
from metarl.identification.prior import Prior
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import ParameterSpace
from metarl.types import Tasks

SLOPE = Parameter(name="slope", unit="", description="a slope", scale="normal", mean=0.0, std=1.0)
PRIOR = Prior(ParameterSpace("line@test", (SLOPE,)))


def found(simulate: object, channels: list[int], reach: list[float], segments: int) -> Posterior:
    size = len(reach)
    begun = torch.eye(size, dtype=torch.float64).expand(segments, -1, -1) * 0.01
    seen = Seen(channels=torch.tensor(channels), reach=torch.tensor(reach, dtype=torch.float64), begun=begun)
    generator = torch.Generator().manual_seed(0)
    return posterior(simulate, seen, PRIOR, generator, population=64, draws=4000)  # pyright: ignore[reportArgumentType]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_regression_is_the_one_by_hand() -> None:
    """y = 0.7 u + noise of 0.2: the slope has mean sum(u y) / p and deviation 0.2 / sqrt(p), p = sum(u²) + 0.2²."""
    u = normal(200, seed=1)
    y = 0.7 * u + 0.2 * normal(200, seed=2)

    def simulate(tasks: Tasks, starts: Tensor) -> Tensor:
        # 40 segments of 5 numbers.
        return (tasks["slope"][:, None] * u - y).unflatten(1, (40, 5))

    result = found(simulate, [0] * 5, [], 40)
    precision = float(u.square().sum()) + 0.04
    slopes = result.tasks["slope"]
    assert abs(float(slopes.mean()) - float((u * y).sum()) / precision) < 0.008
    assert abs(float(slopes.std()) / (0.2 / precision**0.5) - 1.0) < 0.15
    # The scale of a Student-t distribution is a little less.
    assert abs(float(result.noise[0]) / 0.2 - 1.0) < 0.2
    assert result.modes == [1.0]
    assert abs(result.scatter - 1.0) < 0.3


def test_noise_in_what_a_segment_begins_with_does_not_pull_slopes_to_zero() -> None:
    """Begins at u and ends at 1.5 u, seen with noise of 0.5: a plain regression tells 1.5 / (1 + 0.25) = 1.2.

    By hand it is the direction in which points are spread most (total least squares); the least spread is the noise.
    """
    u = normal(400, seed=4)
    points = torch.stack((u + 0.5 * normal(400, seed=5), 1.5 * u + 0.5 * normal(400, seed=6)))
    first, last = points
    spread, directions = torch.linalg.eigh(points @ points.T / 400)
    by_hand = float(directions[1, 1] / directions[0, 1])
    plain = float((first * last).sum() / first.square().sum())
    assert plain < 1.25 < 1.4 < by_hand < 1.6

    def simulate(tasks: Tasks, starts: Tensor) -> Tensor:
        begun = first + starts[:, :, 0]
        return torch.stack((begun - first, tasks["slope"][:, None] * begun - last), dim=2)

    result = found(simulate, [0, 0], [10.0], 400)
    slopes = result.tasks["slope"]
    assert abs(float(slopes.mean()) - by_hand) < 0.04
    low, high = torch.quantile(slopes, torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
    assert plain < low < by_hand < high
    assert abs(float(result.noise[0]) / float(spread[0].sqrt()) - 1.0) < 0.2


def test_simulations_that_fail_are_left_out() -> None:
    u = normal(50, seed=1)
    y = 0.7 * u + 0.02 * normal(50, seed=2)

    def simulate(tasks: Tasks, starts: Tensor) -> Tensor:
        misses = tasks["slope"][:, None] * u - y
        return misses.where(tasks["slope"][:, None] < 1.0, torch.full_like(misses, 1e3))[:, :, None]

    slopes = found(simulate, [0], [], 50).tasks["slope"]
    assert abs(float(slopes.mean()) - 0.7) < 0.02
