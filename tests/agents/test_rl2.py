"""RL2: what reaches the network and when, how long it is remembered, and the update, by plain numbers and loops."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from metarl.agents import rl2
from metarl.agents.rl2 import Actor, Inputs, Rl2, Rl2Config, Trials, join
from metarl.envs import get, make_worlds
from metarl.envs.families.bandit import Bandit
from metarl.envs.families.point_nav import PointNav
from metarl.envs.family import Observable, State, Terms, TorchFamily
from metarl.envs.modifiers.apply import with_switch
from metarl.errors import NotFiniteError, UserError
from metarl.learning.rollout import collect
from metarl.nets.memory import CoreName, Memory
from metarl.nets.moments import Moments
from metarl.nets.policy import Normal
from metarl.run.glossary import look_up
from metarl.seeding import Streams
from metarl.space.parameter_space import Parameter, ParameterSpace
from metarl.types import EnvSpec, Learner, MemoryPolicy, MetaAgent, Metrics, Step, Tasks, Trajectories
from tests.helpers.toys import DOUBLE, normal, seeded

CPU = torch.device("cpu")
CORES: tuple[CoreName, ...] = get_args(CoreName)
SMALL = Rl2Config(tasks=5, episodes=3, width=4, minibatches=2, epochs=2, iterations=4, entropy=0.1)


@dataclass(frozen=True, kw_only=True)
class Ragged(TorchFamily):
    """Episodes of 1 to 5 steps, ended by a terminal state, by the time limit or by a simulation that fails."""

    discrete: bool = False
    name: str = "ragged"
    variant: str = "test"
    summary: str = "ends anyhow"
    source: str = "this test"
    horizon: int = 5
    step_seconds: float = 1.0
    action_low: tuple[float, ...] = (-1.0, -1.0)
    action_high: tuple[float, ...] = (1.0, 1.0)
    action_unit: str = "m"
    longest: int = 8
    """Steps after which an episode would end by itself are drawn from 1 to here."""
    observables: tuple[Observable, ...] = (Observable("x", "x", "m"), Observable("y", "y", "m"))
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        gain = Parameter(name="gain", unit="", description="gain", scale="uniform", low=-1.0, high=1.0)
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (gain,)))

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Tensor]:
        size = (len(tasks), 1)
        return {
            "position": torch.randn(len(tasks), 2, generator=generator, dtype=DOUBLE),
            "left": torch.randint(1, self.longest + 1, size, generator=generator).double(),
            "fails": torch.randint(0, 2, size, generator=generator).double(),
        }

    def advance(self, state: State, action: Tensor, tasks: Tasks) -> dict[str, Tensor]:
        left = state["left"] - 1.0
        broken = (left <= 0.0) & (state["fails"] > 0.0)
        position = torch.where(broken, torch.inf, state["position"] + 0.3 * action)
        return {"position": position, "left": left, "fails": state["fails"]}

    def observe(self, state: State, tasks: Tasks) -> Tensor:
        return state["position"]

    def reward_terms(self, before: State, state: State, action: Tensor, tasks: Tasks) -> Terms:
        return {"made up": 2.0 * tasks["gain"] * action[:, 0] + state["position"].sum(1)}

    def terminated(self, state: State, tasks: Tasks) -> Tensor:
        return state["left"].squeeze(1) <= 0.0


def make(config: Rl2Config, spec: EnvSpec, seed: int = 0, *, double: bool = False) -> Rl2:
    """Return an agent none of whose parameters is special, so that its actions and values differ everywhere."""
    agent = Rl2(config, spec, Streams(seed), CPU)
    if double:
        agent.network.double()
    with torch.no_grad():
        for i, (name, value) in enumerate(agent.network.named_parameters()):
            if name != "log_std":
                value.add_(0.3 * normal(*value.shape, seed=i))
    return agent


# --- what reaches the network ------------------------------------------------------------------------------------

# By episode and world: its steps, and whether a terminal state ended it, in place of the time limit of 3 steps.
LENGTHS = torch.tensor([[1, 3], [3, 2], [2, 3]])
TERMINAL = torch.tensor([[True, False], [False, True], [True, False]])
SIGN = torch.tensor([1.0, -1.0])

# By moment: observation, then action, reward and end of the step before. Both worlds observe e + t / 10 in episode e
# at step t, and step t of it gives e + 1 + (t + 1) / 10, in the second world negative. The k-th action of all is k / 10
# in the first world and -15 k / 100 in the second, where the environment clips the last three.
ROWS = (
    (
        (0.0, 0.0, 0.0, 0.0),  # First step of the trial.
        (1.0, 0.1, 1.1, 1.0),  # After a terminal state: all of its last triple, across the boundary.
        (1.1, 0.4, 2.1, 0.0),
        (1.2, 0.5, 2.2, 0.0),
        (2.0, 0.6, 2.3, 1.0),  # After the time limit.
        (2.1, 0.7, 3.1, 0.0),
        (2.2, 0.8, 3.2, 1.0),  # The moment behind the trial.
    ),
    (
        (0.0, 0.0, 0.0, 0.0),
        (0.1, -0.15, -1.1, 0.0),
        (0.2, -0.3, -1.2, 0.0),
        (1.0, -0.45, -1.3, 1.0),
        (1.1, -0.6, -2.1, 0.0),
        (2.0, -0.75, -2.2, 1.0),
        (2.1, -1.0, -3.1, 0.0),
        (2.2, -1.0, -3.2, 0.0),
        (2.3, -1.0, -3.3, 1.0),
    ),
)


class Script:
    """The worlds of the table (a `BatchEnv`)."""

    family_name = "script"
    num_worlds = 2
    horizon = 3
    observation_size = 1
    action_size = 1
    failures = 0

    def set_tasks(self, tasks: Tasks) -> None:
        self.episode = -1

    def reset(self, generator: torch.Generator) -> Tensor:
        self.episode += 1
        self.time = 0
        return torch.full((2, 1), float(self.episode))

    def step(self, action: Tensor) -> Step:
        self.time += 1
        length, terminal = LENGTHS[self.episode], TERMINAL[self.episode]
        observation = self.episode + length.clamp_max(self.time) / 10.0
        reward = SIGN * (self.episode + 1 + self.time / 10.0) * (self.time <= length)
        ended = self.time == length
        return Step(observation[:, None], reward, ended & terminal, ended & ~terminal, {"made up": reward})


SCRIPT = EnvSpec("script", 1, 1, 3, 1, lambda tasks: tasks["number"][:, None])
TWO = Tasks("script", {"number": torch.arange(2.0, dtype=DOUBLE)})


@dataclass
class Watched:
    """What went into the core and came out of it, by call."""

    inputs: list[Tensor] = field(default_factory=list)
    waiting: list[list[bool]] = field(default_factory=list)
    before: list[Memory] = field(default_factory=list)
    after: list[Memory] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)

    def of_world(self, world: int, what: list[Tensor]) -> Tensor:
        """Return the rows of one world, those left out in which it waited."""
        return torch.stack([rows[world] for rows, waits in zip(what, self.waiting, strict=True) if not waits[world]])


def watch(agent: Rl2, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Note every step of the agent's core from now on."""
    watched, original = Watched(), agent.network.core.step

    def step(inputs: Tensor, memory: Memory, waiting: Tensor | None = None) -> tuple[Tensor, Memory]:
        before = copy.deepcopy(memory)
        features, after = original(inputs, memory, waiting)
        watched.inputs.append(inputs.clone())
        watched.waiting.append([False] * len(inputs) if waiting is None else waiting.tolist())
        watched.before.append(before)
        watched.after.append(copy.deepcopy(after))
        watched.features.append(features)
        return features, after

    monkeypatch.setattr(agent.network.core, "step", step)
    return watched


