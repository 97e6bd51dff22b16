"""The run driver: a run folder, the training loop, checkpoints, and going on bit for bit.

A run folder holds

    config.yaml             version, iterations, the run's settings (`run`) and the agent's (`config`)
    checkpoints/            last.pt, previous.pt, best.pt (highest mean return/post of a checkpoint interval)
    progress.csv            one row an iteration, columns as in the glossary (metarl/tracking.py)
    events.out.tfevents.*   the same for TensorBoard

Killed at any moment, the run goes on from its last checkpoint as if nothing had happened: whatever changes
is in the checkpoint, and what was logged after it is dropped and logged again.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from rich.console import Console

from metarl import __version__
from metarl.checkpoint import CheckpointFolder, load, write_atomically
from metarl.config import dump, from_plain, parse, to_plain
from metarl.errors import NotFiniteError, UserError, nearest
from metarl.progress import duration, open_display
from metarl.rollout import torch_threads
from metarl.seeding import Streams
from metarl.tracking import Tracker, read_progress
from metarl.types import BatchEnv, MetaAgent, SampleTasks

CHECKPOINTS = ("last", "best", "previous")
"""Names of the checkpoints of a run."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What a run is, apart from its agent's own settings."""

    family: str = "half-cheetah-vel"
    """Task family, with its variant after an @ where it is not the default one."""
    agent: str
    """Name of the agent."""
    seed: int = 0
    """Where all randomness comes from."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """Where the networks live; auto is cuda where there is one."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    checkpoint_every: int = 10
    """Iterations from one checkpoint to the next."""

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise UserError(f"Unknown device '{self.device}'.{nearest(self.device, ['auto', 'cpu', 'cuda'])}")
        if self.seed < 0 or self.threads < 0 or self.checkpoint_every < 1:
            raise UserError(
                f"Got seed {self.seed}, threads {self.threads}, checkpoint_every {self.checkpoint_every}; "
                "allowed are seed and threads from 0, checkpoint_every from 1. Correct the option."
            )


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a call of `train` ended."""

    iteration: int
    """Iterations done in the whole run."""
    env_steps: int
    """Environment steps of the whole run."""
    interrupted: bool
    """Whether a signal ended it before its last iteration; the run can be resumed."""


@dataclass
class _Progress:
    """Where a run stands: everything that its checkpoints hold beside agent and streams."""

    iteration: int = 0
    env_steps: int = 0
    failures: int = 0
    """Failed simulations."""
    scores: tuple[float, ...] = ()
    """return/post of the iterations since the last full checkpoint interval."""


def resolve_device(name: str) -> torch.device:
    """Return the device called `auto`, `cpu` or `cuda`.

    Raises:
        UserError: if it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("Got the device 'cuda', but torch finds no CUDA device here. Use --device cpu or auto.")
    return torch.device(name)


