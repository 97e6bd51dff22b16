"""Pretended GPUs: tensors that say they are on `cuda:N`, compute on the CPU, and raise where CUDA would.

A tensor there is a wrapper, on torch's device `meta:N`, around one of the CPU. One mode turns the names of devices
around on the way into torch and out of it, another computes. So programs take the branches of a GPU, whatever mixes
devices, or asks for a GPU without a number, raises, and numbers are real. What there is no pretence of: streams, graphs
and memory; tests replace these functions of `torch.cuda` themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_aten: Any = torch.ops.aten
MOVES = (_aten.copy_.default, _aten._to_copy.default)
"""Operations that may have tensors of two devices."""
INDEXED = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default)
"""Operations whose indices may be on the CPU."""
CPU = torch.device("cpu")
_sources: dict[int, torch.device] = {}
"""Devices of generators, by torch's address of them."""


@contextmanager
def pretended_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let torch have GPUs for a while, of which cuda:0 is the current one."""
    with monkeypatch.context() as patch, _Computing(), _Naming():
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch.cuda, "current_device", lambda: 0)
        patch.setattr(torch.cuda, "synchronize", lambda device: None)
        patch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**30))
        patch.setattr(torch.backends.cudnn, "is_acceptable", lambda tensor: False)
        patch.delenv("LOCAL_RANK", raising=False)
        yield
    _sources.clear()


class _There(Tensor):
    """A tensor on a pretended GPU, around `here` on the CPU."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor, device: torch.device) -> _There:
        make: Any = Tensor._make_wrapper_subclass
        layout = {"strides": here.stride(), "storage_offset": here.storage_offset()}
        self = make(cls, here.size(), **layout, dtype=here.dtype, device=device)
        self.here = here
        return self

    def __init__(self, *_: Any) -> None:
        pass

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on a GPU that is no longer pretended")


class _Computing(TorchDispatchMode):
    """Computes on the CPU, and raises where devices are mixed."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        asked = None if kwargs.get("device") is None else _named(kwargs["device"])
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = {id(x.here): x for x in given if isinstance(x, _There)}
        if not there and (asked is None or asked.type != "cuda"):
            return func(*args, **kwargs)
        bound = list(there.values()) if func in MOVES else given[:1] if func in INDEXED else given
        # A number of the CPU may be met anywhere.
        places = {_named(x.device) for x in (*there.values(), *bound) if x.dim() or isinstance(x, _There)}
        if len(places) > 1:
            raise RuntimeError(f"{func} mixes {' and '.join(sorted(map(str, places)))}")
        place = asked or (_named(given[0].device) if func is _aten.copy_.default else next(iter(places)))
        if (generator := kwargs.get("generator")) is not None:
            # What comes here is another object for the same generator.
            source = _sources.get(generator._cdata, CPU)
            assert source == place, f"{func} on {place} draws from a generator on {source}"
        here = kwargs if asked is None else {**kwargs, "device": CPU}
        found = func(*tree_map(_here, args), **tree_map(_here, here))
        if torch.Tag.inplace_view in func.tags:
            with no_dispatch():
                func(*args, **kwargs)

        def back(value: Any) -> Any:
            if not isinstance(value, Tensor) or place.type == "cpu":
                return value
            return there[id(value)] if id(value) in there else _There(value, _inside(place))

        return tree_map(back, found)


class _Naming(TorchFunctionMode):
    """Turns `cuda:N` into `meta:N` on the way into torch, and back on the way out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        owner = getattr(func, "__self__", None)
        if func is torch.device:
            return func(*args, **kwargs)
        if owner is Tensor.device:
            return _named(func(*args))
        if owner is Tensor.is_meta:
            return _named(Tensor.device.__get__(*args)).type == "meta"
        if owner is Tensor.is_cuda:
            return _named(Tensor.device.__get__(*args)).type == "cuda"
        if func is Tensor.tolist:
            return func(args[0].cpu())
        if func is Tensor.numpy and isinstance(args[0], _There):
            raise TypeError("can't convert a tensor of a GPU to numpy: copy it to the host first")
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            # Torch would make an empty tensor of Python's numbers.
            return func(*args, **{**kwargs, "device": None}).to(_inside(torch.device(kwargs["device"])))
        return func(*map(_inside, args), **{key: _inside(value) for key, value in kwargs.items()})


_Real = torch.Generator


class _AnyGenerator(type(torch.Generator)):
    """Whoever asks meanwhile what a generator is, as checks of types do, and keeps the answer, has a right one."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _Real)


class _Generator(torch.Generator, metaclass=_AnyGenerator):
    """A generator on a pretended GPU, which draws what one of the CPU does."""

    def __new__(cls, device: Any = CPU) -> _Generator:
        self: Any = super().__new__(cls)
        _inside(torch.device(device))
        _sources[self._cdata] = torch.device(device)
        return self

    def __init__(self, device: Any = CPU) -> None:
        pass

    @property
    def device(self) -> torch.device:  # pyright: ignore
        itself: Any = self
        return _sources[itself._cdata]


def _here(value: Any) -> Any:
    return value.here if isinstance(value, _There) else value


def _named(device: torch.device) -> torch.device:
    # Without a number it is torch's own, for tensors without numbers.
    return torch.device("cuda", device.index) if device.type == "meta" and device.index is not None else device


def _inside(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("cuda"):
        value = torch.device(value)
    if isinstance(value, torch.device) and value.type == "cuda":
        assert value.index is not None, "a GPU without a number is the current one, whichever that is"
        return torch.device("meta", value.index)
    return value
