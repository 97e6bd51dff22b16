"""Meta-World's protocol: what counts, and what the loop of its package would have counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.errors import UserError
from metarl.evaluation import protocol_report
from metarl.evaluation.protocol import Noting, Scores, describe, package_success, score
from metarl.types import Step, Tasks, Trajectories
from tests.helpers.toys import seeded as generator


def scores(rows: list[list[int]], horizon: int = 500) -> Scores:
    solved_at = torch.tensor(rows)
    return Scores(returns=torch.ones(solved_at.shape, dtype=torch.float64), solved_at=solved_at, horizon=horizon)


def test_of_four_goals_one_is_solved_in_50_steps_and_three_never() -> None:
    found = describe([scores([[50, 50, 50], [0, 0, 0], [0, 0, 0], [0, 0, 0]])], ["reach"] * 4, generator())
    assert found["success"] == 0.25
    # Its first three episodes end at 50, 100 and 150, before any other.
    assert found["package_success"] == 1.0
    assert found["classes"][0] | {"success_lower": 0.0, "success_upper": 0.0} == {
        "class": "reach",
        "tasks": 4,
        "success": 0.25,
        "success_lower": 0.0,
        "success_upper": 0.0,
        "package_success": 1.0,
        "return": 1.0,
    }


def test_the_packages_loop_by_hand() -> None:
    # 20 environments for 5 classes: 4 goals side by side. Of `a` first 1..4, then the fifth alone.
    rows = {
        # Ends at 200 (yes), 500 (no, the first in order), 500 (no): a third.
        "a": [[0, 0, 0], [0, 0, 0], [200, 0, 0], [0, 0, 0], [100, 0, 300]],
        # Ends at 250, 500, 500 of the first two in order: both of the first are successes, and the third a failure.
        "b": [[250, 250, 250], [0, 0, 0]],
        "c": [[0, 0, 0]],
        "d": [[1, 1, 1]],
        "e": [[500, 500, 500]],
    }
    flat, classes = [row for its in rows.values() for row in its], [name for name, its in rows.items() for _ in its]
    found = package_success(scores(flat), classes)
    # The fifth of `a`: at 100 (yes), 600 (no), 900 (yes).
    assert found["a"] == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert found["b"] == pytest.approx(2 / 3)
    assert (found["c"], found["d"], found["e"]) == (0.0, 1.0, 1.0)
    # One class alone has all twenty side by side: three that are quick are all that is seen.
    many = [[10, 10, 10]] + [[0, 0, 0]] * 19
    assert package_success(scores(many), ["reach"] * 20) == {"reach": 1.0}
    assert describe([scores(many)], ["reach"] * 20, generator())["success"] == 0.05


def test_several_seeds_are_averaged_class_by_class() -> None:
    found = describe([scores([[0, 0, 0], [9, 9, 9]]), scores([[0, 0, 7], [9, 9, 9]])], ["a", "b"], generator())
    assert [row["success"] for row in found["classes"]] == pytest.approx([1 / 6, 1.0])
    assert found["success"] == pytest.approx(7 / 12)


class Goals:
    """Worlds whose goal is met at the step that the task says, or later by the number of episodes before; T = 6."""

    family_name, horizon, observation_size, action_size, failures = "goals@v1", 6, 1, 1, 0

    def __init__(self, num_worlds: int, *, tells: bool = True) -> None:
        self.num_worlds, self.tells, self.episodes = num_worlds, tells, 0

    def set_tasks(self, tasks: Tasks) -> None:
        self.goal, self.episodes = tasks["at"], 0

    def reset(self, generator: torch.Generator) -> torch.Tensor:
        self.steps, self.episodes = 0, self.episodes + 1
        return torch.zeros(self.num_worlds, 1)

    def step(self, action: torch.Tensor) -> Step:
        self.steps += 1
        no = torch.zeros(self.num_worlds, dtype=torch.bool)
        # Later in earlier episodes, and met for that step alone.
        met: Any = self.steps == self.goal + (11 - self.episodes)
        reward = torch.ones(self.num_worlds)
        end = no | (self.steps == 6)
        return Step(torch.zeros(self.num_worlds, 1), reward, no, end, {"all": reward}, met if self.tells else None)


class Still:
    def act(self, observation: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.zeros(len(observation), 1)


class Counting:
    """An agent that notes what it has learned from."""

    name, config, trial = "counting", None, 1

    def __init__(self, pools: bool) -> None:
        self.pools, self.policy, self.learned = pools, Still(), []

    def start(self, tasks: Tasks) -> Any:
        return self

    def train_iteration(self, env: Any, sample_tasks: Any, streams: Any) -> Any:
        raise NotImplementedError

    def state_dict(self) -> Any:
        raise NotImplementedError

    def load_state_dict(self, state: Any) -> None:
        raise NotImplementedError

    def learn(self, experience: Trajectories) -> Any:
        self.learned.append(tuple(experience.rewards.shape))
        return self


def test_ten_episodes_adapt_and_three_count() -> None:
    tasks = Tasks("goals@v1", {"at": torch.tensor([2.0, 5.0, 9.0], dtype=torch.float64)})
    made: list[int] = []

    def make(count: int) -> Any:
        made.append(count)
        return Goals(count)

    memory: Any = Counting(pools=False)
    found = score(memory, make, tasks, generator())
    assert (made, memory.learned) == ([9], [(3, 3, 6)] * 10)
    # In the eleventh episode the goals are met at 2, at 5 and never.
    assert found.solved_at.tolist() == [[2] * 3, [5] * 3, [0] * 3]
    assert found.returns.tolist() == [[6.0] * 3] * 3
    made.clear()
    gradient: Any = Counting(pools=True)
    found = score(gradient, make, tasks, generator())
    assert (made, gradient.learned) == ([30, 9], [(3, 10, 6)])
    assert not found.success.any()


def test_a_family_without_success_is_refused() -> None:
    tasks = Tasks("goals@v1", {"at": torch.ones(1, dtype=torch.float64)})
    agent: Any = Counting(pools=False)
    with pytest.raises(UserError, match="goals@v1 has no goal that is met or not: the protocol is about success"):
        score(agent, lambda count: Goals(count, tells=False), tasks, generator())
    worlds = Noting(Goals(2))
    assert (worlds.num_worlds, worlds.horizon) == (2, 6)


def test_the_report(tmp_path: Path) -> None:
    from rich.console import Console

    found = {"agent": "rl2", "family": "ml10@v2", "split": "test", "adapting": 10, "scored": 3}
    result = found | describe([scores([[50, 50, 50], [0, 0, 0]])], ["door-close"] * 2, generator())
    with Console(width=80, record=True) as console:
        console.print(protocol_report.table(result))
    text = console.export_text()
    assert "door-close" in text
    assert "50.0%" in text
    assert "100.0%" in text
    protocol_report.write([result], tmp_path)
    assert json.loads((tmp_path / "protocol.json").read_text())["results"][0]["success"] == 0.5
    protocol_report.write([], tmp_path)
    assert not (tmp_path / "protocol.json").exists()
