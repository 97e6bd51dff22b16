"""The house: every room has a README, whose links lead somewhere; the main one stays short."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.helpers.readme import ROOT

ROOMS = ("metarl", "envs", "agents")
READMES = sorted(
    path
    for folder in (*ROOMS, "scripts", "tests")
    for path in (ROOT / folder).rglob("README.md")
    if "typings" not in path.parts
)
LONGEST = 200
"""Lines that the main README may have."""


def packages() -> list[Path]:
    """Return the folders of the packages that are installed, without the one that is all of them."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [name.split(".") for name in named if name != "metarl"]
    return [ROOT.joinpath(*(parts[1:] if parts[1] in ("envs", "agents") else parts)) for parts in folders]


@pytest.mark.parametrize("folder", packages(), ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_every_room_has_a_readme_that_names_its_files(folder: Path) -> None:
    # The rooms in cli/ share its page.
    page = folder / "README.md" if (folder / "README.md").is_file() else folder.parent / "README.md"
    text = page.read_text(encoding="utf-8")
    if page.parent != folder:
        assert f"`{folder.name}/`" in text
        return
    for file in folder.glob("*.py"):
        if file.name != "__init__.py":
            assert re.search(rf"\b{file.stem}\b", text), f"{page.relative_to(ROOT)} does not name {file.name}"


def test_the_main_readme_is_short_and_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    for page in READMES:
        assert f"({page.relative_to(ROOT).as_posix()})" in text


@pytest.mark.parametrize("page", [ROOT / "README.md", *READMES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    for link in links:
        if not link.startswith("http"):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)} links to {link}"


def test_nothing_is_said_twice() -> None:
    """No paragraph of some length, and no row of a table, stands in two READMEs."""
    seen: dict[str, Path] = {}
    for page in [ROOT / "README.md", *READMES]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        paragraphs = [" ".join(part.split()) for part in text.split("\n\n") if not part.startswith("|")]
        rows = [line.strip() for line in text.splitlines() if line.startswith("|")]
        for piece in (*paragraphs, *rows):
            if len(piece) > 100:
                assert piece not in seen, f"{page} and {seen[piece]} both say: {piece[:80]}"
                seen[piece] = page
