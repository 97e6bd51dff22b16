"""Runs of earlier formats: real ones, as the versions of their time wrote them.

`runs-of-format-N.zip` have runs of 2 of 3 iterations; the last row of their progress.csv is what the version that wrote
them came to in the third.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import metarl
from metarl.api.runs import load
from metarl.cli.main import main
from metarl.errors import UserError
from metarl.run import formats
from metarl.run.checkpoint import CheckpointFolder, read_header
from metarl.run.checkpoint import load as load_checkpoint
from metarl.run.folder import RunFolder
from metarl.run.formats import FORMAT, Stored
from metarl.run.settings import RunConfig
from tests.helpers.run_folders import CONFIG, logged, quiet
from tests.helpers.tiny_fewshot import store
from tests.helpers.tiny_run import RUN, Follower, start


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file in Path(__file__).parent.glob("runs-of-format-*.zip"):
        zipfile.ZipFile(file).extractall(tmp_path)
    # The data root of the few-shot run is a path from here.
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["maml-trpo", "oracle", "maml", "proto", "rl2"])
def test_a_run_of_an_earlier_format_goes_on_as_its_version_did(old: Path, name: str) -> None:
    expected = logged(old / name)
    assert [row["step"] for row in expected] == [1, 2, 3]
    rest = ["--resume", str(old / name), "--json"]
    if name == "proto":
        store(old / "data")
    if name in ("maml-trpo", "oracle", "rl2"):
        assert main(["train", *rest]) == 0
    else:
        assert main(["fewshot", "train", *rest, "--test-episodes", "0"]) == 0
    for found, row in zip(logged(old / name), expected, strict=True):
        # Machines round differently.
        assert found == pytest.approx(row, rel=1e-3, abs=1e-4)
    content = yaml.safe_load((old / name / "config.yaml").read_text())
    assert content["format"] == FORMAT
    if name == "proto":
        assert content["run"]["data_options"] == {"layout": "plain"}
    assert read_header(old / name / "checkpoints" / "last.pt")["format"] == FORMAT
    # The one before is as the earlier version wrote it, and is read too.
    previous = old / name / "checkpoints" / "previous.pt"
    assert read_header(previous).get("format", 1) == (11 if name == "rl2" else 1)
    assert load_checkpoint(previous, {"seed": 1})["iteration"] == 2


def test_an_agent_of_format_1_is_evaluated(old: Path) -> None:
    before = (old / "maml-trpo" / "config.yaml").read_bytes()
    curve = metarl.evaluate(old / "maml-trpo", tasks=2, steps=1, threads=1)
    assert curve.arrays()["returns"].shape == (2, 1, 2)
    assert load(old / "oracle").iteration == 2
    assert load(old / "oracle").room == {}
    assert (old / "maml-trpo" / "config.yaml").read_bytes() == before


def test_the_version_of_the_package_is_no_reason_to_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("checkpoint", "folder"):
        monkeypatch.setattr(f"metarl.run.{module}.__version__", "0.0.9")
    start(tmp_path, CONFIG, iterations=1, console=quiet())
    monkeypatch.undo()
    assert read_header(tmp_path / "checkpoints" / "last.pt")["version"] == "0.0.9"
    _, result = start(tmp_path, CONFIG, iterations=2, resume=True, console=quiet())
    assert result.iteration == 2


def test_what_rl2_did_before_its_later_settings_is_what_it_does_now_if_nothing_is_said(old: Path) -> None:
    config = RunFolder(old / "rl2")._read_config()["config"]
    assert (config.pop("head"), config.pop("head_observations"), config.pop("center_rewards")) == ([], False, False)
    assert config == yaml.safe_load((old / "rl2" / "config.yaml").read_text())["config"]


@pytest.mark.parametrize(("reference", "rises"), [([], 0), ([1.5, 2.5], 1)])
def test_a_validation_of_which_nobody_kept_whether_it_rose_counts_as_risen(reference: list[float], rises: int) -> None:
    stored = Stored(run={"agent": "rma"}, config={}, payload={"reference": reference, "waited": 3})
    for convert in formats.conversions_from({"format": 14}, "last.pt"):
        convert(stored)
    assert stored.payload == {"reference": reference, "waited": 3, "rises": rises}


@pytest.mark.parametrize(("agent", "added"), [("varibad", {"minibatches_of": "trials"}), ("rl2", {})])
def test_minibatches_of_an_earlier_format_are_whole_trials(agent: str, added: dict[str, str]) -> None:
    stored = Stored(run={"agent": agent}, config={"minibatches": 10})
    for convert in formats.conversions_from({"format": 15}, "config.yaml"):
        convert(stored)
    assert stored.config == {"minibatches": 10, **added}


def add_momentum(stored: Stored) -> None:
    """Convert to a format in which runs have a momentum, of 0 before."""
    if stored.trained == "follower" and not stored.few_shot:
        stored.config["momentum"] = 0.0
    stored.run["fresh"] = True
    if stored.payload is not None:
        stored.payload["agent"]["speed"] = stored.payload["agent"].pop("velocity")


def test_conversions_are_taken_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(tmp_path, CONFIG, iterations=1, console=quiet())

    def faster(stored: Stored) -> None:
        stored.config["momentum"] += 1.0

    monkeypatch.setattr(formats, "CONVERSIONS", (*formats.CONVERSIONS, add_momentum, faster))
    monkeypatch.setattr(formats, "FORMAT", FORMAT + 2)
    content = RunFolder(tmp_path)._read_config()
    assert (content["run"]["fresh"], content["config"]["momentum"]) == (True, 1.0)
    last = tmp_path / "checkpoints" / "last.pt"
    payload = load_checkpoint(last, {"fresh": True, "config": {"rate": 0.1, "seconds": 0.0, "momentum": 1.0}})
    assert set(payload["agent"]) == {"position", "speed"}
    # What has the new format already is left as it is.
    folder = CheckpointFolder(tmp_path / "new")
    monkeypatch.setattr("metarl.run.checkpoint.FORMAT", FORMAT + 2)
    folder.save({"agent": {"velocity": torch.ones(1)}}, {"config": {}})
    assert set(load_checkpoint(folder.path / "last.pt", {})["agent"]) == {"velocity"}


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (FORMAT + 1, rf"has the format {FORMAT + 1} \(metarl-suite .* wrote it\).*up to {FORMAT}\. Install a newer"),
        (0, "got the format 0. Formats are numbers from 1"),
        ("two", "got the format 'two'"),
        (True, "got the format True"),
        (None, "got the format None"),
    ],
)
def test_formats_that_are_not_known_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: Any, says: str
) -> None:
    monkeypatch.setattr("metarl.run.checkpoint.FORMAT", number)
    monkeypatch.setattr("metarl.run.folder.FORMAT", number)
    start(tmp_path, CONFIG, iterations=1, console=quiet())
    with pytest.raises(UserError, match=f"config.yaml.*{says}"):
        RunFolder(tmp_path).settings(RunConfig)
    with pytest.raises(UserError, match=rf"last\.pt.*{says}"):
        RunFolder(tmp_path).restore(RUN, "last", Follower(CONFIG))