def play(env: Any, actor: Actor, tasks: Tasks, episodes: int, seed: int = 0) -> list[Trajectories]:
    """Play a trial."""
    generator = seeded(seed)
    return [collect(env, actor, tasks, 1, generator, new_trial=number == 0) for number in range(episodes)]


def played_script(monkeypatch: pytest.MonkeyPatch, core: CoreName = "gru") -> tuple[Rl2, Watched, list[Trajectories]]:
    """Play the scripted trial with actions that count."""
    agent = make(replace(SMALL, tasks=2, core=core), SCRIPT)
    calls = itertools.count(1)

    def act(features: Tensor) -> Normal:
        mean = torch.tensor([[0.1], [-0.15]]) * next(calls)
        return Normal(mean, torch.full_like(mean, -math.inf))

    monkeypatch.setattr(agent.network, "act", act)
    watched = watch(agent, monkeypatch)
    return agent, watched, play(Script(), Actor(agent.network, agent.inputs, CPU), TWO, 3)


def test_the_network_receives_while_acting_what_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    _, watched, _ = played_script(monkeypatch)
    for world in range(2):
        # The moment behind the trial is never acted upon.
        expected = torch.tensor(ROWS[world][:-1])
        torch.testing.assert_close(watched.of_world(world, watched.inputs), expected, rtol=0.0, atol=1e-6)
    assert [waits[0] for waits in watched.waiting] == [False, True, True, False, False, False, False, False, True]
    assert [waits[1] for waits in watched.waiting] == [False, False, False, False, False, True, False, False, False]


def test_the_network_receives_while_learning_what_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, _, episodes = played_script(monkeypatch)
    nothing = (0.0, 0.0, 0.0, 0.0)
    expected = torch.tensor([(*ROWS[0], nothing, nothing), ROWS[1]])
    torch.testing.assert_close(agent.inputs.of(join(episodes)), expected, rtol=0.0, atol=1e-6)


def test_inputs_are_scaled_and_cut_off_by_hand() -> None:
    inputs = Inputs(SCRIPT)
    # Mean 3 and deviation 2; root mean square 5.
    inputs.observation.update(torch.tensor([[1.0], [5.0]]))
    inputs.reward.update(torch.tensor([[7.0], [-1.0]]))
    rows = inputs(
        torch.tensor([[4.0], [-3.0], [30.0], [-30.0]]),
        torch.tensor([[0.5], [-0.5], [3.0], [-3.0]]),
        torch.tensor([2.0, -1.0, 60.0, -60.0]),
        torch.tensor([0.0, 1.0, 0.0, 1.0]),
    )
    expected = [[0.5, 0.5, 0.4, 0.0], [-3.0, -0.5, -0.2, 1.0], [10.0, 1.0, 10.0, 0.0], [-10.0, -1.0, -10.0, 1.0]]
    torch.testing.assert_close(rows, torch.tensor(expected))


def collected(agent: Rl2, monkeypatch: pytest.MonkeyPatch) -> list[Trajectories]:
    """Return a list that fills with the episodes of the agent's training."""
    episodes: list[Trajectories] = []

    def watched(*arguments: Any, **options: Any) -> Trajectories:
        episodes.append(collect(*arguments, **options))
        return episodes[-1]

    monkeypatch.setattr(rl2, "collect", watched)
    return episodes


@pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "discrete"])
@pytest.mark.parametrize("core", CORES)
def test_acting_and_learning_agree(core: CoreName, discrete: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    family = Ragged(discrete=discrete)
    agent = make(replace(SMALL, core=core, tasks=20), family.spec())
    env, streams = make_worlds(family, 20, threads=1), Streams(1)
    # After one iteration, everything is scaled.
    agent.train_iteration(env, family.space.sample, streams)
    watched, episodes = watch(agent, monkeypatch), collected(agent, monkeypatch)
    inputs, network = copy.deepcopy(agent.inputs), copy.deepcopy(agent.network)
    measured: list[tuple[Tensor, Tensor]] = []
    original = agent._measure

    def measure(rows: Tensor, trials: Trials) -> tuple[Tensor, Tensor]:
        measured.append(original(rows, trials))
        return measured[-1]

    monkeypatch.setattr(agent, "_measure", measure)
    agent.train_iteration(env, family.space.sample, streams)

    assert env.failures > 0
    assert len({float(length) for episode in episodes for length in episode.mask.sum(2).flatten()}) == family.horizon
    assert all(0.0 < float(episode.terminated.double().mean()) < 1.0 for episode in episodes)
    trials = join(episodes)
    rows = inputs.of(trials)
    whole = network.core(rows)
    for world, length in enumerate(trials.lengths.tolist()):
        assert torch.equal(watched.of_world(world, watched.inputs), rows[world, :length])
        # One memory from the first step of the trial to its last, and none before.
        features = watched.of_world(world, watched.features)
        torch.testing.assert_close(features, whole[world, :length], rtol=0.0, atol=1e-5)
        log_probs = network.act(features).log_prob(trials.actions[world, :length])
        torch.testing.assert_close(measured[0][0][world, :length], log_probs, rtol=0.0, atol=1e-5)


# --- how long it is remembered -----------------------------------------------------------------------------------


@pytest.mark.parametrize("core", CORES)
def test_memory_lasts_a_trial_and_waiting_worlds_keep_theirs(core: CoreName, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, watched, _ = played_script(monkeypatch, core)
    for begun, first in zip(agent.network.core.begin(2), watched.before[0], strict=True):
        assert torch.equal(begun, first)
    for earlier, later in itertools.pairwise(range(len(watched.inputs))):
        for after, before in zip(watched.after[earlier], watched.before[later], strict=True):
            assert torch.equal(after, before)
    for waits, before, after in zip(watched.waiting, watched.before, watched.after, strict=True):
        for world in range(2):
            # A transformer says by its position how much of its cache counts.
            kept = [torch.equal(old[world], new[world]) for old, new in zip(before, after, strict=True)]
            assert kept[0] == waits[world]
            assert core == "transformer" or all(kept) == waits[world]


def test_every_iteration_and_every_start_begins_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Ragged()
    agent, env, streams = make(SMALL, family.spec()), make_worlds(family, 5, threads=1), Streams(1)
    watched = watch(agent, monkeypatch)
    for _ in range(2):
        first = len(watched.before)
        agent.train_iteration(env, family.space.sample, streams)
        assert not any(bool(part.any()) for part in watched.before[first])
        assert all(bool(part.any()) for part in watched.after[first])

    tasks = family.space.sample(5, "test", seeded(2))
    learners = [agent.start(tasks) for _ in range(2)]
    scores = []
    for learner in learners:
        assert isinstance(learner, Learner)
        policy = learner.policy
        assert isinstance(policy, Actor)
        assert isinstance(policy, MemoryPolicy)
        episodes = play(env, policy, tasks, 3)
        scores.append(torch.stack([episode.returns for episode in episodes]))
        # What was learned is in the memory, and goes on.
        assert learner.learn(episodes[-1]).policy is policy
        assert policy.memory is not None
    assert torch.equal(*scores)
    # With the memory of a whole trial, the same starts and noise give other actions.
    kept = learners[0].policy
    assert isinstance(kept, Actor)
    again = torch.stack([episode.returns for episode in play(env, kept, tasks, 3)])
    assert not torch.equal(again, scores[0])


@pytest.mark.parametrize("core", CORES)
def test_a_carried_policy_goes_on_as_the_world_it_comes_from(core: CoreName) -> None:
    agent = make(replace(SMALL, core=core), SCRIPT)
    actor, env = Actor(agent.network, agent.inputs, CPU), Script()
    play(env, actor, TWO, 2)
    order, observation = torch.tensor([1, 1]), torch.tensor([[0.3], [0.7]])
    kept = copy.deepcopy(actor.memory)
    carried = actor.carried(order)
    for policy in (carried, actor):
        policy.begin_episode()
    there, _ = carried.look(observation)
    here, _ = actor.look(observation)
    swapped, _ = actor.look(observation.flip(0))
    torch.testing.assert_close(there, torch.stack((swapped[1], here[1])), rtol=0.0, atol=1e-6)
    assert not torch.allclose(there[0], here[0])
    carried.act(observation, seeded())
    assert kept is not None
    assert actor.memory is not None
    assert all(torch.equal(*parts) for parts in zip(kept, actor.memory, strict=True)) or core == "transformer"
    torch.testing.assert_close(actor.look(observation)[0], here, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("core", CORES)
def test_a_look_changes_nothing(core: CoreName) -> None:
    agent = make(replace(SMALL, core=core), SCRIPT)
    runs = []
    for looks in (0, 2):
        actor, env, taken = Actor(agent.network, agent.inputs, CPU), Script(), []
        env.set_tasks(TWO)
        for lengths in LENGTHS:
            observation = env.reset(seeded())
            actor.begin_episode()
            for _ in range(int(lengths.max())):
                seen = [actor.look(observation + 1.0)[0] for _ in range(looks)]
                assert all(torch.equal(features, seen[0]) for features in seen)
                taken.append(actor.act(observation, seeded(len(taken))))
                step = env.step(taken[-1])
                actor.see(step.reward, step.terminated | step.truncated)
                observation = step.observation
        runs.append(torch.stack(taken))
    assert torch.equal(*runs)


# --- trials in a row ---------------------------------------------------------------------------------------------


def episode(lengths: list[int], first: float, *, terminated: list[bool], steps: int) -> Trajectories:
    """Return an episode of each of two trials; everything in it counts up from `first`, by 10 more in the second."""
    mask = (torch.arange(steps) < torch.tensor(lengths)[:, None]).float()
    count = (torch.arange(steps) + first + torch.tensor([[0.0], [10.0]])) * mask
    final = torch.tensor(lengths) + first + torch.tensor([0.0, 10.0])
    return Trajectories(
        observations=count[:, None, :, None],
        actions=-count[:, None, :, None],
        rewards=100.0 * count[:, None],
        mask=mask[:, None],
        terminated=torch.tensor(terminated)[:, None],
        final_observations=final[:, None, None],
        tasks=TWO,
    )


def test_episodes_are_joined_without_gaps_and_in_order() -> None:
    trials = join(
        [
            episode([2, 1], 1.0, terminated=[False, True], steps=2),
            episode([1, 3], 4.0, terminated=[True, False], steps=3),
            episode([2, 1], 7.0, terminated=[True, False], steps=2),
        ]
    )
    count = torch.tensor([[1.0, 2.0, 4.0, 7.0, 8.0], [11.0, 14.0, 15.0, 16.0, 17.0]])
    assert torch.equal(trials.observations.squeeze(2), count)
    assert torch.equal(trials.actions.squeeze(2), -count)
    assert torch.equal(trials.rewards, 100.0 * count)
    assert trials.ended.tolist() == [[0, 1, 1, 0, 1], [1, 0, 0, 1, 1]]
    assert trials.lengths.tolist() == [5, 5]
    assert trials.final.tolist() == [[9.0], [18.0]]
    # Only the end of the last episode counts, and what ended it.
    assert trials.cut.tolist() == [False, True]


def test_trials_are_padded_to_the_longest_one() -> None:
    trials = join(
        [episode([1, 3], 1.0, terminated=[True] * 2, steps=3), episode([1, 2], 5.0, terminated=[True] * 2, steps=2)]
    )
    assert trials.observations.squeeze(2).tolist() == [[1, 5, 0, 0, 0], [11, 12, 13, 15, 16]]
    assert trials.rewards.tolist() == [[100, 500, 0, 0, 0], [1100, 1200, 1300, 1500, 1600]]
    assert trials.ended.tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 0, 1]]
    assert trials.mask.tolist() == [[1, 1, 0, 0, 0], [1] * 5]
    # The last row follows step 5 of 5; the final observation stands behind the last real step.
    rows = Inputs(SCRIPT).of(trials)
    assert rows[0, :, 0].tolist() == [1.0, 5.0, 6.0, 0.0, 0.0, 0.0]
    assert rows[1, -1].tolist() == [10.0, -1.0, 10.0, 1.0]


def test_episodes_of_one_length_are_only_put_in_a_row() -> None:
    episodes = [episode([2, 2], first, terminated=[False] * 2, steps=2) for first in (1.0, 3.0)]
    trials = join(episodes)
    assert trials.observations.squeeze(2).tolist() == [[1, 2, 3, 4], [11, 12, 13, 14]]
    assert trials.ended.tolist() == [[0, 1, 0, 1]] * 2
    assert bool(trials.mask.all())


# --- advantages --------------------------------------------------------------------------------------------------

# With γ = λ = 1/2. First trial: two steps, and one more of a second episode; the values are .5, 1, 2, and 8 behind.
# Second trial: one step and one step; the values are 3, 1, and 6 behind.
REWARDS = torch.tensor([[1.0, 2.0, 4.0], [5.0, 1.0, 0.0]], dtype=DOUBLE)
VALUES = torch.tensor([[0.5, 1.0, 2.0, 8.0], [3.0, 1.0, 6.0, 7.0]], dtype=DOUBLE)
MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]], dtype=DOUBLE)
# δ = 1, 2, 4 - 2 + 8 / 2 and 5 - 3 + 1 / 2, 1 - 1 + 6 / 2 where the time limit cut the trial; A = δ + A' / 4.
CUT = ((1.875, 3.5, 6.0), (3.25, 3.0))
# δ = 1, 2, 2 and 2.5, 0 where nothing follows.
ENDED = ((1.625, 2.5, 2.0), (2.5, 0.0))


