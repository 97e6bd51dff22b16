from __future__ import annotations

import pytest
import torch

from metarl.agents import config_class, make
from metarl.envs import get, make_worlds
from metarl.errors import UserError
from metarl.evaluation.probe import PENALTIES, Ridge, _scores, memories, probe, probe_tasks
from metarl.evaluation.statistics import r_squared
from metarl.seeding import Streams
from tests.helpers.memories import CPU, DOORS, POINT, MadeUp, mixed, probed, shown
from tests.helpers.toys import normal, seeded


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


def test_what_is_the_same_for_all_tasks_has_no_score() -> None:
    space, looks = POINT.space, normal(2, 30, 4)
    fit, tasks = (space.sample(30, "train", seeded(seed)) for seed in (0, 1))
    tasks["goal"][:, 0] = tasks["goal"][0, 0]
    scores = _scores(space, [(looks[:1], looks[1:])], fit, tasks, seeded())
    assert [score["parameter"] for score in scores] == ["goal[1]"]
    tasks["goal"][:] = tasks["goal"][0]
    with pytest.raises(UserError, match="nothing to predict in these tasks"):
        _scores(space, [(looks[:1], looks[1:])], fit, tasks, seeded())


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
