"""How commands show settings and tables."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def by_option(settings: dict[str, Any]) -> dict[str, Any]:
    """Return nested settings with the names of the options."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= by_option(value) if isinstance(value, dict) else {key: value}
    return flat


def plain_table(*headers: str) -> Table:
    """Return an empty table without lines."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    return table
