"""`metarl export`: a trained agent as a folder that runs without metarl, and how long an action takes there."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from metarl.cli.options import parse
from metarl.config import check, check_used
from metarl.errors import UserError
from metarl.run.settings import Checkpoint

EXPORT = """\
Write a trained agent as a folder that runs without metarl.

usage: metarl export RUN --out FOLDER [OPTIONS]
       metarl export FOLDER --bench

The folder has weights.safetensors; manifest.json, which tells observations, actions, control rate, the tasks that it
was trained on and the network; policy.py, which runs it with NumPy alone (Python 3.9 or later) and adapts as the agent
does; and, where the onnx package is installed (pip install 'metarl-suite[export]'), model.onnx.

    from policy import Policy

    policy = Policy("FOLDER")
    action = policy.act(observation, reward)

With --bench a process of its own takes actions on one core, one after the other, beside onnxruntime where that is
installed. Shown are the seconds until the first action; and of all actions the median, what 99 of 100 stay below, and
the slowest. On a busy machine actions wait for other work: `processor` is what 99 of 100 take of the core themselves.

examples:
  metarl export runs/rl2 --out policy
  metarl export runs/rl2 --out policy --bench
  metarl export policy --bench"""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is exported, and where to."""

    what: tyro.conf.Positional[Path]
    """A run folder of `metarl train`; or, with --bench, a folder that was exported."""
    out: Path | None = None
    """The new folder, which must not exist yet, or be empty."""
    checkpoint: Checkpoint = "last"
    """Which checkpoint of the run."""
    onnx: Literal["auto", "yes", "no"] = "auto"
    """Whether there is to be a model.onnx; auto: where the onnx package is installed."""
    bench: bool = False
    """Measure how long an action takes."""
    count: int = 10_000
    """Actions that are measured."""
    trust: bool = False
    """Execute the files of the family though you did not make the run on this machine: read them first."""
    source: str | None = None
    """File or module that defines the family, where that is not found, or is to be another one."""
    json: bool = False
    """Print one JSON object in place of lines."""


def export_command(arguments: list[str]) -> int:
    """Run `metarl export`."""
    options = parse(ExportOptions, arguments, "metarl export", EXPORT)
    check(options, at_least={"count": 1}, at_most={"count": 10_000_000})
    folder_given = options.bench and (options.what / "manifest.json").exists()
    if folder_given and options.out is not None:
        raise UserError(f"Got --out {options.out} for {options.what}, which is exported already. Leave it out.")
    if not folder_given and options.out is None:
        raise UserError(f"metarl export needs a folder to write to: metarl export {options.what} --out policy")
    check_used(options, {} if options.bench else {"count": "--bench"})
    if folder_given:
        needs = "a run folder, and this one is exported already"
        check_used(options, dict.fromkeys(("checkpoint", "onnx", "trust", "source"), needs))
    report: dict[str, Any] = {"folder": str(options.what)}
    if not folder_given:
        report = _export(options)
    if options.bench:
        report["latency"] = _bench(Path(report["folder"]), options.count)
    if options.json:
        print(json.dumps(report))
        return 0
    if "files" in report:
        print(f"Policy    {report['folder']}: {', '.join(report['files'])}")
    if options.bench:
        _show(report["latency"])
    return 0


def _export(options: ExportOptions) -> dict[str, Any]:
    """Write the folder."""
    from metarl.api.exporting import export

    assert options.out is not None
    made = export(
        options.what,
        options.out,
        checkpoint=options.checkpoint,
        onnx=options.onnx,
        trust=options.trust,
        source=options.source,
    )
    return {"folder": str(made.folder), "files": list(made.files)}


def _bench(folder: Path, count: int) -> dict[str, Any]:
    """Measure the policy in a folder."""
    from metarl.deployment.latency import latency
    from metarl.deployment.policy import FILES, PolicyError, read_folder
    from metarl.files import open_regular
    from metarl.seals import AT_MOST

    for name in (*FILES, "manifest.json", "manifest.sha256"):
        with suppress(FileNotFoundError):
            open_regular(folder / name, AT_MOST).close()
    try:
        read_folder(folder)
    except PolicyError as error:
        raise UserError(str(error)) from error
    return latency(folder, count)


def _show(latency: dict[str, Any]) -> None:
    """Print how long actions take."""
    table = Table(title=f"One action of {latency['count']:,} on one core, ms")
    figures = ("p50", "p99", "worst", "processor")
    for name in ("", *figures):
        table.add_column(name, justify="right" if name else "left")
    for name in ("policy.py", "onnxruntime"):
        if name in latency:
            table.add_row(name, *(f"{latency[name][figure]:.3f}" for figure in figures))
    Console().print(table)
    print(f"First action after {latency['start_seconds']:.2f} s")
    if "onnxruntime" not in latency:
        print("No onnxruntime beside it: it needs model.onnx and pip install 'metarl-suite[export]'")
