"""tieredImageNet (Ren et al. 2018): 608 classes of 34 categories, split 351/97/160 by category; 84x84.

Read as published: `{train,val,test}_images_png.pkl`, a list of PNG files as arrays of bytes, and
`{train,val,test}_labels.pkl`, a dict with `label_specific` (class of every image) and `label_specific_str` (names), and
the same for the categories under `label_general`; also inside tiered-imagenet.tar. Or as folders. The 779,165 images
take 16.5 GB in the cache.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data.cache import Listed, Listing, Picture, cached
from metarl.fewshot.data.files import Tree, below, find_root, open_tree, published, read_pickle, text, wrong_layout
from metarl.fewshot.data.folder import inner_folder, split_folders
from metarl.fewshot.data.pictures import ImageForm
from metarl.fewshot.reading.arrays import whole_numbers

DEFAULT_SIZE = 84
VARIANTS = {
    "any": "the layout that is there",
    "pickle": "{train,val,test}_images_png.pkl and {train,val,test}_labels.pkl",
    "folders": "train/, val/, test/ with a folder per class",
}
_FILES = {"train": "train", "validation": "val", "test": "test"}
_MARKS = ("*_images_png.pkl", "*_labels.pkl", "tiered-imagenet*", *_FILES.values())


def load(variant: str, root: Path | None, size: int) -> ClassData:
    """Return tieredImageNet; arguments and errors as in `metarl.fewshot.data.load`."""
    looked_for = [words for name, words in VARIANTS.items() if name != "any" and variant in ("any", name)]
    folder = published(find_root("tiered-imagenet", root, _MARKS, looked_for), "tiered-imagenet")
    with open_tree(folder, _MARKS) as tree:
        return cached(
            "tiered-imagenet",
            {"variant": variant},
            tree.stamps(),
            ImageForm(size=size or DEFAULT_SIZE),
            partial(_listing, variant, tree, looked_for),
        )


def _listing(variant: str, tree: Tree, looked_for: list[str]) -> Listing:
    files = [f"{name}_{kind}.pkl" for name in _FILES.values() for kind in ("images_png", "labels")]
    prefix = below(tree, *files)
    if variant in ("any", "pickle") and prefix is not None:
        missing = [name for name in files if prefix + name not in tree.places]
        if missing:
            raise wrong_layout("tiered-imagenet", tree.path, [" and ".join(missing)])
        return {split: partial(_list_pickles, tree, f"{prefix}{name}") for split, name in _FILES.items()}
    splits = split_folders(tree, inner_folder(tree)) if variant in ("any", "folders") else {}
    if len(splits) < 3:
        raise wrong_layout("tiered-imagenet", tree.path, looked_for)
    return splits


def _list_pickles(tree: Tree, stem: str) -> list[Listed]:
    """Return the classes of one split."""
    labels: dict[str, Any] = read_pickle(tree, f"{stem}_labels.pkl")
    path = tree.path / f"{stem}_labels.pkl"
    if not isinstance(labels, dict) or not {"label_specific", "label_specific_str"} <= set(labels):
        raise UserError(f"{path} should hold label_specific and label_specific_str. Download it again.")
    names, categories = (_names(labels.get(f"label_{kind}_str", ()), path) for kind in ("specific", "general"))
    specific = whole_numbers(labels["label_specific"], f"label_specific of {path}")
    general = labels.get("label_general")
    general = np.full(len(specific), -1) if general is None else whole_numbers(general, f"label_general of {path}")
    images = read_pickle(tree, f"{stem}_images_png.pkl")
    if not isinstance(images, list | np.ndarray) or len({len(images), len(specific), len(general)}) > 1:
        count = len(images) if isinstance(images, list | np.ndarray) else "no list of"
        raise UserError(f"{stem}_images_png.pkl has {count} images, and {path} labels {len(specific)}.")
    listed: list[Listed] = []
    named = Counter(names)
    for number in np.unique(specific).tolist():
        if not 0 <= number < len(names):
            raise UserError(f"{path} has a label {number}, and names {len(names)} classes.")
        rows = np.flatnonzero(specific == number).tolist()
        category = int(general[rows[0]])
        group = categories[category] if 0 <= category < len(categories) else ""
        # Names are not unique: there are two cranes, a bird and a machine.
        name = f"{group or Path(stem).name}/{names[number]}"
        if named[names[number]] > 1:
            name = f"{name} #{number}"
        files = [_picture(images, row, f"{stem}_images_png.pkl") for row in rows]
        listed.append(Listed(name=name, group=group, pictures=files))
    return listed


def _names(given: Any, path: Path) -> list[str]:
    """Return names of classes or categories."""
    if not isinstance(given, list | tuple | np.ndarray):
        raise UserError(f"{path} should name its classes in a list, and has a {type(given).__name__}.")
    return [text(name) for name in given]


def _picture(images: Any, row: int, name: str) -> Picture:
    def read() -> bytes:
        # OpenCV gives the bytes a second axis of size 1.
        found = images[row]
        if not isinstance(found, np.ndarray) or found.dtype != np.uint8:
            raise UserError(f"{name}[{row}] should be the bytes of a PNG file, an array of uint8. Download it again.")
        return found.tobytes()

    return Picture(origin=f"{name}[{row}]", read=read, place=row)
