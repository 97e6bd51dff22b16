"""The run driver: a run folder, the training loop, checkpoints, and going on bit for bit.

A run folder holds

    config.yaml             version, iterations, the run's settings (`run`) and those of what is trained (`config`)
    checkpoints/            last.pt, previous.pt, best.pt (best mean score of a checkpoint interval)
    progress.csv            one row an iteration, or a few of them; columns as in the glossary (metarl/tracking.py)
    events.out.tfevents.*   the same for TensorBoard

It serves agents and few-shot learners alike: an iteration is a call of `step`.

Killed at any moment, the run goes on from its last checkpoint as if nothing had happened: whatever changes
is in the checkpoint, and what was logged after it is dropped and logged again.

Of several ranks (metarl/distributed.py) the first one writes all of this; the others read it when a run is resumed. No
randomness belongs to a rank, so that any number of them goes on with a run that can share out its tasks.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import torch
from rich.console import Console

from metarl import __version__
from metarl.checkpoint import CheckpointFolder, load, write_atomically
from metarl.config import dump, from_plain, parse, to_plain
from metarl.distributed import ALONE, Ranks
from metarl.errors import NotFiniteError, UserError, nearest
from metarl.progress import duration, open_display
from metarl.rollout import torch_threads
from metarl.seeding import Streams
from metarl.tracking import Tracker, look_up, read_progress
from metarl.types import BatchEnv, MetaAgent, Metrics, SampleTasks

CHECKPOINTS = ("last", "best", "previous")
"""Names of the checkpoints of a run."""
KINDS = {"agent": ("RL", "metarl"), "learner": ("few-shot", "metarl fewshot")}
"""Field in which a run names what it trains -> what such a run is called, and the command for it."""

Step = Callable[[int], Metrics]
"""Takes the iteration with a number, counted from 0, and returns its metrics."""
Device = Literal["auto", "cpu", "cuda"]
Engine = Literal["auto", "cpu", "gpu"]
SLOW = 1.0
"""An iteration that takes longer, in s, is shown at once, not only with its row."""


@dataclass(frozen=True, kw_only=True)
class RunSettings(ABC):
    """Settings that every run has. A subclass has one of the fields of KINDS."""

    seed: int = 0
    """Where all randomness comes from."""
    device: Device = "cpu"
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

    passing: ClassVar[tuple[str, ...]] = ("device", "threads", "checkpoint_every")
    """Fields that may change from one start of a run to the next."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What the run is called while it is shown."""

    @property
    def command(self) -> str:
        """The command for runs of this kind."""
        return next(command for name, (_, command) in KINDS.items() if hasattr(self, name))


@dataclass(frozen=True, kw_only=True)
class RunConfig(RunSettings):
    """What a run of an agent is, apart from the agent's own settings."""

    family: str = "half-cheetah-vel"
    """Task family, with its variant after an @ where it is not the default one."""
    agent: str
    """Name of the agent."""
    engine: Engine = "auto"
    """What steps the worlds: cpu, gpu (mujoco_warp, on the device), or auto: gpu where the device is one."""

    passing: ClassVar[tuple[str, ...]] = (*RunSettings.passing, "engine")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine not in ("auto", "cpu", "gpu"):
            raise UserError(f"Unknown engine '{self.engine}'.{nearest(self.engine, ['auto', 'cpu', 'gpu'])}")

    @property
    def title(self) -> str:
        """What the run is called while it is shown."""
        return f"{self.agent} {self.family}"


Run = TypeVar("Run", bound=RunSettings)
Thing = TypeVar("Thing")