def trials_by_hand(cut: list[bool]) -> Trials:
    return Trials(
        observations=torch.zeros(2, 3, 1, dtype=DOUBLE),
        actions=torch.zeros(2, 3, 1, dtype=DOUBLE),
        rewards=REWARDS,
        ended=torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]], dtype=DOUBLE),
        mask=MASK,
        final=torch.zeros(2, 1, dtype=DOUBLE),
        cut=torch.tensor(cut),
    )


@pytest.mark.parametrize(
    ("cut", "finite_horizon", "expected"),
    [
        ([True, True], False, CUT),
        ([False, False], False, ENDED),
        ([True, False], False, (CUT[0], ENDED[1])),
        ([True, True], True, ENDED),
    ],
    ids=["cut", "terminated", "one of each", "finite horizon"],
)
@pytest.mark.parametrize("over", ["batch", "task"])
def test_advantages_run_over_the_episodes_of_a_trial(
    cut: list[bool], finite_horizon: bool, expected: tuple[tuple[float, ...], ...], over: Any
) -> None:
    config = replace(SMALL, tasks=2, discount=0.5, trace=0.5, finite_horizon=finite_horizon, advantages=over)
    agent = make(config, SCRIPT)
    # So far the returns from the first three steps have had mean 3 and deviation 2: values are stored accordingly.
    known = torch.arange(9).expand(2, -1) < 3
    agent.returns.update(torch.tensor([[1.0], [5.0]], dtype=DOUBLE) * known, known.double())
    standardised, targets, explained = agent._advantages(trials_by_hand(cut), (VALUES - 3.0) / 2.0)

    should = torch.tensor([[*expected[0]], [*expected[1], 0.0]], dtype=DOUBLE)
    real = MASK > 0
    wanted = should + VALUES[:, :-1]
    seen = [[1.0, 5.0, *wanted[real[:, t], t].tolist()] for t in range(3)]
    mean, deviation = torch.tensor([mean_and_deviation(of_step) for of_step in seen], dtype=DOUBLE).unbind(1)
    assert agent.returns.count.tolist() == [4.0, 4.0, 3.0, *[0.0] * 6]
    torch.testing.assert_close(agent.returns.mean[:3], mean)
    torch.testing.assert_close(agent.returns.deviation[:3], deviation)
    torch.testing.assert_close(((wanted - mean) / deviation)[real], targets[real])

    about_mean = (wanted - mean)[real].square().sum()
    assert explained == pytest.approx(1.0 - (should[real].square().sum() / about_mean).item())

    rows = [list(row) for row in expected]
    groups = rows if over == "task" else [rows[0] + rows[1]]
    by_hand = []
    for group in groups:
        average, spread = mean_and_deviation(group)
        by_hand += [(a - average) / spread for a in group]
    torch.testing.assert_close(standardised[real], torch.tensor(by_hand, dtype=DOUBLE), rtol=1e-6, atol=1e-9)
    assert not bool(standardised[~real].any())


# --- the update --------------------------------------------------------------------------------------------------


def plain_gru(network: rl2.Network, rows: Tensor) -> list[Tensor]:
    weights = dict(network.core.named_parameters())
    hidden = rows.new_zeros(network.core.width)
    states = []
    for row in rows:
        ours = weights["cells.weight_ih_l0"] @ row + weights["cells.bias_ih_l0"]
        theirs = weights["cells.weight_hh_l0"] @ hidden + weights["cells.bias_hh_l0"]
        (r, z, n), (hr, hz, hn) = ours.chunk(3), theirs.chunk(3)
        reset, update = torch.sigmoid(r + hr), torch.sigmoid(z + hz)
        hidden = (1.0 - update) * torch.tanh(n + reset * hn) + update * hidden
        states.append(plain_norm(weights, "norm", hidden))
    return states


def plain_lstm(network: rl2.Network, rows: Tensor) -> list[Tensor]:
    weights = dict(network.core.named_parameters())
    hidden, cell = rows.new_zeros(2, network.core.width)
    states = []
    for row in rows:
        gates = weights["cells.weight_ih_l0"] @ row + weights["cells.bias_ih_l0"]
        gates = gates + weights["cells.weight_hh_l0"] @ hidden + weights["cells.bias_hh_l0"]
        enter, forget, new, leave = gates.chunk(4)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
        hidden = torch.sigmoid(leave) * torch.tanh(cell)
        states.append(plain_norm(weights, "norm", hidden))
    return states


