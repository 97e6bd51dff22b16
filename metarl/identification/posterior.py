"""The posterior over task parameters, by populations of simulated tasks: no gradients, and little assumed.

A task is a point x with a standard normal prior (prior.py). Segment s of a log begins in a state that is known only as
well as sensors tell it: z_s away from what was estimated. A simulation of both gives the misses r_s(x, z_s), Q numbers:
what comes out less what was seen, from the first observation on. They are taken as noise of the sensors, whose size is
estimated for every number of an observation, and as more where a simulation is not to be trusted:

    r_s ~ Student-t(0, R + U_s),   R: noise of sensors, a diagonal;   U_s: what a straight line does not explain.

From several regions (the prior, and where its draws fit best), for every combination of choices:

    1. Draw x and all z_s from the region, simulate, and fit r_s ~ a_s + B_s (x - m) + G_s (z_s - n_s) by least squares;
       what that leaves is U_s. So a region shrinks only as fast as the line becomes right.
    2. Take the posterior of x, z_s and R with these lines as the next region. The z_s are integrated out, so that
       intervals of x hold what an unknown start adds; and lines are taken where starts are by all that was seen, not by
       the first observation alone, as noise in what a regression is given would pull its slopes to zero.

This is iterated posterior linearisation (García-Fernández et al. 2015) with regression in place of quadrature, for a
regression with errors in its variables. Real systems do not keep to noise that is independent in time: where the
segments' pulls at x scatter more than that model says, intervals are made wider by as much (a sandwich estimate).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.identification.prior import Prior
from metarl.types import Tasks

DEGREES = 6.0
"""Of freedom of the misses' distribution: segments that do not fit (a contact met or missed) count for little."""
FLOOR = 1e-3
"""Least noise, in units of an observation's change in a segment: no simulation of a real system is better."""
NOISE = 0.1
"""The noise that is begun with, in these units."""
REGIONS = 2
"""Regions that are begun from for each combination of choices."""
GENERATIONS = 15
"""Most generations of a region."""
SHRINK = 1.0 / 16.0
"""Part of a region's covariance that the next one keeps."""
FARTHEST = 4.0
"""Standard deviations of a region that its middle moves at most."""
STILL = 0.4
"""Standard deviations, and differences of log-volume per number, below which a region stands still."""
SAME = 3.0
"""Standard deviations below which the middles of two modes are one."""
LEFT_BEHIND = 40.0
"""Differences of log-evidence from which on a region is given up."""
ROUNDS = 4
"""In which x, starts and noise are found for one line."""

Simulate = Callable[[Tasks, Float[Tensor, "N S Z"]], Float[Tensor, "N S Q"]]
"""What comes out less what was seen, in units of an observation's change; N tasks, each with its starts."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a posterior needs to know of S segments, beside their simulation."""

    channels: Int[Tensor, " Q"]
    """To which number of an observation each of Q numbers belongs."""
    reach: Float[Tensor, " Z"]
    """Standard deviation of the starts before anything is seen; Z is 0 where starts are known."""
    begun: Float[Tensor, "S Z Z"]
    """Covariance of the starts by their own observation, at the noise that is begun with."""


@dataclass
class Region:
    """A normal distribution over x for one combination of choices, and what goes with it."""

    stratum: int
    mean: Float[Tensor, " D"]
    cov: Float[Tensor, "D D"]
    starts: Float[Tensor, "S Z"]
    spread: Float[Tensor, "S Z Z"]
    """Mean and covariance of the starts."""
    noise: Float[Tensor, " C"]
    """Diagonal of R, by number of an observation."""
    drawn: Float[Tensor, "D D"]
    """Covariance that the next population is drawn with."""
    evidence: float = -math.inf
    """Log of the likelihood's integral over the prior, by the straight line, less what all regions share."""
    scatter: float = 1.0
    """By how much the segments' pulls scatter more than the noise says."""
    done: bool = False


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """Draws of tasks."""

    tasks: Tasks
    """N, equally likely."""
    noise: Float[Tensor, " C"]
    """Of sensors, standard deviation in units of the change, by number of an observation."""
    misses: Float[Tensor, "S Q"]
    """Of the best mode's middle, as simulated there."""
    modes: list[float]
    """Probability of each mode, the most likely first."""
    scatter: float
    """By how much the segments' pulls scatter more than the noise says; above 1, variances are larger by as much."""
    generations: int
    """Populations that were simulated of a region."""


