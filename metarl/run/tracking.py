"""Tracking: what is logged goes to TensorBoard and to progress.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard.summary import hparams

from metarl.errors import UserError
from metarl.files import Folder, read_regular
from metarl.run.events import Events
from metarl.run.glossary import look_up
from metarl.types import Metrics

PROGRESS = "progress.csv"
"""Name of the file with the rows."""
LARGEST = 1 << 30
"""Bytes that it may have."""


class Tracker:
    """Writes metrics to TensorBoard events and to progress.csv, one row a step, in one folder."""

    def __init__(self, folder: Folder | Path, resume_step: int | None = None) -> None:
        """Open the folder.

        Args:
            folder: where events and progress.csv are written; made where missing.
            resume_step: go on after this step: what was logged for later steps is dropped. None: a new run.
        """
        self._folder = Folder.of(folder).make()
        self._columns: list[str] = []
        if resume_step is not None:
            rows = [row for row in read_progress(self._folder.path) if row["step"] <= resume_step]
            self._rewrite(rows)
        self._events = Events(self._folder, purge_step=None if resume_step is None else resume_step + 1)

    def describe(self, settings: Mapping[str, Any], figures: Sequence[str]) -> None:
        """Write the settings of the run for TensorBoard's table of hyperparameters.

        Args:
            settings: plain data; nested names are joined with dots.
            figures: tags that stand beside them, with their latest values.
        """
        flat = dict(_flattened(settings))
        for summary in hparams(flat, dict.fromkeys(figures, 0.0)):
            self._events.add(summary)

    def log(self, step: int, metrics: Metrics) -> None:
        """Write the metrics of one step.

        Raises:
            ValueError: if the glossary lacks a tag; nothing is written then.
        """
        for tag in metrics:
            look_up(tag)
        for tag, value in metrics.items():
            self._events.add_scalar(tag, value, step)
        row = {"step": float(step), **metrics}
        if set(row) <= set(self._columns):
            text = io.StringIO(newline="")
            csv.DictWriter(text, self._columns, lineterminator="\n").writerow(_cells(row))
            self._folder.append(PROGRESS, text.getvalue().encode())
        else:
            self._rewrite([*(read_progress(self._folder.path) if self._columns else []), row])

    def flush(self) -> None:
        """Bring everything logged so far to the disk."""
        self._events.flush()
        self._folder.sync(PROGRESS)

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._events.close()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rewrite(self, rows: list[Metrics]) -> None:
        """Write progress.csv anew, with a column for every tag of `rows`."""
        self._columns = list(dict.fromkeys(tag for row in rows for tag in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_cells(row) for row in rows)
        self._folder.write(PROGRESS, text.getvalue().encode())


def _flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Yield dotted names with values that TensorBoard can hold: numbers and text."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, bool | int | float | str) else str(value)


def _cells(row: Metrics) -> dict[str, float | int]:
    """Return a row as it is written: with a whole number as its step."""
    return {**row, "step": int(row["step"])}


def read_progress(folder: Path) -> list[Metrics]:
    """Return the rows of progress.csv as numbers; `step` is one of the columns.

    A last row that a killed process left unfinished is dropped.

    Raises:
        UserError: if the file is damaged.
    """
    path = folder / PROGRESS
    if not path.exists():
        return []
    try:
        text = read_regular(path, LARGEST).decode("utf-8")
        whole = text[: text.rfind("\n") + 1]
        reader = csv.DictReader(io.StringIO(whole, newline=""))
        # Without a row there are no columns either.
        if whole.strip() and "step" not in (reader.fieldnames or ()):
            raise ValueError("its first line does not name the column 'step'")
        rows = [{tag: float(value) for tag, value in row.items() if value} for row in reader]
        if not all("step" in row for row in rows):
            raise ValueError("a row without step")
    # A surplus value stands in a list, which is no number.
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path} is damaged ({error}). Correct or remove it; the checkpoints do not need it."
        ) from error
    return rows
