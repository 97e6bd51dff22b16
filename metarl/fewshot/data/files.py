"""Files of data sets as they are published: where they lie, and what is in them, packed or unpacked, as one tree."""

from __future__ import annotations

import fnmatch
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from metarl.errors import UserError
from metarl.fewshot.reading import pickles, tables
from metarl.fewshot.reading.archives import damage_told, open_archive
from metarl.fewshot.reading.folders import check_file_or_folder, files_below, is_hidden, kind_of
from metarl.files import open_regular, read_regular
from metarl.memory import check_room

IMAGES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".webp",
    ".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tga", ".ico", ".icns", ".pcx", ".qoi", ".sgi",
    ".msp", ".xbm", ".blp", ".dds",
)  # fmt: skip
"""Endings of the files that are taken for images."""
UNREAD = (
    ".heic", ".heif", ".jxl", ".exr", ".hdr", ".svg", ".eps", ".psd", ".pdf", ".dcm", ".nii", ".nii.gz", ".fits",
    ".fit", ".im", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".npy", ".npz", ".mat", ".czi", ".lif", ".svs",
)  # fmt: skip
"""Endings of files that are images, too, and are not read."""
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Split -> names that its folder or list may have."""
ROOT_VARIABLE = "METARL_DATA"
"""Environment variable with the folder of all data sets."""

_LARGEST = 1 << 44
"""Bytes of a file that is read in pieces."""
_PUBLISHED = (".zip", ".tar", ".tar.gz", ".tgz")
_KEYED = (*IMAGES, *UNREAD, ".csv", ".txt", ".pkl", ".pickle", "train", "test", "meta")


# -- where a data set lies --------------------------------------------------------------------------------------------


def find_root(name: str, root: Path | None, marks: Sequence[str], looked_for: Sequence[str]) -> Path:
    """Return the folder, or the archive, of a data set.

    Args:
        name: of the data set; a subfolder of that name (in any spelling) is preferred.
        root: what the user gave; None: the environment variable METARL_DATA.
        marks: patterns of the entries by which the data set itself is known.
        looked_for: the layouts, in words for the error.

    Raises:
        UserError: nothing was given, or nothing of it is there; says where it was looked for and what was found.
    """
    given = Path(root) if root else (Path(os.environ[ROOT_VARIABLE]) if os.environ.get(ROOT_VARIABLE) else None)
    if given is None:
        raise UserError(
            f"{name} is read from files, and no folder was given. Give one by --data-root, or set {ROOT_VARIABLE} to "
            f"the folder that holds {name}/."
        )
    way = "--data-root" if root is not None else ROOT_VARIABLE
    given = _expanded(given)
    if not kind_of(given):
        raise UserError(f"Looked for {name} in {given} ({way}), which does not exist. Give the folder that holds it.")
    if check_file_or_folder(given) == "file":
        return given
    entries = entries_of(given)
    for entry in entries:
        if _plain(entry.name) == _plain(name) and entry.is_dir():
            return entry
    if any(fnmatch.fnmatch(entry.name, mark) for entry in entries for mark in marks):
        return given
    raise wrong_layout(name, given, [f"a folder {name}/", *looked_for])


def wrong_layout(name: str, folder: Path, looked_for: Sequence[str]) -> UserError:
    """Return the error that says what was looked for in a folder, or an archive, and what is there."""
    return UserError(
        f"{folder} does not hold {name} in a layout that is known. Looked for: {'; '.join(looked_for)}. "
        f"Found: {_contents(folder)}. Give the right folder by --data-root, or complete the download."
    )


def entries_of(folder: Path) -> list[Path]:
    """Return what lies in a folder, sorted.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be read ({error}). Check its permissions.") from error


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    # A user that does not exist.
    except RuntimeError as error:
        raise UserError(f"Got {path}, and there is no such user. Write the path out.") from error


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _contents(folder: Path) -> str:
    """Return a few words about what lies in a folder, or an archive."""
    if folder.is_dir():
        names = [entry.name + "/" * entry.is_dir() for entry in entries_of(folder)]
    else:
        with open_tree(folder) as tree:
            names = sorted({name.split("/")[0] + "/" * ("/" in name) for name in tree.names})
    if not names:
        return "nothing, it is empty"
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


# -- folders and archives ---------------------------------------------------------------------------------------------


class Tree:
    """Files under a folder, or in an archive; hidden ones are left out.

    Args:
        path: of the folder or archive.
        list_files: gives the names of all files, relative to it, with forward slashes, and the size of each in bytes,
            where it is known already.
        open_file: opens one of them.
    """

    def __init__(
        self,
        path: Path,
        list_files: Callable[[], Mapping[str, int | None]],
        open_file: Callable[[str], io.BufferedIOBase],
    ) -> None:
        self.path = path
        self._list_files = list_files
        self._open = open_file

    @cached_property
    def _sizes(self) -> dict[str, int | None]:
        return {name: size for name, size in self._list_files().items() if not is_hidden(name)}

    @cached_property
    def names(self) -> list[str]:
        """Names of all files, in the order in which they are best read."""
        return list(self._sizes)

    @cached_property
    def places(self) -> dict[str, int]:
        """Place of every name in that order."""
        return {name: place for place, name in enumerate(self.names)}

    def stamps(self) -> list[tuple[str, int, int]]:
        """Return (name, size in bytes, time of the last change in ns) of the archive, or of every file."""
        if not self.path.is_dir():
            return [_stamp(self.path, self.path.name)]
        return [_stamp(self.path / name, name) for name in self.names if name.lower().endswith(_KEYED)]

    def read(self, name: str, at_most: int) -> bytes:
        """Return the content of a file.

        Args:
            name: of the file.
            at_most: bytes that it may have.

        Raises:
            UserError: it is damaged, no regular file, or larger.
        """
        size = self._sizes[name]
        if size is None:
            try:
                return read_regular(self.path / name, at_most)
            except FileNotFoundError as error:
                raise UserError(f"{self.path / name} has gone while the data were read. Try again.") from error
        if size > at_most:
            raise UserError(
                f"{name} in {self.path} has {size:,} bytes, and at most {at_most:,} are read of such a file. Make it "
                "smaller, or take it out."
            )
        with damage_told(self.path, name), self._open(name) as file:
            content = file.read(size + 1)
            if len(content) != size:
                raise EOFError(f"it has {len(content):,} bytes and should have {size:,}")
        return content

    @contextmanager
    def opened(self, name: str) -> Iterator[tuple[io.BufferedIOBase, int]]:
        """Give a file that is open, and its size; errors as in `read`."""
        size = self._sizes[name]
        with nullcontext() if size is None else damage_told(self.path, name), self._open(name) as file:
            yield file, os.fstat(file.fileno()).st_size if size is None else size


