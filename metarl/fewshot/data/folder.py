"""A tree of images of one's own: `<split>/<class>/<image>`, or `<class>/<image>`, which is split by class at random.

A folder or an archive of it; images of a class may lie deeper. Where the top has a folder `train` it has splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data.cache import ImageForm, Listed, cached, pictures
from metarl.fewshot.data.files import SPLIT_FOLDERS, Tree, by_class, find_root, open_tree, wrong_layout
from metarl.fewshot.data.splitting import split_at_random

DEFAULT_SIZE = 0
VARIANTS = {
    "colour": "images are read as red, green, blue",
    "grey": "images are read as grey",
}
_LOOKED_FOR = ("<split>/<class>/<image> with splits train, val, test", "<class>/<image>")


def load(variant: str, root: Path | None, size: int) -> ClassData:
    """Return the images of a tree; arguments and errors as in `metarl.fewshot.data.load`.

    Size 0 takes the images as they are; all have to be of one size then.
    """
    folder = find_root("folder", root, ("*",), _LOOKED_FOR)
    with open_tree(folder) as tree:
        form = ImageForm(size=size, channels=1 if variant == "grey" else 3)
        return cached(
            "folder",
            {"variant": variant, "folder": folder.name},
            tree.stamps(),
            form,
            partial(list_tree, "folder", tree, _LOOKED_FOR),
        )


def list_tree(name: str, tree: Tree, looked_for: Sequence[str]) -> dict[str, list[Listed]]:
    """Return the classes of a tree, by split.

    Args:
        name: of the data set, for errors.
        tree: with the images.
        looked_for: the layouts, in words for errors.

    Raises:
        UserError: there are no images in folders, or splits and classes are mixed at the top.
    """
    prefix = inner_folder(tree)
    found = by_class(tree, prefix)
    if not found:
        raise wrong_layout(name, tree.path, looked_for)
    splits = split_folders(tree, prefix)
    if "train" not in splits:
        names = list(found)
        parts = split_at_random(f"classes of {name}", names, seed=0)
        return {split: list_classes(tree, {names[i]: found[names[i]] for i in part}) for split, part in parts.items()}
    strange = [top for top in found if not _is_split(top)]
    if strange:
        raise UserError(
            f"{tree.path} has folders of splits and beside them {', '.join(strange[:5])}. Move these into a split, or "
            "name the splits train, val, test."
        )
    return splits


def inner_folder(tree: Tree) -> str:
    """Return the prefix of the splits or classes: an archive often holds one folder that holds everything."""
    prefix = ""
    while True:
        tops = list(by_class(tree, prefix))
        if len(tops) != 1 or _is_split(tops[0]) or not _has_folders(tree, f"{prefix}{tops[0]}/"):
            return prefix
        prefix += f"{tops[0]}/"


def split_folders(tree: Tree, prefix: str) -> dict[str, list[Listed]]:
    """Return the classes of a tree `<split>/<class>/<image>` below a prefix, by split; those splits that are there."""
    tops = {top.lower(): f"{prefix}{top}/" for top in by_class(tree, prefix)}
    found = {split: next((tops[name] for name in names if name in tops), "") for split, names in SPLIT_FOLDERS.items()}
    return {
        split: list_classes(tree, by_class(tree, top))
        for split, top in found.items()
        # A class may be called train, too: its images lie in it, not in folders of classes.
        if top and _has_folders(tree, top)
    }


def list_classes(tree: Tree, classes: Mapping[str, Sequence[str]], group: str = "") -> list[Listed]:
    """Return classes whose images lie in the given files."""
    return [Listed(name=name, group=group, pictures=pictures(tree, names)) for name, names in classes.items()]


def _is_split(top: str) -> bool:
    return any(top.lower() in names for names in SPLIT_FOLDERS.values())


def _has_folders(tree: Tree, prefix: str) -> bool:
    return any("/" in name[len(prefix) :] for name in tree.names if name.startswith(prefix))
