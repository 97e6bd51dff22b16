"""Bandits and tabular MDPs: definitions worked out by hand, chance as the task says, and agents that learn in them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from gymnasium.spaces import Discrete, MultiDiscrete
from gymnasium.utils.env_checker import check_env
from torch import Tensor

from metarl.agents import config_class, make
from metarl.envs import families, get, make_worlds
from metarl.envs.families.bandit import Bandit
from metarl.envs.families.tabular_mdp import TabularMdp
from metarl.envs.family import State, TorchFamily, random_actions
from metarl.envs.gym.single import FamilyEnv
from metarl.envs.gym.vector import FamilyVectorEnv
from metarl.envs.horizon import with_horizon
from metarl.errors import UserError
from metarl.evaluation.curve import adaptation_curve
from metarl.learning.experience import spread
from metarl.learning.rollout import collect
from metarl.nets.policy import MLP, CategoricalPolicy, GaussianPolicy, make_policy, stack
from metarl.seeding import Streams
from metarl.types import MetaAgent, Tasks
from tests.helpers.lockstep import worlds_together
from tests.helpers.toys import seeded as generator

PROBES = [family for name in ("bandit", "tabular-mdp") for family in families()[name]]
DOUBLE = torch.float64


def one_hot(actions: list[int], size: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(actions), size).double()


def mdp() -> TabularMdp:
    family = get("tabular-mdp")
    assert isinstance(family, TabularMdp)
    return family


@pytest.fixture(params=PROBES, ids=lambda family: family.full_name)
def family(request: pytest.FixtureRequest) -> TorchFamily:
    return request.param


def test_the_best_arm_is_that_of_the_highest_mean() -> None:
    family = get("bandit@bernoulli-5")
    means = [[0.1, 0.9, 0.3, 0.2, 0.4], [0.7, 0.1, 0.1, 0.2, 0.6]]
    tasks = family.space.from_records([{"mean": mean} for mean in means])
    assert torch.equal(family.optimal_action(torch.zeros(2, 1), tasks), one_hot([1, 0], 5))


# --- definitions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "horizon", "observations", "actions", "parameters"),
    [
        ("bandit@bernoulli-5", 1, 1, 5, {"mean": ("uniform", 5)}),
        ("bandit@bernoulli-10", 1, 1, 10, {"mean": ("uniform", 10)}),
        ("bandit@bernoulli-50", 1, 1, 50, {"mean": ("uniform", 50)}),
        ("bandit@gaussian-5", 1, 1, 5, {"mean": ("normal", 5)}),
        ("bandit@gaussian-10", 1, 1, 10, {"mean": ("normal", 10)}),
        ("bandit@dpt23", 1, 1, 5, {"mean": ("uniform", 5)}),
        ("tabular-mdp@rl2", 10, 10, 5, {"reward": ("normal", 50), "transition": ("simplex", 500)}),
    ],
)
def test_sizes_and_distributions(
    name: str, horizon: int, observations: int, actions: int, parameters: dict[str, tuple[str, int]]
) -> None:
    family = get(name)
    assert (family.horizon, family.observation_size, family.action_size) == (horizon, observations, actions)
    assert family.discrete
    assert {p.name: (p.scale, p.width) for p in family.space.parameters} == parameters
    assert not family.space.has_ood
    assert not family.space.coincide


def test_the_default_is_the_first_of_the_literature() -> None:
    assert get("bandit").full_name == "bandit@bernoulli-5"
    assert get("tabular-mdp").full_name == "tabular-mdp@rl2"


def test_priors_have_the_moments_of_the_definition() -> None:
    uniform = get("bandit@bernoulli-10").space.sample(20_000, "train", generator())["mean"]
    assert uniform.mean().item() == pytest.approx(0.5, abs=2e-3)
    assert uniform.std().item() == pytest.approx(math.sqrt(1 / 12), abs=2e-3)
    normal = get("bandit@gaussian-10").space.sample(20_000, "train", generator())["mean"]
    assert normal.mean().item() == pytest.approx(0.0, abs=1e-2)
    assert normal.std().item() == pytest.approx(1.0, abs=1e-2)
    tasks = mdp().space.sample(2_000, "train", generator())
    assert tasks["reward"].mean().item() == pytest.approx(1.0, abs=1e-2)
    assert tasks["reward"].std().item() == pytest.approx(1.0, abs=1e-2)
    rows = tasks["transition"].reshape(-1, 10)
    torch.testing.assert_close(rows.sum(1), torch.ones(len(rows), dtype=DOUBLE))
    # A component of a flat Dirichlet of ten has mean 1/10 and variance (1/10)(9/10)/11.
    assert rows.mean(0).tolist() == pytest.approx([0.1] * 10, abs=2e-3)
    assert rows.var(0).tolist() == pytest.approx([0.09 / 11] * 10, abs=3e-4)


@pytest.mark.parametrize(("chance", "arm", "reward"), [(0.3, 1, 1.0), (0.41, 1, 0.0), (0.3, 0, 0.0), (0.99, 4, 1.0)])
def test_bernoulli_reward(chance: float, arm: int, reward: float) -> None:
    family = get("bandit@bernoulli-5")
    tasks = family.space.from_records([{"mean": [0.0, 0.4, 0.5, 0.6, 1.0]}])
    assert pull(family, tasks, chance, arm) == {"pull": reward}


def test_gaussian_reward() -> None:
    family = get("bandit@gaussian-5")
    tasks = family.space.from_records([{"mean": [0.0, 0.4, -2.5, 0.6, 1.0]}])
    assert pull(family, tasks, -0.7, 2) == {"pull": pytest.approx(-3.2)}
    family = get("bandit@dpt23")
    tasks = family.space.from_records([{"mean": [0.0, 0.4, 0.5, 0.6, 1.0]}])
    assert pull(family, tasks, -0.7, 1) == {"pull": pytest.approx(0.4 - 0.3 * 0.7)}


def pull(family: Any, tasks: Tasks, chance: float, arm: int) -> dict[str, float]:
    action = one_hot([arm], 5)
    state = {"chance": torch.tensor([[chance]], dtype=DOUBLE)}
    state |= {name: torch.zeros(1, 1, dtype=DOUBLE) for name in ("pulls", "arm")}
    after = family.advance(state, action, tasks)
    return {name: value.item() for name, value in family.reward_terms({}, after, action, tasks).items()}


def test_mdp_transition_and_reward() -> None:
    family = mdp()
    reward, transition = torch.zeros(50), torch.zeros(50, 10)
    transition[:, 0] = 1.0
    # State 3, action 2.
    reward[3 * 5 + 2] = 1.5
    transition[3 * 5 + 2] = torch.tensor([0.0, 0.25, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.25])
    tasks = family.space.from_records([{"reward": reward.tolist(), "transition": transition.flatten().tolist()}])
    action = one_hot([2], 5)
    seen = []
    for turn in (0.0, 0.24, 0.26, 0.74, 0.76, 0.999):
        state = {
            "state": torch.tensor([[3.0]], dtype=DOUBLE),
            "step": torch.tensor([[4.0]], dtype=DOUBLE),
            "turn": torch.full((1, 10), turn, dtype=DOUBLE),
            "noise": torch.arange(10, dtype=DOUBLE)[None],
        }
        after = family.advance(state, action, tasks)
        # The noise of step 4 is 4.
        assert family.reward_terms(state, after, action, tasks)["sampled"].item() == pytest.approx(5.5)
        assert after["step"].item() == 5.0
        seen.append(after["state"].item())
        assert family.observe(after, tasks).argmax().item() == seen[-1]
    assert seen == [1.0, 1.0, 6.0, 6.0, 9.0, 9.0]


# --- chance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bandit@bernoulli-5", "bandit@gaussian-5"])
def test_arms_give_what_the_task_says(name: str) -> None:
    family, pulls = get(name), 20_000
    task = family.space.sample(1, "test", generator(3))
    worlds = make_worlds(family, 5 * pulls, dtype=DOUBLE)
    worlds.set_tasks(task.repeat(5 * pulls))
    observation = worlds.reset(generator(4))
    assert not observation.any()
    step = worlds.step(one_hot([arm for arm in range(5) for _ in range(pulls)], 5))
    assert step.terminated.all()
    rewards = step.reward.reshape(5, pulls)
    mean = task["mean"][0]
    variance = mean * (1.0 - mean) if "bernoulli" in name else torch.ones(5, dtype=DOUBLE)
    assert ((rewards.mean(1) - mean).abs() < 4.0 * (variance / pulls).sqrt()).all()
    assert ((rewards.var(1) - variance).abs() < 4.0 * math.sqrt(2.0 / pulls)).all()


def test_the_mdp_moves_and_pays_as_the_task_says() -> None:
    family, worlds, repeats = mdp(), make_worlds("tabular-mdp", 4_000, dtype=DOUBLE), 2
    task = family.space.sample(1, "test", generator(5))
    worlds.set_tasks(task.repeat(4_000))
    random = generator(6)
    counts, total, squares = torch.zeros(50, 10), torch.zeros(50), torch.zeros(50)
    for _ in range(repeats):
        observation = worlds.reset(random)
        assert (observation == one_hot([0], 10)).all()
        for t in range(10):
            action = random_actions(family, 4_000, random)
            step = worlds.step(action)
            assert bool(step.truncated.all()) == (t == 9)
            assert not step.terminated.any()
            pair = observation.argmax(1) * 5 + action.argmax(1)
            noise = step.reward - task["reward"][0, pair]
            counts.index_put_((pair, step.observation.argmax(1)), torch.ones(4_000), accumulate=True)
            total.index_add_(0, pair, noise.float())
            squares.index_add_(0, pair, noise.square().float())
            observation = step.observation
    visits = counts.sum(1)
    assert (visits > 100).all()
    expected = task["transition"].reshape(50, 10).float() * visits[:, None]
    # Pearson's statistic of 50 rows, each of 9 degrees of freedom.
    chi_squared = ((counts - expected).square() / expected.clamp_min(1e-9))[expected > 5.0].sum().item()
    freedom = int((expected > 5.0).sum()) - 50
    assert abs(chi_squared - freedom) < 4.0 * math.sqrt(2.0 * freedom)
    assert ((total / visits).abs() < 4.5 / visits.sqrt()).all()
    assert (squares.sum() / visits.sum()).item() == pytest.approx(1.0, abs=4.0 * math.sqrt(2.0 / 80_000))


def test_worlds_that_step_on_after_their_end_read_no_chance_that_is_not_there(family: TorchFamily) -> None:
    """As on a GPU, whose worlds step together until the last one has ended: an index beyond a table ends a program."""
    worlds, random = worlds_together(family, 3), generator()
    worlds.set_tasks(family.space.sample(3, "train", random))
    worlds.reset(random)
    for number in range(family.horizon + 3):
        step = worlds.step(random_actions(family, 3, random))
        if number >= family.horizon:
            assert not step.reward.any()
            assert not (step.terminated | step.truncated).any()


def test_physics_is_a_function_of_its_arguments(family: TorchFamily) -> None:
    tasks = family.space.sample(6, "train", generator())
    state: State = family.reset_state(generator(1), tasks)
    again = family.reset_state(generator(1), tasks)
    assert all(torch.equal(state[name], again[name]) for name in again)
    action = random_actions(family, 6, generator(2))
    kept = {name: value.clone() for name, value in state.items()}
    first, second = family.advance(state, action, tasks), family.advance(state, action, tasks)
    assert all(torch.equal(first[name], second[name]) for name in kept)
    assert all(torch.equal(state[name], kept[name]) for name in kept)
    rewards = [family.reward_terms(state, first, action, tasks) for _ in range(2)]
    assert all(torch.equal(rewards[0][name], rewards[1][name]) for name in rewards[0])


def test_longer_bandit_episodes_draw_anew_for_every_pull() -> None:
    family = with_horizon(get("bandit@gaussian-5"), 7)
    worlds = make_worlds(family, 2_000, dtype=DOUBLE)
    tasks = family.space.sample(1, "train", generator())
    worlds.set_tasks(tasks.repeat(2_000))
    worlds.reset(generator(1))
    steps = [worlds.step(one_hot([1] * 2_000, 5)) for _ in range(7)]
    noise = torch.stack([step.reward for step in steps]) - tasks["mean"][0, 1]
    together = torch.corrcoef(noise) - torch.eye(7)
    assert together.abs().max() < 4.5 / math.sqrt(2_000)
    assert [bool(step.terminated.all()) for step in steps] == [False] * 6 + [True]


def test_worlds_begin_one_by_one(family: TorchFamily) -> None:
    worlds = make_worlds(family, 3)
    worlds.set_tasks(family.space.sample(3, "train", generator()))
    worlds.reset(generator(), torch.tensor([1]))
    step = worlds.step(random_actions(family, 3, generator()).float())
    assert step.reward[[0, 2]].tolist() == [0.0, 0.0]
    for _ in range(family.horizon - 1):
        step = worlds.step(random_actions(family, 3, generator()).float())
    assert (step.terminated | step.truncated).tolist() == [False, True, False]
    worlds.reset(generator(), torch.tensor([0]))
    assert worlds.step(random_actions(family, 3, generator()).float()).reward[1] == 0.0


def test_only_one_action_at_a_time(family: TorchFamily) -> None:
    worlds = make_worlds(family, 2)
    worlds.set_tasks(family.space.sample(2, "train", generator()))
    worlds.reset(generator())
    with pytest.raises(UserError, match="one-hot"):
        worlds.step(torch.full((2, family.action_size), 0.5))


# --- everywhere else ---------------------------------------------------------------------------------------------


def test_gymnasium_sees_numbered_actions(family: TorchFamily) -> None:
    single = FamilyEnv(family, render_mode="rgb_array", width=64, height=48)
    check_env(single, skip_render_check=True)
    assert single.action_space == Discrete(family.action_size)
    _, info = single.reset(seed=0)
    before = single.render()
    assert before is not None
    assert before.std() > 1.0
    # Any action, but of a bandit the arm with the highest bar: one with a mean near 0 is too low to be seen.
    action = single.action_space.sample()
    if isinstance(family, Bandit):
        action = torch.tensor(info["task"]["mean"]).abs().argmax().numpy()[()]
    _, reward, *_, info = single.step(action)
    assert sum(value for key, value in info.items() if key.startswith("reward/")) == reward
    # The MDP may stay where it is.
    if isinstance(family, Bandit):
        assert (single.render() != before).any()
    many = FamilyVectorEnv(3, family)
    assert many.action_space == MultiDiscrete([family.action_size] * 3)
    many.reset(seed=0)
    observations, rewards, *_ = many.step(many.action_space.sample())
    assert observations.shape == (3, family.observation_size)
    assert rewards.shape == (3,)


def test_the_policy_fits_the_actions() -> None:
    network = MLP(inputs=2, hidden=(), outputs=4)
    assert make_policy(network, choices=(), initial_std=0.5) == GaussianPolicy(network=network, initial_std=0.5)
    policy = make_policy(network, choices=(4,), initial_std=0.5)
    assert policy == CategoricalPolicy(network=network)
    batch = {"observations": torch.ones(3, 2, 5, 2), "weights": torch.full((3, 2, 5), 0.1)}
    assert spread(policy, stack({"w0": torch.zeros(2, 4), "b0": torch.zeros(4)}, 3), batch) == {
        "policy/entropy": pytest.approx(math.log(4.0))
    }


def trained(agent: str, family: str, iterations: int, **settings: Any) -> tuple[MetaAgent, list[dict[str, float]]]:
    probe, streams = get(family), Streams(0)
    config = config_class(agent)(tasks=40, episodes=20, max_kl=0.05, hidden=(32,), **settings)
    learner = make(agent, config, probe.spec(), streams, torch.device("cpu"))
    worlds = make_worlds(probe, 800)
    return learner, [learner.train_iteration(worlds, probe.space.sample, streams) for _ in range(iterations)]


def test_an_oracle_learns_which_arm_is_best() -> None:
    # Any one arm gives 0.5, the best 0.83.
    oracle, metrics = trained("oracle", "bandit", 15)
    assert metrics[0]["return/post"] < 0.55
    family = get("bandit")
    tasks = family.space.sample(200, "test", generator())
    curve = adaptation_curve(oracle, make_worlds(family, 2_000), tasks, steps=0, episodes=10, generator=generator())
    assert curve.returns.mean() > 0.72


def test_maml_adapts_to_an_unknown_mdp() -> None:
    maml, _ = trained("maml-trpo", "tabular-mdp", 12, inner_rate=2.0)
    family = get("tabular-mdp")
    tasks = family.space.sample(100, "test", generator())
    curve = adaptation_curve(maml, make_worlds(family, 2_000), tasks, steps=1, episodes=20, generator=generator())
    # Without adaptation no policy knows better than the mean reward, 1 a step.
    before, after = curve.returns
    assert before.mean() == pytest.approx(10.0, abs=1.0)
    assert (after - before).mean() > 1.5


def test_random_agents_are_evaluated_too(family: TorchFamily) -> None:
    agent = make("random", config_class("random")(), family.spec(), Streams(0), torch.device("cpu"))
    tasks = family.space.sample(3, "test", generator())
    curve = adaptation_curve(agent, make_worlds(family, 6), tasks, steps=1, episodes=2, generator=generator())
    assert curve.returns.shape == (2, 3)
    assert curve.returns.isfinite().all()


def test_collections_hold_what_was_chosen(family: TorchFamily) -> None:
    tasks = family.space.sample(2, "train", generator())
    agent = make("random", config_class("random")(), family.spec(), Streams(0), torch.device("cpu"))
    seen = collect(make_worlds(family, 6), agent.start(tasks).policy, tasks, 3, generator())
    assert seen.actions.shape == (2, 3, family.horizon, family.action_size)
    assert (seen.actions.sum(3) == 1.0).all()
    assert (seen.mask == 1.0).all()