def posterior(
    simulate: Simulate,
    seen: Seen,
    prior: Prior,
    generator: torch.Generator,
    *,
    population: int,
    draws: int,
    tell: Callable[[str], None] = lambda text: None,
) -> Posterior:
    """Return the posterior.

    Args:
        simulate: gives the misses.
        seen: what there is beside it.
        prior: over tasks.
        generator: of all that is drawn.
        population: tasks of a generation.
        draws: of the result.
        tell: is given a line about each generation.
    """
    regions = _begin(simulate, seen, prior, generator, population)
    generations = 1
    while any(not region.done for region in regions) and generations < GENERATIONS:
        for region in regions:
            if not region.done:
                _improve(simulate, seen, prior, generator, region, population)
        generations += 1
        regions = _merged(regions)
        spread = math.exp(0.5 * float(torch.logdet(regions[0].cov)) / max(1, prior.size))
        miss = math.sqrt(float(regions[0].noise.median()))
        tell(f"generation {generations}: {len(regions)} regions, spread {spread:.2g}, miss {miss:.2g}")
    best = regions[0]
    for region in regions:
        region.cov = _wider(region.cov, max(1.0, region.scatter))
    shares = torch.softmax(torch.tensor([region.evidence for region in regions], dtype=torch.float64), 0)
    picked = torch.multinomial(shares, draws, replacement=True, generator=generator).sort().values
    normal = torch.randn(draws, prior.size, generator=generator, dtype=torch.float64)
    x = torch.stack([regions[i].mean + _root(regions[i].cov) @ row for i, row in zip(picked, normal, strict=True)])
    return Posterior(
        tasks=prior.tasks(x, [regions[i].stratum for i in picked]),
        noise=best.noise.sqrt(),
        misses=simulate(prior.tasks(best.mean[None], [best.stratum]), best.starts[None])[0],
        modes=sorted(shares.tolist(), reverse=True),
        scatter=best.scatter,
        generations=generations,
    )


def _begin(simulate: Simulate, seen: Seen, prior: Prior, generator: torch.Generator, population: int) -> list[Region]:
    """Return regions to begin with: for every combination of choices the prior, and where draws from it fit best."""
    regions = []
    segments, size = seen.begun.shape[:2]
    starts = torch.zeros(segments, size, dtype=torch.float64)
    noise = torch.full((int(seen.channels.max()) + 1,), NOISE**2, dtype=torch.float64)
    for stratum in range(len(prior.strata)):
        x = torch.randn(population if prior.size else 1, prior.size, generator=generator, dtype=torch.float64)
        misses = simulate(prior.tasks(x, [stratum] * len(x)), starts.expand(len(x), -1, -1))
        # By the median over segments, so that a few that fail do not decide.
        order = misses.square().mean(2).median(1).values.argsort()
        middles = [torch.zeros(prior.size, dtype=torch.float64), *x[order[: REGIONS - 1 if prior.size else 0]]]
        for number, middle in enumerate(middles):
            cov = torch.eye(prior.size, dtype=torch.float64) * (1.0 if number == 0 else 0.25)
            regions.append(Region(stratum, middle, cov, starts, seen.begun, noise, cov))
    return regions


