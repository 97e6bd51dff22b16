"""miniImageNet (Vinyals et al. 2016; split 64/16/20 of Ravi & Larochelle 2017): 100 classes of 600 images, 84x84.

Read in the three layouts in which it goes around:

    pickle    mini-imagenet-cache-{train,val,test}.pkl: `image_data` [images, 84, 84, 3] and `class_dict`, class ->
              numbers of its images; also inside mini-imagenet.tar.gz
    csv       train.csv, val.csv, test.csv with `filename,label`, and the images in images/
    folders   train/, val/, test/ with a folder per class
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data.cache import Listed, Listing, Picture, cached, pictures
from metarl.fewshot.data.files import (
    Tree,
    below,
    find_root,
    open_tree,
    published,
    read_pickle,
    read_table,
    text,
    wrong_layout,
)
from metarl.fewshot.data.folder import inner_folder, split_folders
from metarl.fewshot.data.pictures import ImageForm
from metarl.fewshot.reading.arrays import whole_numbers

DEFAULT_SIZE = 84
VARIANTS = {
    "any": "the layout that is there",
    "pickle": "mini-imagenet-cache-{train,val,test}.pkl",
    "csv": "train.csv, val.csv, test.csv beside images/",
    "folders": "train/, val/, test/ with a folder per class",
}
_FILES = {"train": "train", "validation": "val", "test": "test"}
_PICKLES = {split: f"mini-imagenet-cache-{name}.pkl" for split, name in _FILES.items()}
_LISTS = {split: f"{name}.csv" for split, name in _FILES.items()}
_MARKS = ("mini-imagenet*", "images", "*.csv", *_FILES.values())


def load(variant: str, root: Path | None, size: int) -> ClassData:
    """Return miniImageNet; arguments and errors as in `metarl.fewshot.data.load`."""
    looked_for = [words for name, words in VARIANTS.items() if name != "any" and variant in ("any", name)]
    folder = published(find_root("mini-imagenet", root, _MARKS, looked_for), "mini-imagenet")
    with open_tree(folder, _MARKS) as tree:
        return cached(
            "mini-imagenet",
            {"variant": variant},
            tree.stamps(),
            ImageForm(size=size or DEFAULT_SIZE),
            partial(_listing, variant, tree, looked_for),
        )


def _listing(variant: str, tree: Tree, looked_for: list[str]) -> Listing:
    """Return the classes by split, from the first layout of which anything is there."""
    if variant in ("any", "pickle") and below(tree, *_PICKLES.values()) is not None:
        return {split: partial(list_pickle, tree, name) for split, name in _all_of(tree, _PICKLES).items()}
    if variant in ("any", "csv") and below(tree, *_LISTS.values()) is not None:
        return {split: list_table(tree, name) for split, name in _all_of(tree, _LISTS).items()}
    if variant in ("any", "folders"):
        splits = split_folders(tree, inner_folder(tree))
        if len(splits) == 3:
            return splits
        if splits:
            missing = [f"{name}/" for split, name in _FILES.items() if split not in splits]
            raise wrong_layout("mini-imagenet", tree.path, [f"{' and '.join(missing)} with a folder per class"])
    raise wrong_layout("mini-imagenet", tree.path, looked_for)


def _all_of(tree: Tree, names: Mapping[str, str]) -> dict[str, str]:
    """Return the full names of the files of all splits."""
    prefix = below(tree, *names.values())
    missing = [name for name in names.values() if f"{prefix}{name}" not in tree.places]
    if missing:
        raise wrong_layout("mini-imagenet", tree.path, [" and ".join(missing)])
    return {split: f"{prefix}{name}" for split, name in names.items()}


def list_pickle(tree: Tree, name: str) -> list[Listed]:
    """Return the classes of a pickle with `image_data` and `class_dict`.

    Raises:
        UserError: it holds something else.
    """
    content = read_pickle(tree, name)
    if not isinstance(content, dict) or not {"image_data", "class_dict"} <= set(content):
        held = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{tree.path / name} should hold image_data and class_dict, and holds {held}.")
    images, classes = content["image_data"], content["class_dict"]
    check_images(tree.path / name, images)
    if not isinstance(classes, dict):
        raise UserError(f"The class_dict of {tree.path / name} should be a dict, and is a {type(classes).__name__}.")
    listed: list[Listed] = []
    for key in sorted(classes, key=_by_name):
        rows = whole_numbers(classes[key], f"the images of class {text(key)} in {tree.path / name}").tolist()
        if any(not 0 <= row < len(images) for row in rows):
            raise UserError(f"{tree.path / name} has {len(images)} images, and class {text(key)} names others.")
        listed.append(Listed(name=text(key), pictures=[_picture(images, row, name) for row in rows]))
    return listed


def _by_name(key: Any) -> tuple[bool, Any]:
    words = isinstance(key, str | bytes)
    return words, text(key) if words else key


def check_images(path: Path, images: object) -> None:
    """Refuse what is no array of colour images, [images, height, width, 3] in uint8.

    Raises:
        UserError: it is none.
    """
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[3] != 3
        or not images.size
    ):
        got = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise UserError(f"The images of {path} should be uint8 [images, height, width, 3], and are {got}.")


def _picture(images: np.ndarray, row: int, name: str) -> Picture:
    return Picture(origin=f"{name}[{row}]", read=lambda: images[row], place=row)


def list_table(tree: Tree, name: str, folder: str = "images/") -> list[Listed]:
    """Return the classes of a list `filename,label` of images that lie in a folder beside it.

    Raises:
        UserError: the list has another form, or names images that are not there.
    """
    prefix = name.rpartition("/")[0]
    prefix = f"{prefix}/{folder}" if prefix else folder
    classes: dict[str, list[str]] = {}
    missing: list[str] = []
    for number, row in enumerate(read_table(tree, name)):
        if len(row) != 2:
            raise UserError(
                f"Row {number + 1} of {tree.path / name} is {str(row)[:200]}. It should be: filename,label."
            )
        file, label = row
        if number == 0 and (file, label) == ("filename", "label"):
            continue
        if prefix + file not in tree.places:
            missing.append(file)
        classes.setdefault(label, []).append(prefix + file)
    if missing:
        count = sum(map(len, classes.values()))
        raise UserError(
            f"{tree.path / name} names {count} images, and {len(missing)} of them are not in {tree.path / prefix}; the "
            f"first is {missing[0]}. Complete the download."
        )
    return [Listed(name=label, pictures=pictures(tree, files)) for label, files in sorted(classes.items())]
