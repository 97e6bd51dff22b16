"""Archives of strangers: damaged, encrypted, lying and bombs; each one line, before anything is unpacked."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from metarl.errors import UserError
from metarl.fewshot.reading import archive_entries
from metarl.fewshot.reading.archives import damage_told, open_archive

FILES = {f"cat/{i}.txt": bytes(range(i, i + 100)) for i in range(3)} | {"dog/0.txt": b"woof" * 500}


def zipped(path: Path, files: Mapping[str, bytes] = FILES, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def entry(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size, made.type, made.linkname = size, kind, link
    return made


def tarred(path: Path, files: Mapping[str, bytes] = FILES, *others: tarfile.TarInfo) -> Path:
    mode: Any = {".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.TarFile.open(path, mode) as archive:
        for name, content in files.items():
            archive.addfile(entry(name, len(content)), io.BytesIO(content))
        for other in others:
            archive.addfile(other)
    return path


def contents(path: Path) -> dict[str, bytes]:
    with open_archive(path) as archive:
        found = {}
        for name, size in archive.sizes.items():
            with damage_told(path, name), archive.open(name) as file:
                found[name] = file.read(size + 1)
        return found


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_files_are_read_by_every_method(tmp_path: Path, method: int) -> None:
    assert contents(zipped(tmp_path / "a.zip", method=method)) == FILES


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz.gz", "tar.bz2", "tar.xz"])
def test_tar_files_are_read_by_every_method(tmp_path: Path, ending: str) -> None:
    assert contents(tarred(tmp_path / f"a.{ending}")) == FILES
    assert (
        contents(tarred(tmp_path / f"b.{ending}", {f"./{name}": content for name, content in FILES.items()})) == FILES
    )


def directory(change: Callable[[bytearray, int], None]) -> Callable[[Path], Path]:
    """Return what changes the first entry in the list of a zip file."""

    def made(path: Path) -> Path:
        raw = bytearray(zipped(path).read_bytes())
        change(raw, raw.find(b"PK\1\2"))
        path.write_bytes(raw)
        return path

    return made


def put(offset: int, content: bytes) -> Callable[[Path], Path]:
    def change(raw: bytearray, place: int) -> None:
        raw[place + offset : place + offset + len(content)] = content

    return directory(change)


def overlapping(path: Path) -> Path:
    raw = zipped(path, {"a/a.txt": b"x" * 50, "b/b.txt": b"y" * 50}, zipfile.ZIP_STORED).read_bytes()
    first = raw.find(b"PK\1\2")
    second = raw.find(b"PK\1\2", first + 1)
    changed = bytearray(raw)
    changed[second + 42 : second + 46] = raw[first + 42 : first + 46]
    path.write_bytes(changed)
    return path


def with_link(path: Path) -> Path:
    link = zipfile.ZipInfo("cat/link.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/0.txt", b"x")
        archive.writestr(link, "/etc/passwd")
    return path


def twice(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.txt", b"2")
    return path


def cut(path: Path) -> Path:
    path.write_bytes(zipped(path).read_bytes()[:-30])
    return path


def last_bytes(*, flipped: bool) -> Callable[[Path], Path]:
    def made(path: Path) -> Path:
        raw = bytearray(tarred(path.with_suffix(".gz")).read_bytes())
        if flipped:
            raw[-8] ^= 255
        path.write_bytes(raw if flipped else raw[:-6])
        return path

    return made


def headers(*content: bytes) -> Callable[[Path], Path]:
    def made(path: Path) -> Path:
        path.write_bytes(b"".join(content) + bytes(10240))
        return path

    return made


def block(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    if size >= 0:
        return entry(name, size, kind).tobuf(tarfile.GNU_FORMAT)
    raw = bytearray(entry(name, 0, kind).tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = b"\xff" + size.to_bytes(11, "big", signed=True)
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def packed(*content: bytes) -> Callable[[Path], Path]:
    def made(path: Path) -> Path:
        with gzip.open(path, "wb", compresslevel=1) as file:
            for part in content:
                file.write(part)
        return path

    return made


def sparse(path: Path) -> Path:
    with tarfile.TarFile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        made = entry("a.txt", 512)
        made.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "a.txt",
            "GNU.sparse.realsize": "1000",
        }
        archive.addfile(made, io.BytesIO(b"1\n0\n10\n" + bytes(505)))
    return path


def digits(path: Path) -> Path:
    body = b"9" * 6000 + b" path=a\n"
    return headers(block("x", len(body), tarfile.XHDTYPE) + body + bytes(-len(body) % 512))(path)


ATTACKS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "encrypted": (put(8, b"\1"), r"is encrypted \('cat/0.txt'\)\. Unpack it with its password"),
    "method": (put(10, b"\x63"), "packed by method 99, and read are stored, deflate"),
    "more than there is": (put(24, struct.pack("<I", 10**9)), "would unpack to 1,000,0.* Unpack it yourself"),
    "less than there is": (put(24, struct.pack("<I", 10)), "Bad CRC-32|should have"),
    "checksum": (put(16, b"\0\0\0\0"), r"cat/0\.txt: Bad CRC-32.*download it again"),
    "extra fields": (put(30, struct.pack("<H", 12)), "Corrupt extra field"),
    "overlapping": (overlapping, "entries that lie over one another"),
    "absolute": (lambda path: zipped(path, {"/etc/x": b""}), "a name that leads out of it"),
    "drive": (lambda path: zipped(path, {"C:/x": b""}), "a name that leads out of it"),
    "upwards": (lambda path: zipped(path, {"a/../../x": b""}), "a name that leads out of it"),
    "twice": (twice, "holds 'a.txt' twice"),
    "cut": (cut, "no list of entries at its end"),
    "list": (headers(b"PK\5\6", struct.pack("<4H2LH", 0, 0, 9, 9, 10**8, 0, 0)), "no list|longer than it"),
    "PK alone": (headers(b"PK"), "no list of entries"),
    "tar checksum": (last_bytes(flipped=True), "CRC check failed .*download it again"),
    "tar cut": (last_bytes(flipped=False), "ended before the end-of-stream"),
    "tar cut inside": (headers(block("a", 10**5)), "unexpected end of data"),
    "tar absolute": (lambda path: tarred(path, {"/x/x": b""}), "a name that leads out of it"),
    "tar upwards": (lambda path: tarred(path, {"../x": b""}), "a name that leads out of it"),
    "tar twice": (lambda path: tarred(path, {"a.txt": b"", "./a.txt": b""}), "holds 'a.txt' twice"),
    "tar bomb": (packed(block("a", 1 << 31), bytes(1 << 16)), "would unpack to 2,147,483,648 bytes or more"),
    "tar petabyte": (headers(block("a", 1 << 50)), "would unpack to 1,125,899,906,842,624"),
    "tar backwards": (headers(block("a", -1024)), "would unpack to -1,024"),
    "tar name of 8 GB": (headers(block("././@LongLink", 1 << 33, tarfile.GNUTYPE_LONGNAME)), "8 MiB of headers"),
    "tar headers backwards": (headers(block("x", -1024, tarfile.XHDTYPE)), "8 MiB of headers"),
    "tar chain": (headers(block("x", 0, tarfile.XHDTYPE) * 5000), "longer than any should be"),
    "tar digits": (digits, "longer than any should be"),
    "tar sparse": (sparse, "as a sparse entry"),
    "no archive": (headers(b"hello" * 500), "cannot be read as an archive"),
    "empty": (lambda path: (path.write_bytes(b""), path)[1], "cannot be read as an archive"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_archive_that_lies_is_refused_in_a_line(tmp_path: Path, name: str) -> None:
    make, says = ATTACKS[name]
    path = make(tmp_path / f"{name}.zip") if not name.startswith("tar") else make(tmp_path / f"{name}.tar")
    with pytest.raises(UserError, match=says):
        contents(path)


def test_links_and_devices_are_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert contents(with_link(tmp_path / "a.zip")) == {"cat/0.txt": b"x"}
    assert "a.zip: left out 1 links and devices, as 'cat/link.txt'" in capsys.readouterr().err
    others = [
        entry("cat/link.txt", 0, tarfile.SYMTYPE, "/etc/passwd"),
        entry("cat/hard.txt", 0, tarfile.LNKTYPE, "cat/0.txt"),
        entry("cat/zero.txt", 0, tarfile.CHRTYPE),
        entry("cat/pipe.txt", 0, tarfile.FIFOTYPE),
    ]
    assert contents(tarred(tmp_path / "a.tar.gz", FILES, *others)) == FILES
    assert "left out 4 links and devices" in capsys.readouterr().err


def test_folders_in_archives_are_no_files(tmp_path: Path) -> None:
    assert contents(zipped(tmp_path / "a.zip", {"cat/": b"", "cat/0.txt": b"x"})) == {"cat/0.txt": b"x"}
    assert contents(tarred(tmp_path / "a.tar", FILES, entry("cat", 0, tarfile.DIRTYPE))) == FILES


def test_very_many_entries_are_refused_before_they_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_entries, "MOST_ENTRIES", 3)
    with pytest.raises(UserError, match=r"a\.zip has 4 entries, and at most 3 are read"):
        contents(zipped(tmp_path / "a.zip"))
    with pytest.raises(UserError, match=r"a\.tar has more than 3 entries"):
        contents(tarred(tmp_path / "a.tar"))


def test_a_large_list_of_entries_is_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A list with its size in the long form, as archives of more than 65,535 entries have it.
    raw = zipped(tmp_path / "a.zip").read_bytes()
    first, end = raw.find(b"PK\1\2"), raw.find(b"PK\5\6")
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 4, 4, end - first, first)
    large += struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (tmp_path / "a.zip").write_bytes(raw[:end] + large + last)
    assert contents(tmp_path / "a.zip") == FILES
    (tmp_path / "b.zip").write_bytes(raw[:end] + last)
    with pytest.raises(UserError, match="no list of entries"):
        contents(tmp_path / "b.zip")
    monkeypatch.setattr(archive_entries, "MOST_ENTRIES", 3)
    with pytest.raises(UserError, match="has 4 entries"):
        contents(tmp_path / "a.zip")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no .*a\.zip"), open_archive(tmp_path / "a.zip"):
        pass


def test_a_tar_file_that_was_cut_between_two_entries_is_refused(tmp_path: Path) -> None:
    whole = tarred(tmp_path / "whole.tar")
    with tarfile.open(whole) as archive:
        begins = [member.offset for member in archive.getmembers()]
        end = archive.offset
    cut = tmp_path / "cut.tar"
    for size in [*begins[1:], end, end + 511]:
        cut.write_bytes(whole.read_bytes()[:size])
        with pytest.raises(UserError, match=r"the end of it is missing"):
            contents(cut)
    # One block of zeros is enough: some programs write no more.
    cut.write_bytes(whole.read_bytes()[: end + 512])
    assert contents(cut) == FILES