def _improve(
    simulate: Simulate, seen: Seen, prior: Prior, generator: torch.Generator, region: Region, population: int
) -> None:
    """Simulate a population of a region, and move the region to the posterior of the straight lines through it."""
    middle, size = region.mean, prior.size
    normal = torch.randn(population, size, generator=generator, dtype=torch.float64)
    away = torch.randn(population, *region.starts.shape, generator=generator, dtype=torch.float64)
    roots, root = _root(region.spread), _root(region.drawn)
    x = middle + normal @ root.T
    starts = region.starts + torch.einsum("szy,nsy->nsz", roots, away)
    misses = simulate(prior.tasks(x, [region.stratum] * population), starts)
    lines = _lines(misses, normal, away)
    lines.by_task = _per(lines.by_task, root.expand(len(roots), -1, -1))
    lines.by_start = _per(lines.by_start, roots)
    found = _settled(lines, seen, region)
    step = found.mean - middle
    length = math.sqrt(max(0.0, float(step @ torch.linalg.solve(region.drawn, step)))) if size else 0.0
    step = step * min(1.0, FARTHEST / max(length, 1e-12))
    before, after = float(torch.logdet(region.cov)), float(torch.logdet(found.cov))
    moved = math.sqrt(max(0.0, float(step @ torch.linalg.solve(found.cov, step))) / size) if size else 0.0
    region.done = length < FARTHEST and moved < STILL and abs(after - before) < STILL * max(1, size)
    region.drawn = found.cov + SHRINK * region.drawn
    region.mean, region.cov = middle + step, found.cov
    region.starts, region.spread, region.noise = found.starts, found.spread, found.noise
    region.evidence, region.scatter = found.evidence, found.scatter


@dataclass
class _Lines:
    """Straight lines through the misses of a population, one for each number of each segment."""

    at: Float[Tensor, "S Q"]
    by_task: Float[Tensor, "S Q D"]
    by_start: Float[Tensor, "S Q Z"]
    left: Float[Tensor, "S Q Q"]
    """Covariance of what they leave."""


def _lines(misses: Float[Tensor, "N S Q"], x: Float[Tensor, "N D"], z: Float[Tensor, "N S Z"]) -> _Lines:
    """Fit straight lines by least squares."""
    population, segments, _ = misses.shape
    misses, z = misses.transpose(0, 1), z.transpose(0, 1)
    design = torch.cat((x.new_ones(segments, population, 1), x.expand(segments, -1, -1), z), dim=2)
    # Simulations that are far off say nothing about the line near the others.
    off = misses.square().mean(2)
    keep = (off <= 100.0 * off.median(1, keepdim=True).values + 1e-12).double()
    design, misses = design * keep[:, :, None], misses * keep[:, :, None]
    lines = torch.linalg.lstsq(design, misses).solution.transpose(1, 2)
    rest = misses - design @ lines.transpose(1, 2)
    free = (keep.sum(1) - design.shape[2]).clamp_min(1.0)
    left = rest.transpose(1, 2) @ rest / free[:, None, None]
    return _Lines(lines[:, :, 0], lines[:, :, 1 : 1 + x.shape[1]], lines[:, :, 1 + x.shape[1] :], left)


def _per(slopes: Float[Tensor, "S Q K"], roots: Float[Tensor, "S K K"]) -> Float[Tensor, "S Q K"]:
    """Return slopes by what was drawn, from those by the normal numbers that it was made of."""
    return torch.linalg.solve_triangular(roots, slopes, upper=False, left=False)


