"""The run driver: open the folder, make or restore, loop, save.

It serves agents and few-shot learners alike: an iteration is a call of `step`. What a run folder holds, and in which
order it is written, stands in folder.py.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from metarl.config import MOST_ITERATIONS
from metarl.devices import repeatable, resolve_device, resolve_threads, torch_threads
from metarl.errors import NotFiniteError, UserError, tell
from metarl.problems import problem_of
from metarl.ranks import ALONE, Ranks
from metarl.run.folder import RunFolder, Trainable
from metarl.run.plateau import at_plateau, end_said, plateau_said
from metarl.run.progress import duration, open_display
from metarl.run.settings import RunSettings
from metarl.run.standing import Standing
from metarl.seeding import Streams
from metarl.system import HANGUP, TO_STOP
from metarl.types import BatchEnv, MetaAgent, Metrics, SampleTasks

Step = Callable[[int], Metrics]
"""Takes the iteration with a number, counted from 0, and returns its metrics."""
Validate = Callable[[Standing, bool], Metrics]
"""Measures what is trained, and returns the figures. Takes where the run stands, whose count for a plateau it may
change, and whether the checkpoint counts there, as one that ends a full interval does."""
VITAL = ("return/pre", "return/post", "train/loss", "update/gradient_norm")
"""Figures without which there is no training."""
SLOW = 1.0
"""An iteration that takes longer, in s, is shown at once, not only with its row."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a call of `train` ended."""

    iteration: int
    """Iterations done in the whole run."""
    totals: dict[str, float]
    """Figures that are summed over the whole run, such as env/steps."""
    interrupted: bool
    """Whether a signal ended it before its last iteration; the run can be resumed."""
    plateau: bool = False
    """Whether it is at its plateau, by its patience."""


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
    room: Callable[[], dict[str, int]] = dict,
    validate: Validate | None = None,
    patience: int = 0,
) -> TrainResult:
    """Train an agent or a learner in a run folder, from the start or from a checkpoint.

    SIGINT, SIGTERM and SIGHUP let the current iteration finish, write a checkpoint and return; a second one ends the
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
        room: tells what the engine's buffers have room for, to be kept with checkpoints.
        validate: measures what is trained, before every checkpoint but that of a signal.
        patience: checkpoints in a row that do not raise the validation, after which the run ends; 0: none does.

    Raises:
        UserError: if the folder is taken or in use, or does not hold what is to be resumed; nothing is overwritten.
            If another rank is gone, or parameters are not the same on all.
    """
    if not 0 <= iterations <= MOST_ITERATIONS:
        raise UserError(
            f"Got {iterations} iterations. Ask for 0 (an untrained agent) or more, up to {MOST_ITERATIONS}."
        )
    resolve_device(run.device)
    with ExitStack() as stack:
        folder = stack.enter_context(RunFolder(run_dir).open(run, agent, resume=resume, ranks=ranks))
        standing = folder.restore(checkpoint, streams) if resume else Standing()
        standing.totals = dict.fromkeys(totals, 0.0) | standing.totals
        started = standing.iteration
        folder.begin(max(iterations, started), standing, score, resumed=resume)
        stack.enter_context(torch_threads(resolve_threads(run.threads)))
        stack.enter_context(repeatable(on=run.deterministic))
        display = stack.enter_context(
            open_display(
                console_of(ranks, console), json_lines=json, title=run.title, first=started, iterations=iterations
            )
        )
        stop = stack.enter_context(_stop_requests(ranks))
        show = partial(_show, stop)
        clock = time.monotonic()
        if iterations == 0 and not resume:
            standing.room |= _most(room(), ranks)
            folder.save(standing, streams, scored=False)
        elif resume and at_plateau(standing, patience):
            show(display.message, f"{plateau_said(standing, iterations, str(run_dir))}.")
        elif started >= iterations:
            show(
                display.message, f"{run_dir} has {started} of {iterations} iterations: give more --iterations to go on."
            )
        stopped_by = 0
        while standing.iteration < iterations and not stopped_by and not at_plateau(standing, patience):
            number = standing.iteration + 1
            before = time.perf_counter()
            try:
                metrics = step(standing.iteration)
                full = number % run.checkpoint_every == 0
                scored = full or number == iterations
                if validate is not None and scored:
                    metrics = {**metrics, **_timed(validate, standing, full)}
                seconds = time.perf_counter() - before
                metrics = _of_all({**metrics, "time/iteration": seconds}, totals, ranks)
                _check(metrics, score)
                standing.take(metrics, score)
                if scored or standing.iteration % stride == 0:
                    row = standing.logged()
                    folder.log(standing.iteration, row)
                    show(display.update, standing.iteration, row)
                elif seconds > SLOW:
                    show(display.update, standing.iteration, metrics)
                # Read once: a signal from here on is for the next iteration, which then writes the checkpoint.
                stopped_by = ranks.largest(stop[0] if stop else 0)
                if scored or stopped_by:
                    standing.room |= _most(room(), ranks)
                    folder.save(standing, streams, scored=scored)
            # What is trained on or with may be somebody's own, and raise anything.
            except BaseException as error:
                problem = problem_of(error)
                if problem is None:
                    raise
                again = f"{run.command} train --resume {run_dir}"
                kept = RunFolder(run_dir).has_checkpoint()
                hint = f"Go on from its last checkpoint with: {again}" if kept else f"Begin it again with: {again}"
                if isinstance(error, NotFiniteError):
                    hint = error.advice
                raise UserError(
                    f"Iteration {number} of {run_dir} failed, {problem.removesuffix('.')}. "
                    f"{'Its checkpoints are kept' if kept else 'It has no checkpoint yet'}. {hint}"
                ) from error
        plateau = at_plateau(standing, patience)
        interrupted = standing.iteration < iterations and not plateau
        if stopped_by and interrupted:
            show(
                display.message,
                f"Stopped by {signal.Signals(stopped_by).name} after iteration {standing.iteration} of {iterations}, "
                f"checkpoint written. Go on with: {run.command} train --resume {run_dir}",
            )
        elif standing.iteration > started:
            done, took = standing.iteration, duration(time.monotonic() - clock)
            some = "iteration" if done == 1 else "iterations"
            show(display.message, f"Trained {done} {some} ({took} for the last {done - started}).")
            if plateau:
                show(display.message, f"{plateau_said(standing, iterations, str(run_dir))}.")
            elif rising := end_said(standing, patience, str(run_dir)):
                show(display.message, f"{rising}.")
        # Whoever is behind this line finds the last checkpoint.
        ranks.once(lambda: None)
    return TrainResult(iteration=standing.iteration, totals=standing.totals, interrupted=interrupted, plateau=plateau)


