"""`metarl fewshot show`: a contact sheet of a data set's images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from metarl.cli.fewshot.data_options import parse_with_data
from metarl.errors import UserError

SHOW = """\
Draw a contact sheet of a data set's images, a class a row.

examples:
  metarl fewshot show glyphs --out sheet.png
  metarl fewshot show omniglot --split train --classes 30 --out sheet.png"""


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """What is shown."""

    data: tyro.conf.Positional[str]
    """Data, as NAME or NAME@VARIANT."""
    out: Path
    """File for the picture, which ends in .png and must not exist yet."""
    split: Literal["test", "validation", "train"] = "test"
    """Which classes."""
    classes: int = 20
    """How many of them, at the most."""
    items: int = 20
    """How many items of each, at the most."""
    data_root: Path | None = None
    """Folder of the data, or the folder that holds it; the environment variable METARL_DATA if not given."""
    size: int = 0
    """Height and width that images are brought to; 0: the data's own."""


def show_command(arguments: list[str]) -> int:
    """Run `metarl fewshot show`."""
    parsed, data_options = parse_with_data(arguments, "metarl fewshot show", SHOW, command=ShowOptions)
    options: ShowOptions = parsed.command
    if options.out.suffix.lower() != ".png":
        raise UserError(f"Got --out {options.out}. Give a name that ends in .png.")
    if options.out.exists():
        raise UserError(f"{options.out} exists already. Choose another name.")

    from metarl.fewshot.classes import ClassData
    from metarl.fewshot.data import load
    from metarl.fewshot.sheet import sheet
    from metarl.files import write_atomically

    source = load(options.data, options.data_root, size=options.size, **data_options)
    if not isinstance(source, ClassData):
        raise UserError(f"{source.name} has no images of its own. Show a data set of images.")
    content = sheet(source, options.split, options.classes, options.items)
    write_atomically(options.out, content)
    print(options.out)
    return 0
