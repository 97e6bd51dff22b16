"""How a run shows itself while it trains: a live line on a terminal or in a notebook, log lines elsewhere, or JSON."""

from __future__ import annotations

import html
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from metarl.errors import first_rank, tell
from metarl.types import Metrics

SECONDS_BETWEEN_LINES = 5.0
"""Least time between two log lines where the output is no terminal, in s."""


@contextmanager
def counting(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show on a terminal's standard error how much of something is done, until it is; give the function that counts.

    Args:
        title: what is done; nothing is shown if empty.
        total: how much there is to be done.
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not (title and console.is_terminal)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.advance(task, done)


@contextmanager
def telling(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Tell on standard error how much of something that takes long is done; give the function that counts.

    On a terminal it is one live line and one that stays, elsewhere a line at the start, at the end, and now and then
    between them. Of several ranks the first one tells.

    Args:
        title: what is done; nothing is shown if empty.
        total: how much there is to be done.
    """
    if not title or not total:
        yield lambda done: None
        return
    started = last = time.monotonic()
    so_far = 0
    with counting(title if first_rank() else "", total) as count:
        live = Console(stderr=True).is_terminal
        if not live:
            tell(f"{title}: {total} to do")

        def progress(done: int) -> None:
            nonlocal so_far, last
            so_far += done
            count(done)
            now = time.monotonic()
            if not live and so_far < total and now - last >= SECONDS_BETWEEN_LINES:
                last = now
                tell(f"{title}: {so_far} of {total} after {now - started:.0f} s")

        yield progress
    tell(f"{title}: {so_far} of {total} in {time.monotonic() - started:.1f} s")


class LiveDisplay:
    """One line on a terminal, always current: bar, iterations, time left, the few figures that matter."""

    def __init__(self, console: Console, title: str, first: int, iterations: int) -> None:
        self._clock = _Clock(first, iterations)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}  {task.fields[figures]}"),
            console=console,
        )
        self._task = self._progress.add_task(title, total=iterations, completed=first, left="", figures="")
        self._latest: Metrics = {}

    def __enter__(self) -> LiveDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The terminal may have gone.
        with suppress(OSError):
            self._progress.stop()

    def update(self, iteration: int, metrics: Metrics) -> None:
        """Show the new figures."""
        left = self._clock.left(iteration)
        # Some figures come rarely: the last ones stay.
        self._latest |= metrics
        self._progress.update(self._task, completed=iteration, left=left, figures=figures(self._latest))

    def message(self, text: str) -> None:
        """Show a line above the live one."""
        self._progress.console.out(text, highlight=False)


Shown = TypeVar("Shown")


class _NothingToClose:
    """A display that needs no end."""

    def __enter__(self: Shown) -> Shown:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class NotebookDisplay(_NothingToClose):
    """One line below a notebook's cell, always current: bar, iterations, time left, the few figures that matter."""

    def __init__(self, title: str, first: int, iterations: int) -> None:
        # Part of whatever runs a notebook, and of nothing else here.
        self._show = import_module("IPython.display")
        self._clock = _Clock(first, iterations)
        self._title = title
        self._iterations = iterations
        self._latest: Metrics = {}
        self._handle = self._show.display(self._line(first), display_id=True)

    def update(self, iteration: int, metrics: Metrics) -> None:
        """Show the new figures."""
        # Some figures come rarely: the last ones stay.
        self._latest |= metrics
        self._handle.update(self._line(iteration))

    def message(self, text: str) -> None:
        """Show a line below."""
        self._show.display(self._show.HTML(f"<div>{html.escape(text)}</div>"))

    def _line(self, iteration: int) -> Any:
        """Return the line as the notebook takes it."""
        words = "  ".join([f"{iteration}/{self._iterations}", self._clock.left(iteration), figures(self._latest)])
        bar = f'<progress value="{iteration}" max="{max(self._iterations, 1)}"></progress>'
        return self._show.HTML(f"<div><b>{html.escape(self._title)}</b> {bar} {html.escape(words.strip())}</div>")


class PlainDisplay(_NothingToClose):
    """Log lines, the first and the last iteration and at most one in a few seconds between them."""

    def __init__(self, console: Console, title: str, first: int, iterations: int) -> None:
        self._console = console
        self._title = title
        self._iterations = iterations
        self._clock = _Clock(first, iterations)
        self._last_line = -math.inf
        self._latest: Metrics = {}

    def update(self, iteration: int, metrics: Metrics) -> None:
        """Print a line, if it is time for one."""
        now = time.monotonic()
        self._latest |= metrics
        if iteration == self._iterations or now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            done = f"{self._title}  {iteration}/{self._iterations}"
            self.message("  ".join([done, self._clock.left(iteration), figures(self._latest)]).rstrip())

    def message(self, text: str) -> None:
        """Print one line."""
        self._console.out(text, highlight=False)


class JsonDisplay(_NothingToClose):
    """One JSON object a line."""

    def __init__(self, console: Console, iterations: int) -> None:
        self._console = console
        self._iterations = iterations

    def update(self, iteration: int, metrics: Metrics) -> None:
        """Print the figures; those that JSON cannot hold (NaN, infinity) as null."""
        finite = {tag: value if math.isfinite(value) else None for tag, value in metrics.items()}
        self._print({"iteration": iteration, "iterations": self._iterations, **finite})

    def message(self, text: str) -> None:
        """Print the text as an object with the one entry `message`."""
        self._print({"message": text})

    def _print(self, content: dict[str, Any]) -> None:
        self._console.out(json.dumps(content), highlight=False)


Display = LiveDisplay | NotebookDisplay | PlainDisplay | JsonDisplay
"""What the run driver tells about its progress: `update(iteration, metrics)` and `message(text)`."""


def open_display(console: Console, *, json_lines: bool, title: str, first: int, iterations: int) -> Display:
    """Return the display that fits the output.

    Args:
        console: where to.
        json_lines: one JSON object per iteration and nothing else, for scripts.
        title: name of the run.
        first: iterations already done.
        iterations: iterations in the end.
    """
    if json_lines:
        return JsonDisplay(console, iterations)
    if console.is_jupyter:
        return NotebookDisplay(title, first, iterations)
    if console.is_terminal:
        return LiveDisplay(console, title, first, iterations)
    return PlainDisplay(console, title, first, iterations)


_LEARNING = (
    ("train/loss", "loss", ".4f"),
    ("train/accuracy", "accuracy", ".1%"),
    ("validation/accuracy", "validation", ".1%"),
    ("validation/loss", "validation", ".4f"),
)


def figures(metrics: Metrics) -> str:
    """Return the few figures that matter, as far as they are there, in one line."""
    parts = []
    if "return/post" in metrics:
        returns = rounded(*(metrics[tag] for tag in ("return/pre", "return/post") if tag in metrics))
        parts.append(f"return {' -> '.join(returns)}")
    elif "return/teacher" in metrics:
        parts.append(f"teacher's return {rounded(metrics['return/teacher'])[0]}")
    if "validation/return" in metrics:
        parts.append(f"validation {rounded(metrics['validation/return'])[0]}")
    for tag, name, form in _LEARNING:
        if tag in metrics:
            parts.append(f"{name} {metrics[tag]:{form}}")
    if "update/kl" in metrics:
        parts.append(f"KL {metrics['update/kl']:.4f}")
    if "speed/env_steps_per_second" in metrics:
        parts.append(f"{metrics['speed/env_steps_per_second']:,.0f} env-steps/s")
    if metrics.get("env/failures"):
        parts.append(f"{metrics['env/failures']:,.0f} simulations failed so far")
    return "  ".join(parts)


class _Clock:
    """Estimates the time left from the iterations done since it was made."""

    def __init__(self, first: int, iterations: int) -> None:
        self._first = first
        self._iterations = iterations
        self._started = time.monotonic()

    def left(self, iteration: int) -> str:
        """Return the time left in words."""
        if iteration <= self._first:
            return ""
        each = (time.monotonic() - self._started) / (iteration - self._first)
        return f"{duration(each * (self._iterations - iteration))} left"


def duration(seconds: float) -> str:
    """Return a time as `h:mm:ss`, or `m:ss` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def rounded(*values: float) -> list[str]:
    """Return numbers as text, all with the decimals that give the largest of them three digits: 3 at most.

    One decimal is there up to 1,000.
    """
    size = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    decimals = sum(size < limit for limit in (1000.0, 10.0, 1.0))
    return [f"{value:.{decimals}f}" for value in values]