def resolve_threads(threads: int) -> int:
    """Return the number of threads, with 0 as all cores that this process may use."""
    if threads:
        return threads
    # A container or a job scheduler may leave this process fewer cores than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train(
    run_dir: Path,
    run: RunConfig,
    agent: MetaAgent,
    env: BatchEnv,
    sample_tasks: SampleTasks,
    streams: Streams,
    iterations: int,
    *,
    resume: bool = False,
    checkpoint: str = "last",
    console: Console | None = None,
    json: bool = False,
) -> TrainResult:
    """Train an agent in a run folder, from the start or from a checkpoint.

    SIGINT and SIGTERM let the current iteration finish, write a checkpoint and return; a second one ends the
    process at once. An agent's `env/steps` is of one iteration; it is logged as the total so far.

    Args:
        run_dir: the run folder, new or empty unless `resume`.
        run: the run's settings.
        agent: freshly made from the settings; trained in place.
        env: worlds to train in.
        sample_tasks: the family's tasks.
        streams: freshly made from `run.seed`.
        iterations: meta-iterations in the end, those already done included.
        resume: go on with the run in `run_dir`.
        checkpoint: which one to go on from: `last`, `previous` or `best`.
        console: where progress is shown; standard output if None.
        json: show progress as JSON lines.

    Raises:
        UserError: if the folder is taken or in use, or does not hold what is to be resumed; nothing is overwritten.
    """
    if iterations < 0:
        raise UserError(f"Got {iterations} iterations. Ask for 0 (an untrained agent) or more.")
    resolve_device(run.device)
    header = _header(run, to_plain(agent.config))
    if resume:
        load_run(run_dir)
    else:
        _claim(run_dir)
    with _alone(run_dir):
        state = _resume(run_dir, checkpoint, header, agent, streams) if resume else _Progress()
        _write_config(run_dir, run, agent.config, max(iterations, state.iteration))

        folder = CheckpointFolder(run_dir / "checkpoints")
        started = state.iteration
        earlier_failures = state.failures - env.failures
        display = open_display(
            console or Console(),
            json_lines=json,
            title=f"{run.agent} {run.family}",
            first=started,
            iterations=iterations,
        )
        with (
            torch_threads(resolve_threads(run.threads)),
            Tracker(run_dir, resume_step=started if resume else None) as tracker,
            display,
            _stop_requests() as stop,
        ):
            clock = time.monotonic()
            if iterations == 0 and not resume:
                _save(folder, header, state, agent, streams, scored=False)
            elif started >= iterations:
                display.message(f"{run_dir} has {started} of {iterations} iterations: give more --iterations to go on.")
            stopping = False
            while state.iteration < iterations and not stopping:
                before = time.perf_counter()
                try:
                    metrics = agent.train_iteration(env, sample_tasks, streams)
                except UserError as error:
                    hint = f"Go on from its last checkpoint with: metarl train --resume {run_dir}"
                    if isinstance(error, NotFiniteError):
                        hint = "The rates may be too high for this family: start a new run with lower ones."
                    raise UserError(
                        f"Iteration {state.iteration + 1} of {run_dir} failed, {error}. Its checkpoints "
                        f"are kept. {hint}"
                    ) from error
                seconds = time.perf_counter() - before
                state.iteration += 1
                state.env_steps += int(metrics.get("env/steps", 0))
                state.failures = earlier_failures + env.failures
                if "return/post" in metrics:
                    state.scores = (*state.scores, metrics["return/post"])
                metrics = {
                    **metrics,
                    "env/steps": float(state.env_steps),
                    "env/failures": float(state.failures),
                    "time/iteration": seconds,
                }
                tracker.log(state.iteration, metrics)
                display.update(state.iteration, metrics)
                # Read once: a signal from here on is for the next iteration, which then writes the checkpoint.
                stopping = bool(stop)
                scored = state.iteration % run.checkpoint_every == 0 or state.iteration == iterations
                if scored or stopping:
                    # What is logged must never lag behind the checkpoint: a resumed run does not log it again.
                    tracker.flush()
                    _save(folder, header, state, agent, streams, scored=scored)
            if stopping and state.iteration < iterations:
                display.message(
                    f"Stopped by {stop[0]} after iteration {state.iteration} of {iterations}, checkpoint "
                    f"written. Go on with: metarl train --resume {run_dir}"
                )
            elif state.iteration > started:
                took = duration(time.monotonic() - clock)
                display.message(
                    f"Trained {state.iteration} iterations ({took} for the last {state.iteration - started})."
                )
    return TrainResult(iteration=state.iteration, env_steps=state.env_steps, interrupted=state.iteration < iterations)


def load_run(run_dir: Path) -> tuple[RunConfig, dict[str, Any]]:
    """Return a run's settings, and its agent's settings as plain data.

    Raises:
        UserError: if there is no run, its config.yaml is not valid, or another version wrote it.
    """
    stored = _read_config(run_dir)
    return from_plain(RunConfig, stored["run"], "run"), stored["config"]


def stored_iterations(run_dir: Path) -> int:
    """Return the number of iterations that a run was last asked for; errors as in `load_run`."""
    return _read_config(run_dir)["iterations"]


def restore(run_dir: Path, which: str, agent: MetaAgent) -> int:
    """Load a checkpoint of a run into an agent that was made from its settings.

    Returns:
        The iterations that the checkpoint was trained for.

    Raises:
        UserError: if there is no such run or checkpoint, or the checkpoint does not fit.
    """
    run, _ = load_run(run_dir)
    path = _checkpoint_path(run_dir, which)
    payload = load(path, _header(run, to_plain(agent.config)))
    _fill(agent, payload, path)
    return int(payload["iteration"])


def _fill(agent: MetaAgent, payload: dict[str, Any], path: Path) -> None:
    """Bring an agent to a checkpoint.

    Raises:
        UserError: its networks are of other sizes, though the settings are the same: other code wrote it.
    """
    try:
        agent.load_state_dict(payload["agent"])
    except ValueError as error:
        raise UserError(f"{path} does not fit: {error}. Use the code that wrote it, or train anew.") from error