def plain_transformer(network: rl2.Network, rows: Tensor) -> list[Tensor]:
    """Every moment anew from all that came before it, so that nothing can come from behind it."""
    return [network.core(rows[None, : t + 1])[0, -1] for t in range(len(rows))]


def plain_norm(weights: dict[str, Any], name: str, x: Tensor) -> Tensor:
    centred = x - x.mean()
    scaled = centred / (centred.square().mean() + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


PLAIN: dict[str, Callable[[rl2.Network, Tensor], list[Tensor]]] = {
    "gru": plain_gru,
    "lstm": plain_lstm,
    "transformer": plain_transformer,
}


@dataclass
class PlainStep:
    """One step of a trial, as one would write it down."""

    reward: float
    chance: Tensor
    """Log-probability under the present policy."""
    entropy: Tensor
    value: Tensor
    advantage: float = 0.0
    target: float = 0.0
    weight: float = 0.0
    """The advantage, standardised."""


def plain_trial(agent: Rl2, inputs: Inputs, episodes: list[Trajectories], world: int) -> tuple[list[PlainStep], float]:
    """Return the steps of one trial, and the value behind the last of them."""
    network, rows, taken = agent.network, [], []
    mean, deviation, size = inputs.observation.mean, inputs.observation.deviation, inputs.reward.size
    action, reward, ended = torch.zeros(2, dtype=DOUBLE), 0.0, 0.0

    def row(observation: Tensor) -> Tensor:
        done = action if inputs.discrete else action.clamp(-1.0, 1.0)
        seen = ((observation - mean) / deviation).clamp(-10.0, 10.0)
        scaled = (torch.tensor([reward], dtype=DOUBLE) / size).clamp(-10.0, 10.0)
        return torch.cat((seen, done, scaled, torch.tensor([ended], dtype=DOUBLE)))

    for episode in episodes:
        steps = int(episode.mask[world].sum())
        for t in range(steps):
            rows.append(row(episode.observations[world, 0, t]))
            action, reward = episode.actions[world, 0, t], float(episode.rewards[world, 0, t])
            ended = float(t == steps - 1)
            taken.append((action, reward))
    rows.append(row(episodes[-1].final_observations[world, 0]))
    trial = []
    features = PLAIN[agent.config.core](network, torch.stack(rows))
    for feature, (action, reward) in zip(features, taken, strict=False):
        output = network.policy.weight @ feature + network.policy.bias
        value = (network.value.weight @ feature + network.value.bias).squeeze(0)
        if network.log_std is None:
            logs = output - output.exp().sum().log()
            chance, entropy = (logs * action).sum(), -(logs.exp() * logs).sum()
        else:
            std = network.log_std.exp()
            density = (-0.5 * ((action - output) / std) ** 2).exp() / (std * math.sqrt(2.0 * math.pi))
            chance, entropy = density.log().sum(), (0.5 * (2.0 * math.pi * math.e * std**2).log()).sum()
        trial.append(PlainStep(reward, chance, entropy, value))
    behind = float((network.value.weight @ features[-1] + network.value.bias).detach())
    return trial, 0.0 if bool(episodes[-1].terminated[world]) or agent.config.finite_horizon else behind


def mean_and_deviation(numbers: list[float]) -> tuple[float, float]:
    mean = sum(numbers) / len(numbers)
    return mean, math.sqrt(sum((number - mean) ** 2 for number in numbers) / len(numbers))


def plain_loss(agent: Rl2, trials: list[tuple[list[PlainStep], float]], chosen: list[int], shift: Tensor) -> Tensor:
    """Return PPO's loss on some of the trials, in loops; the old log-probabilities are the present ones + `shift`."""
    config = agent.config
    for trial, behind in trials:
        following, advantage = behind, 0.0
        for step in reversed(trial):
            value = float(step.value.detach())
            advantage = step.reward + config.discount * following - value + config.discount * config.trace * advantage
            step.advantage, step.target, following = advantage, advantage + value, value
    steps = [step for trial, _ in trials for step in trial]
    longest = max(len(trial) for trial, _ in trials)
    by_step = [mean_and_deviation([trial[t].target for trial, _ in trials if t < len(trial)]) for t in range(longest)]
    for trial, _ in trials:
        group = trial if config.advantages == "task" else steps
        mean, deviation = mean_and_deviation([step.advantage for step in group])
        for step, (middle, spread) in zip(trial, by_step, strict=False):
            # Of one return alone, the spread is not known.
            step.target = (step.target - middle) / (spread or 1.0)
            step.weight = (step.advantage - mean) / (deviation + 1e-8)
    parts = []
    for number in chosen:
        for t, step in enumerate(trials[number][0]):
            old = step.chance.detach() + shift[number, t]
            ratio = (step.chance - old).exp()
            clipped = ratio.clamp(1.0 - config.clip, 1.0 + config.clip)
            gain = torch.minimum(ratio * step.weight, clipped * step.weight)
            error = (step.value - step.target) ** 2
            parts.append(-gain + config.value_weight * error - config.entropy * step.entropy)
    return torch.stack(parts).mean()


@pytest.mark.parametrize(
    ("core", "discrete", "options"),
    [
        ("gru", False, {}),
        ("gru", True, {"advantages": "task"}),
        ("lstm", True, {"finite_horizon": True}),
        ("transformer", False, {"advantages": "task"}),
    ],
)
def test_the_gradient_is_a_plain_loops(
    core: CoreName, discrete: bool, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Ragged(discrete=discrete)
    config = replace(SMALL, core=core, width=8, discount=0.9, trace=0.8, max_kl=100.0, max_gradient_norm=1e9, **options)
    agent = make(config, family.spec(), double=True)
    agent.inputs.observation.update(torch.tensor([[1.0, 0.5], [-0.4, 2.0]]))
    agent.inputs.reward.update(torch.tensor([[2.0], [1.0]]))
    inputs, before = copy.deepcopy(agent.inputs), copy.deepcopy(agent)
    episodes = collected(agent, monkeypatch)
    # As if the policy had been another one: some of the ratios are clipped, on either side.
    shift = 0.4 * normal(config.tasks, config.episodes * family.horizon, seed=9)
    original = agent._measure

    def measure(rows: Tensor, trials: Trials) -> tuple[Tensor, Tensor]:
        log_probs, values = original(rows, trials)
        return log_probs + shift[:, : log_probs.shape[1]], values

    gradients: list[dict[str, Tensor]] = []
    step = agent.optimiser.step

    def watched_step() -> None:
        gradients.append({n: p.grad.clone() for n, p in agent.network.named_parameters() if p.grad is not None})
        step()

    monkeypatch.setattr(agent, "_measure", measure)
    monkeypatch.setattr(agent.optimiser, "step", watched_step)
    env = make_worlds(family, config.tasks, threads=1, dtype=DOUBLE)
    agent.train_iteration(env, family.space.sample, Streams(7))

    trials = [plain_trial(before, inputs, episodes, world) for world in range(config.tasks)]
    assert len({len(trial) for trial, _ in trials}) > 1
    first = torch.randperm(config.tasks, generator=Streams(7)["update"])[:3].tolist()
    plain_loss(before, trials, first, shift).backward()
    for name, parameter in before.network.named_parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.any()) or name == "core.cells.bias_hh_l0", name
        torch.testing.assert_close(gradients[0][name], parameter.grad, rtol=1e-9, atol=1e-11, msg=name)
    assert len(gradients) == config.epochs * config.minibatches


def test_gradients_are_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Ragged()
    agent = make(replace(SMALL, max_gradient_norm=0.01, max_kl=100.0), family.spec())
    norms = []
    step = agent.optimiser.step

    def watched_step() -> None:
        grads = [p.grad.flatten() for p in agent.network.parameters() if p.grad is not None]
        norms.append(float(torch.cat(grads).norm()))
        step()

    monkeypatch.setattr(agent.optimiser, "step", watched_step)
    metrics = agent.train_iteration(make_worlds(family, 5, threads=1), family.space.sample, Streams(0))
    assert norms == pytest.approx([0.01] * 4, rel=1e-3)
    assert metrics["update/gradient_norm"] > 0.05


def one_iteration(config: Rl2Config) -> tuple[Rl2, Metrics]:
    family = Ragged()
    agent = make(config, family.spec())
    return agent, agent.train_iteration(make_worlds(family, config.tasks, threads=1), family.space.sample, Streams(0))


def steps_of(agent: Rl2) -> set[int]:
    """How often the optimiser has moved the parameters."""
    return {int(state["step"]) for state in agent.optimiser.state.values()}


def test_an_update_ends_at_its_divergence() -> None:
    whole, metrics = one_iteration(replace(SMALL, learning_rate=0.05, max_kl=100.0))
    assert (metrics["update/early_stop"], metrics["update/steps"], steps_of(whole)) == (0.0, 4.0, {4})
    assert 0.0 < metrics["update/kl"] <= 100.0

    short, metrics = one_iteration(replace(SMALL, learning_rate=0.05, max_kl=1e-4))
    steps = int(metrics["update/steps"])
    assert 1 <= steps < 4
    assert (metrics["update/early_stop"], steps_of(short)) == (1.0, {steps})
    assert metrics["update/kl"] > 1e-4


def test_divergence_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Ragged()
    agent = make(replace(SMALL, minibatches=1), family.spec())
    before = copy.deepcopy(agent.network.state_dict())
    seen: list[Trials] = []
    original = agent._measure

    def measure(rows: Tensor, trials: Trials) -> tuple[Tensor, Tensor]:
        seen.append(trials)
        log_probs, values = original(rows, trials)
        # log π_old - log π is .5 in the first two trials, and -.2 in the others.
        return log_probs + torch.tensor([0.5, 0.5, -0.2, -0.2, -0.2])[:, None], values

    monkeypatch.setattr(agent, "_measure", measure)
    metrics = agent.train_iteration(make_worlds(family, 5, threads=1), family.space.sample, Streams(0))
    lengths = seen[0].lengths.tolist()
    first, others = sum(lengths[:2]), sum(lengths[2:])
    by_hand = (first * (math.exp(-0.5) - 1.0 + 0.5) + others * (math.exp(0.2) - 1.0 - 0.2)) / (first + others)
    assert by_hand > agent.config.max_kl
    assert metrics["update/kl"] == pytest.approx(by_hand, rel=1e-4)
    assert (metrics["update/steps"], metrics["update/early_stop"]) == (0.0, 1.0)
    assert all(torch.equal(value, before[name]) for name, value in agent.network.state_dict().items())


def test_rates_and_entropy_fall_in_a_straight_line() -> None:
    config = replace(
        SMALL, iterations=4, learning_rate=0.01, final_learning_rate=0.002, entropy=0.1, final_entropy=0.3, epochs=1
    )
    family = Ragged()
    agent, env, streams = make(config, family.spec()), make_worlds(family, 5, threads=1), Streams(0)
    rates, weights = [], []
    for _ in range(6):
        metrics = agent.train_iteration(env, family.space.sample, streams)
        rates.append(metrics["update/learning_rate"])
        weights.append(metrics["update/entropy_weight"])
        assert [group["lr"] for group in agent.optimiser.param_groups] == [rates[-1]]
    # A run that is made longer goes on with the last ones.
    assert rates == pytest.approx([0.01, 0.008, 0.006, 0.004, 0.002, 0.002])
    assert weights == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.3, 0.3])


