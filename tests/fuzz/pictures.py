"""Pictures of a user's, in folders and archives."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.foreign import SPECIAL, damaged, put_special, short
from tests.fuzz.stock import IMAGES, Stock
from tests.helpers.fuzzing import Case

Draw = Callable[[st.SearchStrategy[Any]], Any]


def _picture(value: int, side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (value, 255 - value, value // 2)).save(file, "png")
    return file.getvalue()


MEMBERS = (
    "../../canary2",
    "/tmp/../canary2",
    "a\\..\\..\\canary2",
    "given/c0/0.png",
    "C0/0.png",
    "\ufeff/0.png",
    "x" * 300 + ".png",
)


@st.composite
def archives(draw: Draw, stock: Stock) -> Case:
    """Return pictures in an archive that is damaged, or holds what no archive of pictures holds."""
    ending = draw(st.sampled_from([".zip", ".zip", ".tar", ".tar.gz"]))
    pictures = {f"c{number}/{item}.png": _picture(20 * number + item) for number in range(12) for item in range(4)}
    way = draw(
        st.sampled_from(
            [
                "unchanged",
                "bytes",
                "bytes",
                "bytes",
                "member",
                "bomb",
                "flag",
                "sum",
                "kind",
                "nothing",
                "other",
                "special",
            ]
        )
    )
    what, bad, kind = way, way in ("bomb", "flag", "sum", "nothing", "other", "special"), ""
    if way == "member":
        name = draw(st.sampled_from(MEMBERS))
        pictures[name], what = _picture(1), f"a member {short(name)}"
    if way == "bomb":
        pictures["c0/0.png"] = _picture(1) + bytes(300 * 2**20)
    content = _zipped(pictures) if ending == ".zip" else _tarred(pictures, ending, draw if way == "kind" else None)
    if way == "bytes":
        content, what = damaged(content, draw)
    elif way == "flag":
        bit = draw(st.sampled_from(["encrypted", "compressed otherwise"]))
        content, what = (
            (_marked(content, bit), bit) if ending == ".zip" else (content[: len(content) // 2], "half of it")
        )
    elif way == "sum":
        content, what = _summed_wrong(content, ending), "a wrong checksum"
    elif way == "nothing":
        content = b""
    elif way == "other":
        content = draw(
            st.sampled_from(
                [b"PK\x03\x04", b"Rar!\x1a\x07\x00", b"7z\xbc\xaf\x27\x1c", b"\x1f\x8b\x08", b"<html>", bytes(10240)]
            )
        )
        what = f"only {content[:8]!r}"
    elif way == "special":
        kind = what = draw(st.sampled_from(SPECIAL))

    def lay(place: Path) -> None:
        path = place / f"given{ending}"
        path.write_bytes(content)
        if kind:
            put_special(path, kind)

    command = ("fewshot", "train", "proto", "--data", "folder", "--size", "8", "--data-root", f"given{ending}", *IMAGES)
    return Case(
        what=f"{ending}: {what}",
        arguments=command,
        lay=lay,
        bad=bad,
        good=way == "unchanged",
        writes=("made", ".cache"),
        keeps=(".cache",),
    )


def _zipped(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def _tarred(files: dict[str, bytes], ending: str, draw: Draw | None) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz" if ending.endswith("gz") else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        if draw is not None:
            strange = tarfile.TarInfo("c0/9.png")
            kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
            strange.type = draw(st.sampled_from(kinds))
            strange.linkname = draw(st.sampled_from(["/etc/passwd", "c0/9.png", "../canary", "c0/0.png"]))
            archive.addfile(strange)
    return made.getvalue()


def _marked(content: bytes, bit: str) -> bytes:
    """Set the flag of encryption, or a method that does not exist, in every header of a zip file."""
    made = bytearray(content)
    for magic, flags, method in ((b"PK\x03\x04", 6, 8), (b"PK\x01\x02", 8, 10)):
        at = made.find(magic)
        while at >= 0:
            if bit == "encrypted":
                made[at + flags] |= 1
            else:
                made[at + method] = 77
            at = made.find(magic, at + 4)
    return bytes(made)


def _summed_wrong(content: bytes, ending: str) -> bytes:
    made = bytearray(content)
    if ending == ".zip":
        for magic, place in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
            made[made.find(magic) + place] ^= 255
    elif ending == ".tar.gz":
        made[-8] ^= 255
    else:
        made[150] ^= 255
    return bytes(made)


FORMATS = ("png", "jpeg", "bmp", "gif", "tiff", "webp", "ppm", "tga", "ico")


@st.composite
def pictures(draw: Draw, stock: Stock) -> Case:
    """Return a folder of pictures, one of which is something else."""
    way = draw(
        st.sampled_from(["unchanged", "bytes", "bytes", "bytes", "giant", "mode", "special", "text", "loop", "name"])
    )
    kind, name, bad = "", "c0/0.png", False
    content = _picture(1)
    if way == "bytes":
        form = draw(st.sampled_from(FORMATS))
        file = io.BytesIO()
        Image.effect_mandelbrot((16, 16), (-2, -1, 1, 1), 20).convert("RGB").save(file, form)
        content, what = damaged(file.getvalue(), draw)
        name, what = f"c0/0.{form}", f"{form} {what}"
    elif way == "giant":
        width, height = draw(
            st.sampled_from(
                [(20000, 20000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (1, 65535), (0, 0), (100000, 5000)]
            )
        )
        content, what = _png_of(width, height), f"a PNG of {width} x {height}"
        bad = not 0 < width * height < 10**6
    elif way == "mode":
        what = draw(st.sampled_from(["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "F", "animated", "float NaN"]))
        content, name = _moded(what)
    elif way == "special":
        kind = what = draw(st.sampled_from(SPECIAL))
    elif way == "text":
        content, what, bad = draw(st.binary(max_size=64)), "other bytes", True
    elif way == "unchanged":
        what = way
    elif way == "loop":
        what = draw(st.sampled_from(["up", "itself", "each other", "another class", "nowhere", "a device"]))
    else:
        name = draw(
            st.sampled_from(
                ["c0/0.txt", "c0/a\nb.png", "c0/\u202egnp.png", "c0/0.PNG", "c9/0.txt", "train/c0/0.png", "0.png"]
            )
        )
        what = f"named {name!r}"

    def lay(place: Path) -> None:
        for number in range(12):
            folder = place / "given" / f"c{number}"
            folder.mkdir(parents=True)
            for item in range(1, 4):
                (folder / f"{item}.png").write_bytes(_picture(20 * number + item))
        path = place / "given" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if way == "loop":
            _linked(place / "given", what)
        elif kind:
            put_special(path, kind)
        else:
            path.write_bytes(content)

    command = ("fewshot", "train", "proto", "--data", "folder", "--size", "8", "--data-root", "given", *IMAGES)
    return Case(
        what=f"a picture, {way}: {what}",
        arguments=command,
        lay=lay,
        bad=bad,
        writes=("made", ".cache"),
        keeps=(".cache",),
    )


def _linked(given: Path, way: str) -> None:
    target = {
        "up": "..",
        "itself": "link",
        "another class": "../c1",
        "nowhere": "../gone",
        "a device": "/dev/zero",
        "each other": "b",
    }
    (given / "c0" / ("link.png" if way == "a device" else "link")).symlink_to(target[way])
    if way == "each other":
        (given / "c0" / "b").symlink_to("link")


def _png_of(width: int, height: int) -> bytes:
    """Return a PNG file that says that it is of some size, and is short."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    form = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    data = zlib.compress(bytes(10 * 2**20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", form) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _moded(mode: str) -> tuple[bytes, str]:
    file = io.BytesIO()
    if mode == "animated":
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        frames[0].save(file, "gif", save_all=True, append_images=frames[1:])
        return file.getvalue(), "c0/0.gif"
    if mode == "float NaN":
        Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(file, "tiff")
        return file.getvalue(), "c0/0.tiff"
    form = "tiff" if mode in ("CMYK", "I;16", "I", "F") else "png"
    Image.new(mode, (8, 8)).save(file, form)
    return file.getvalue(), f"c0/0.{form}"
