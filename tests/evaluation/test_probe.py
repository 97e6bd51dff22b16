from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.functional import one_hot

from metarl.agents import config_class, make
from metarl.agents.rl2 import Actor, Rl2
from metarl.cli.main import main
from metarl.envs import get, make_worlds
from metarl.envs.family import Family, Observable, TorchFamily, with_horizon
from metarl.errors import UserError
from metarl.evaluation.probe import PENALTIES, Ridge, memories, probe, probe_tasks
from metarl.evaluation.probe_report import tables, write
from metarl.evaluation.remembering import Remembering
from metarl.evaluation.statistics import r_squared
from metarl.evaluation.swap import last_episodes, partners
from metarl.seeding import Streams
from metarl.space.parameter_space import Parameter, ParameterSpace
from metarl.types import Tasks
from tests.helpers.toys import normal, seeded

POINT = with_horizon(get("point-nav"), 3)
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Doors(TorchFamily):
    """Three doors, one of them with a reward behind it."""

    name: str = "doors"
    variant: str = "test"
    summary: str = "find the door"
    source: str = "here"
    horizon: int = 1
    step_seconds: float = 1.0
    action_low: tuple[float, ...] = (0.0,) * 3
    action_high: tuple[float, ...] = (1.0,) * 3
    action_unit: str = "door"
    discrete: bool = True
    observables: tuple[Observable, ...] = (Observable("nothing", "-", "1"),)
    space: ParameterSpace = field(
        default=ParameterSpace(
            "doors@test",
            (
                Parameter(
                    name="door",
                    unit="",
                    description="the right one",
                    scale="choice",
                    choices=(0.0, 1.0, 2.0),
                    ood=(3.0,),
                ),
            ),
        )
    )

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> Any:
        return {"chosen": torch.full((len(tasks), 1), -1.0, dtype=torch.float64)}

    def advance(self, state: Any, action: torch.Tensor, tasks: Tasks) -> Any:
        return {"chosen": action.argmax(1, keepdim=True).double()}

    def observe(self, state: Any, tasks: Tasks) -> torch.Tensor:
        return torch.zeros_like(state["chosen"])

    def reward_terms(self, before: Any, state: Any, action: torch.Tensor, tasks: Tasks) -> Any:
        return {"found": (state["chosen"].squeeze(1) == tasks["door"]).double()}

    def success(self, state: Any, tasks: Tasks) -> torch.Tensor:
        return state["chosen"].squeeze(1) == tasks["door"]


DOORS = Doors()


