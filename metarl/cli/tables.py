"""The tables that commands print."""

from __future__ import annotations

from rich.table import Table


def plain_table(*headers: str) -> Table:
    """Return an empty table without lines."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    return table
