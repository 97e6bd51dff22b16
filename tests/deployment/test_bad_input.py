"""What is wrong with a policy's folder, or with what it is shown, is told in one line; nothing is taken half."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.deployment.policy import PolicyError, _baseline, read_tensors
from metarl.deployment.safetensors import encode
from tests.helpers.exported import LEVERS, module, runtime, trained, written


def refused(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Return the line that a call ends with."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the folder's own PolicyError
        call(*arguments, **options)
    assert type(caught.value).__name__ == "PolicyError"
    text = str(caught.value)
    assert "\n" not in text
    return text


# -- the folder -------------------------------------------------------------------------------------------------------


def resealed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest, and let its sha256 fit."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    changed = change(manifest)
    text = json.dumps(manifest if changed is None else changed).encode()
    (folder / "manifest.json").write_bytes(text)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")


ARRAYS = {
    "weight": "layers.2.weight",
    "bias": "layers.2.bias",
    "mean": "inputs.observation.mean",
    "log_std": "distribution.log_std",
}
"""The last layer, what scales the observation, and the deviations of a policy with a memory."""


def reweighed(folder: Path, **changes: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change arrays among the weights, and let all hashes fit."""
    place = folder / "weights.safetensors"
    arrays = read_tensors(place.read_bytes(), "W")
    for name, change in changes.items():
        arrays[ARRAYS[name]] = change(arrays[ARRAYS[name]])
    place.write_bytes(encode(arrays))
    resealed(folder, lambda manifest: manifest["files"].update({place.name: digest(place)}))


def digest(place: Path) -> str:
    return hashlib.sha256(place.read_bytes()).hexdigest()


def cut(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-9])


def altered(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes().replace(b"0", b"1", 1))