def _header(run: RunConfig, config: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint belongs to."""
    # How long a run is to be, and where and how often it is saved, may change from one start to the next.
    lasting = {name: value for name, value in config.items() if name != "iterations"}
    return {
        "version": __version__,
        "family": run.family,
        "agent": run.agent,
        "seed": run.seed,
        "config": lasting,
    }


def _claim(run_dir: Path) -> None:
    """Make the folder of a new run, or refuse one that holds anything."""
    if run_dir.exists() and not run_dir.is_dir():
        raise UserError(f"{run_dir} is a file. Choose another folder with --out.")
    # A start that was killed before it had written its config.yaml leaves this one file.
    if run_dir.is_dir() and any(not entry.name.endswith(".partial") for entry in run_dir.iterdir()):
        raise UserError(
            f"The run folder {run_dir} exists already. Go on with it by --resume {run_dir}, or choose "
            "another one with --out."
        )
    run_dir.mkdir(parents=True, exist_ok=True)


@contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Hold a run folder; refuse it where another process trains in it. A killed process holds nothing."""
    folder = os.open(run_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"Another process is training in {run_dir}. Wait for its end, or stop it first.") from error
        yield
    finally:
        os.close(folder)


def _resume(run_dir: Path, which: str, header: dict[str, Any], agent: MetaAgent, streams: Streams) -> _Progress:
    """Bring agent and streams to a checkpoint and return where the run stands."""
    stored, config = load_run(run_dir)
    if _header(stored, config) != header:
        raise UserError(
            f"Got other settings than {run_dir / 'config.yaml'} has. Resume with those, or start a new run with --out."
        )
    path = _checkpoint_path(run_dir, which)
    if which == "last" and not path.exists() and not path.with_name("previous.pt").exists():
        if len(read_progress(run_dir)) > stored.checkpoint_every:
            raise UserError(f"The checkpoints of {run_dir} are gone. Bring them back, or start a new run with --out.")
        # Killed before its first checkpoint: the run starts again, and comes to the same results.
        return _Progress()
    payload = load(path, header)
    _fill(agent, payload, path)
    streams.load_state_dict(payload["streams"])
    return _Progress(
        iteration=payload["iteration"],
        env_steps=payload["env_steps"],
        failures=payload["failures"],
        scores=tuple(payload["scores"]),
    )


def _save(
    folder: CheckpointFolder,
    header: dict[str, Any],
    state: _Progress,
    agent: MetaAgent,
    streams: Streams,
    *,
    scored: bool,
) -> None:
    """Write a checkpoint; where `scored`, with the mean return of the interval, and start a new interval."""
    score = sum(state.scores) / len(state.scores) if scored and state.scores else None
    if scored:
        state.scores = ()
    payload = {
        "agent": agent.state_dict(),
        "streams": streams.state_dict(),
        "iteration": state.iteration,
        "env_steps": state.env_steps,
        "failures": state.failures,
        "scores": list(state.scores),
    }
    folder.save(payload, header, score)


def _write_config(run_dir: Path, run: RunConfig, config: Any, iterations: int) -> None:
    """Write config.yaml."""
    content = {
        "version": __version__,
        "iterations": iterations,
        "run": to_plain(run),
        "config": to_plain(config),
    }
    write_atomically(run_dir / "config.yaml", dump(content).encode())


def _read_config(run_dir: Path) -> dict[str, Any]:
    """Return the content of config.yaml, with all its four entries."""
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise UserError(f"There is no run in {run_dir}: it has no config.yaml. Give a folder of `metarl train`.")
    content = parse(path.read_text(encoding="utf-8", errors="replace"))
    expected = {"version", "iterations", "run", "config"}
    if not isinstance(content, dict) or set(content) != expected:
        raise UserError(f"{path} is not a run's: it needs the entries {', '.join(sorted(expected))}. Correct it.")
    if content["version"] != __version__:
        raise UserError(
            f"{path} is of version {content['version']}, this is {__version__}. Use the version that wrote it."
        )
    if type(content["iterations"]) is not int:
        raise UserError(f"{path}: got iterations {content['iterations']!r} where int is needed. Correct the value.")
    return content


def _checkpoint_path(run_dir: Path, which: str) -> Path:
    """Return the file of one of a run's checkpoints."""
    if which not in CHECKPOINTS:
        raise UserError(f"Unknown checkpoint '{which}'.{nearest(which, CHECKPOINTS)}")
    return run_dir / "checkpoints" / f"{which}.pt"


@contextmanager
def _stop_requests() -> Iterator[list[str]]:
    """Collect the names of the signals that ask the run to stop, in place of being ended by them."""
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        # Python delivers signals to the main thread only, and only there may handlers be set.
        yield received
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)
        # A second one of the same kind ends the process at once.
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
