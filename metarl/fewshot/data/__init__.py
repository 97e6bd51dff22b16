"""Data sets for few-shot learning by name, one kind a file.

A data module has `VARIANTS` (name -> one line; the first is the default), `DEFAULT_SIZE` (of an image's side, in
pixels) and `load(variant, root, size)`. What else can be said of its data is a dataclass `Options` in the module, which
`load` gets as `options` then; its fields are options of the commands. Modules are imported when they are used: one may
need an optional package.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import torch

from metarl.arguments import checked
from metarl.config import from_plain, to_plain
from metarl.errors import UserError, nearest
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data.arrays import from_arrays
from metarl.fewshot.data.collection import Collection
from metarl.fewshot.data.own_functions import from_functions
from metarl.fewshot.episodes import Source

__all__ = ["DATA", "Collection", "from_arrays", "from_functions", "load", "options_of", "variants"]

DATA: dict[str, tuple[str, str]] = {
    "glyphs": ("glyphs", "characters of many scripts drawn from fonts, with a pen's variation; no download"),
    "omniglot": ("omniglot", "handwritten characters of 50 alphabets"),
    "mini-imagenet": ("mini_imagenet", "100 classes of ImageNet, 600 images each"),
    "tiered-imagenet": ("tiered_imagenet", "608 classes of ImageNet, split by category"),
    "cifar-fs": ("cifar", "CIFAR-100, classes split at random"),
    "fc100": ("cifar", "CIFAR-100, classes split by superclass"),
    "cub": ("cub", "birds of 200 species"),
    "folder": ("folder", "your own images: <split>/<class>/<image> or <class>/<image>"),
    "arrays": ("arrays", "your own arrays: items.npy and classes.npy"),
    "signals": ("signals", "your own signals: <split>/<class>/<file> or <class>/<file>, WAV, CSV or NPY"),
    "functions": ("own_functions", "your own functions: x.npy and y.npy, or functions.csv"),
    "molecules": ("molecules", "your own molecules: a CSV file of SMILES and assays"),
    "sinusoid": ("functions", "regression of sine waves"),
    "harmonic": ("functions", "regression of sums of two sine waves"),
    "steps": ("functions", "regression of step functions"),
}
"""Name -> (module, summary)."""

LARGEST_SIZE = 1024
"""Height and width that images can be brought to."""
_CPU = torch.device("cpu")
_SHARED = ("cifar", "functions")
"""Modules of several data sets: their variants are the names."""


@runtime_checkable
class _OnDevice(Protocol):
    def to(self, device: torch.device) -> Source: ...


def variants(name: str) -> dict[str, str]:
    """Return the variants of a data set with a line about each, the default first.

    Raises:
        UserError: there is no such data set.
    """
    module = _module(name)
    return {} if DATA[name][0] in _SHARED else dict(module.VARIANTS)


def options_of(address: str) -> dict[str, type[Any]]:
    """Return the options that data sets have beside size and folder: name of the data set -> class of its options.

    Args:
        address: as in `load`.

    Raises:
        UserError: there is no such data set.
    """
    names = dict.fromkeys(part.strip().partition("@")[0] for part in address.split("+"))
    found = {name: getattr(_module(name), "Options", None) for name in names}
    return {name: options for name, options in found.items() if options is not None}


@checked
def load(
    address: str, root: Path | str | None = None, *, size: int = 0, device: torch.device = _CPU, **options: Any
) -> Source:
    """Return a data set.

    Args:
        address: NAME or NAME@VARIANT; several with + between them are one collection.
        root: folder (or archive) of the data set, or the folder that holds it. None: the environment variable
            METARL_DATA.
        size: of images, height and width in pixels; 0: the data set's own.
        device: where the items lie.
        options: the data set's own, such as `ground="black"` for a folder of images; `options_of` has their classes.

    Raises:
        UserError: unknown name, variant or option; files that are missing, incomplete, damaged or in another layout.
    """
    root = None if root is None else Path(root)
    known_options = options_of(address)
    strange = [key for key in options if not any(key in vars(own()) for own in known_options.values())]
    if strange:
        choices = [key for own in known_options.values() for key in vars(own())]
        raise UserError(
            f"{address} has no option '{strange[0]}'.{nearest(strange[0], choices)}"
            if choices
            else f"{address} has no option '{strange[0]}', and no other one. Leave it out."
        )
    if "+" in address:
        # A folder for glyphs holds fonts, and is not the one that holds the other data sets.
        parts = [part.strip() for part in address.split("+")]
        roots = [None if part.startswith("glyphs") else root for part in parts]
        members = [
            load(part, own, size=size, device=device, **_of_one(part, options))
            for part, own in zip(parts, roots, strict=True)
        ]
        return Collection(members=tuple(_with_classes(member) for member in members))
    name, _, variant = address.partition("@")
    if not 0 <= size <= LARGEST_SIZE:
        raise UserError(f"Got a size of {size} pixels. Give 1 to {LARGEST_SIZE}, or 0 for the data set's own.")
    module, known = _module(name), variants(name)
    if variant and variant not in known:
        choices = nearest(variant, known) if known else f" It has none; ask for {name}."
        raise UserError(f"Unknown variant '{variant}' of {name}.{choices}")
    arguments: dict[str, Any] = {"variant": variant or next(iter(known), name), "root": root, "size": size}
    for own in known_options.values():
        arguments["options"] = from_plain(own, {**to_plain(own()), **to_plain(options)})
    source = module.load(**arguments)
    return source.to(device) if isinstance(source, _OnDevice) else source


def _of_one(address: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options that a member of a collection has."""
    return {key: value for key, value in options.items() for own in options_of(address).values() if key in vars(own())}


def _module(name: str) -> ModuleType:
    if name not in DATA:
        raise UserError(f"Unknown data set '{name}'.{nearest(name, DATA)}")
    return import_module(f"metarl.fewshot.data.{DATA[name][0]}")


def _with_classes(source: Source) -> ClassData:
    if not isinstance(source, ClassData):
        raise UserError(f"Got {source.name} in a collection. Only data sets with classes can be in one.")
    return source