WRONG: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "no folder": (shutil.rmtree, ["no whole policy", "manifest.json is missing", "export it again"]),
    "a file": (lambda folder: (shutil.rmtree(folder), folder.write_text("x")), ["manifest.json is missing"]),
    "no weights": (lambda folder: (folder / "weights.safetensors").unlink(), ["weights.safetensors is missing"]),
    "a folder for weights": (
        lambda folder: ((folder / "weights.safetensors").unlink(), (folder / "weights.safetensors").mkdir()),
        ["weights.safetensors cannot be read"],
    ),
    "no sha256": (lambda folder: (folder / "manifest.sha256").unlink(), ["manifest.sha256 is missing"]),
    "an empty sha256": (lambda folder: (folder / "manifest.sha256").write_text(""), ["manifest.json was altered"]),
    "a cut manifest": (cut("manifest.json"), ["manifest.json was altered or cut", "Copy the whole folder"]),
    "an altered manifest": (altered("manifest.json"), ["manifest.json was altered"]),
    "cut weights": (cut("weights.safetensors"), ["weights.safetensors was altered or cut"]),
    "altered weights": (altered("weights.safetensors"), ["weights.safetensors was altered"]),
    "another policy.py": (altered("policy.py"), ["policy.py was altered"]),
    "a later format": (
        lambda folder: resealed(folder, lambda manifest: manifest.update(format=2)),
        ["has format 2", "reads 1", "Use the one in that folder"],
    ),
    "no JSON": (lambda folder: resealed(folder, lambda manifest: "x"), ["is no policy's"]),
    "no files": (lambda folder: resealed(folder, lambda manifest: manifest.pop("files") and None), ["no policy's"]),
    "other files": (
        lambda folder: resealed(folder, lambda manifest: manifest["files"].update({"../x": ""})),
        ["names the files", "'../x'"],
    ),
    "a pipe for weights": (
        lambda folder: ((folder / "weights.safetensors").unlink(), os.mkfifo(folder / "weights.safetensors")),
        ["weights.safetensors cannot be read (it is no regular file)"],
    ),
    "NaN among the weights": (
        lambda folder: reweighed(folder, bias=lambda array: array * np.nan),
        ["is no safetensors file of this policy (layers.2.bias is not finite)"],
    ),
    "weights of another shape": (
        lambda folder: reweighed(folder, weight=lambda array: array[:, :-1]),
        ["does not fit its weights", "ValueError"],
    ),
    "one output less": (
        lambda folder: reweighed(folder, weight=lambda array: array[:-1], bias=lambda array: array[:-1]),
        ["does not fit its weights", "its output has the shape (1,), and actions (2,)"],
    ),
    "one scale for all": (
        lambda folder: reweighed(folder, mean=lambda array: array[:1]),
        ["does not fit its weights"],
    ),
    "an absurd deviation": (
        lambda folder: reweighed(folder, log_std=lambda array: array + 1e30),
        ["does not fit its weights", "log_std is no deviation of actions"],
    ),
    "absurd weights": (
        lambda folder: reweighed(folder, weight=lambda array: array * 0.0 + 3e38),
        ["does not fit its weights", "its output is not finite"],
    ),
    "bounds upside down": (
        lambda folder: resealed(folder, lambda manifest: manifest["action"]["components"][0].update(low=9.0)),
        ["does not fit its weights", "bounds of actions are no bounds"],
    ),
    "bounds that are none": (
        lambda folder: resealed(folder, lambda manifest: manifest["action"]["components"][0].update(low=None)),
        ["does not fit its weights", "bounds of actions are no bounds"],
    ),
    "no heads": (
        lambda folder: resealed(folder, lambda manifest: manifest["network"]["layers"][0]["numbers"].update(heads=0)),
        ["does not fit its weights", "ZeroDivisionError"],
    ),
    "an unknown layer": (
        lambda folder: resealed(folder, lambda manifest: manifest["network"]["layers"][0].update(kind="conv")),
        ["does not fit its weights", "conv"],
    ),
    "a missing array": (
        lambda folder: resealed(folder, lambda manifest: manifest["network"]["inputs"][0].update(mean="no")),
        ["does not fit its weights", "'no'"],
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_folder_that_is_not_whole_is_refused(what: str, remembering: Path, tmp_path: Path) -> None:
    spoil, says = WRONG[what]
    make = module(remembering).Policy
    folder = tmp_path / "policy"
    shutil.copytree(remembering, folder)
    spoil(folder)
    text = refused(make, folder)
    for part in says:
        assert part in text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x05\0\0\0\0\0\0\0{}",
        struct.pack("<Q", 1 << 60) + b"{}",
        *(
            struct.pack("<Q", len(header)) + header + b"\0" * 8
            for header in (
                b"[]",
                b'{"a": 1}',
                b'{"a": {"dtype": "I8", "shape": [8], "data_offsets": [0, 8]}}',
                b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}',
                b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}',
                b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}',
                b'{"a": {"dtype": "F32", "shape": [2]}}',
            )
        ),
    ],
)
def test_damaged_weights_are_refused(content: bytes) -> None:
    with pytest.raises(PolicyError, match="W is no safetensors file of this policy"):
        read_tensors(content, "W")


@pytest.mark.parametrize("options", [{"on_bad_input": "stop"}, {"dtype": "float16"}])
def test_other_options_are_refused(options: dict[str, Any], stepping: Path) -> None:
    assert "Give '" in refused(runtime, stepping, **options)


# -- acting -----------------------------------------------------------------------------------------------------------

OBSERVATIONS: dict[str, tuple[Any, str]] = {
    "too few": ([0.0], r"Got an observation of the shape \(1,\). Give 2 numbers"),
    "too many": (np.zeros((1, 2)), "shape"),
    "NaN": ([0.0, np.nan], "an observation that is not finite: "),
    "infinite": (np.array([np.inf, 0.0], np.float32), "not finite"),
    "infinite in float32": ([1e39, 0.0], "not finite"),
    "text": ("up", "no array of numbers"),
    "ragged": ([[0.0], [0.0, 1.0]], "no array of numbers"),
    "none": (None, "an observation"),
}


