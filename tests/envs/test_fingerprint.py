"""Every family's first steps are those of the table; and what a fingerprint notices and what it does not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from metarl.cli.main import main
from metarl.envs import families, get
from metarl.envs.families.half_cheetah import HalfCheetahVel
from metarl.envs.fingerprint import (
    COMMAND,
    GRID,
    differences,
    digest,
    fingerprint,
    fingerprints,
    first_steps,
    read,
    update,
)
from metarl.errors import UserError

TABLE = Path(__file__).parents[1] / "fingerprints.json"
NAMES = [family.full_name for variants in families().values() for family in variants]
WHAT_TO_DO = (
    "\nIf the family was meant to change (or is new), write the table anew and look at the difference in it:"
    f"\n    {COMMAND} tests/{TABLE.name}"
)


@pytest.mark.parametrize("name", NAMES)
def test_no_family_has_changed(name: str) -> None:
    pinned = read(TABLE)
    assert name in pinned, f"{name} is not in tests/{TABLE.name}.{WHAT_TO_DO}"
    told = differences(pinned[name], fingerprint(get(name)))
    assert not told, f"{name} has changed: {'; '.join(told)}.{WHAT_TO_DO}"


def test_no_family_has_gone() -> None:
    gone = sorted(set(read(TABLE)) - set(NAMES))
    assert not gone, f"{', '.join(gone)} in tests/{TABLE.name} are no families.{WHAT_TO_DO}"


def test_small_changes_of_a_family_are_noticed() -> None:
    family = get("half-cheetah-vel@v5")
    assert isinstance(family, HalfCheetahVel)
    pinned = fingerprint(family)
    assert differences(pinned, fingerprint(family)) == []
    (told,) = differences(pinned, fingerprint(dataclasses.replace(family, control_weight=0.101)))
    assert told.startswith(f"first_steps was {pinned['first_steps']}, is ")
    (told,) = differences(pinned, fingerprint(dataclasses.replace(family, horizon=199)))
    assert told == "horizon was 200, is 199"
    wider = differences(pinned, fingerprint(dataclasses.replace(family, top_speed=2.001)))
    assert [line.split()[0] for line in wider] == ["tasks", "first_steps"]


@pytest.mark.parametrize(("border", "half"), [(0.5, 0), (0.25, 1)])
def test_rounding_errors_are_not(border: float, half: int) -> None:
    values, _ = first_steps(get("ant-dir"))
    # The worst case: numbers that stand on the borders of one of the two grids.
    values = torch.cat([values, (torch.arange(-1000, 1000) + border) * GRID])
    noise = torch.randn(len(values), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before, after = digest(values, "ant-dir"), digest(values + 1e-12 * noise, "ant-dir")
    assert before.split("-")[half] != after.split("-")[half]
    assert differences({"first_steps": before}, {"first_steps": after}) == []


def test_steps_that_are_not_finite_have_none() -> None:
    with pytest.raises(UserError, match="steps of ant-dir that are not finite"):
        digest(torch.tensor([0.0, float("nan")], dtype=torch.float64), "ant-dir")


def test_the_command_updates_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.json"
    assert main(["fingerprint", "point-nav", "half-cheetah-dir@v5", "--update", str(table)]) == 0
    shown = capsys.readouterr().out
    entries = read(table)
    assert list(entries) == ["point-nav@maml17", "half-cheetah-dir@v5"]
    assert all(entry["first_steps"] in shown for entry in entries.values())
    update(table, {"half-cheetah-dir@v5": {**entries["half-cheetah-dir@v5"], "horizon": 7}})
    assert read(table)["half-cheetah-dir@v5"]["horizon"] == 7
    assert main(["fingerprint", "half-cheetah-dir@v5", "--json", "--update", str(table)]) == 0
    assert json.loads(capsys.readouterr().out) == {"half-cheetah-dir@v5": entries["half-cheetah-dir@v5"]}
    assert read(table) == entries


def test_a_table_of_another_mujoco_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    update(table, fingerprints(["point-nav"]))
    table.write_text(table.read_text().replace('"mujoco": "', '"mujoco": "9.'))
    with pytest.raises(UserError, match=r"was made with MuJoCo 9\..*install 9\."):
        read(table)
    table.write_text("{}")
    with pytest.raises(UserError, match=f"no table of fingerprints.*{COMMAND}"):
        read(table)
