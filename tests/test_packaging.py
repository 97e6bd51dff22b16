from __future__ import annotations

import re
import socket
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError

import metarl
from metarl.types import Tasks

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_version_is_the_same_everywhere(project: dict[str, Any]) -> None:
    assert metarl.__version__ == project["project"]["version"] == metadata.version("metarl-suite")


def test_every_package_is_installed(project: dict[str, Any]) -> None:
    roots = {"metarl": ROOT / "metarl", "metarl.envs": ROOT / "envs", "metarl.agents": ROOT / "agents"}
    found = {
        ".".join([name, *init.parent.relative_to(root).parts])
        for name, root in roots.items()
        for init in root.rglob("__init__.py")
    }
    assert found == set(project["tool"]["setuptools"]["packages"])


def test_constraints_name_every_dependency(project: dict[str, Any]) -> None:
    lines = (ROOT / "scripts" / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0] for line in lines if not line.startswith("#")}
    groups = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    named = {re.split(r"[<>=,]", requirement)[0] for group in groups for requirement in group}
    assert named - pinned == set()


@pytest.mark.parametrize("test", range(2))
def test_shapes_and_types_are_checked_in_every_test(test: int) -> None:
    tasks = Tasks("some-family", {"speed": torch.zeros(3, dtype=torch.float64)})
    with pytest.raises(TypeCheckError):
        tasks.select(torch.zeros(2, 2, dtype=torch.long))


def test_network_is_out_of_reach() -> None:
    with socket.socket() as connection, pytest.raises(RuntimeError, match="may only use this machine"):
        connection.connect(("192.0.2.1", 80))


def test_this_machine_is_in_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as connection:
        connection.connect(server.getsockname())