def _settled(lines: _Lines, seen: Seen, region: Region) -> Region:
    """Return the posterior where misses are straight lines, and the noise that makes them most likely."""
    size = len(region.mean)
    segments, numbers = lines.at.shape
    # As seen from the starts' own middle, 0.
    base = lines.at - torch.einsum("sqz,sz->sq", lines.by_start, region.starts)
    found = Region(region.stratum, region.mean, region.cov, region.starts, region.spread, region.noise, region.drawn)
    counts = torch.zeros_like(region.noise).index_add_(0, seen.channels, torch.ones(numbers, dtype=torch.float64))
    free = numbers - len(seen.reach)
    eye = torch.eye(size, dtype=torch.float64)
    for _ in range(ROUNDS):
        noise = found.noise[seen.channels]
        whole = torch.linalg.cholesky(lines.left + noise.diag())
        inverse = torch.cholesky_inverse(whole)
        turned = lines.by_start.transpose(1, 2) @ inverse
        told = turned @ lines.by_start + seen.reach.square().reciprocal().diag()
        spread = torch.linalg.inv(told)
        # With the starts integrated out.
        inverse = inverse - turned.transpose(1, 2) @ spread @ turned
        by_task = inverse @ lines.by_task
        miss = base + torch.einsum("sqd,d->sq", lines.by_task, found.mean - region.mean)
        distances = torch.einsum("sq,sqp,sp->s", miss, inverse, miss)
        weights = (DEGREES + free) / (DEGREES + distances)
        precision = torch.einsum("s,sqd,sqe->de", weights, lines.by_task, by_task)
        pull = torch.einsum("s,sq,sqd->d", weights, base, by_task)
        mean = torch.linalg.solve(eye + precision, precision @ region.mean - pull)
        # What misses of this distribution tell of their middle.
        precision = precision * (DEGREES + free) / (DEGREES + free + 2.0)
        cov = torch.linalg.inv(eye + precision)
        miss = base + torch.einsum("sqd,d->sq", lines.by_task, mean - region.mean)
        turn = spread @ turned
        # The noise's share of every miss, and how well that share is known (expectation maximisation).
        share = noise * torch.einsum("sqp,sp->sq", inverse, miss)
        known = noise - noise.square() * (
            inverse.diagonal(dim1=1, dim2=2) - torch.einsum("sqd,de,sqe->sq", by_task, cov, by_task)
        )
        total = (weights[:, None] * share.square() + known).sum(0)
        new = torch.zeros_like(found.noise).index_add_(0, seen.channels, total) / (segments * counts)
        found.mean, found.cov = mean, cov
        found.noise = new.clamp_min(FLOOR**2)
        found.starts = -torch.einsum("szq,sq->sz", turn, miss)
        lever = turn @ lines.by_task
        found.spread = spread + lever @ cov @ lever.transpose(1, 2)
        scores = weights[:, None] * torch.einsum("sqd,sq->sd", by_task, miss)
        found.evidence = float(
            -0.5 * (DEGREES + free) * torch.log1p(distances / DEGREES).sum()
            - whole.diagonal(dim1=1, dim2=2).log().sum()
            - 0.5 * torch.logdet(told).sum()
            - 0.5 * mean.square().sum()
            + 0.5 * torch.logdet(cov)
        )
        found.scatter = float(torch.linalg.solve(precision + 1e-9 * eye, scores.T @ scores).trace()) / max(1, size)
    return found


def _wider(cov: Float[Tensor, "D D"], factor: float) -> Float[Tensor, "D D"]:
    """Return a posterior's covariance where what was seen counts for less; the prior counts as it did."""
    eye = torch.eye(len(cov), dtype=cov.dtype)
    return torch.linalg.inv(eye + (torch.linalg.inv(cov) - eye) / factor)


def _root(cov: Float[Tensor, "*S D D"]) -> Float[Tensor, "*S D D"]:
    """Return a square root of covariances."""
    return torch.linalg.cholesky(cov + 1e-14 * torch.eye(cov.shape[-1], dtype=cov.dtype))


def _merged(regions: list[Region]) -> list[Region]:
    """Return the regions, the best first, without those that came to where a better one is, and those left behind."""
    kept: list[Region] = []
    regions = sorted(regions, key=lambda region: -region.evidence)
    for region in regions:
        if regions[0].done and region.evidence < regions[0].evidence - LEFT_BEHIND:
            continue
        if any(_apart(region, other) < SAME for other in kept if other.stratum == region.stratum):
            continue
        kept.append(region)
    return kept


def _apart(one: Region, other: Region) -> float:
    """Return how many standard deviations two middles are apart, of those that populations are drawn with."""
    step = one.mean - other.mean
    return math.sqrt(max(0.0, float(step @ torch.linalg.solve(one.drawn + other.drawn, step)))) if len(step) else 0.0
