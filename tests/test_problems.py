"""What is a user's own mistake is one line with its place, whatever was raised; ours keeps its traceback."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
import torch

from metarl.problems import note_users_module, place_in_users_code, problem_of
from metarl.types import Tasks
from tests.helpers.commands import SMALL, contents, refused

OWN = """
import sys
from dataclasses import dataclass
import torch
import metarl
from metarl.envs import Observable, Parameter, ParameterSpace, TorchFamily

class Mine(BaseException):
    pass

def fails():
    {fails}

if {where!r} == "import":
    fails()
GOAL = Parameter(name="goal", unit="m", description="goal", scale="uniform", low=-1.0, high=1.0)

@dataclass(frozen=True, kw_only=True)
class Line(TorchFamily):
    name: str = {name!r}
    variant: str = "v1"
    summary: str = "a point on a line"
    source: str = "mine"
    horizon: int = 5
    step_seconds: float = 1.0
    action_low: tuple = (-1.0,)
    action_high: tuple = (1.0,)
    action_unit: str = "m"
    space: ParameterSpace = ParameterSpace({name!r} + "@v1", (GOAL,))
    observables: tuple = (Observable("position", "-", "m"),)

    def reset_state(self, generator, tasks):
        return {{"x": torch.zeros(len(tasks), 1, dtype=torch.float64)}}

    def advance(self, state, action, tasks, generator=None):
        if {where!r} == "advance":
            fails()
        return {{"x": state["x"] + action}}

    def observe(self, state, tasks):
        if {where!r} == "observe":
            fails()
        return state["x"]

    def reward_terms(self, before, state, action, tasks):
        if {where!r} == "reward_terms":
            fails()
        return {{"near": -state["x"][:, 0].abs()}}

metarl.envs.register(Line())
"""


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize(
    ("where", "fails", "says"),
    [
        ("import", "sys.exit()", "failed, SystemExit. Mend it"),
        ("import", "raise GeneratorExit", "failed, GeneratorExit. Mend it"),
        ("import", "raise Mine('of mine')", "failed, Mine: of mine. Mend it"),
        ("reward_terms", "sys.exit(0)", "in fails: SystemExit: 0. Mend it there"),
        ("reward_terms", "raise GeneratorExit", "in fails: GeneratorExit. Mend it there"),
        ("observe", "raise Mine('of mine')", "in fails: Mine: of mine. Mend it there"),
        ("observe", "raise StopIteration", "in fails: StopIteration. Mend it there"),
        ("observe", "fails()", "in fails: RecursionError: maximum recursion depth exceeded"),
        ("observe", "raise MemoryError", "in fails: MemoryError. Mend it there"),
        ("observe", "raise BrokenPipeError", "in fails: BrokenPipeError. Mend it there"),
        ("reward_terms", "open('/nowhere')", "in fails: FileNotFoundError: [Errno 2] No such file or directory: '/now"),
        ("reward_terms", "raise ValueError('one\\ntwo')", "in fails: ValueError: one two. Mend it there"),
    ],
)
def test_whatever_a_users_file_raises_is_one_line(
    where: str, fails: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = tmp_path / f"line_of_mine_{abs(hash((where, fails)))}.py", tmp_path / "run"
    file.write_text(OWN.format(where=where, fails=fails, name="line-of-mine"))
    message = refused(["train", "maml-trpo", "--family", f"{file}:line-of-mine", *SMALL, "--out", str(run)], capsys)
    assert says in message
    assert str(file) in message
    # Before anything is written, or with a run that can be gone on with.
    assert not run.exists() or (run / "config.yaml") in contents(run)


BACKBONE = """
import sys
import torch

class Features(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.calls = torch.nn.Linear(1, 8), 0

    def forward(self, x):
        self.calls += 1
        if {where!r} == "trial" or self.calls > 20:
            {fails}
        return self.linear(x)

if {where!r} == "import":
    {fails}
"""


@pytest.mark.parametrize("where", ["import", "trial", "training"])
@pytest.mark.parametrize("fails", ["sys.exit(0)", "raise GeneratorExit", "1 / 0"])
def test_whatever_a_users_backbone_raises_is_one_line(
    where: str, fails: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "backbone_of_mine.py"
    file.write_text(BACKBONE.format(where=where, fails=fails))
    small = [
        "--tasks",
        "2",
        "--validation",
        "0",
        "--test-episodes",
        "0",
        "--threads",
        "1",
        "--out",
        str(tmp_path / "r"),
    ]
    backbone = ["--backbone", f"{file}:Features", "--data", "sinusoid", "--executor", "loop", "--inner-rate", "0.001"]
    message = refused(["fewshot", "train", "maml", *backbone, *small], capsys)
    assert {"sys.exit(0)": "SystemExit: 0", "1 / 0": "ZeroDivisionError"}.get(fails, "GeneratorExit") in message


def test_an_error_of_ours_behind_a_users_call_names_both_places(tmp_path: Path) -> None:
    file = tmp_path / "calls.py"
    file.write_text("def call(tasks):\n    return tasks['gaol']\n")
    module = types.ModuleType("calls")
    module.__file__ = str(file)
    exec(compile(file.read_text(), str(file), "exec"), vars(module))
    note_users_module(module)
    with pytest.raises(KeyError) as caught:
        module.call(Tasks("x@v1", {}))
    place = place_in_users_code(caught.value)
    assert place is not None
    assert place.startswith(f"{file}, line 2, in call (raised at ")
    assert "metarl/types.py" in place


def test_what_is_ours_or_no_error_is_not_explained() -> None:
    assert problem_of(KeyError("ours")) is None
    assert problem_of(RuntimeError("ours")) is None
    assert problem_of(KeyboardInterrupt()) is None
    assert problem_of(BrokenPipeError()) is None


def test_what_is_named_in_torch_makes_torch_nobodys_own() -> None:
    note_users_module(torch.nn)
    with pytest.raises(RuntimeError) as caught:
        torch.nn.Linear(2, 2)(torch.zeros(3))
    assert place_in_users_code(caught.value) is None
