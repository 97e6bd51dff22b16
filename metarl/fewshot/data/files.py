"""Files of data sets as they are published: the folder, archives that are read without unpacking, untrusted pickles."""

from __future__ import annotations

import csv
import fnmatch
import io
import os
import pickle
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any

from metarl.errors import UserError

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
    given = root or (Path(os.environ[ROOT_VARIABLE]) if os.environ.get(ROOT_VARIABLE) else None)
    if given is None:
        raise UserError(
            f"{name} is read from files, and no folder was given. Give one by --data-root, or set {ROOT_VARIABLE} to "
            f"the folder that holds {name}/."
        )
    way = "--data-root" if root is not None else ROOT_VARIABLE
    given = given.expanduser()
    if not given.exists():
        raise UserError(f"Looked for {name} in {given} ({way}), which does not exist. Give the folder that holds it.")
    if given.is_file():
        return given
    for entry in sorted(given.iterdir()):
        if entry.is_dir() and _plain(entry.name) == _plain(name):
            return entry
    if any(fnmatch.fnmatch(entry.name, mark) for entry in given.iterdir() for mark in marks):
        return given
    raise wrong_layout(name, given, [f"a folder {name}/", *looked_for])


def wrong_layout(name: str, folder: Path, looked_for: Sequence[str]) -> UserError:
    """Return the error that says what was looked for in a folder, or an archive, and what is there."""
    return UserError(
        f"{folder} does not hold {name} in a layout that is known. Looked for: {'; '.join(looked_for)}. "
        f"Found: {_contents(folder)}. Give the right folder by --data-root, or complete the download."
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _contents(folder: Path) -> str:
    """Return a few words about what lies in a folder, or an archive."""
    if folder.is_dir():
        names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
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
        list_files: gives the names of all files, relative to it, with forward slashes.
        open_file: opens one of them.
    """

    def __init__(
        self, path: Path, list_files: Callable[[], Iterable[str]], open_file: Callable[[str], IO[bytes]]
    ) -> None:
        self.path = path
        self.open = open_file
        self._list_files = list_files

    @cached_property
    def names(self) -> list[str]:
        """Names of all files, in the order in which they are best read."""
        return [name for name in self._list_files() if not _is_hidden(name)]

    @cached_property
    def places(self) -> dict[str, int]:
        """Place of every name in that order."""
        return {name: place for place, name in enumerate(self.names)}

    def stamps(self) -> list[tuple[str, int, int]]:
        """Return (name, size in bytes, time of the last change in ns) of the archive, or of every file."""
        if not self.path.is_dir():
            return [_stamp(self.path, self.path.name)]
        return [_stamp(self.path / name, name) for name in self.names if name.lower().endswith(_KEYED)]


@contextmanager
def open_tree(path: Path, marks: Sequence[str] = ("*",)) -> Iterator[Tree]:
    """Open a folder or an archive, which is read without unpacking it.

    Args:
        path: a folder; or a zip or tar file. Reading backwards in a compressed tar file is slow.
        marks: patterns of the entries at the top of a folder that belong to the data set.

    Raises:
        UserError: an archive is damaged or not wholly downloaded, while it is opened or read.
    """
    if path.is_dir():
        yield Tree(path, lambda: _files_below(path, marks), lambda name: (path / name).open("rb"))
        return
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                files = [name for name in archive.namelist() if not name.endswith("/")]
                yield Tree(path, lambda: files, archive.open)
        else:
            with tarfile.open(path) as archive:
                yield _tar_tree(path, archive)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read as an archive ({_first_line(error)}). It is damaged or was not wholly downloaded; "
            "download it again."
        ) from error


def _files_below(path: Path, marks: Sequence[str]) -> list[str]:
    """Return the files of a folder, sorted.

    Raises:
        UserError: a folder in it is empty: a class without images would be left out without a word.
    """
    found: list[str] = []
    for top in path.iterdir():
        if not any(fnmatch.fnmatch(top.name, mark) for mark in marks):
            continue
        if top.is_file():
            found.append(top.name)
        for folder, folders, files in os.walk(top, followlinks=True):
            relative = PurePosixPath(Path(folder).relative_to(path))
            if not (folders or files or _is_hidden(str(relative))):
                raise UserError(f"The folder {folder} is empty. Complete the download, or remove it.")
            found += [str(relative / file) for file in files]
    return sorted(found)


def _tar_tree(path: Path, archive: tarfile.TarFile) -> Tree:
    # A compressed archive is run through to list it: only where the cache does not do.
    @cache
    def members() -> dict[str, tarfile.TarInfo]:
        return {member.name.removeprefix("./"): member for member in archive if member.isfile()}

    def open_member(name: str) -> Any:
        return archive.extractfile(members()[name])

    return Tree(path, members, open_member)


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


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(":") or type(error).__name__


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


# -- lists and pickles ------------------------------------------------------------------------------------------------


def read_lines(tree: Tree, name: str) -> list[str]:
    """Return the lines of a text file that are not empty, without spaces around them."""
    with tree.open(name) as file:
        return [line.strip() for line in file.read().decode().splitlines() if line.strip()]


def read_table(tree: Tree, name: str) -> list[list[str]]:
    """Return the rows of a CSV file that are not empty."""
    with tree.open(name) as file:
        return [row for row in csv.reader(io.StringIO(file.read().decode(), newline="")) if row]


_ALLOWED = frozenset({
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
})  # fmt: skip


class _NumpyOnly(pickle.Unpickler):
    """Reads arrays and containers, and refuses everything that a pickle could run."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module_name}.{global_name}, and only numbers are read")
        # The old private name warns, and is the same thing.
        return super().find_class(module_name.replace("numpy.core", "numpy._core"), global_name)


def read_pickle(tree: Tree, name: str) -> Any:
    """Return the content of a pickle of numpy arrays and containers; nothing in it is run.

    Bytes that Python 2 wrote become text; keys of dicts are text.

    Raises:
        UserError: the file is damaged, not wholly downloaded, or holds something else.
    """
    try:
        with tree.open(name) as file:
            content = _NumpyOnly(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise UserError(
            f"{tree.path / name} cannot be read as a pickle of arrays ({_first_line(error)}). It is damaged, was "
            "not wholly downloaded, or is another file; download it again."
        ) from error
    if isinstance(content, dict):
        return {text(key): value for key, value in content.items()}
    return content


def text(name: str | bytes) -> str:
    """Return a name in a pickle as text: Python 2 and 3 wrote them differently."""
    return name.decode() if isinstance(name, bytes) else name
