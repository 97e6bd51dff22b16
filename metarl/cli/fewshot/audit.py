"""`metarl fewshot audit`: look for leaks between the splits of a data set, and in its episodes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.markup import escape

from metarl.cli.fewshot.data_options import parse_with_data
from metarl.cli.tables import plain_table

LEAKS = 1
"""Exit code of an audit that found some."""

AUDIT = """\
Look for leaks in a data set: classes, files or equal items in two splits, items both in support and query, wrong or
unpermuted labels. Exit code 1 if there are any.

examples:
  metarl fewshot audit glyphs
  metarl fewshot audit folder --data-root my-images --json"""


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """What is looked at."""

    data: tyro.conf.Positional[str]
    """Data, as NAME or NAME@VARIANT."""
    data_root: Path | None = None
    """Folder of the data, or the folder that holds it; the environment variable METARL_DATA if not given."""
    size: int = 0
    """Height and width that images are brought to; 0: the data's own."""
    episodes: int = 100
    """Episodes of every split that are looked at."""
    seed: int = 0
    """Of the episodes."""
    json: bool = False
    """Print JSON in place of a table."""


def audit_command(arguments: list[str]) -> int:
    """Run `metarl fewshot audit`."""
    parsed, data_options = parse_with_data(arguments, "metarl fewshot audit", AUDIT, command=AuditOptions)
    options: AuditOptions = parsed.command

    from metarl.fewshot.audit import audit
    from metarl.fewshot.data import load

    report = audit(
        load(options.data, options.data_root, size=options.size, **data_options),
        episodes=options.episodes,
        seed=options.seed,
    )
    if options.json:
        print(json.dumps(report.describe()))
        return 0 if report.ok else LEAKS
    console = Console()
    sizes = ", ".join(
        f"{name} {size['classes']:,} classes {size['items']:,} items" for name, size in report.splits.items()
    )
    console.print(f"{report.data}: {sizes}", highlight=False, markup=False)
    table = plain_table("check", "found", "")
    for finding in report.findings:
        verdict = "ok" if not finding.count else "[bold red]leak[/]" if finding.leak else "to know"
        table.add_row(escape(finding.check), f"{finding.count:,}", verdict)
    console.print(table, highlight=False)
    for finding in report.findings:
        for example in finding.examples:
            console.print(f"  {finding.check}: {example}", highlight=False, markup=False)
    console.print("No leaks." if report.ok else "There are leaks.", style="bold")
    return 0 if report.ok else LEAKS
