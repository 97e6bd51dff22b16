"""What Meta-World's protocol leaves: a table for the terminal, and protocol.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from metarl.evaluation.wording import in_percent
from metarl.files import Folder
from metarl.version import __version__


def table(result: dict[str, Any]) -> Table:
    """Return a result of the protocol for the terminal, within 80 columns.

    Args:
        result: of one agent.
    """
    made = Table(
        title=f"{result['agent']}, {result['family']}, {result['split']} tasks: success in {result['scored']} episodes "
        f"after {result['adapting']}",
        title_justify="left",
        title_style="bold",
        caption="package: what the loop of Meta-World's package would have printed; it counts the first to end.",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    made.add_column("class", overflow="fold")
    for header in ("tasks", "success \\[95%]", "package", "return"):
        made.add_column(header, justify="right", no_wrap=True)
    rows = result["classes"]
    for row in rows:
        cells = (str(row["tasks"]), in_percent(row, "success"), f"{row['package_success']:.1%}", f"{row['return']:.1f}")
        made.add_row(escape(row["class"]), *cells, end_section=row is rows[-1])
    made.add_row(
        "all",
        str(sum(row["tasks"] for row in rows)),
        in_percent(result, "success"),
        f"{result['package_success']:.1%}",
        "",
    )
    return made


def write(results: Sequence[dict[str, Any]], folder: Folder | Path) -> None:
    """Write protocol.json in place of an earlier one; without results that goes: it belongs to another evaluation."""
    folder = Folder.of(folder).make()
    if results:
        content = {"version": __version__, "results": list(results)}
        folder.write("protocol.json", (json.dumps(content, indent=2) + "\n").encode())
    else:
        folder.remove("protocol.json")