class Scout:
    """Knows the scaled parameters of its task, and nothing else, once an episode is over."""

    def __init__(self, agent: MadeUp, known: torch.Tensor) -> None:
        self.agent = agent
        self.known = known
        self.memory = torch.zeros_like(known)

    def begin_episode(self) -> None:
        self.waiting = torch.zeros(len(self.known), dtype=torch.bool)

    def act(self, observation: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        size = self.agent.family.action_size
        wish = torch.rand(len(self.memory), size, generator=generator)
        if not self.agent.ignores_memory:
            wish = self.memory
        return one_hot(wish.argmax(1), size).float() if self.agent.family.discrete else wish

    def see(self, reward: torch.Tensor, ended: torch.Tensor) -> None:
        self.memory = torch.where(ended[:, None], self.known, self.memory)
        self.waiting = self.waiting | ended

    def look(self, observation: torch.Tensor) -> tuple[torch.Tensor, object]:
        assert not bool(self.waiting.any())
        self.agent.looked_at.append(observation)
        features = self.agent.features(self.memory).float()
        return features, None

    def carried(self, order: torch.Tensor) -> Scout:
        other = Scout(self.agent, self.known)
        other.memory = self.memory[order]
        return other


@dataclass
class MadeUp:
    """An agent (and its own learner) whose policies are scouts; only what a probe needs."""

    family: Family
    features: Callable[[torch.Tensor], torch.Tensor]
    ignores_memory: bool = True
    trial: int = 2
    name: str = "scout"
    config: None = None
    pools: bool = False
    looked_at: list[torch.Tensor] = field(default_factory=list)
    started: list[Tasks] = field(default_factory=list)

    def start(self, tasks: Tasks) -> MadeUp:
        self.started.append(tasks)
        self.policy = Scout(self, self.family.space.features(tasks))
        return self

    def learn(self, experience: Any) -> MadeUp:
        return self

    def train_iteration(self, env: Any, sample_tasks: Any, streams: Any) -> dict[str, float]:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError


def mixed(memory: torch.Tensor) -> torch.Tensor:
    """Return features that hold the memory linearly, among things that do not matter."""
    return memory @ normal(memory.shape[1], 8, seed=1) + 3.0


def probed(agent: MadeUp, count: int = 60, worlds: int = 60, split: str = "test") -> dict[str, Any]:
    space = agent.family.space
    fit, tasks = probe_tasks(space, split, count, Streams(0))
    env = make_worlds(agent.family, worlds, threads=1)
    return probe([agent], env, space, fit, tasks, 0, discrete=agent.family.discrete)


def rl2(core: str = "gru", family: Family = POINT) -> Rl2:
    config = config_class("rl2")(tasks=4, minibatches=1, episodes=2, width=8, core=core)
    agent = make("rl2", config, family.spec(), Streams(0), CPU)
    assert isinstance(agent, Rl2)
    return agent


# -- probe ------------------------------------------------------------------------------------------------------------


def test_a_memory_that_holds_the_task_is_read() -> None:
    result = probed(MadeUp(POINT, mixed))
    assert (result["fit_tasks"], result["tasks"], result["episodes"]) == (120, 60, 2)
    assert [score["parameter"] for score in result["probe"]] == ["goal[0]", "goal[1]"]
    for score in result["probe"]:
        assert (score["score"], score["chance"]) == ("R2", None)
        before, first, second = score["points"]
        assert [point["episodes"] for point in score["points"]] == [0, 1, 2]
        assert before["estimate"] < 0.05
        assert first["lower"] > 0.999
        assert second["lower"] > 0.999


@pytest.mark.parametrize("width", [3, 100, 200])
def test_noise_tells_nothing_however_much_of_it_there_is(width: int) -> None:
    noise = seeded(3)
    result = probed(MadeUp(POINT, lambda memory: torch.randn(len(memory), width, generator=noise)))
    for score in result["probe"]:
        assert all(-0.3 < point["estimate"] < 0.05 for point in score["points"])
        assert all(point["lower"] < 0.0 for point in score["points"])


def test_a_choice_is_scored_against_chance() -> None:
    agent = MadeUp(DOORS, mixed)
    (score,) = probed(agent)["probe"]
    assert (score["parameter"], score["score"]) == ("door", "accuracy")
    # 60 tasks, evenly of three kinds.
    assert score["chance"] == pytest.approx(1 / 3)
    assert score["points"][0]["estimate"] == pytest.approx(1 / 3)
    assert [point["estimate"] for point in score["points"][1:]] == [1.0, 1.0]

    noise = seeded(3)
    (score,) = probed(MadeUp(DOORS, lambda memory: torch.randn(len(memory), 5, generator=noise)))["probe"]
    assert all(point["lower"] < 1 / 3 < point["upper"] for point in score["points"])


def test_alternatives_never_met_are_not_asked_for() -> None:
    with pytest.raises(UserError, match="nothing to predict"):
        probed(MadeUp(DOORS, mixed), split="ood")


def test_scored_tasks_are_held_out() -> None:
    agent = MadeUp(POINT, mixed)
    probed(agent)
    fit, fit_too, scored = agent.started[:3]
    assert bool(POINT.space.contains(fit, "train").all())
    assert bool(POINT.space.contains(fit_too, "train").all())
    assert bool(POINT.space.contains(scored, "test").all())


def test_a_fixed_set_is_used_once() -> None:
    space = get("walker2d-rand-params@pearl19").space
    fit, tasks = probe_tasks(space, "test", 256, Streams(0))
    assert (len(fit), len(tasks)) == (40, 10)
    with pytest.raises(UserError, match="--probe-tasks 9"):
        probe_tasks(space, "test", 9, Streams(0))


def test_memory_is_read_at_the_start_of_an_episode() -> None:
    agent = MadeUp(POINT, mixed)
    probed(agent)
    # The point moves, and begins every episode at the origin.
    assert len(agent.looked_at) == 3 * 3
    assert all(bool((observation == 0.0).all()) for observation in agent.looked_at)


def test_a_trial_is_one_trial_for_the_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds, given = make_worlds(POINT, 5), []
    monkeypatch.setattr(worlds, "set_tasks", lambda tasks, give=worlds.set_tasks: (given.append(tasks), give(tasks)))
    # Given once, so that the steps of all episodes count where tasks switch.
    memories(MadeUp(POINT, mixed, trial=4), worlds, POINT.space.sample(5, "train", seeded(0)), seeded(0))
    assert len(given) == 1


def test_tasks_can_take_turns_in_the_worlds() -> None:
    tasks = POINT.space.sample(10, "train", seeded(0))
    at_once, in_turn = (
        memories(MadeUp(POINT, mixed), make_worlds(POINT, worlds), tasks, seeded(0)) for worlds in (10, 4)
    )
    assert at_once.shape == (3, 10, 8)
    torch.testing.assert_close(in_turn, at_once)
    result = probed(MadeUp(DOORS, mixed, ignores_memory=False), worlds=13)
    assert result["swap"]["own"]["return"]["estimate"] == 1.0


def test_a_wide_vector_has_one_score() -> None:
    family = get("bandit@bernoulli-10")
    result = probed(MadeUp(family, lambda memory: memory[:, :8]))
    (score,) = result["probe"]
    assert "mean ×10" in shown(result)
    assert (score["parameter"], score["components"]) == ("mean", 10)
    # Two of the ten are not to be seen.
    assert score["points"][1]["estimate"] == pytest.approx(0.8, abs=0.02)


def test_training_seeds_are_averaged() -> None:
    noise = seeded(3)
    agents = [
        MadeUp(DOORS, mixed, ignores_memory=False),
        MadeUp(DOORS, lambda memory: torch.randn(len(memory), 8, generator=noise)),
    ]
    fit, tasks = probe_tasks(DOORS.space, "test", 60, Streams(0))
    env = make_worlds(DOORS, 60)
    both = probe(agents, env, DOORS.space, fit, tasks, 0, discrete=True)
    alone = [probe([agent], env, DOORS.space, fit, tasks, 0, discrete=True) for agent in agents]
    assert both["swap"]["own"]["return"]["estimate"] == pytest.approx(
        0.5 + 0.5 * alone[1]["swap"]["own"]["return"]["estimate"]
    )
    assert both["swap"]["own_minus_other"]["return"]["estimate"] == pytest.approx(0.5)
    # The second one's features are noise, but its accuracy with other noise is about the same.
    assert both["probe"][0]["points"][1]["estimate"] == pytest.approx(0.5 + 0.5 / 3, abs=0.1)

    agents = [MadeUp(POINT, lambda memory, of=of: memory[:, [of]]) for of in (0, 1)]
    fit, tasks = probe_tasks(POINT.space, "test", 60, Streams(0))
    both = probe(agents, make_worlds(POINT, 60), POINT.space, fit, tasks, 0, discrete=False)
    # Each seed knows one component.
    for score in both["probe"]:
        assert score["components"] == 1
        assert score["points"][1]["estimate"] == pytest.approx(0.5, abs=0.05)


def test_an_agent_without_memory_is_refused() -> None:
    agent = make("random", config_class("random")(hidden=(8,)), POINT.spec(), Streams(0), CPU)
    fit, tasks = probe_tasks(POINT.space, "test", 10, Streams(0))
    with pytest.raises(UserError, match="'random', which has no memory"):
        probe([agent], make_worlds(POINT, 10), POINT.space, fit, tasks, 0, discrete=False)


def brute_force(x: torch.Tensor, y: torch.Tensor, penalty: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return intercept and coefficients of a ridge regression by the normal equations."""
    inside, outside = x - x.mean(0), y - y.mean(0)
    coefficients = torch.linalg.solve(inside.T @ inside + penalty * torch.eye(x.shape[1]).double(), inside.T @ outside)
    return y.mean(0) - x.mean(0) @ coefficients, coefficients


def test_penalties_are_those_of_the_least_error_left_out() -> None:
    x, fresh = normal(30, 6, seed=1) * torch.arange(1.0, 7.0), normal(5, 6, seed=2)
    y = x[:, :4] + torch.tensor([0.0, 1.0, 3.0, 100.0]) * normal(30, 4, seed=3)
    scaled = x / x.std(0, correction=0)
    errors = torch.zeros(len(PENALTIES), 4).double()
    for number, penalty in enumerate(PENALTIES):
        for row in range(30):
            others = torch.arange(30) != row
            intercept, coefficients = brute_force(scaled[others], y[others], 30 * penalty)
            errors[number] += (intercept + scaled[row] @ coefficients - y[row]).square()
    best = errors.argmin(0).tolist()
    assert len(set(best)) == 4
    predicted = Ridge(x).predict(y, fresh)
    for column, number in enumerate(best):
        intercept, coefficients = brute_force(scaled, y[:, [column]], 30 * PENALTIES[number])
        expected = intercept + fresh / x.std(0, correction=0) @ coefficients
        torch.testing.assert_close(predicted[:, [column]], expected)


def test_what_is_the_same_for_all_is_no_feature() -> None:
    x = torch.full((20, 3), 0.1).double() + 1e-9 * normal(20, 3)
    y = normal(20, 1, seed=2)
    torch.testing.assert_close(Ridge(x).predict(y, normal(4, 3)), y.mean(0).expand(4, 1))


def test_r_squared_by_hand_and_by_plain_resampling() -> None:
    truth, noise = normal(50, 2, seed=1), normal(50, 2, seed=2)
    predicted = truth + 0.5 * noise

    def plain(rows: torch.Tensor) -> torch.Tensor:
        y, error = truth[rows], (truth - predicted)[rows]
        return (1.0 - error.square().sum(0) / (y - y.mean(0)).square().sum(0)).mean()

    interval = r_squared(truth, predicted, seeded(4))
    drawn = torch.stack([plain(rows) for rows in torch.randint(50, (2000, 50), generator=seeded(4))])
    assert interval.estimate == pytest.approx(float(plain(torch.arange(50))))
    assert [interval.lower, interval.upper] == pytest.approx(
        torch.quantile(drawn, torch.tensor([0.025, 0.975]).double()).tolist()
    )
    assert r_squared(truth, truth, seeded()).lower == 1.0
    assert r_squared(truth, truth.mean(0).expand(50, 2), seeded()).estimate == pytest.approx(0.0)
    with pytest.raises(ValueError, match="same for all tasks"):
        r_squared(torch.ones(5, 1), truth[:5, :1], seeded())


# -- swap -------------------------------------------------------------------------------------------------------------


def test_behaviour_follows_the_memory_that_is_carried() -> None:
    swap = probed(MadeUp(DOORS, mixed, ignores_memory=False))["swap"]
    assert swap["episodes"] == 1
    for figure in ("return", "success"):
        # Another task has another door; without memory the first is taken, the right one of every third task.
        assert [swap[whose][figure]["estimate"] for whose in ("own", "other")] == [1.0, 0.0]
        assert swap["none"][figure]["estimate"] == pytest.approx(1 / 3)
        assert swap["own_minus_other"][figure] == {"estimate": 1.0, "lower": 1.0, "upper": 1.0}
        gain = swap["own_minus_none"][figure]
        assert gain["estimate"] == pytest.approx(2 / 3)
        assert 0.5 < gain["lower"] < gain["estimate"] < gain["upper"] < 0.8
    assert swap["first_action"]["estimate"] == 1.0


def test_nothing_but_the_memory_differs() -> None:
    # The task changes in the last episode, and every world has steps of its trial behind it in all three.
    family = get("point-nav+switch=120..180")
    tasks = family.space.sample(5, "test", seeded(0))
    played = last_episodes(MadeUp(family, mixed), make_worlds(family, 5), tasks, seeded(1))
    assert list(played) == ["own", "other", "none"]
    for episode in played.values():
        assert torch.equal(episode.rewards, played["own"].rewards)
        assert torch.equal(episode.actions, played["own"].actions)
    assert len(played["own"].rewards.unique()) > 100


def test_a_trial_of_one_episode_has_no_swap() -> None:
    result = probed(MadeUp(POINT, mixed, trial=1))
    assert result["swap"] is None
    assert [point["episodes"] for point in result["probe"][0]["points"]] == [0, 1]
    assert "No swap" in shown(result)


def test_partners_are_other_tasks() -> None:
    tasks = DOORS.space.sample(30, "train", seeded(0))
    order = partners(tasks)
    assert bool((tasks["door"] != tasks["door"][order]).all())
    assert partners(POINT.space.sample(4, "train", seeded(0))).tolist() == [1, 2, 3, 0]
    with pytest.raises(UserError, match="the same"):
        partners(tasks.select([0, 0, 0]))


@pytest.mark.parametrize("core", ["gru", "lstm", "transformer"])
def test_rl2_carries_everything_it_remembers(core: str) -> None:
    policy = rl2(core).start(POINT.space.sample(4, "test", seeded())).policy
    assert isinstance(policy, Remembering)
    assert isinstance(policy, Actor)
    generator, order = seeded(1), torch.tensor([2, 0, 0, 1])

    def meet(observation: torch.Tensor, reward: float, ended: list[bool]) -> None:
        policy.act(observation, generator)
        policy.see(reward * torch.arange(1.0, 5.0), torch.tensor(ended))

    policy.begin_episode()
    meet(normal(4, 2, seed=2).float(), 1.0, [False] * 4)
    # World 0 waits while the others go on.
    meet(normal(4, 2, seed=3).float(), 2.0, [True, False, False, False])
    meet(normal(4, 2, seed=4).float(), 3.0, [False] * 4)
    moment = normal(4, 2, seed=5).float()
    seen = policy.look(moment)[0]
    carried = policy.carried(order)
    # World 0's features mean nothing while it waits; those of the others, wherever they are, are theirs.
    torch.testing.assert_close(carried.look(moment[order])[0][[0, 3]], seen[[2, 1]])

    # It waits on, and the others take in the moment.
    policy.act(moment, generator)
    carried.act(moment[order], generator)
    assert policy.memory is not None
    assert carried.memory is not None
    for mine, its in zip(policy.memory, carried.memory, strict=True):
        torch.testing.assert_close(its, mine[order])
    for one in (policy, carried):
        one.see(torch.ones(4), torch.tensor([True] * 4))

    policy.begin_episode()
    carried = policy.carried(order)
    carried.begin_episode()
    seen = policy.look(moment)[0]
    torch.testing.assert_close(carried.look(moment[order])[0], seen[order])
    # Going on in the copy leaves the original as it was.
    carried.act(-moment, generator)
    carried.see(torch.ones(4), torch.tensor([False] * 4))
    carried.act(-moment, generator)
    assert torch.equal(policy.look(moment)[0], seen)


@pytest.mark.parametrize("core", ["gru", "lstm", "transformer"])
def test_rl2_is_probed_with_the_last_reward_in_its_memory(core: str) -> None:
    agent = rl2(core)
    tasks = POINT.space.sample(4, "test", seeded())
    moment, looks = torch.zeros(4, 2), []
    for reward in (0.0, 1.0):
        policy = agent.start(tasks).policy
        policy.begin_episode()
        policy.act(moment, seeded(1))
        policy.see(torch.full((4,), reward), torch.tensor([True] * 4))
        policy.begin_episode()
        looks.append(policy.look(moment)[0])
    assert bool(((looks[0] - looks[1]).abs() > 1e-3).any(1).all())
    # As many moments as a trial has, and the one behind it, fit into a transformer.
    assert memories(agent, make_worlds(POINT, 4), tasks, seeded()).shape == (3, 4, 8)


# -- report -----------------------------------------------------------------------------------------------------------


def shown(result: dict[str, Any]) -> str:
    console = Console(width=80, file=io.StringIO(), record=True)
    for part in tables(result, "held-out tasks"):
        console.print(part)
    return console.export_text()


def test_tables_tell_both() -> None:
    text = shown(probed(MadeUp(DOORS, mixed, ignores_memory=False)))
    row = next(line.split() for line in text.splitlines() if line.strip().startswith("door"))
    assert row == ["door", "accuracy", "0.33", "0.33", *["1.00", "[1.00,", "1.00]"] * 2]
    row = next(line.split() for line in text.splitlines() if line.strip().startswith("own - another"))
    assert row[-6:] == ["1.00", "[1.00,", "1.00]"] * 2
    assert "…" not in text

    result = probed(MadeUp(POINT, mixed))
    worst = {"estimate": -0.03, "lower": -0.05, "upper": -0.01}
    result["probe"][0] |= {"parameter": "a_long_name_of_a_parameter[0]", "chance": 0.25, "score": "accuracy"}
    for point in result["probe"][0]["points"]:
        point.update(worst)
    for figure in ("own", "other", "none", "own_minus_other", "own_minus_none"):
        result["swap"][figure]["return"] = {"estimate": -2345.6, "lower": -3345.6, "upper": -1345.6}
    text = shown(result)
    assert "-0.03 [-0.05, -0.01]" in text
    assert "-2346 [-3346, -1346]" in text
    assert "…" not in text


def test_files_hold_what_was_measured(tmp_path: Path) -> None:
    first, second = probed(MadeUp(POINT, mixed)), probed(MadeUp(DOORS, mixed)) | {"agent": "other"}
    for results in ([first], [first, second]):
        write(results, tmp_path)
    assert json.loads((tmp_path / "probe.json").read_text())["results"] == [first, second]
    # The second events file took the place of the first.
    (events,) = (tmp_path / "scout").glob("events.*")
    read = EventAccumulator(str(events)).Reload()
    tags = {"probe_r2/goal_0", "probe_r2/goal_1", "swap/own", "swap/other", "swap/none", "swap/first_action"}
    assert set(read.Tags()["scalars"]) == tags
    assert [scalar.step for scalar in read.Scalars("probe_r2/goal_0")] == [0, 1, 2]
    assert read.Scalars("probe_r2/goal_1")[1].value == pytest.approx(first["probe"][1]["points"][1]["estimate"])
    assert [scalar.step for scalar in read.Scalars("swap/none")] == [1]
    read = EventAccumulator(str(tmp_path / "other")).Reload()
    assert {"probe_accuracy/door", "probe_chance/door"} < set(read.Tags()["scalars"])


def test_the_command_probes_a_trained_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    small = [
        "--tasks",
        "8",
        "--minibatches",
        "2",
        "--episodes",
        "3",
        "--width",
        "8",
        "--iterations",
        "1",
        "--threads",
        "1",
    ]
    assert main(["train", "rl2", "--family", "bandit", *small, "--out", str(run)]) == 0
    capsys.readouterr()
    evaluate = ["evaluate", str(run), "--tasks", "4", "--threads", "1", "--probe", "--probe-tasks", "10"]
    assert main(evaluate) == 0
    text = capsys.readouterr().out
    assert "10 held-out tasks: what its memory tells" in text
    assert "Episode 3 with other memories" in text
    assert max(len(line) for line in text.splitlines() if str(run) not in line) <= 80
    (stored,) = json.loads((run / "evaluation" / "test" / "probe.json").read_text())["results"]
    assert (stored["agent"], stored["fit_tasks"], stored["episodes"]) == ("rl2", 20, 3)
    assert [len(score["points"]) for score in stored["probe"]] == [4] * 5

    assert main([*evaluate, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["probe"] == [stored]


def test_the_command_refuses_a_run_without_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    small = ["--tasks", "2", "--episodes", "2", "--iterations", "1", "--hidden", "8", "--threads", "1"]
    assert main(["train", "maml-trpo", "--family", "bandit", *small, "--out", str(run)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--tasks", "2", "--probe"]) == 2
    assert "'maml-trpo', which has no memory" in capsys.readouterr().err
