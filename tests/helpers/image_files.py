"""Data sets on disk for the tests of what reads them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from metarl.fewshot.classes import ClassData
from metarl.fewshot.data import load
from metarl.fewshot.episodes import Source


def write_image(path: Path, value: int, size: tuple[int, int] = (6, 6), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = value if mode == "L" else (value, value // 2, 255 - value)
    Image.new(mode, size, colour).save(path)


def data_of(source: Source) -> ClassData:
    assert isinstance(source, ClassData)
    return source


def read(address: str, root: Path, size: int = 0) -> ClassData:
    return data_of(load(address, root, size=size))


def counts(data: ClassData) -> dict[str, int]:
    return {name: len(part.names) for name, part in data.splits.items()}


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