# --- tasks that switch -------------------------------------------------------------------------------------------


def test_the_task_switches_at_its_step_of_the_whole_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = PointNav(variant="short", horizon=4)
    family = with_switch(plain, 1, 10)
    config = replace(SMALL, tasks=40)
    agent, env, streams = make(config, family.spec()), make_worlds(family, 40, threads=1), Streams(3)
    episodes = collected(agent, monkeypatch)
    for _ in range(2):
        episodes.clear()
        agent.train_iteration(env, family.space.sample, streams)
        tasks = episodes[0].tasks
        assert all(episode.tasks is tasks for episode in episodes)
        done = torch.zeros(40)
        after = 0
        for episode in episodes:
            mask = episode.mask.squeeze(1)
            final = episode.final_observations
            for t in range(mask.shape[1]):
                real = mask[:, t] > 0
                last = (mask.sum(1) == t + 1)[:, None]
                position = torch.where(last, final[:, 0], episode.observations[:, 0, min(t + 1, mask.shape[1] - 1)])
                later = done >= tasks["switch_step"]
                goal = torch.where(later[:, None], tasks["later_goal"], tasks["goal"])
                expected = -(position - goal).norm(dim=1)
                torch.testing.assert_close(episode.rewards[real, 0, t].double(), expected[real], rtol=0.0, atol=1e-5)
                done += mask[:, t]
                after += int((later & real).sum())
        assert 0 < after < int(done.sum())
        # Some switch in each of the three episodes.
        assert {int(step) // 4 for step in tasks["switch_step"]} == {0, 1, 2}


# --- storage -----------------------------------------------------------------------------------------------------


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return first == second


def trained(config: Rl2Config, iterations: int, seed: int = 0) -> Rl2:
    family = Ragged()
    agent, env, streams = (
        Rl2(config, family.spec(), Streams(seed), CPU),
        make_worlds(family, 5, threads=1),
        Streams(seed),
    )
    for _ in range(iterations):
        agent.train_iteration(env, family.space.sample, streams)
    return agent


@pytest.mark.parametrize("core", CORES)
def test_state_goes_round_and_training_goes_on_bit_for_bit(core: CoreName) -> None:
    config = replace(SMALL, core=core)
    agent = trained(config, 2)
    state = agent.state_dict()
    kept = copy.deepcopy(state)
    restored = Rl2(config, Ragged().spec(), Streams(99), CPU)
    assert not same(restored.state_dict(), state)
    restored.load_state_dict(state)
    assert same(restored.state_dict(), state)
    for learner in (agent, restored):
        learner.train_iteration(make_worlds(Ragged(), 5, threads=1), Ragged().space.sample, Streams(5))
        # What was stored stays as it was, whoever goes on from it.
        assert same(state, kept)
    assert same(restored.state_dict(), agent.state_dict())
    assert not same(agent.state_dict(), state)


def test_moments_are_part_of_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Ragged()
    agent, env = make(SMALL, family.spec()), make_worlds(family, 5, threads=1)
    episodes = collected(agent, monkeypatch)
    agent.train_iteration(env, family.space.sample, Streams(0))
    real = [episode.mask > 0 for episode in episodes]
    rewards = torch.cat([episode.rewards[rows] for episode, rows in zip(episodes, real, strict=True)]).double()
    seen = torch.cat([episode.observations[rows] for episode, rows in zip(episodes, real, strict=True)]).double()
    state = agent.state_dict()
    assert state["iteration"] == 1
    assert state["reward"]["count"].tolist() == [len(rewards)]
    assert state["observation"]["count"].tolist() == [len(rewards)] * 2
    lengths = torch.stack([episode.mask.sum((1, 2)) for episode in episodes]).sum(0)
    assert state["returns"]["count"].tolist() == [int((lengths > t).sum()) for t in range(15)]
    torch.testing.assert_close(state["reward"]["square"], rewards.square().mean()[None])
    torch.testing.assert_close(state["observation"]["mean"], seen.mean(0))
    for name in ("observation", "reward", "returns"):
        restored = make(SMALL, family.spec())
        restored.load_state_dict(copy.deepcopy(state))
        held: Moments = restored.returns if name == "returns" else getattr(restored.inputs, name)
        assert same(held.state_dict(), state[name])


def test_a_state_that_does_not_fit_is_refused() -> None:
    agent = Rl2(SMALL, Ragged().spec(), Streams(0), CPU)
    state = agent.state_dict()
    with pytest.raises(ValueError, match="stored network does not fit"):
        Rl2(replace(SMALL, width=8), Ragged().spec(), Streams(0), CPU).load_state_dict(state)
    with pytest.raises(ValueError, match="stored moments have 1 numbers, these 2"):
        agent.load_state_dict({**state, "observation": state["reward"]})


def test_the_seed_decides_everything() -> None:
    first, second, other = (trained(SMALL, 2, seed) for seed in (1, 1, 2))
    assert same(first.state_dict(), second.state_dict())
    weights = [agent.network.core.get_parameter("cells.weight_hh_l0") for agent in (first, other)]
    assert not torch.equal(*weights)


# --- odd sizes, bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("bandit", {"episodes": 1}),
        ("bandit", {"episodes": 1, "tasks": 1, "minibatches": 1}),
        ("bandit", {"tasks": 1, "minibatches": 1, "advantages": "task"}),
        ("bandit", {"minibatches": 5}),
        ("bandit+switch=1..2", {"core": "lstm"}),
        ("tabular-mdp", {"core": "transformer", "layers": 2, "width": 3}),
        ("tabular-mdp", {"finite_horizon": True, "max_kl": 1e-12}),
        (Ragged(), {"tasks": 1, "minibatches": 1}),
        (Ragged(), {"core": "transformer", "width": 2}),
        (Ragged(), {"width": 2, "iterations": 0}),
        (Ragged(longest=1), {"core": "transformer"}),
        (Ragged(longest=1, discrete=True), {"episodes": 1}),
        (Ragged(horizon=1), {"core": "lstm", "width": 2}),
    ],
)
def test_it_runs_whatever_the_sizes(family: Any, options: dict[str, Any]) -> None:
    family = get(family) if isinstance(family, str) else family
    config = replace(SMALL, **options)
    agent: MetaAgent = Rl2(config, family.spec(), Streams(0), CPU)
    assert (agent.trial, agent.pools, config.worlds) == (config.episodes, False, config.tasks)
    env, streams = make_worlds(family, config.worlds, threads=1), Streams(0)
    for _ in range(2):
        metrics = agent.train_iteration(env, family.space.sample, streams)
        for name, value in metrics.items():
            look_up(name)
            assert math.isfinite(value), name
        assert 0.0 <= metrics["time/policy"] <= metrics["time/collect"]


