"""Training an agent from Python: what `metarl train` does."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from json import dumps as to_json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from metarl.agents import config_class, make
from metarl.api.finding import family_of, own_name
from metarl.api.memory import check_training
from metarl.api.runs import Run
from metarl.api.validating import validation_said, validation_tasks, validation_worlds
from metarl.arguments import checked
from metarl.config import check_numbers, check_used, from_plain, to_plain
from metarl.devices import repeatable, resolve_device, resolve_threads
from metarl.envs import families, get, make_worlds, mujoco_log
from metarl.envs.family import Family
from metarl.envs.making import describe_engine
from metarl.envs.modifiers.switching import check_trials
from metarl.envs.registry import address, resolve, sources_of
from metarl.errors import UserError, nearest
from metarl.evaluation.validation import Validation
from metarl.ranks import Ranks, join
from metarl.run.driver import TrainResult, console_of, iterations_of
from metarl.run.driver import train as train_in_folder
from metarl.run.folder import RunFolder
from metarl.run.settings import DEFAULT_FAMILY, Checkpoint, Device, Engine, RunConfig
from metarl.seeding import Streams
from metarl.types import EnvSpec


@checked
def train(
    agent: str,
    family: Family | str = DEFAULT_FAMILY,
    *,
    horizon: int | None = None,
    out: Path | str | None = None,
    seed: int = 0,
    device: Device = "cpu",
    engine: Engine = "auto",
    deterministic: bool = False,
    threads: int = 0,
    checkpoint_every: int = 10,
    validation: int = 0,
    patience: int = 0,
    console: Console | None = None,
    **settings: Any,
) -> Run:
    """Meta-train an agent on a family of tasks, in a new run folder.

    The run is the same as that of `metarl train` with the same options. An interruption lets the iteration finish and
    writes a checkpoint; `metarl.resume` goes on.

    Args:
        agent: its name: maml-trpo, rl2, ... (`metarl list`).
        family: its name, NAME or NAME@VARIANT, with +MODIFIER for more to vary; or a registered family itself.
        horizon: steps of an episode; the family's if not given.
        out: the run folder, which must not exist yet; runs/FAMILY-AGENT-seedSEED if not given.
        seed: where all randomness comes from.
        device: where the networks live: `cpu`, `cuda`, a GPU by its number (`cuda:1`), or `auto`.
        engine: what steps the worlds: `cpu`, `gpu` (mujoco_warp, on the device), or `auto`.
        deterministic: give the same numbers in every run, bit for bit; a CPU does so anyway, a GPU is slower then.
        threads: CPU threads; 0 for all cores.
        checkpoint_every: iterations from one checkpoint to the next.
        validation: tasks that the agent meets at every checkpoint, the same each time, of the training distribution;
            best.pt is then chosen by them. 0: none.
        patience: checkpoints in a row that do not raise the validation, after which the run ends; 0: none does.
        console: where progress is shown; standard output, or the notebook's cell, if None.
        **settings: the agent's own, by name (`metarl train AGENT --help`): iterations, tasks, episodes, ...

    Returns:
        The run, with the agent as its last checkpoint has it.

    Raises:
        UserError: something that was given is wrong; the folder is taken; the training ran away.

    Example:
        >>> run = metarl.train("maml-trpo", "point-nav", iterations=100, inner_rate=0.5)
    """
    family = resolve(_named(family), horizon=horizon)
    config = agent_config(agent, settings)
    run = new_run(
        agent,
        family,
        seed=seed,
        device=device,
        engine=engine,
        deterministic=deterministic,
        threads=threads,
        checkpoint_every=checkpoint_every,
        validation=validation,
        patience=patience,
    )
    folder = default_folder(family, agent, seed) if out is None else Path(out)
    return carry_out(folder, run, config, config.iterations, console=console).run


@checked
def resume(
    folder: Path | str,
    iterations: int | None = None,
    *,
    checkpoint: Checkpoint = "last",
    patience: int | None = None,
    device: Device | None = None,
    deterministic: bool = False,
    console: Console | None = None,
    trust: bool = False,
    source: Path | str | None = None,
) -> Run:
    """Go on with a run, bit for bit. All other settings are those it was started with.

    Args:
        folder: the run folder.
        iterations: in the end; as many as it was last asked for if None.
        checkpoint: which one to go on from.
        patience: from now on, as in `train`; as it was if None.
        device: where the networks live from now on; where they did if None.
        deterministic: from now on give the same numbers in every run; what was so stays so.
        console: where progress is shown; standard output, or the notebook's cell, if None.
        trust: execute the files of its family though you did not make the run on this machine.
        source: file or module that defines its family, where that is not found, or is to be another one.

    Raises:
        UserError: there is no such run or checkpoint, it does not fit, or another process trains there.
    """
    asked = stored(
        folder, iterations, patience=patience, device=device, deterministic=deterministic, trust=trust, source=source
    )
    return carry_out(*asked, checkpoint=checkpoint, console=console).run


def agent_config(agent: str, settings: dict[str, Any]) -> Any:
    """Return an agent's settings, the default ones where none are given.

    Raises:
        UserError: unknown agent, unknown or wrong setting, or an agent that is never trained.
    """
    kind = config_class(agent)
    if agent == "random":
        raise UserError("The agent 'random' is never trained. It is what evaluate(..., random=True) compares with.")
    known = [setting.name for setting in fields(kind)]
    for name in settings:
        if name not in known:
            raise UserError(f"{agent} has no setting '{name}'.{nearest(name, known)}")
    config = from_plain(kind, {**to_plain(kind()), **settings})
    check_numbers(config)
    return config


def _named(family: Family | str) -> Family:
    """Return a family that is found by its name, since a run folder holds that only.

    Raises:
        UserError: it is unknown, not registered, or its name is that of another one.
    """
    family = resolve(family)
    try:
        found = get(family.full_name)
    except UserError as error:
        raise UserError(
            f"Got {family.full_name}, which is not registered, and a run folder holds its name only. Call "
            "metarl.envs.register(family) first."
        ) from error
    if found is not family:
        raise UserError(
            f"Got a {family.full_name} that is not the registered family of this name, and a run folder holds its "
            "name only. Give it a variant of its own, and call metarl.envs.register(family) first; for other episodes "
            "only, give horizon=."
        )
    return family


def new_run(agent: str, family: Family, **options: Any) -> RunConfig:
    """Return the settings of a new run.

    Args:
        agent: its name.
        family: a registered family.
        **options: the other fields of `RunConfig`, all of them.

    Raises:
        UserError: a value is wrong, or of another type.
    """
    source, colon, name = address(family).rpartition(":")
    given = {"family": f"{Path(source).name}{colon}{name}", "sources": to_plain(sources_of(family)), "agent": agent}
    # By the reader of config.yaml, which says what is wrong with a value of another type.
    return from_plain(RunConfig, {**given, **options})


def default_folder(family: Family, agent: str, seed: int) -> Path:
    """Return the run folder of a training that names none."""
    return Path("runs") / f"{family.full_name}-{agent}-seed{seed}"


def stored(
    folder: Path | str,
    iterations: int | None,
    *,
    patience: int | None = None,
    device: Device | None = None,
    deterministic: bool = False,
    trust: bool = False,
    source: Path | str | None = None,
) -> tuple[Path, RunConfig, Any, int]:
    """Return what a run is resumed with: folder, settings, those of its agent, iterations in the end.

    Its family is registered then; the other arguments are those of `resume`.
    """
    opened = RunFolder(folder)
    run, plain = opened.settings(RunConfig)
    _, run = family_of(opened, run, trust=trust, source=source)
    run = replace(
        run,
        device=device or run.device,
        deterministic=deterministic or run.deterministic,
        patience=run.patience if patience is None else patience,
    )
    config = from_plain(config_class(run.agent), plain)
    return opened.path, run, config, opened.iterations() if iterations is None else iterations


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training that has ended, on this rank."""

    run: Run
    """The run."""
    result: TrainResult
    """How it ended."""
    ranks: Ranks
    """The processes that trained it together, and which of them this is."""


