"""Omniglot (Lake, Salakhutdinov & Tenenbaum 2015): 1,623 handwritten characters of 50 alphabets, 20 drawers each.

Read as published: `images_background` and `images_evaluation` (and the two small background sets), as folders or zip
files; or all alphabets in one folder, `<alphabet>/<character>/<image>`. Drawings are dark on white there, and are
inverted here, so that ink is 255.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data.cache import Listed, cached, pictures
from metarl.fewshot.data.files import Tree, find_root, open_tree, published, wrong_layout
from metarl.fewshot.data.pictures import ImageForm
from metarl.fewshot.data.splitting import shuffled
from metarl.fewshot.episodes import SPLITS

DEFAULT_SIZE = 28
VARIANTS = {
    "vinyals": "the split of Vinyals et al. 2016: 1028/172/423 characters, with rotations as classes",
    "random": "1100/100/423 characters at random, with rotations as classes",
    "alphabet": "25 background alphabets, 5 others, the 20 evaluation alphabets",
    "small1-small2": "train on the first small background set, test on those alphabets of the second not in it",
    "small2-small1": "the other way round",
    "vinyals-upright": "vinyals, without rotations",
    "random-upright": "random, without rotations",
    "alphabet-x4": "alphabet, with rotations as classes",
    "small1-small2-x4": "small1-small2, with rotations as classes",
    "small2-small1-x4": "small2-small1, with rotations as classes",
}

VALIDATION = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
"""Background alphabets that Vinyals et al. validate on: 172 characters."""
EVALUATION = (
    "Angelic", "Atemayar_Qelisayer", "Atlantean", "Aurek-Besh", "Avesta", "Ge_ez", "Glagolitic", "Gurmukhi", "Kannada",
    "Keble", "Malayalam", "Manipuri", "Mongolian", "Old_Church_Slavonic_(Cyrillic)", "Oriya", "Sylheti",
    "Syriac_(Serto)", "Tengwar", "Tibetan", "ULOG",
)  # fmt: skip
"""The alphabets of `images_evaluation`."""
_LOOKED_FOR = (
    "images_background and images_evaluation (folders or .zip)",
    "images_background_small1 and images_background_small2 (folders or .zip)",
    "<alphabet>/<character>/<image>.png",
)
_MARKS = ("images_background*", "images_evaluation*", *EVALUATION, *VALIDATION)
_DRAWING = re.compile(r"(?:.*/)?(?P<alphabet>[^/]+)/(?P<character>character\d+)/[^/]+\.png")


def load(variant: str, root: Path | None, size: int) -> ClassData:
    """Return Omniglot with one of the splits of VARIANTS; arguments and errors as in `metarl.fewshot.data.load`."""
    folder = find_root("omniglot", root, _MARKS, _LOOKED_FOR)
    upright = variant.endswith("-upright") or variant in ("alphabet", "small1-small2", "small2-small1")
    split = variant.removesuffix("-x4").removesuffix("-upright")
    small = split in ("small1-small2", "small2-small1")
    with ExitStack() as stack:
        parts = {name: stack.enter_context(open_tree(path)) for name, path in _parts(folder, small, variant).items()}

        def listing() -> dict[str, list[Listed]]:
            characters = {name: _characters(tree, name) for name, tree in parts.items()}
            if small:
                return _by_set(characters, split)
            every = sorted((listed for part in characters.values() for listed in part), key=lambda listed: listed.name)
            if not every:
                raise wrong_layout("omniglot", folder, _LOOKED_FOR)
            return {"vinyals": _vinyals, "random": _random, "alphabet": _by_alphabet}[split](every)

        return cached(
            "omniglot",
            {"variant": variant},
            [stamp for tree in parts.values() for stamp in tree.stamps()],
            ImageForm(size=size or DEFAULT_SIZE, channels=1, invert=True, rotations=not upright),
            listing,
        )


def _parts(folder: Path, small: bool, variant: str) -> dict[str, Path]:
    """Return the folders and archives that a variant is made of, by their published names."""
    ends = ("background_small1", "background_small2") if small else ("background", "evaluation")
    places = {f"images_{end}": _place(folder, f"images_{end}") for end in ends}
    found = {name: place for name, place in places.items() if place is not None}
    if len(found) == 2:
        return found
    if folder.is_dir() and not found and not small and any((folder / name).is_dir() for name in EVALUATION):
        return {"": folder}
    if folder.is_dir() and any(_place(folder, f"images_background{end}") for end in ("", "_small1", "_small2")):
        missing = " and ".join(name for name in places if name not in found)
        here = ", ".join(sorted(entry.name for entry in folder.glob("images_*")))
        other = "omniglot@alphabet" if small else "omniglot@small1-small2"
        raise UserError(
            f"omniglot@{variant} needs {missing} (a folder or .zip), and {folder} has {here}. Download the rest, or "
            f"choose a variant that fits, such as {other}."
        )
    raise wrong_layout("omniglot", folder, _LOOKED_FOR)


def _place(folder: Path, name: str) -> Path | None:
    """Return the folder or archive of a part; None: it is not there."""
    if (folder / name).is_dir():
        return folder / name
    archive = published(folder, name)
    return archive if archive != folder else None


def _characters(tree: Tree, part: str) -> list[Listed]:
    """Return the characters of a part, each with its drawings."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in tree.names:
        match = _DRAWING.fullmatch(name)
        if match is not None:
            found.setdefault((match["alphabet"], match["character"]), []).append(name)
    return [
        Listed(name=f"{alphabet}/{character}", group=alphabet, pictures=pictures(tree, sorted(names)))
        for (alphabet, character), names in sorted(found.items())
    ]