def test_metrics_are_those_of_the_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Ragged()
    agent = make(SMALL, family.spec())
    episodes = collected(agent, monkeypatch)
    metrics = agent.train_iteration(make_worlds(family, 5, threads=1), family.space.sample, Streams(0))
    returns = [float(episode.rewards.sum()) / 5 for episode in episodes]
    assert metrics["return/pre"] == pytest.approx(returns[0])
    assert metrics["return/post"] == pytest.approx(returns[2])
    assert metrics["return/gain"] == pytest.approx(returns[2] - returns[0])
    assert metrics["return/trial"] == pytest.approx(sum(returns))
    assert metrics["env/steps"] == sum(episode.steps for episode in episodes)
    assert metrics["episode/length"] == pytest.approx(episodes[2].steps / 5)
    assert metrics["episode/terminated"] == pytest.approx(float(episodes[2].terminated.double().mean()))
    assert metrics["update/steps"] == 4.0


def test_a_transformer_remembers_its_trials_to_the_last_step_and_no_longer() -> None:
    family = PointNav(variant="short", horizon=3)
    agent = make(replace(SMALL, core="transformer", tasks=2, episodes=2), family.spec())
    env, tasks = make_worlds(family, 2, threads=1), family.space.sample(2, "test", seeded(0))
    agent.train_iteration(env, family.space.sample, Streams(0))
    learner = agent.start(tasks)
    assert isinstance(learner.policy, Actor)
    assert sum(episode.steps for episode in play(env, learner.policy, tasks, 2)) == 12
    # Behind its 2 episodes of 3 steps there is room for one moment more.
    with pytest.raises(UserError, match=r"remembers 7 steps.*evaluate fewer episodes"):
        collect(env, learner.policy, tasks, 1, seeded(1), new_trial=False)


