"""Settings under the names of their options, as commands show them."""

from __future__ import annotations

from typing import Any


def by_option(settings: dict[str, Any]) -> dict[str, Any]:
    """Return nested settings with the names of the options."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= by_option(value) if isinstance(value, dict) else {key: value}
    return flat
