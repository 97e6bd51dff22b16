"""Looks of the host at tensors, at each of which a GPU stands still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode

LOOKS = ("item", "tolist", "numpy", "cpu", "nonzero", "equal", "allclose", "unique", "masked_select")
LOOKS += tuple(f"__{kind}__" for kind in ("bool", "float", "int", "index", "contains", "array"))


class Looks(TorchFunctionMode):
    """Notes the looks that are taken under it.

    Attributes:
        seen: their names, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in LOOKS:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))
