"""CUB-200-2011 (Wah et al. 2011): birds of 200 species; the few-shot splits have 100/50/50 of them.

Read as published, CUB_200_2011/ or CUB_200_2011.tgz, with images in images/<number>.<species>/. Images are brought to
84x84 without keeping the ratio of their sides, and are not cut to the birds.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data.cache import Listed, Listing, cached
from metarl.fewshot.data.files import (
    SPLIT_FOLDERS,
    Tree,
    below,
    classes_in,
    find_root,
    open_tree,
    published,
    read_lines,
    wrong_layout,
)
from metarl.fewshot.data.folder import list_classes
from metarl.fewshot.data.pictures import ImageForm
from metarl.fewshot.episodes import SPLITS

DEFAULT_SIZE = 84
VARIANTS = {
    "chen": "the split of Chen et al. 2019: every second species, and every fourth",
    "lists": "train, val, test as .txt or .csv beside images/ or in split/: species, or images, one a line",
}
_LOOKED_FOR = ("CUB_200_2011/images/<species>/<image> (also in CUB_200_2011.tgz)",)
_MARKS = ("CUB_200_2011*", "images", "split*", "train.*", "val.*", "test.*")


def load(variant: str, root: Path | None, size: int) -> ClassData:
    """Return CUB; arguments and errors as in `metarl.fewshot.data.load`."""
    folder = published(find_root("cub", root, (*_MARKS, "images"), _LOOKED_FOR), "CUB_200_2011")
    with open_tree(folder, _MARKS) as tree:
        return cached(
            "cub", {"variant": variant}, tree.stamps(), ImageForm(size=size or DEFAULT_SIZE),
            partial(_listing, variant, tree),
        )  # fmt: skip


def _listing(variant: str, tree: Tree) -> Listing:
    first = next((name for name in tree.names if "images/" in name), None)
    if first is None:
        raise wrong_layout("cub", tree.path, _LOOKED_FOR)
    prefix = first[: first.index("images/")]
    species = classes_in(tree, f"{prefix}images/")
    if variant == "lists":
        return _by_lists(tree, prefix, species)
    if len(species) != 200:
        raise UserError(
            f"The split of Chen et al. is over 200 species, and {tree.path} has {len(species)}. Complete the download, "
            "or give lists with cub@lists."
        )
    # By place: 0, 2, 4, ... train; 1, 5, 9, ... validation; 3, 7, 11, ... test.
    parts = {"train": (0, 2), "validation": (1, 4), "test": (3, 4)}
    names = list(species)
    return {
        split: list_classes(tree, {name: species[name] for name in names[i::step]})
        for split, (i, step) in parts.items()
    }


def _by_lists(tree: Tree, prefix: str, species: Mapping[str, list[str]]) -> dict[str, list[Listed]]:
    """Return the classes by lists of species, or of images; a list of images leaves the others out."""
    by_file = {PurePosixPath(name).name: name for names in species.values() for name in names}
    known = {name.partition(".")[2] or name: name for name in species}
    found: dict[str, list[Listed]] = {}
    for split in SPLITS:
        files = [f"{stem}{end}" for stem in SPLIT_FOLDERS[split] for end in (".txt", ".csv")]
        place = below(tree, *files)
        if place is None:
            raise wrong_layout("cub", tree.path, [" or ".join(files)])
        name = next(f"{place}{file}" for file in files if f"{place}{file}" in tree.places)
        classes: dict[str, list[str]] = {}
        for line in read_lines(tree, name):
            # An image's row is `file,label`, and its file may stand with its folder.
            entry = PurePosixPath(line.split(",")[0]).name
            if entry == "filename":
                continue
            label = entry if entry in species else known.get(entry)
            if label is not None:
                classes[label] = species[label]
            elif entry in by_file:
                file = by_file[entry]
                classes.setdefault(file[len(prefix) + len("images/") :].split("/")[0], []).append(file)
            else:
                raise UserError(
                    f"{tree.path / name} names {line[:200]!r}, which is no species and no image of {prefix}images/."
                )
        found[split] = list_classes(tree, dict(sorted(classes.items())))
    return found
