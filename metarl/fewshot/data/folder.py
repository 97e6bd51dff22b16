"""A tree of images of one's own: `<split>/<class>/<image>`, or `<class>/<image>`, which is split by class at random.

A folder or an archive of it; images of a class may lie deeper. Where the top has a folder `train` it has splits. What
kinds of pictures there are, and what comes of each, says pictures.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from metarl.errors import UserError, tell
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data.cache import Listed, cached, pictures
from metarl.fewshot.data.files import (
    IMAGES,
    SPLIT_FOLDERS,
    UNREAD,
    Tree,
    by_class,
    classes_in,
    find_root,
    folders_in,
    open_tree,
    wrong_layout,
)
from metarl.fewshot.data.pictures import GROUND, ImageForm
from metarl.fewshot.data.splitting import split_at_random

DEFAULT_SIZE = 0
VARIANTS = {
    "colour": "images are read as red, green, blue",
    "grey": "images are read as grey",
}
_LOOKED_FOR = ("<split>/<class>/<image> with splits train, val, test", "<class>/<image>")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How pictures are read."""

    ground: str = GROUND
    """Colour that transparent pictures are laid on: a name, or '#rrggbb'."""
    range: tuple[float, float] | None = None
    """Values that become black and white, of pictures with more than 8 bits a channel; if not given, by a rule that
    is told."""


def load(variant: str, root: Path | None, size: int, options: Options) -> ClassData:
    """Return the images of a tree; arguments and errors as in `metarl.fewshot.data.load`.

    Size 0 takes the images as they are; all have to be of one size then.
    """
    form = ImageForm(size=size, channels=1 if variant == "grey" else 3, ground=options.ground, range=options.range)
    folder = find_root("folder", root, ("*",), _LOOKED_FOR)
    with open_tree(folder) as tree:
        settings = {"variant": variant, "folder": folder.name, "ground": form.ground}
        return cached("folder", settings, tree.stamps(), form, partial(_listing, tree))


def _listing(tree: Tree) -> dict[str, list[Listed]]:
    """Return the classes; tell which files are no pictures, and refuse those that are pictures of another kind."""
    others = [name for name in tree.names if not name.lower().endswith(IMAGES)]
    unread = [name for name in others if name.lower().endswith(UNREAD)]
    if unread:
        raise UserError(
            f"{tree.path} has {len(unread)} files of kinds that are not read, as {unread[0]}. Save them as PNG or "
            f"TIFF, or take them out; read are {', '.join(IMAGES)}."
        )
    found = list_tree("folder", tree, _LOOKED_FOR)
    if others:
        tell(f"folder: left out {len(others)} files that are no pictures, as {others[0]}.")
    return found


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
        found = classes_in(tree, prefix)
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
    found: dict[str, list[Listed]] = {}
    for split, names in SPLIT_FOLDERS.items():
        # A class may be called train, too: its images lie in it, not in folders of classes.
        tops = [top for top in sorted(folders_in(tree, prefix)) if top.lower() in names]
        tops = [top for top in tops if _has_folders(tree, f"{prefix}{top}/")]
        if len(tops) > 1:
            raise UserError(
                f"{tree.path / prefix} has {len(tops)} folders of the split {split}: {', '.join(tops)}. Keep one."
            )
        if tops:
            found[split] = list_classes(tree, classes_in(tree, f"{prefix}{tops[0]}/"))
    return found


def list_classes(tree: Tree, classes: Mapping[str, Sequence[str]], group: str = "") -> list[Listed]:
    """Return classes whose images lie in the given files."""
    return [Listed(name=name, group=group, pictures=pictures(tree, names)) for name, names in classes.items()]


def _is_split(top: str) -> bool:
    return any(top.lower() in names for names in SPLIT_FOLDERS.values())


def _has_folders(tree: Tree, prefix: str) -> bool:
    return any("/" in name[len(prefix) :] for name in tree.names if name.startswith(prefix))
