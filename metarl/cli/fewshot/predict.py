"""`metarl fewshot predict`: learn a new task from a few files, and answer for others."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.markup import escape

from metarl.cli.options import parse
from metarl.cli.tables import plain_table
from metarl.errors import UserError
from metarl.files import open_regular, write_atomically
from metarl.run.settings import Checkpoint, Device

if TYPE_CHECKING:
    from metarl.fewshot.asking import Task
    from metarl.fewshot.loading import Trained

SHOWN = 40
"""Queries in the table; the file has all."""
COLUMNS = 8
"""Classes whose probabilities are in the table; the file has all."""

BEGINS = (b"item,answer", b"item,y0")
"""What a file of answers begins with."""
AT_MOST = 1 << 40
"""Bytes that one may have."""

PREDICT = """\
Learn new classes from a few items, and tell the class of others: a table, and a CSV file with all probabilities.

What is given follows from what the run was trained on:
  pictures, signals  --support FOLDER with <class>/<file>; --query files, or folders of them
  arrays             --support FOLDER with items.npy and labels.npy; --query .npy files, or folders with items.npy
  molecules          --support FILE.csv with the columns smiles and label; --query FILE.csv with a column smiles
  functions          --support FILE.csv with columns x... and y..., or FOLDER with x.npy and y.npy;
                     --query FILE.csv with columns x..., .npy files, or folders with x.npy

Items are taken in the form of the training's: their layout, range and size; what differs is refused.

examples:
  metarl fewshot predict runs/mine --support few --query others
  metarl fewshot predict runs/mine --support few --query a.png b.png --out answers.csv"""


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What is learned from, and what is asked about."""

    run: tyro.conf.Positional[Path]
    """Run folder of `metarl fewshot train`."""
    support: Path
    """Folder (or file) of the items to learn from, with their classes."""
    query: tuple[Path, ...]
    """Files, or folders, of the items whose classes are asked for."""
    layout: str = "auto"
    """Of .npy files, such as nchw, nhwc, ncl; auto: that of the training, or another one where only that one fits."""
    out: Path | None = None
    """CSV file of the answers; RUN/predictions.csv if not given. It replaces nothing but earlier answers."""
    checkpoint: Checkpoint | None = None
    """Which checkpoint of the run; if not given the best one where there is one, else the last."""
    data_root: Path | None = None
    """Folder of the training data, if elsewhere than in training."""
    device: Device = "cpu"
    """Where network and items live: cpu, cuda, a GPU by its number (cuda:1), or auto."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    json: bool = False
    """Print JSON in place of the table."""


def predict_command(arguments: list[str]) -> int:
    """Run `metarl fewshot predict`."""
    options = parse(PredictOptions, arguments, "metarl fewshot predict", PREDICT)
    out = options.out or options.run / "predictions.csv"
    if options.out is not None and (out.suffix.lower() != ".csv" or out.is_dir() or not out.parent.is_dir()):
        raise UserError(f"Got --out {out}. Give a file that ends in .csv, in a folder that exists.")

    from metarl.devices import resolve_threads, torch_threads
    from metarl.fewshot.asking import read_task
    from metarl.fewshot.loading import load
    from metarl.fewshot.room import check_answers

    _check_replaced(out)
    if not options.query:
        raise UserError("Got --query without a file. Give the items that are asked about.")
    trained = load(options.run, options.checkpoint, data_root=options.data_root, device=options.device)
    task = read_task(trained.source, options.support, options.query)
    check_answers(trained.run, trained.source, len(task.queries))
    with torch_threads(resolve_threads(options.threads)):
        header, rows = _answers(trained, task, options.layout)
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([header, *rows])
    # Names of files and classes need not be text.
    write_atomically(out, buffer.getvalue().encode(errors="backslashreplace"))
    if options.json:
        print(json.dumps({"file": str(out), "answers": [dict(zip(header, row, strict=True)) for row in rows]}))
        return 0
    shown = header[: 2 + COLUMNS]
    table = plain_table(*map(escape, shown))
    for row in rows[:SHOWN]:
        cells = [f"{cell:.4g}" if isinstance(cell, float) else escape(str(cell)) for cell in row[: len(shown)]]
        table.add_row(*cells)
    Console().print(table, highlight=False)
    print(f"Answers      {out} ({len(rows)} items)")
    return 0


def _check_replaced(out: Path) -> None:
    """Refuse to write over anything but earlier answers: it may be what is asked about, or of a run."""
    try:
        with open_regular(out, AT_MOST) as file:
            begin = file.read(max(map(len, BEGINS)))
    except FileNotFoundError:
        return
    if begin and not begin.startswith(BEGINS):
        raise UserError(f"{out} exists, and holds no answers of an earlier predict. Give another name with --out.")


def _answers(trained: Trained, task: Task, layout: str) -> tuple[list[str], list[list[Any]]]:
    """Return the header and the rows of the table of answers."""
    from metarl.fewshot.use import known_labels, plain_labels, predict

    source: Any = trained.source
    if source.outputs:
        values = predict(trained.learner, source, task.items, task.labels, task.queries, layout=layout)
        header = ["item", *(f"y{number}" for number in range(source.outputs))]
        return header, [[name, *row] for name, row in zip(task.names, values.tolist(), strict=True)]
    answers, probabilities = predict(trained.learner, source, task.items, task.labels, task.queries, layout=layout)
    known = known_labels(plain_labels(task.labels), source.form.labels)
    found = zip(task.names, answers, probabilities.tolist(), strict=True)
    return ["item", "answer", *(f"p({label})" for label in known)], [
        [name, answer, *row] for name, answer, row in found
    ]