def _timed(validate: Validate, standing: Standing, counts: bool) -> Metrics:
    """Return the figures of a validation, with its time; none where there are none."""
    before = time.perf_counter()
    found = validate(standing, counts)
    return {**found, "time/validation": time.perf_counter() - before} if found else {}


def _show(stop: list[int], display: Callable[..., None], *what: Any) -> None:
    """Show something; where that cannot be written any more, ask the run to stop, as the end of a terminal does."""
    try:
        display(*what)
    # Rich ends the process where somebody has closed the pipe, and so has enough.
    except (OSError, SystemExit) as error:
        if not stop and not isinstance(error, BrokenPipeError | SystemExit):
            tell(f"what the training shows cannot be written any more, {error}: it stops")
        stop.append(HANGUP or signal.SIGTERM)


def iterations_of(agent: MetaAgent, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Step:
    """Return the iterations of an agent in its worlds, as `train` takes them."""

    def step(number: int) -> Metrics:
        failures = env.failures
        metrics = agent.train_iteration(env, sample_tasks, streams)
        return {**metrics, "env/failures": float(env.failures - failures)}

    return step


def console_of(ranks: Ranks, console: Console | None) -> Console:
    """Return where a rank shows its progress: standard output if None, and nowhere where it is not the first."""
    return (console or Console()) if ranks.first else Console(quiet=True, force_terminal=False)


def _of_all(metrics: Metrics, totals: Sequence[str], ranks: Ranks) -> Metrics:
    """Return the figures of all ranks: sums of those that are summed over the run and of speeds, else means."""
    summed = ranks.sum(metrics)
    return {
        tag: value if tag in totals or tag.startswith("speed/") else value / ranks.size for tag, value in summed.items()
    }


def _check(metrics: Metrics, score: str) -> None:
    """Raise NotFiniteError where a figure that a training is about is not finite."""
    for tag in (score, *VITAL):
        if not math.isfinite(metrics.get(tag, 0.0)):
            raise NotFiniteError(f"{tag} is {metrics[tag]}")


def _most(room: dict[str, int], ranks: Ranks) -> dict[str, int]:
    """Return the most room that any rank's engine has in its buffers."""
    return {name: ranks.largest(value) for name, value in room.items()}


@contextmanager
def _stop_requests(ranks: Ranks) -> Iterator[list[int]]:
    """Collect the signals that ask the run to stop, in place of being ended by them."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        # Python delivers signals to the main thread only, and only there may handlers be set.
        yield received
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in TO_STOP}
    if HANGUP in before and before[HANGUP] == signal.SIG_IGN:
        # `nohup` has the terminal's end ignored.
        del before[HANGUP]

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