@contextmanager
def open_tree(path: Path, marks: Sequence[str] = ("*",)) -> Iterator[Tree]:
    """Open a folder or an archive, which is read without unpacking it.

    Args:
        path: a folder; or a zip or tar file. Reading backwards in a compressed tar file is slow.
        marks: patterns of the entries at the top of a folder that belong to the data set.

    Raises:
        UserError: it holds what is not read (see `metarl.fewshot.reading`), or is damaged; while it is opened or read.
    """
    if check_file_or_folder(path) == "folder":
        yield Tree(
            path,
            lambda: dict.fromkeys(files_below(path, marks)),
            lambda name: cast(io.BufferedIOBase, open_regular(path / name, _LARGEST)),
        )
        return
    with open_archive(path) as archive:
        yield Tree(path, lambda: {**archive.sizes}, archive.open)


def _stamp(path: Path, name: str) -> tuple[str, int, int]:
    """Return name, size in bytes and time of the last change in ns of a file."""
    status = path.stat()
    return name, status.st_size, status.st_mtime_ns


def published(folder: Path, *stems: str) -> Path:
    """Return the first archive with one of the given stems in a folder, or the folder itself."""
    if folder.is_dir():
        for stem in stems:
            for ending in _PUBLISHED:
                if (folder / (stem + ending)).is_file():
                    return folder / (stem + ending)
    return folder


def below(tree: Tree, *marks: str) -> str | None:
    """Return the folder of a tree, "" or with a slash at its end, that holds any of some files; None: none does.

    Args:
        tree: to be searched.
        marks: names relative to the folder that is wanted, as `splits/train.txt`.
    """
    found = [name[: -len(mark)] for mark in marks for name in tree.names if name == mark or name.endswith("/" + mark)]
    return min(found, key=len) if found else None


def by_class(tree: Tree, prefix: str) -> dict[str, list[str]]:
    """Return class -> its images, for images that lie in a folder per class (at any depth) below a prefix."""
    found: dict[str, list[str]] = {}
    for name in tree.names:
        if name.startswith(prefix) and "/" in name[len(prefix) :] and name.lower().endswith(IMAGES):
            found.setdefault(name[len(prefix) :].split("/")[0], []).append(name)
    return {key: sorted(found[key]) for key in sorted(found)}


def folders_in(tree: Tree, prefix: str) -> set[str]:
    """Return the folders right below a prefix, whatever they hold."""
    inside = [name[len(prefix) :] for name in tree.names if name.startswith(prefix)]
    return {name.split("/")[0] for name in inside if "/" in name}


def classes_in(tree: Tree, prefix: str) -> dict[str, list[str]]:
    """Return the same, where every folder below the prefix is that of a class.

    Raises:
        UserError: one of them holds no picture.
    """
    found = by_class(tree, prefix)
    bare = sorted(folders_in(tree, prefix) - found.keys())
    if bare:
        raise UserError(
            f"The folder {tree.path / prefix / bare[0]} holds other files and no pictures. Take it out, or complete it."
        )
    return found


# -- lists and pickles ------------------------------------------------------------------------------------------------


def read_lines(tree: Tree, name: str) -> list[str]:
    """Return the lines of a text file that are not empty, without spaces around them.

    Raises:
        UserError: it is no text in UTF-8.
    """
    text = tables.text_of(tree.read(name, tables.MOST_BYTES), str(tree.path / name))
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_table(tree: Tree, name: str) -> list[list[str]]:
    """Return the rows of a CSV file that are not empty; errors as in `read_lines`."""
    where = str(tree.path / name)
    return tables.rows_of(tables.text_of(tree.read(name, tables.MOST_BYTES), where), where)


def read_pickle(tree: Tree, name: str) -> Any:
    """Return the content of a pickle of numpy arrays and containers; nothing in it is run.

    Bytes that Python 2 wrote become text; keys of dicts are text.

    Raises:
        UserError: the file is damaged, not wholly downloaded, or holds something else.
    """
    try:
        with tree.opened(name) as (file, size):
            check_room(size, name)
            content = pickles.load(file, size)
    except pickles.Refused as error:
        raise UserError(
            f"{tree.path / name} cannot be read as a pickle of arrays ({error}). It is damaged, was not wholly "
            "downloaded, or is another file; download it again."
        ) from error
    if isinstance(content, dict):
        return {text(key): value for key, value in content.items()}
    return content


def text(name: Any) -> str:
    """Return a name in a pickle as text: Python 2 and 3 wrote them differently."""
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
