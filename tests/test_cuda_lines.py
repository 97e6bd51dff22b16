"""The list of what depends on CUDA (cuda_lines.md) has every such line of the sources, and its tests are there."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

import pytest

from tests.helpers.readme import ROOT

PAGE = ROOT / "tests" / "cuda_lines.md"
DEPENDS = re.compile(r"cuda|nccl|lockstep|is_cpu\b|\.type [!=]= ", re.IGNORECASE)
"""What a line has in it that only a GPU, or worlds that step together as on one, takes."""
PLACES = ("metarl", "envs", "agents", "scripts")
BLANK = (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING)


def rows() -> list[tuple[str, str, str, str]]:
    """Return the rows of the table: file, function, what it does, and its tests."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    return [tuple(cell.strip().replace("`", "") for cell in line.strip("|").split("|")) for line in lines]  # pyright: ignore


def without_words(source: str) -> list[str]:
    """Return the lines of a program without comments and docstrings, and with its other strings."""
    lines, before = source.splitlines(), tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and before in BLANK):
            (first, start), (last, end) = token.start, token.end
            for number in range(first, last + 1):
                line = lines[number - 1]
                kept = line[:start] if number == first else "", line[end:] if number == last else ""
                lines[number - 1] = "".join(kept)
        if token.type != tokenize.COMMENT:
            before = token.type
    return lines


def functions(tree: ast.AST, name: str = "") -> Iterator[tuple[int, int, str]]:
    """Yield first line, last line and name of functions, inner ones behind those around them."""
    for node in ast.iter_child_nodes(tree):
        inner = name
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inner = f"{name}.{node.name}" if name else node.name
            if isinstance(node, ast.FunctionDef):
                yield node.lineno, node.end_lineno or node.lineno, inner
        yield from functions(node, inner)


def dependent() -> set[tuple[str, str]]:
    """Return file and function of every line that depends on CUDA; lines outside of functions run everywhere."""
    found: set[tuple[str, str]] = set()
    programs = [path for place in PLACES for path in (ROOT / place).rglob("*.py")]
    # metarl/envs and metarl/agents may be links to the rooms of that name.
    for path in [*{path.resolve() for path in programs}, ROOT / "scripts" / "gpu_check"]:
        source = path.read_text(encoding="utf-8")
        if not DEPENDS.search(source):
            continue
        known = list(functions(ast.parse(source)))
        for number, line in enumerate(without_words(source), 1):
            if DEPENDS.search(line):
                around = [name for first, last, name in known if first <= number <= last]
                found |= {(path.relative_to(ROOT.resolve()).as_posix(), name) for name in around[-1:]}
    return found


def test_the_list_has_every_line_that_depends_on_cuda() -> None:
    listed = [(file, function) for file, function, *_ in rows()]
    assert listed == sorted(set(listed)), "rows stand in the order of their names, each once"
    there = dependent()
    missing, gone = sorted(there - set(listed)), sorted(set(listed) - there)
    assert not missing, f"cuda_lines.md does not have {missing}"
    assert not gone, f"cuda_lines.md has {gone}, which no longer depend on CUDA"


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]}-{row[1]}")
def test_what_is_listed_has_a_test_that_needs_no_gpu(row: tuple[str, str, str, str]) -> None:
    *_, what, tests = row
    assert what
    for name in tests.split(", "):
        file, _, function = name.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        [test] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
        assert function.startswith("test_")
        marks = [ast.unparse(decorator) for decorator in test.decorator_list]
        assert "pytest.mark.gpu" not in marks, f"{name} needs a GPU"


def test_words_about_cuda_are_not_lines_that_depend_on_it() -> None:
    source = '"""cuda"""\nx = 1  # cuda\n\n\ndef f():\n    """Of\n    cuda.\n    """\n    return "cuda"\n'
    assert [bool(DEPENDS.search(line)) for line in without_words(source)] == [False] * 8 + [True]