@pytest.mark.parametrize("what", OBSERVATIONS)
def test_a_bad_observation_is_refused_and_changes_nothing(what: str, remembering: Path) -> None:
    given, says = OBSERVATIONS[what]
    policy, other = (runtime(remembering, deterministic=True) for _ in range(2))
    assert says.split(" of the")[0].replace("\\", "") in refused(policy.act, given)
    for _ in range(2):
        np.testing.assert_array_equal(
            policy.act([0.5, -0.5], 0.25 if policy.raw_action is not None else None),
            other.act([0.5, -0.5], 0.25 if other.raw_action is not None else None),
        )
        refused(policy.act, given, 0.5)
    refused(policy.act, [0.0, 0.0], np.nan)


def test_the_last_action_is_held_where_that_is_asked_for(remembering: Path) -> None:
    policy, other = (runtime(remembering, deterministic=True, on_bad_input=how) for how in ("hold", "refuse"))
    # There is none before the first.
    refused(policy.act, [np.nan, 0.0])
    first = policy.act([0.5, -0.5])
    other.act([0.5, -0.5])
    for count, (observation, reward) in enumerate([([np.nan, 0.0], 1.0), ([0.0], 1.0), ([0.0, 0.0], [np.nan])], 1):
        held = policy.act(observation, reward)
        np.testing.assert_array_equal(held, first)
        assert policy.held == count
        held[:] = 7.0
    # What the moments that were left out had said is not known; that an episode has ended is.
    policy.act([np.nan, 0.0], 1.0, ended=True)
    np.testing.assert_array_equal(policy.act([0.1, 0.2], 0.5), other.act([0.1, 0.2], 0.5, ended=True))
    assert policy.held == 0
    np.testing.assert_array_equal(policy.act([0.3, 0.2], 0.5), other.act([0.3, 0.2], 0.5, ended=False))


@pytest.mark.parametrize("reward", [np.inf, "much", [1.0], 1e39, np.zeros(1), 10**400])
def test_a_bad_reward_is_refused(reward: Any, remembering: Path) -> None:
    policy = runtime(remembering)
    policy.act([0.0, 0.0])
    assert "a reward that is no single finite number" in refused(policy.act, [0.0, 0.0], reward)


def test_what_comes_out_of_order_is_refused(remembering: Path) -> None:
    policy = runtime(remembering)
    for given in ({"reward": 1.0}, {"ended": True}, {"reward": "x"}):
        assert "before the first action of a task. Leave them out" in refused(policy.act, [0.0, 0.0], **given)
    policy.reset()
    policy.act([0.0, 0.0], 0.0)
    assert "Got no reward" in refused(policy.act, [0.0, 0.0])
    policy.reset()
    assert "Got ended=False after reset()" in refused(policy.act, [0.0, 0.0], 1.0, ended=False)
    assert "finds out by itself" in refused(policy.begin_task, {"gain": 1.0})
    assert "adapts in its memory" in refused(policy.adapt, [])


def test_a_transformer_tells_where_its_context_ends(remembering: Path) -> None:
    policy = runtime(remembering)
    policy.act([0.0, 0.0])
    for _ in range(15):
        policy.act([0.0, 0.0], 1.0)
    assert "remembers 16 moments" in refused(policy.act, [0.0, 0.0], 1.0)
    policy.begin_task()
    policy.act([0.0, 0.0])


def test_outputs_that_are_not_finite_are_refused(stepping: Path) -> None:
    policy = runtime(stepping)
    policy.parameters["layers.0.weight"][:] *= 100.0
    with np.errstate(all="ignore"):
        assert "output is not finite" in refused(policy.act, [3e38, -3e38])


