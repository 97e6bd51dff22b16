"""model.onnx gives what policy.py gives, moment by moment, for one world and for several; onnxruntime says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.envs import get
from metarl.envs.family import Family
from tests.helpers.exported import LEVERS, one_task, runtime, trained, written
from tests.helpers.trials import Ragged

pytest.importorskip("onnx", reason="needs the onnx package: pip install 'metarl-suite[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'metarl-suite[export]'")


def session_of(folder: Path) -> Any:
    options = onnxruntime.SessionOptions()
    # Parameters that may be given are told as a warning.
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


def empty_memory(session: Any, worlds: int) -> dict[str, np.ndarray]:
    return {
        entry.name: np.zeros(
            [size if isinstance(size, int) else {"B": worlds}.get(size, 0) for size in entry.shape], "f4"
        )
        for entry in session.get_inputs()
    }


CASES: list[tuple[str, Family, dict[str, Any]]] = [
    ("rl2", Ragged(), {}),
    ("rl2", get("bandit"), {"core": "lstm", "episodes": 6}),
    ("rl2", Ragged(), {"core": "transformer", "layers": 2}),
    ("rl2", Ragged(), {"head": (5, 4), "head_observations": True}),
    ("maml-trpo", Ragged(), {"activation": "elu", "layer_norm": True}),
    ("multitask", LEVERS, {"activation": "tanh"}),
    ("oracle", LEVERS, {}),
]


@pytest.mark.parametrize(("name", "family", "options"), CASES)
def test_it_is_the_same(name: str, family: Family, options: dict[str, Any], tmp_path: Path) -> None:
    folder = written(trained(name, family, **options), family, tmp_path / "policy", onnx=True)
    policy, session = runtime(folder), session_of(folder)
    task = one_task(family).records()[0]
    policy.begin_task(task if name == "oracle" else None)
    draws = np.random.default_rng(0)
    # The second world begins with the same memory, and is shown something else.
    given = empty_memory(session, 2)
    if name == "oracle":
        given["task"][:] = policy._places["task"]
    done = np.zeros(family.action_size)
    for moment in range(6):
        observation, reward = draws.normal(size=family.observation_size).astype("f4"), float(draws.normal())
        ended = moment == 4
        action = policy.act(observation, reward if moment else None, ended if moment else None)
        given["observation"] = np.stack((observation, draws.normal(size=family.observation_size).astype("f4")))
        if moment and name == "rl2":
            given["previous_action"][:] = done
            given["previous_reward"][:], given["previous_ended"][:] = reward, ended
        found = dict(zip([out.name for out in session.get_outputs()], session.run(None, given), strict=True))
        output = found["logits" if family.discrete else "mean"]
        np.testing.assert_allclose(output[0], policy.output, rtol=1e-5, atol=1e-5)
        if family.discrete:
            likeliest = [int(np.argmax(part)) for part in np.split(output[0], np.cumsum(family.choices)[:-1])]
            assert found["action"][0].tolist() == likeliest
        else:
            np.testing.assert_allclose(found["std"][0], policy._output.std, rtol=1e-6)
            np.testing.assert_allclose(found["action"][0], np.clip(output[0], -1.0, 1.0), rtol=1e-5, atol=1e-5)
        done = policy._output.done
        assert np.isfinite(action).all()
        given |= {key.replace("next.", "memory."): value for key, value in found.items() if key.startswith("next.")}
    assert (name == "rl2") == any(key.startswith("memory.") for key in given)


def test_adapted_parameters_can_be_given(tmp_path: Path) -> None:
    family = Ragged()
    folder = written(trained("maml-trpo", family, learn_rates=True), family, tmp_path / "policy", onnx=True)
    policy, session = runtime(folder), session_of(folder)
    assert {entry.name for entry in session.get_overridable_initializers()} == set(policy.parameters)
    seen = np.array([[0.3, -0.4]], "f4")
    before = session.run(["mean"], {"observation": seen})[0]
    steps = {
        "observations": seen.repeat(4, 0),
        "actions": [[1.0, -1.0], [0.5, 0.5]] * 2,
        "rewards": [1.0, 0.0, 2.0, 0.5],
    }
    policy.adapt([steps])
    policy.act(seen[0])
    after, std = session.run(["mean", "std"], {"observation": seen, **policy.parameters})
    np.testing.assert_allclose(after[0], policy.output, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(std[0], policy._output.std, rtol=1e-6)
    assert np.abs(after - before).max() > 1e-3
