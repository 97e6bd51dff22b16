"""CIFAR-FS (Bertinetto et al. 2019) and FC100 (Oreshkin et al. 2018): two splits of CIFAR-100, 100 classes, 32x32.

    cifar-fs   64/16/20 classes at random
    fc100      60/20/20 classes, whole superclasses: 12/4/4 of them

Layouts that are read:

    published  cifar-100-python/ or cifar-100-python.tar.gz, with the splits below
    lists      data/<class>/<image> and splits/bertinetto/{train,val,test}.txt with names of classes, as in cifar100.zip
    pickles    {CIFAR_FS,FC100}_{train,val,test}.pickle: `data` [images, 32, 32, 3] and `labels`
    folders    {train,val,test}/<class>/<image>
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data.cache import Listed, Listing, Picture, cached
from metarl.fewshot.data.files import (
    Tree,
    below,
    classes_in,
    find_root,
    open_tree,
    published,
    read_lines,
    read_pickle,
    text,
    wrong_layout,
)
from metarl.fewshot.data.folder import inner_folder, list_classes, split_folders
from metarl.fewshot.data.mini_imagenet import check_images
from metarl.fewshot.data.pictures import ImageForm
from metarl.fewshot.reading.arrays import whole_numbers

DEFAULT_SIZE = 32
VARIANTS = {
    "cifar-fs": "64/16/20 classes of CIFAR-100 at random",
    "fc100": "60/20/20 classes of CIFAR-100, by superclass",
}

CIFAR_FS = {
    "validation": (
        "beaver", "beetle", "butterfly", "camel", "cattle", "crab", "crocodile", "flatfish", "lamp", "maple_tree",
        "motorcycle", "otter", "sea", "shark", "television", "tractor",
    ),
    "test": (
        "baby", "bed", "bicycle", "chimpanzee", "fox", "leopard", "man", "pickup_truck", "plain", "poppy", "rocket",
        "rose", "snail", "sweet_pepper", "table", "telephone", "wardrobe", "whale", "woman", "worm",
    ),
}  # fmt: skip
"""Classes of the split; all others are trained on."""
FC100 = {
    "validation": (
        "large_carnivores", "large_omnivores_and_herbivores", "non-insect_invertebrates", "small_mammals",
    ),
    "test": ("aquatic_mammals", "insects", "medium_mammals", "people"),
}  # fmt: skip
"""Superclasses of the split; all others are trained on."""

_FILES = {"train": "train", "validation": "val", "test": "test"}
_MARKS = (
    "cifar-100-python*", "cifar100*", "CIFAR_FS*", "FC100*", "data", "splits", "*.pickle", "meta", *_FILES.values(),
)  # fmt: skip


def load(variant: str, root: Path | None, size: int) -> ClassData:
    """Return one of the two data sets, named by `variant`; arguments and errors as in `metarl.fewshot.data.load`."""
    stem = variant.upper().replace("-", "_")
    looked_for = [
        "cifar-100-python/ or cifar-100-python.tar.gz",
        "data/<class>/ and splits/*/{train,val,test}.txt (also in cifar100.zip)",
        f"{stem}_{{train,val,test}}.pickle",
        "train/, val/, test/ with a folder per class",
    ]
    folder = find_root(variant, root, _MARKS, looked_for)
    with open_tree(published(folder, stem, "cifar100", "cifar-100-python"), _MARKS) as tree:
        return cached(
            variant,
            {"variant": variant},
            tree.stamps(),
            ImageForm(size=size or DEFAULT_SIZE),
            partial(_listing, variant, stem, tree, looked_for),
        )


def _listing(variant: str, stem: str, tree: Tree, looked_for: list[str]) -> Listing:
    pickles = {split: f"{stem}_{name}.pickle" for split, name in _FILES.items()}
    prefix = below(tree, *pickles.values())
    if prefix is not None:
        _check_all(variant, tree, [f"{prefix}{name}" for name in pickles.values()])
        return {split: partial(_list_pickle, tree, f"{prefix}{name}") for split, name in pickles.items()}
    lists = [name for name in tree.names if name.endswith(".txt") and "splits/" in name]
    if lists:
        return _by_lists(variant, tree, lists)
    prefix = below(tree, "meta")
    if prefix is not None:
        _check_all(variant, tree, [f"{prefix}train", f"{prefix}test"])
        return _published(variant, tree, prefix)
    splits = split_folders(tree, inner_folder(tree))
    if len(splits) < 3:
        raise wrong_layout(variant, tree.path, looked_for)
    return splits


def _check_all(variant: str, tree: Tree, names: list[str]) -> None:
    missing = [name for name in names if name not in tree.places]
    if missing:
        raise wrong_layout(variant, tree.path, [" and ".join(missing)])


def _list_pickle(tree: Tree, name: str) -> list[Listed]:
    """Return the classes of a pickle with `data` and `labels`."""
    content = read_pickle(tree, name)
    if not isinstance(content, dict) or not {"data", "labels"} <= set(content):
        raise UserError(f"{tree.path / name} should hold data and labels. Download it again.")
    images, labels = content["data"], whole_numbers(content["labels"], f"the labels of {tree.path / name}")
    check_images(tree.path / name, images)
    if labels.shape != (len(images),):
        raise UserError(f"{tree.path / name} has {len(images)} images, and labels of the shape {labels.shape}.")
    stem = Path(name).stem
    return [
        # Labels count anew in every file: only with its name are they the names of classes.
        Listed(name=f"{stem}/{label}", pictures=_rows(images, np.flatnonzero(labels == label), name))
        for label in np.unique(labels).tolist()
    ]


def _rows(images: np.ndarray, rows: np.ndarray, name: str) -> list[Picture]:
    def picture(row: int) -> Picture:
        return Picture(origin=f"{name}[{row}]", read=lambda: images[row], place=row)

    return [picture(row) for row in rows.tolist()]


def _by_lists(variant: str, tree: Tree, lists: list[str]) -> Listing:
    """Return the classes by the published lists; FC100 may use its own splits of the same folders."""
    found: dict[str, list[Listed]] = {}
    classes = classes_in(tree, f"{lists[0].split('splits/')[0]}data/")
    for split, name in _FILES.items():
        file = next((path for path in lists if path.endswith(f"/{name}.txt")), None)
        if file is None:
            raise wrong_layout(variant, tree.path, [f"splits/*/{name}.txt"])
        wanted = read_lines(tree, file)
        missing = [label[:200] for label in wanted if label not in classes]
        if missing:
            raise UserError(
                f"{tree.path / file} names {len(wanted)} classes, and {len(missing)} of them have no images in data/; "
                f"the first is {missing[0]}. Complete the download."
            )
        found[split] = list_classes(tree, {label: classes[label] for label in wanted})
    return found


def _published(variant: str, tree: Tree, prefix: str) -> Listing:
    """Return the classes of CIFAR-100 as it is published, split by the lists above."""
    meta = _fields(tree, f"{prefix}meta", "fine_label_names", "coarse_label_names")
    names, groups = (list(map(text, meta[f"{kind}_label_names"])) for kind in ("fine", "coarse"))
    parts = [_part(tree, f"{prefix}{part}", len(groups)) for part in ("train", "test")]
    fine, coarse, data = (np.concatenate(part) for part in zip(*parts, strict=True))
    data = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    found: dict[str, list[Listed]] = {split: [] for split in _FILES}
    for number, label in enumerate(names):
        rows = np.flatnonzero(fine == number)
        if not len(rows):
            raise UserError(f"{tree.path / prefix} has no image of the class '{label}'. Download it again.")
        group = groups[int(coarse[rows[0]])]
        lists, key = (FC100, group) if variant == "fc100" else (CIFAR_FS, label)
        split = next((split for split, keys in lists.items() if key in keys), "train")
        found[split].append(Listed(name=label, group=group, pictures=_rows(data, rows, "cifar-100")))
    return found


def _part(tree: Tree, name: str, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return fine labels, coarse labels and images of one file of CIFAR-100."""
    content = _fields(tree, name, "fine_labels", "coarse_labels", "data")
    where, data = tree.path / name, content["data"]
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise UserError(f"The data of {where} should be uint8 [images, 3072]. Download it again.")
    fine = whole_numbers(content["fine_labels"], f"fine_labels of {where}")
    coarse = whole_numbers(content["coarse_labels"], f"coarse_labels of {where}", groups)
    if len({len(fine), len(coarse), len(data)}) > 1:
        raise UserError(f"{where} has {len(data)} images, and labels of {len(fine)} and {len(coarse)}.")
    return fine, coarse, data


def _fields(tree: Tree, name: str, *wanted: str) -> dict[str, Any]:
    """Return a pickle that is a dict with some fields, whose names are lists."""
    content = read_pickle(tree, name)
    if not isinstance(content, dict) or not set(wanted) <= set(content):
        raise UserError(f"{tree.path / name} should hold {', '.join(wanted)}. Download it again.")
    for field in wanted:
        if not isinstance(content[field], list | tuple | np.ndarray):
            raise UserError(f"{field} of {tree.path / name} should be a list. Download it again.")
    return content
