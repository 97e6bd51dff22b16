"""MAML-TRPO on the point, in float64, against plain autograd loops over tasks and steps.

It is one file because all of it looks at the same iteration from outside (`iterate`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from metarl.agents.maml_trpo import RATE, MamlTrpo, MamlTrpoConfig
from metarl.agents.multitask import Multitask, MultitaskConfig
from metarl.envs.families.point_nav import PointNav
from metarl.envs.making import make_worlds
from metarl.errors import UserError
from metarl.learning import outer
from metarl.learning.experience import Batch, first_episodes, inner_loss, mean_kl, surrogate
from metarl.learning.rollout import collect
from metarl.learning.trust_region import flatten, unflatten
from metarl.nets.policy import stack
from metarl.run.glossary import look_up
from metarl.seeding import Streams
from metarl.types import Metrics, Params, Tasks
from tests.helpers.toys import DOUBLE, assert_params_close, normal, plain_adapt, seeded, task

POINT = PointNav(variant="short", horizon=8)
SMALL = MamlTrpoConfig(
    tasks=3,
    episodes=4,
    hidden=(4,),
    activation="tanh",
    output_gain=1.0,
    inner_rate=0.5,
    cg_iterations=8,
    fisher_fraction=0.5,
)
CPU = torch.device("cpu")


def make(config: MamlTrpoConfig, seed: int = 0) -> MamlTrpo:
    """Return an agent in float64 whose parameters are all different from 0."""
    agent = MamlTrpo(config, POINT.spec(), Streams(seed), CPU)
    agent.meta = {
        name: value.to(DOUBLE) + 0.02 * normal(*value.shape, seed=i)
        for i, (name, value) in enumerate(agent.meta.items())
    }
    return agent


@dataclass
class Iteration:
    """One meta-iteration, seen from outside.

    Attributes:
        agent: after it.
        meta: its meta-parameters before.
        points, batches: as collected.
        gradient: what the trust-region step was given.
        metrics: what was logged.
    """

    agent: MamlTrpo
    meta: Params
    points: list[Params] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    gradient: Params = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)

    def plain_theta(self, meta: Params, index: int) -> Params:
        """Adapt one task from `meta` by a plain loop over its steps."""
        config = self.agent.config
        theta, rates = self.agent.split(meta)
        loss = inner_loss(self.agent.policy, config.estimator)
        batches = [task(batch, index) for batch in self.batches[:-1]]
        return plain_adapt(loss, theta, batches, rates, first_order=config.first_order)

    def plain_measures(self, meta: Params) -> tuple[Tensor, Tensor]:
        """Return surrogate and KL after adaptation, mean over tasks, by a plain loop over them."""
        objectives, divergences = [], []
        for index in range(self.agent.config.tasks):
            leaves = {name: value.detach().requires_grad_() for name, value in meta.items()}
            after = task(self.batches[-1], index)
            theta = self.plain_theta(leaves, index)
            objectives.append(surrogate(self.agent.policy)(theta, after))
            divergences.append(mean_kl(self.agent.policy, task(self.points[-1], index), theta, after))
        return torch.stack(objectives).mean().detach(), torch.stack(divergences).mean().detach()


def iterate(config: MamlTrpoConfig, monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> Iteration:
    """Run one meta-iteration and keep what happens in it."""
    agent = make(config, seed)
    seen = Iteration(agent, agent.meta)
    update, step = agent._update, outer.trust_region_step

    def watched_update(points: list[Params], batches: list[Batch]) -> Metrics:
        seen.points, seen.batches = points, batches
        return update(points, batches)

    def watched_step(params: Params, gradient: Params, *rest: Any, **options: Any) -> Any:
        seen.gradient = gradient
        return step(params, gradient, *rest, **options)

    monkeypatch.setattr(agent, "_update", watched_update)
    monkeypatch.setattr(outer, "trust_region_step", watched_step)
    env = make_worlds(POINT, config.tasks * config.episodes, dtype=DOUBLE)
    seen.metrics = agent.train_iteration(env, POINT.space.sample, Streams(seed))
    return seen


VARIANTS: dict[str, MamlTrpoConfig] = {
    "one-step": SMALL,
    "dice-two-steps": replace(SMALL, inner_steps=2, estimator="dice"),
    "learned-rates": replace(SMALL, inner_steps=2, learn_rates=True),
    "first-order": replace(SMALL, inner_steps=2, first_order=True, learn_rates=True),
    "normalised": replace(SMALL, layer_norm=True, estimator="log-likelihood"),
    "no-step": replace(SMALL, inner_steps=0),
}


@pytest.fixture(params=list(VARIANTS))
def variant(request: pytest.FixtureRequest) -> MamlTrpoConfig:
    return VARIANTS[request.param]


# -- the update -----------------------------------------------------------------------------------------------------


def test_the_points_are_the_adapted_parameters(variant: MamlTrpoConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iterate(variant, monkeypatch)
    assert len(seen.points) == len(seen.batches) == variant.inner_steps + 1
    for index in range(variant.tasks):
        leaves = {name: value.clone().requires_grad_() for name, value in seen.meta.items()}
        assert_params_close(task(seen.points[-1], index), seen.plain_theta(leaves, index))


def test_the_gradient_is_a_plain_loops(variant: MamlTrpoConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iterate(variant, monkeypatch)
    leaves = {name: value.clone().requires_grad_() for name, value in seen.meta.items()}
    objectives = [
        surrogate(seen.agent.policy)(seen.plain_theta(leaves, index), task(seen.batches[-1], index))
        for index in range(variant.tasks)
    ]
    gradient = torch.autograd.grad(torch.stack(objectives).mean(), list(leaves.values()))
    assert_params_close(seen.gradient, dict(zip(leaves, gradient, strict=True)))
    assert seen.metrics["update/gradient_norm"] == pytest.approx(float(flatten(seen.gradient).norm()))


def test_first_order_is_another_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    second = iterate(SMALL, monkeypatch)
    monkeypatch.undo()
    first = iterate(replace(SMALL, first_order=True), monkeypatch)
    assert_params_close(first.points[-1], second.points[-1])
    assert float((flatten(first.gradient) - flatten(second.gradient)).norm()) > 1e-3


def test_what_is_logged_is_of_readapted_policies(variant: MamlTrpoConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    # A region so large that the model of the divergence fails: the line search has work to do.
    seen = iterate(replace(variant, max_kl=0.5), monkeypatch)
    metrics = seen.metrics
    assert metrics["update/accepted"] == 1.0
    old, new = flatten(seen.meta), flatten(seen.agent.meta)
    before, nothing = seen.plain_measures(seen.meta)
    after, kl = seen.plain_measures(seen.agent.meta)
    assert float(nothing) == pytest.approx(0.0, abs=1e-12)
    assert metrics["update/surrogate_before"] == pytest.approx(float(before), abs=1e-12)
    assert metrics["update/surrogate_after"] == pytest.approx(float(after), abs=1e-12)
    assert metrics["update/kl"] == pytest.approx(float(kl), abs=1e-12)
    assert float(after) > float(before)
    assert float(kl) <= 0.5

    # The candidates before the accepted one were refused for a reason.
    assert metrics["update/line_search_steps"] > 1.0
    for longer in range(1, int(metrics["update/line_search_steps"])):
        refused, refused_kl = seen.plain_measures(unflatten(old + (new - old) / 0.8**longer, seen.meta))
        assert float(refused) <= float(before) or float(refused_kl) > 0.5


@pytest.mark.parametrize("chunk_steps", [1, 8192])
def test_fisher_products_are_the_explicit_gauss_newton_matrix(
    variant: MamlTrpoConfig, chunk_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = replace(variant, chunk_steps=chunk_steps)
    seen = iterate(variant, monkeypatch)
    agent = make(variant)
    theta, rates = agent.split(seen.meta)
    loss = inner_loss(agent.policy, variant.estimator)
    size = flatten(theta).numel()
    rate_vector = torch.cat([torch.as_tensor(rates[n], dtype=DOUBLE).expand_as(v).flatten() for n, v in theta.items()])
    # Half of the four episodes.
    parts = [first_episodes(batch, 2) for batch in seen.batches]
    matrix = torch.zeros(2 * size, 2 * size, dtype=DOUBLE)
    for index in range(variant.tasks):
        # Columns: the policy's parameters, then the rates.
        jacobian = torch.eye(size, 2 * size, dtype=DOUBLE)
        for point, part in zip(seen.points[:-1], parts[:-1], strict=True):
            batch = task(part, index)
            gradient = jacrev(lambda v, batch=batch: loss(unflatten(v, theta), batch))
            here = flatten(task(point, index))
            if not variant.first_order:
                jacobian = jacobian - rate_vector.unsqueeze(1) * (jacrev(gradient)(here) @ jacobian)
            jacobian[:, size:] -= torch.diag(gradient(here))
        end, after = task(seen.points[-1], index), task(parts[-1], index)
        fisher = jacrev(jacrev(lambda v, end=end, after=after: mean_kl(agent.policy, end, unflatten(v, theta), after)))(
            flatten(end)
        )
        matrix += jacobian.T @ fisher @ jacobian / variant.tasks
    if not variant.learn_rates:
        matrix = matrix[:size, :size]

    agent.meta = seen.meta
    vector = {name: normal(*value.shape, seed=9) for name, value in seen.meta.items()}
    product = agent._fisher_product(seen.points, seen.batches)(vector)
    expected = matrix @ flatten(vector)
    torch.testing.assert_close(flatten(product), expected, rtol=0.0, atol=1e-14 * float(expected.abs().max()))


def test_on_all_episodes_the_fisher_matrix_is_the_hessian_of_the_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SMALL, inner_steps=2, learn_rates=True, fisher_fraction=1.0)
    seen = iterate(config, monkeypatch)
    agent = make(config)
    agent.meta = seen.meta
    vector = {name: normal(*value.shape, seed=9) for name, value in seen.meta.items()}
    product = agent._fisher_product(seen.points, seen.batches)(vector)

    leaves = {name: value.clone().requires_grad_() for name, value in seen.meta.items()}
    total = torch.zeros((), dtype=DOUBLE)
    for index in range(config.tasks):
        theta, after = seen.plain_theta(leaves, index), task(seen.batches[-1], index)
        total = total + mean_kl(agent.policy, task(seen.points[-1], index), theta, after) / config.tasks
    gradient = torch.autograd.grad(total, list(leaves.values()), create_graph=True)
    expected = torch.autograd.grad(gradient, list(leaves.values()), list(vector.values()))
    assert_params_close(product, dict(zip(leaves, expected, strict=True)), atol=1e-11)


@pytest.mark.parametrize(
    "options",
    [
        {"chunk_steps": 1},
        {"chunk_steps": 80},
        {"executor": "vmap"},
        {"executor": "vmap", "chunk_steps": 80},
        {"executor": "loop"},
    ],
)
def test_executors_and_chunks_give_the_same_update(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # Few products: each next one multiplies the rounding of those before, by up to the condition number.
    config = replace(SMALL, layer_norm=True, learn_rates=True, cg_iterations=2)
    expected = iterate(config, monkeypatch)
    monkeypatch.undo()
    other = iterate(replace(config, **options), monkeypatch)
    assert float((flatten(other.agent.meta) - flatten(other.meta)).norm()) > 1e-4
    assert_params_close(other.agent.meta, expected.agent.meta)


def test_rates_are_learned_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SMALL, learn_rates=True)
    fresh = MamlTrpo(config, POINT.spec(), Streams(0), CPU).meta
    names = [name for name in fresh if not name.startswith(RATE)]
    assert list(fresh) == names + [RATE + name for name in names]
    for name in names:
        assert torch.equal(fresh[RATE + name], torch.full_like(fresh[name], 0.5))

    seen = iterate(config, monkeypatch)
    for name in names:
        change = seen.agent.meta[RATE + name] - seen.meta[RATE + name]
        assert float(change.abs().min()) > 0.0
        assert len(change.unique()) == change.numel()
    rates = seen.agent.start(POINT.space.sample(2, "test", seeded(0))).rates
    assert all(rates[name] is seen.agent.meta[RATE + name] for name in names)


# -- plain TRPO as the limit ----------------------------------------------------------------------------------------


def plain_trpo(config: MamlTrpoConfig, meta: Params) -> Multitask:
    """Return an agent of `agents/multitask.py` with the same parameters and settings."""
    settings = MultitaskConfig(
        tasks=config.tasks,
        episodes=config.episodes,
        hidden=config.hidden,
        activation=config.activation,
        cg_iterations=config.cg_iterations,
        fisher_fraction=config.fisher_fraction,
    )
    agent = Multitask(settings, POINT.spec(), Streams(0), CPU, name="multitask")
    agent.params = dict(meta)
    return agent


def test_without_steps_an_iteration_is_plain_trpo() -> None:
    agent = make(replace(SMALL, inner_steps=0))
    plain = plain_trpo(agent.config, agent.meta)
    for learner in (agent, plain):
        streams, env = Streams(4), make_worlds(POINT, 12, dtype=DOUBLE)
        for _ in range(3):
            metrics = learner.train_iteration(env, POINT.space.sample, streams)
            assert metrics["update/accepted"] == 1.0
    assert_params_close(agent.meta, plain.params)


def test_with_rate_zero_an_update_is_plain_trpo(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iterate(replace(SMALL, inner_rate=0.0), monkeypatch)
    assert_params_close(seen.points[1], stack(seen.meta, 3), atol=0.0)
    plain = plain_trpo(seen.agent.config, seen.meta)
    metrics = plain._update(seen.batches[-1])
    assert_params_close(seen.agent.meta, plain.params)
    for name in ("surrogate_after", "kl", "line_search_steps", "gradient_norm"):
        assert metrics[f"update/{name}"] == pytest.approx(seen.metrics[f"update/{name}"], abs=1e-12)


# -- training, test and storage -------------------------------------------------------------------------------------


def test_what_is_logged_stands_in_the_glossary(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = iterate(SMALL, monkeypatch).metrics
    for name, value in metrics.items():
        look_up(name)
        assert value == value, name
    assert metrics["return/gain"] == pytest.approx(metrics["return/post"] - metrics["return/pre"])
    # Episodes before and after adaptation, and those of the warm-up, 8 steps each.
    assert metrics["env/steps"] == 3 * 12 * 8


def train(config: MamlTrpoConfig, iterations: int, seed: int = 0) -> tuple[MamlTrpo, list[Metrics]]:
    streams = Streams(seed)
    agent = MamlTrpo(config, POINT.spec(), streams, CPU)
    env = make_worlds(POINT, config.tasks * config.episodes)
    return agent, [agent.train_iteration(env, POINT.space.sample, streams) for _ in range(iterations)]


def test_the_seed_decides_everything() -> None:
    config = replace(SMALL, inner_steps=2, learn_rates=True)
    (first, _), (second, _), (other, _) = (train(config, 3, seed) for seed in (1, 1, 2))
    assert_params_close(first.meta, second.meta, atol=0.0)
    assert not torch.equal(first.meta["w0"], other.meta["w0"])


def test_state_goes_round_and_training_goes_on_bit_for_bit() -> None:
    config = replace(SMALL, learn_rates=True)
    agent, _ = train(config, 2)
    restored = MamlTrpo(config, POINT.spec(), Streams(99), CPU)
    restored.load_state_dict(agent.state_dict())
    assert_params_close(restored.meta, agent.meta, atol=0.0)
    for learner in (agent, restored):
        learner.train_iteration(make_worlds(POINT, 12), POINT.space.sample, Streams(5))
    assert_params_close(restored.meta, agent.meta, atol=0.0)
    with pytest.raises(ValueError, match="use its own settings"):
        MamlTrpo(SMALL, POINT.spec(), Streams(0), CPU).load_state_dict(agent.state_dict())


def evaluate(agent: MamlTrpo, tasks: Tasks, steps: int) -> list[float]:
    """Return the mean return before and after every adaptation step."""
    learner, generator, returns = agent.start(tasks), seeded(7), []
    env = make_worlds(POINT, len(tasks) * 10)
    for step in range(steps + 1):
        episodes = collect(env, learner.policy, tasks, 10, generator)
        returns.append(float(episodes.returns.mean()))
        if step < steps:
            learner = learner.learn(episodes)
    return returns


def test_it_learns_to_adapt() -> None:
    config = MamlTrpoConfig(tasks=10, episodes=10, hidden=(32, 32), inner_rate=0.5, max_kl=0.02)
    tasks = POINT.space.sample(40, "test", seeded(0))
    # What can be had without adaptation is about what a point gets that stays at the origin.
    blind = -8.0 * float(tasks["goal"].norm(dim=1).mean())
    untrained = evaluate(train(config, 0)[0], tasks, 2)
    trained = evaluate(train(config, 20)[0], tasks, 2)
    assert trained[0] < 0.9 * blind
    assert trained[1] > 0.62 * blind
    assert trained[2] > 0.52 * blind
    assert untrained[2] < 0.68 * blind


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": 0}, "--tasks 0.* at least 1"),
        ({"episodes": 0}, "--episodes 0.* at least 1"),
        ({"inner_steps": -1}, "--inner-steps -1.* at least 0"),
        ({"inner_rate": -0.1}, "--inner-rate -0.1.* at least 0"),
        ({"inner_rate": float("nan")}, "--inner-rate nan"),
        ({"discount": 1.1}, "--discount 1.1.* at most 1"),
        ({"trace": -0.5}, "--trace -0.5.* at least 0"),
        ({"max_kl": 0.0}, "--max-kl 0.0.* more than 0"),
        ({"fisher_fraction": 0.0}, "--fisher-fraction 0.0.* more than 0"),
        ({"fisher_fraction": 1.5}, "--fisher-fraction 1.5.* at most 1"),
        ({"cg_iterations": 0}, "--cg-iterations 0.* at least 1"),
        ({"chunk_steps": 0}, "--chunk-steps 0.* at least 1"),
        ({"initial_std": 0.0}, "--initial-std 0.0.* more than 0"),
        ({"learn_rates": True, "inner_steps": 0}, "no inner rate to learn"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MamlTrpoConfig(**options)


def test_hidden_layers_need_units() -> None:
    for hidden in ((0,), (8, -1)):
        with pytest.raises(UserError, match=r"hidden layers of .* at least 1 unit"):
            make(replace(SMALL, hidden=hidden))