def carry_out(
    folder: Path,
    run: RunConfig,
    config: Any,
    iterations: int,
    *,
    checkpoint: Checkpoint | None = None,
    console: Console | None = None,
    json: bool = False,
) -> Training:
    """Train in a run folder, from a checkpoint where one is named; alone, or with the processes of torchrun.

    Args:
        folder: the run folder.
        run: the run's settings.
        config: those of its agent.
        iterations: in the end.
        checkpoint: which one to go on from; None for a new run.
        console: where progress is shown.
        json: show it as JSON lines.
    """
    family = get(own_name(run))
    streams = Streams(run.seed)
    device = resolve_device(run.device)
    with repeatable(on=run.deterministic), join(device) as ranks:
        if checkpoint is None:
            # A run that goes on has what it was begun with.
            _check_new(run.agent, config, family.spec(), device)
        check_training(family, config, engine=run.engine, device=device, ranks=ranks)
        agent = make(run.agent, config, family.spec(), streams, device, ranks)
        check_trials(family, agent.trial)
        worlds = validation_worlds(agent, run.validation)
        if worlds:
            check_training(family, config, engine=run.engine, device=device, ranks=ranks, validated=worlds)
        threads = run.threads if ranks.local == 1 else resolve_threads(run.threads)
        room = RunFolder(folder).standing(checkpoint, agent).room if checkpoint else {}
        make_some = partial(make_worlds, family, threads=threads, engine=run.engine, device=device, room=room)
        env = make_some(ranks.share(config.worlds), ranks=ranks)
        validation = None
        if worlds:
            tasks = validation_tasks(family, run.validation)
            # The first process has them alone.
            validation = Validation(agent, tasks, make_some(worlds) if ranks.first else None, ranks)
            show = console_of(ranks, console)
            for text in validation_said(family, agent, run):
                show.out(to_json({"message": text}) if json else text, highlight=False)
        try:
            result = train_in_folder(
                folder,
                run,
                agent,
                iterations_of(agent, env, family.space.sample, streams),
                streams,
                iterations,
                score="validation/return" if worlds else "return/post",
                resume=checkpoint is not None,
                checkpoint=checkpoint or "last",
                console=console,
                json=json,
                ranks=ranks,
                room=lambda: env.room,
                validate=validation,
                patience=run.patience,
            )
        finally:
            mujoco_log.report(folder if ranks.first else None)
    trained = Run(
        folder=folder,
        settings=run,
        family=family,
        agent=agent,
        checkpoint="last",
        iteration=result.iteration,
        room=env.room,
        interrupted=result.interrupted,
        physics=describe_engine(env),
    )
    return Training(run=trained, result=result, ranks=ranks)


def _check_new(agent: str, config: Any, spec: EnvSpec, device: torch.device) -> None:
    """Refuse settings of a new run that change nothing, or with which a family cannot be learned."""
    if hasattr(config, "unused"):
        check_used(config, config.unused(agent, spec, device), agent)
    if hasattr(config, "check_family"):
        config.check_family(spec, (one.spec() for variants in families().values() for one in variants))
