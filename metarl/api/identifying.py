"""What a log says of a family's unknown parameters, from Python: what `metarl identify` does."""

from __future__ import annotations

from pathlib import Path

import torch

from metarl import memory
from metarl.api.identification import ROBOT, Identification
from metarl.devices import resolve_device
from metarl.envs import get, make_worlds
from metarl.envs.family import Family
from metarl.errors import UserError, tell
from metarl.files import Folder
from metarl.identification import fitting, summary
from metarl.identification.cutting import cut
from metarl.identification.log import Log, read_log
from metarl.identification.narrowing import modifiers_of, narrowed, narrowed_name, robot_of
from metarl.identification.posterior import NOISE, Posterior, Seen, posterior
from metarl.identification.prior import Prior
from metarl.identification.segments import Segments
from metarl.identification.simulator import Simulator
from metarl.identification.states import Looking
from metarl.run.settings import Device, Engine
from metarl.seeding import Streams

POPULATION = 128
"""Tasks of a generation, where no number is given; more where there is much to be fitted."""
WORLDS = 4096
"""Most worlds at once."""


def identify(
    log: Log | Path | str,
    family: Family | str | None = None,
    *,
    task: int | None = None,
    segment_steps: int = 5,
    segments: int = 64,
    population: int | None = None,
    draws: int = 1000,
    anyway: bool = False,
    seed: int = 0,
    out: Folder | Path | str | None = None,
    device: Device = "cpu",
    engine: Engine = "auto",
    threads: int = 0,
    progress: bool = True,
) -> Identification:
    """Find a family's parameters from a log of a system, with 90% intervals.

    Args:
        log: an NPZ file or a Minari data set (metarl/identification/README.md), or what
            `metarl.identification.log.read_log` returns.
        family: what the system is taken for, with modifiers for what is unknown; None for the log's own.
        task: which of the tasks of an evaluation's log.
        segment_steps: steps that are simulated from a state, H.
        segments: most segments.
        population: tasks of a generation; if None 128, or 3 for each number that is fitted to them.
        draws: from the posterior.
        anyway: return a result where the family does not fit the log at all.
        seed: of all that is drawn.
        out: folder that the result is written to (see `Identification.write`); if None nothing is written.
        device: where the GPU engine is.
        engine: what steps the worlds: `cpu`, `gpu` or `auto`.
        threads: CPU threads; 0 for all cores.
        progress: tell of each generation on standard error.

    Raises:
        UserError: the log or the family is wrong, or they do not fit one another.

    Example:
        >>> found = metarl.identify("log.npz", "half-cheetah-vel+mass+friction")
        >>> found.narrowed
    """
    if out is not None and Folder.of(out).path.exists() and not Folder.of(out).path.is_dir():
        raise UserError(f"Got {Folder.of(out).path} for --out, which is a file. Name a folder.")
    log = log if isinstance(log, Log) else read_log(log)
    family = _family(log, family)
    _check_numbers(segment_steps=segment_steps, segments=segments, draws=draws, population=population or POPULATION)
    fitting.check_log(log, family)
    log = fitting.one_task(log, task)
    prior = Prior(family.space)
    worlds = make_worlds(
        family,
        min(WORLDS, (population or POPULATION) * segments),
        threads=threads,
        unit_actions=False,
        dtype=torch.float64,
        engine=engine,
        device=resolve_device(device),
    )
    generator = Streams(seed)["identify"]
    looking = Looking(family, worlds, family.space.sample(1, "train", generator))
    pieces = cut(log, looking, steps=segment_steps, most=segments, generator=generator)
    seen = _seen(pieces, looking)
    unknown = 1 + prior.size + len(seen.reach)
    population = population or max(POPULATION, 3 * unknown)
    if population < 2 * unknown:
        raise UserError(
            f"Got --population {population}, and {unknown} numbers are fitted to it. Give {2 * unknown} or more, or "
            "leave it out."
        )
    numbers = population * (len(seen.channels) + unknown) + len(seen.channels) ** 2
    memory.require(
        {
            "--segments or --population": 6 * memory.DOUBLE * len(pieces) * numbers,
            "--draws": 4 * memory.DOUBLE * draws * (prior.size + 1),
        }
    )
    simulator = Simulator(looking, pieces)
    found = posterior(
        simulator.misses,
        seen,
        prior,
        generator,
        population=population,
        draws=draws,
        tell=tell if progress else lambda text: None,
    )
    return _summed_up(log, family, prior, found, simulator, anyway=anyway, out=out)


def _seen(pieces: Segments, looking: Looking) -> Seen:
    """Return what the posterior has to know of segments."""
    size = pieces.slopes.shape[2]
    reach = looking.reach(pieces.states) if size else torch.zeros(0, dtype=torch.float64)
    told = pieces.slopes.transpose(1, 2) @ pieces.slopes / NOISE**2 + reach.square().reciprocal().diag()
    return Seen(channels=pieces.channels, reach=reach, begun=torch.linalg.inv(told))


def _summed_up(
    log: Log,
    family: Family,
    prior: Prior,
    found: Posterior,
    simulator: Simulator,
    *,
    anyway: bool,
    out: Folder | Path | str | None,
) -> Identification:
    """Return what was found, written where it is to be."""
    pieces = simulator.segments
    fit = summary.fit(found, pieces)
    warning = fitting.check_fit(log, family, fit, anyway=anyway)
    rows = summary.quantities(prior, found, log)
    ranges = narrowed(prior.space, rows)
    name, robot = narrowed_name(family, ranges), robot_of(family)
    if robot is not None:
        file = robot.robot.file.path if out is None else Folder.of(out).path / ROBOT
        name = f"{file}{modifiers_of(name)}"
    result = Identification(
        family=family.full_name,
        narrowed=name,
        log=log.where,
        quantities=rows,
        together=summary.together(prior, found, rows),
        fit=fit,
        ranges=ranges,
        warning=warning,
        modes=[part for part in found.modes if part > summary.MODE],
        facts={
            "episodes": len(log),
            "steps": int(log.lengths.sum()),
            "segments": len(pieces),
            "segment_steps": pieces.steps,
            "states": pieces.how,
            "rewards": pieces.rewarded,
            "generations": found.generations,
            "simulated_steps": simulator.simulated,
            "scatter": found.scatter,
        },
        draws={name: value.numpy() for name, value in found.tasks.values.items()},
        robot=robot,
    )
    if out is not None:
        result.write(out)
    return result


def _family(log: Log, family: Family | str | None) -> Family:
    """Return the family that a log is of, or that was asked for."""
    if isinstance(family, Family):
        return family
    if family is not None:
        return get(family)
    try:
        return get(log.family)
    except UserError as error:
        raise UserError(
            f"{log.where} is of the family {log.family}, which is not known by this name. Give --family, for a robot "
            "its file."
        ) from error


def _check_numbers(**numbers: int) -> None:
    least = {"segment_steps": 1, "segments": 4, "draws": 100, "population": 16}
    for name, number in numbers.items():
        if number < least[name]:
            raise UserError(f"Got --{name.replace('_', '-')} {number}. Give {least[name]} or more.")