# -- splits -----------------------------------------------------------------------------------------------------------


def _vinyals(every: Sequence[Listed]) -> dict[str, list[Listed]]:
    """Split as the public lists do; the alphabet Gurmukhi falls into training (41 characters) and test (4)."""

    def split_of(listed: Listed) -> str:
        alphabet, _, character = listed.name.partition("/")
        if alphabet in VALIDATION:
            return "validation"
        first = EVALUATION[: EVALUATION.index("Gurmukhi")]
        trained = alphabet not in EVALUATION or alphabet in first
        if alphabet == "Gurmukhi":
            trained = int(character.removeprefix("character")) <= 41
        return "train" if trained else "test"

    found = _grouped(every, split_of)
    _check_sizes(found, (1028, 172, 423))
    return found


def _by_alphabet(every: Sequence[Listed]) -> dict[str, list[Listed]]:
    def split_of(listed: Listed) -> str:
        return "validation" if listed.group in VALIDATION else "test" if listed.group in EVALUATION else "train"

    return _grouped(every, split_of)


def _random(every: Sequence[Listed]) -> dict[str, list[Listed]]:
    """Split at random, always in the same way."""
    order = shuffled(len(every), "omniglot")
    found = {
        split: [every[place] for place in sorted(order[start:end])]
        for split, start, end in zip(SPLITS, (0, 1100, 1200), (1100, 1200, None), strict=True)
    }
    _check_sizes(found, (1100, 100, 423))
    return found


def _by_set(characters: Mapping[str, Sequence[Listed]], split: str) -> dict[str, list[Listed]]:
    """Train on one small set and test on those alphabets of the other that are not in it."""
    first, second = (f"images_background_{name}" for name in split.split("-"))
    known = {listed.group for listed in characters[first]}
    test = [listed for listed in characters[second] if listed.group not in known]
    return {"train": list(characters[first]), "test": test}


def _grouped(every: Sequence[Listed], split_of: Callable[[Listed], str]) -> dict[str, list[Listed]]:
    return {split: [listed for listed in every if split_of(listed) == split] for split in SPLITS}


def _check_sizes(found: Mapping[str, Sequence[Listed]], wanted: tuple[int, int, int]) -> None:
    got = tuple(len(classes) for classes in found.values())
    if got != wanted:
        raise UserError(
            f"This split of omniglot has {'/'.join(map(str, wanted))} characters, and the files give "
            f"{'/'.join(map(str, got))}. Complete the download of images_background and images_evaluation."
        )