@pytest.mark.parametrize(
    "task", [None, {}, {"gian": 0.0}, {"gain": 0.0, "more": 1.0}, {"gain": np.nan}, {"gain": "x"}, {"gain": [0.0, 1.0]}]
)
def test_a_policy_that_is_told_needs_its_task(task: Any, told: Path) -> None:
    policy = runtime(told)
    assert "gain" in refused(policy.begin_task, task)
    assert "before the task" in refused(policy.act, [0.0, 0.0])
    policy.begin_task({"gain": 0.5})
    policy.act([0.0, 0.0])
    assert "is told its task" in refused(policy.adapt, [])


# -- adapting ---------------------------------------------------------------------------------------------------------

GOOD = {"observations": [[0.0, 1.0]] * 3, "actions": [[0.1, 0.2]] * 3, "rewards": [1.0, 2.0, 3.0]}
EPISODES: dict[str, tuple[Any, str]] = {
    "none": ([], "Got [] to adapt to. Give a list of episodes, at least one"),
    "nothing": (None, "Got None to adapt to"),
    "a single one": (GOOD, "Give a list of episodes"),
    "no dict": ([[1.0]], "Give a dict of actions, observations, rewards"),
    "no rewards": ([{"observations": [], "actions": []}], "Give a dict"),
    "too few observations": ([GOOD | {"observations": [[0.0, 1.0]]}], "Got 1 observations, 3 actions and 3 rewards"),
    "wide observations": (
        [GOOD, GOOD | {"observations": [[0.0]] * 3}],
        "of episode 1 of the shape (3, 1). Give steps x 2",
    ),
    "flat actions": ([GOOD | {"actions": [0.1] * 3}], "actions of episode 0"),
    "NaN rewards": ([GOOD | {"rewards": [1.0, np.nan, 1.0]}], "rewards of episode 0 that is not finite"),
    "no steps": ([{"observations": np.zeros((0, 2)), "actions": np.zeros((0, 2)), "rewards": []}], "at least one step"),
    "text": ([GOOD | {"rewards": "many"}], "no array of numbers"),
}


@pytest.mark.parametrize("what", EPISODES)
def test_bad_episodes_are_refused_and_change_nothing(what: str, stepping: Path) -> None:
    given, says = EPISODES[what]
    policy = runtime(stepping)
    before = {name: value.copy() for name, value in policy.parameters.items()}
    assert says in refused(policy.adapt, given)
    assert all(np.array_equal(value, before[name]) for name, value in policy.parameters.items())
    assert policy.steps == 0
    policy.adapt([GOOD])
    assert policy.steps == 1


def test_a_step_that_is_not_finite_is_not_taken(stepping: Path) -> None:
    policy = runtime(stepping)
    before = {name: value.copy() for name, value in policy.parameters.items()}
    for wrong in ({"actions": [[1e38, 0.0], [0.0, 0.0], [0.0, 0.0]]}, {"rewards": [3e38, 3e38, 3e38]}):
        assert "gradient step is not finite" in refused(policy.adapt, [GOOD | wrong])
    assert all(np.array_equal(value, before[name]) for name, value in policy.parameters.items())


def test_a_baseline_that_cannot_be_fitted_is_told() -> None:
    impossible = {"clip": 10.0, "time_scale": 100.0, "ridge": -1e9, "trials": 3}
    with pytest.raises(PolicyError, match="baseline of these episodes cannot be fitted"):
        _baseline([np.zeros((2, 1), "f4")], np.zeros(2, "f4"), impossible)


def test_actions_that_are_no_choices_are_refused(tmp_path: Path) -> None:
    policy = runtime(written(trained("multitask", LEVERS), LEVERS, tmp_path / "policy"))
    good = {"observations": [[0.0]] * 2, "actions": [[1, 2], [0, 0]], "rewards": [1.0, 0.0]}
    for wrong in ([[1, 3], [0, 0]], [[0.5, 0], [0, 0]], [[-1, 0], [0, 0]]):
        assert "no choices. Give numbers from 0 to" in refused(policy.adapt, [good | {"actions": wrong}])
    policy.adapt([good])