@dataclass(frozen=True, kw_only=True)
class Broken(Bandit):
    """The reward of the first world is not a number."""

    def reward_terms(self, before: State, state: State, action: Tensor, tasks: Tasks) -> Terms:
        reward = super().reward_terms(before, state, action, tasks)["pull"].clone()
        reward[0] = torch.nan
        return {"pull": reward}


def test_rewards_that_are_not_numbers_end_the_training_and_spoil_nothing() -> None:
    family = Broken(rewards="gaussian", arms=2, source="this test")
    agent = Rl2(SMALL, family.spec(), Streams(0), CPU)
    before = copy.deepcopy(agent.network.state_dict())
    with pytest.raises(NotFiniteError, match="gradient is not finite: look for NaN in observations or rewards"):
        agent.train_iteration(make_worlds(family, 5, threads=1), family.space.sample, Streams(0))
    assert same(dict(agent.network.state_dict()), dict(before))


def test_worlds_that_do_not_fit_are_refused() -> None:
    agent = Rl2(SMALL, Ragged().spec(), Streams(0), CPU)
    with pytest.raises(UserError, match="5 tasks for 6 worlds"):
        agent.train_iteration(make_worlds(Ragged(), 6, threads=1), Ragged().space.sample, Streams(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": -1}, "--iterations -1.* at least 0"),
        ({"tasks": 0}, "--tasks 0.* at least 1"),
        ({"episodes": 0}, "--episodes 0.* at least 1"),
        ({"width": 1}, "--width 1.* at least 2"),
        ({"layers": 0}, "--layers 0.* at least 1"),
        ({"discount": 1.1}, "--discount 1.1.* at most 1"),
        ({"discount": -0.1}, "--discount -0.1.* at least 0"),
        ({"trace": 1.1}, "--trace 1.1.* at most 1"),
        ({"trace": float("nan")}, "--trace nan"),
        ({"clip": 0.0}, "--clip 0.0.* more than 0"),
        ({"epochs": 0}, "--epochs 0.* at least 1"),
        ({"minibatches": 0}, "--minibatches 0.* at least 1"),
        ({"minibatches": 6, "tasks": 5}, "--minibatches 6 for --tasks 5.*at least one trial"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0.* more than 0"),
        ({"final_learning_rate": -1.0}, "--final-learning-rate -1.0.* at least 0"),
        ({"weight_decay": -0.1}, "--weight-decay -0.1.* at least 0"),
        ({"entropy": -0.1}, "--entropy -0.1.* at least 0"),
        ({"final_entropy": float("inf")}, "--final-entropy inf.* finite"),
        ({"value_weight": -0.5}, "--value-weight -0.5.* at least 0"),
        ({"max_gradient_norm": 0.0}, "--max-gradient-norm 0.0.* more than 0"),
        ({"max_kl": 0.0}, "--max-kl 0.0.* more than 0"),
        ({"initial_std": 0.0}, "--initial-std 0.0.* more than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Rl2Config(**options)


@pytest.mark.parametrize(("name", "value", "near"), [("core", "gruu", "gru"), ("advantages", "tasks", "task")])
def test_misspelt_names_are_refused(name: str, value: str, near: str) -> None:
    config = Rl2Config()
    # Past the type check of the tests, which a user's program does not have.
    object.__setattr__(config, name, value)
    with pytest.raises(UserError, match=f"--{name} {value}. Did you mean '{near}'"):
        config.__post_init__()


def test_every_number_among_the_settings_is_checked() -> None:
    for setting in fields(Rl2Config):
        if isinstance(setting.default, float):
            for value in (math.nan, math.inf):
                options: dict[str, Any] = {setting.name: value}
                with pytest.raises(UserError, match=f"--{setting.name.replace('_', '-')} {value}"):
                    Rl2Config(**options)


# --- learning ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Doors(Bandit):
    """Two doors: behind one there is a reward nine times of ten, behind the other once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        door = Parameter(name="good", unit="", description="the good door", scale="choice", choices=(0.0, 1.0))
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (door,)))

    def reward_terms(self, before: State, state: State, action: Tensor, tasks: Tasks) -> Terms:
        mean = 0.1 + 0.8 * (one_hot(tasks["good"].long(), 2) * action).sum(1)
        return {"pull": (state["chance"][:, 0] < mean).double()}


@pytest.mark.parametrize("core", CORES)
def test_it_learns_to_adapt(core: CoreName) -> None:
    family = Doors(rewards="bernoulli", arms=2, source="this test")
    config = Rl2Config(tasks=100, episodes=6, core=core, width=16, iterations=12, epochs=4, learning_rate=1e-2)
    agent, streams = Rl2(config, family.spec(), Streams(0), CPU), Streams(0)
    worlds = make_worlds(family, config.tasks, threads=1)
    for _ in range(config.iterations):
        agent.train_iteration(worlds, family.space.sample, streams)
    tasks = family.space.sample(300, "test", seeded(1))
    learner = agent.start(tasks)
    assert isinstance(learner.policy, Actor)
    episodes = play(make_worlds(family, 300, threads=1), learner.policy, tasks, config.episodes)
    pulls = [float(episode.returns.mean()) for episode in episodes]
    # Any door gives half a reward, whoever does not remember gets no more; the good one gives .9.
    assert pulls[0] == pytest.approx(0.5, abs=0.1)
    assert pulls[-1] > 0.7
    assert sum(pulls) > 4.2
