"""Examples of the READMEs: every room's README is read by the tests of that room, which run what stands there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def blocks(readme: str, language: str = "python") -> list[str]:
    """Return the code blocks of a language in a README, given by its path in the repository."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def block(readme: str, words: str, language: str = "python") -> str:
    """Return the one code block that has these words."""
    found = [code for code in blocks(readme, language) if words in code]
    assert len(found) == 1, f"{readme} has {len(found)} {language} examples with {words!r}"
    return found[0]


def commands(readme: str, start: str = "metarl ") -> list[str]:
    """Return the command lines of a README that begin so, without their comments; broken lines are joined."""
    lines = "".join(blocks(readme, "bash")).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith(start)]