@runtime_checkable
class Trainable(Protocol):
    """What is trained: an agent, or a few-shot learner."""

    config: Any

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training has changed (tensors and plain data)."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()` exactly; raise ValueError where it does not fit."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a call of `train` ended."""

    iteration: int
    """Iterations done in the whole run."""
    totals: dict[str, float]
    """Figures that are summed over the whole run, such as env/steps."""
    interrupted: bool
    """Whether a signal ended it before its last iteration; the run can be resumed."""


@dataclass
class _Progress:
    """Where a run stands: everything that its checkpoints hold beside agent and streams."""

    iteration: int = 0
    totals: dict[str, float] = field(default_factory=dict)
    """Figures that are summed over the run."""
    row: dict[str, list[float]] = field(default_factory=dict)
    """All other figures of the iterations since the last row that was logged."""
    scores: list[float] = field(default_factory=list)
    """Scores of the iterations since the last full checkpoint interval."""

    def take(self, metrics: Metrics, score: str) -> None:
        """Count one more iteration."""
        self.iteration += 1
        for tag, value in metrics.items():
            if tag in self.totals:
                self.totals[tag] += value
            else:
                self.row.setdefault(tag, []).append(value)
        if score in metrics:
            # best.pt is that of the highest score.
            self.scores.append(-metrics[score] if look_up(score).good == "lower" else metrics[score])

    def logged(self) -> Metrics:
        """Return the means of the figures since the last row, and the sums over the run; start a new row."""
        means = {tag: sum(values) / len(values) for tag, values in self.row.items()}
        self.row = {}
        return {**means, **self.totals}


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
    """Return the number of threads, with 0 as all cores that this process may use; ranks of a machine share them."""
    if threads:
        return threads
    # A container or a job scheduler may leave this process fewer cores than the machine has.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def train(
    run_dir: Path,
    run: RunSettings,
    agent: Trainable,
    step: Step,
    streams: Streams,
    iterations: int,
    *,
    stride: int = 1,
    totals: Sequence[str] = ("env/steps", "env/failures"),
    score: str = "return/post",
    resume: bool = False,
    checkpoint: str = "last",
    console: Console | None = None,
    json: bool = False,
    ranks: Ranks = ALONE,
) -> TrainResult:
    """Train an agent or a learner in a run folder, from the start or from a checkpoint.

    SIGINT and SIGTERM let the current iteration finish, write a checkpoint and return; a second one ends the
    process at once. Of several ranks all end behind the same iteration, whichever got the signal.

    Args:
        run_dir: the run folder, new or empty unless `resume`.
        run: the run's settings.
        agent: freshly made from the settings; trained in place.
        step: trains it for one iteration.
        streams: freshly made from `run.seed`.
        iterations: in the end, those already done included.
        stride: iterations of a row that is logged, which has their means; a checkpoint ends a row early.
        totals: figures that are summed over the run in place.
        score: the figure by which best.pt is chosen, where the metrics have it.
        resume: go on with the run in `run_dir`.
        checkpoint: which one to go on from: `last`, `previous` or `best`.
        console: where progress is shown; standard output if None.
        json: show progress as JSON lines.
        ranks: the processes that train together. `step` has the metrics of this one's share, or of all.

    Raises:
        UserError: if the folder is taken or in use, or does not hold what is to be resumed; nothing is overwritten.
            If another rank is gone, or parameters are not the same on all.
    """
    if iterations < 0:
        raise UserError(f"Got {iterations} iterations. Ask for 0 (an untrained agent) or more.")
    resolve_device(run.device)
    header = _header(run, to_plain(agent.config))
    if resume:
        load_run(run_dir, type(run))
    else:
        ranks.once(lambda: _claim(run_dir))
    with ExitStack() as stack:
        ranks.once(lambda: stack.enter_context(_alone(run_dir)))
        state = _resume(run_dir, checkpoint, run, header, agent, streams) if resume else _Progress()
        state.totals = dict.fromkeys(totals, 0.0) | state.totals
        if ranks.first:
            _write_config(run_dir, run, agent.config, max(iterations, state.iteration))

        folder = CheckpointFolder(run_dir / "checkpoints")
        started = state.iteration
        display = open_display(
            console_of(ranks, console), json_lines=json, title=run.title, first=started, iterations=iterations
        )
        stack.enter_context(torch_threads(resolve_threads(run.threads)))
        tracker = None
        if ranks.first:
            tracker = stack.enter_context(Tracker(run_dir, resume_step=started if resume else None))
        stack.enter_context(display)
        stop = stack.enter_context(_stop_requests(ranks))

        def save(*, scored: bool) -> None:
            whole = {"agent": agent.state_dict(), "streams": streams.state_dict()}
            ranks.assert_replicated(whole)
            if ranks.first:
                _save(folder, header, state, whole, scored=scored)

        clock = time.monotonic()
        if iterations == 0 and not resume:
            save(scored=False)
        elif started >= iterations:
            display.message(f"{run_dir} has {started} of {iterations} iterations: give more --iterations to go on.")
        stopped_by = 0
        while state.iteration < iterations and not stopped_by:
            number = state.iteration + 1
            before = time.perf_counter()
            try:
                metrics = step(state.iteration)
                seconds = time.perf_counter() - before
                metrics = _of_all({**metrics, "time/iteration": seconds}, totals, ranks)
                state.take(metrics, score)
                scored = state.iteration % run.checkpoint_every == 0 or state.iteration == iterations
                if scored or state.iteration % stride == 0:
                    row = state.logged()
                    if tracker is not None:
                        tracker.log(state.iteration, row)
                    display.update(state.iteration, row)
                elif seconds > SLOW:
                    display.update(state.iteration, metrics)
                # Read once: a signal from here on is for the next iteration, which then writes the checkpoint.
                stopped_by = ranks.largest(stop[0] if stop else 0)
                if scored or stopped_by:
                    # What is logged must never lag behind the checkpoint: a resumed run does not log it again.
                    if tracker is not None:
                        tracker.flush()
                    save(scored=scored)
            except UserError as error:
                hint = f"Go on from its last checkpoint with: {run.command} train --resume {run_dir}"
                if isinstance(error, NotFiniteError):
                    hint = "The rates may be too high for this task: start a new run with lower ones."
                raise UserError(
                    f"Iteration {number} of {run_dir} failed, {error}. Its checkpoints are kept. {hint}"
                ) from error
        if stopped_by and state.iteration < iterations:
            display.message(
                f"Stopped by {signal.Signals(stopped_by).name} after iteration {state.iteration} of {iterations}, "
                f"checkpoint written. Go on with: {run.command} train --resume {run_dir}"
            )
        elif state.iteration > started:
            took = duration(time.monotonic() - clock)
            display.message(f"Trained {state.iteration} iterations ({took} for the last {state.iteration - started}).")
        # Whoever is behind this line finds the last checkpoint.
        ranks.once(lambda: None)
    return TrainResult(iteration=state.iteration, totals=state.totals, interrupted=state.iteration < iterations)


def console_of(ranks: Ranks, console: Console | None) -> Console:
    """Return where a rank shows its progress: standard output if None, and nowhere where it is not the first."""
    return (console or Console()) if ranks.first else Console(quiet=True, force_terminal=False)


def _of_all(metrics: Metrics, totals: Sequence[str], ranks: Ranks) -> Metrics:
    """Return the figures of all ranks: sums of those that are summed over the run and of speeds, else means."""
    summed = ranks.sum(metrics)
    return {
        tag: value if tag in totals or tag.startswith("speed/") else value / ranks.size for tag, value in summed.items()
    }


def iterations_of(agent: MetaAgent, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Step:
    """Return the iterations of an agent in its worlds, as `train` takes them."""

    def step(number: int) -> Metrics:
        failures = env.failures
        metrics = agent.train_iteration(env, sample_tasks, streams)
        return {**metrics, "env/failures": float(env.failures - failures)}

    return step


def load_run(run_dir: Path, kind: type[Run]) -> tuple[Run, dict[str, Any]]:
    """Return a run's settings, and as plain data those of what it trained.

    Args:
        run_dir: the run folder.
        kind: class of the settings.

    Raises:
        UserError: if there is no run, its config.yaml is not valid, it is of another kind, or another version wrote it.
    """
    stored = _read_config(run_dir)
    wanted = {setting.name for setting in fields(kind)}
    for name, (words, command) in KINDS.items():
        if isinstance(stored["run"], dict) and name in stored["run"] and name not in wanted:
            raise UserError(
                f"{run_dir} is a run of another kind, {words}: use {command} evaluate, or {command} train --resume."
            )
    return from_plain(kind, stored["run"], "run"), stored["config"]


def stored_iterations(run_dir: Path) -> int:
    """Return the number of iterations that a run was last asked for; errors as in `load_run`."""
    return _read_config(run_dir)["iterations"]


def restore(run_dir: Path, run: RunSettings, which: str, agent: Trainable) -> int:
    """Load a checkpoint of a run into an agent or learner that was made from its settings.

    Args:
        run_dir: the run folder.
        run: its settings.
        which: the checkpoint: `last`, `previous` or `best`.
        agent: changed in place.

    Returns:
        The iterations that the checkpoint was trained for.

    Raises:
        UserError: if there is no such run or checkpoint, or the checkpoint does not fit.
    """
    path = checkpoint_path(run_dir, which)
    payload = load(path, _header(run, to_plain(agent.config)))
    _fill(agent, payload, path)
    return int(payload["iteration"])


def _fill(agent: Trainable, payload: dict[str, Any], path: Path) -> None:
    """Bring an agent to a checkpoint.

    Raises:
        UserError: its networks are of other sizes, though the settings are the same: other code wrote it.
    """
    try:
        agent.load_state_dict(payload["agent"])
    except ValueError as error:
        raise UserError(f"{path} does not fit: {error}. Use the code that wrote it, or train anew.") from error


def _header(run: RunSettings, config: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint belongs to."""
    # How long a run is to be may change from one start to the next.
    lasting = {name: value for name, value in config.items() if name != "iterations"}
    return {"version": __version__, **lasting_settings(run), "config": lasting}


def lasting_settings(run: RunSettings) -> dict[str, Any]:
    """Return the settings that a run keeps for life, as plain data."""
    return {name: value for name, value in to_plain(run).items() if name not in run.passing}


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


def by_settings(things: Sequence[tuple[str, dict[str, Any], Thing]]) -> list[tuple[str, list[Thing]]]:
    """Group things by name and settings, in the order of the first of every group.

    Args:
        things: name, settings as plain data, and the thing itself.

    Returns:
        Labels with groups: the name, with the settings in which it differs from the others of that name.
    """
    groups: list[tuple[str, dict[str, Any], list[Thing]]] = []
    for name, settings, thing in things:
        alike = [group for known, of, group in groups if (known, of) == (name, settings)]
        if alike:
            alike[0].append(thing)
        else:
            groups.append((name, settings, [thing]))
    labels = []
    for name, settings, _ in groups:
        others = [of for known, of, _ in groups if known == name]
        differ = [key for key in settings if any(of.get(key) != settings[key] for of in others)]
        labels.append(" ".join([name, *(f"{key.replace('_', '-')}={settings[key]}" for key in differ)]))
    return [(label, group) for label, (_, _, group) in zip(labels, groups, strict=True)]


def _resume(
    run_dir: Path, which: str, run: RunSettings, header: dict[str, Any], agent: Trainable, streams: Streams
) -> _Progress:
    """Bring agent and streams to a checkpoint and return where the run stands."""
    stored, config = load_run(run_dir, type(run))
    if _header(stored, config) != header:
        raise UserError(
            f"Got other settings than {run_dir / 'config.yaml'} has. Resume with those, or start a new run with --out."
        )
    path = checkpoint_path(run_dir, which)
    if which == "last" and not path.exists() and not path.with_name("previous.pt").exists():
        if any(row["step"] > stored.checkpoint_every for row in read_progress(run_dir)):
            raise UserError(f"The checkpoints of {run_dir} are gone. Bring them back, or start a new run with --out.")
        # Killed before its first checkpoint: the run starts again, and comes to the same results.
        return _Progress()
    payload = load(path, header)
    _fill(agent, payload, path)
    streams.load_state_dict(payload["streams"])
    return _Progress(**{name: payload[name] for name in ("iteration", "totals", "row", "scores")})


def _save(
    folder: CheckpointFolder, header: dict[str, Any], state: _Progress, whole: dict[str, Any], *, scored: bool
) -> None:
    """Write a checkpoint; where `scored`, with the mean score of the interval, and start a new interval."""
    score = sum(state.scores) / len(state.scores) if scored and state.scores else None
    if scored:
        state.scores = []
    folder.save({**whole, **vars(state)}, header, score)


def _write_config(run_dir: Path, run: RunSettings, config: Any, iterations: int) -> None:
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


def checkpoint_path(run_dir: Path, which: str) -> Path:
    """Return the file of one of a run's checkpoints."""
    if which not in CHECKPOINTS:
        raise UserError(f"Unknown checkpoint '{which}'.{nearest(which, CHECKPOINTS)}")
    return run_dir / "checkpoints" / f"{which}.pt"


@contextmanager
def _stop_requests(ranks: Ranks) -> Iterator[list[int]]:
    """Collect the signals that ask the run to stop, in place of being ended by them."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        # Python delivers signals to the main thread only, and only there may handlers be set.
        yield received
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        # A second one of the same kind ends the process at once. To several ranks schedulers send one and torchrun,
        # which got it too, the next; it ends them itself if they take too long.
        if ranks.size == 1:
            signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
