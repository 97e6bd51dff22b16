from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal as TorchNormal
from torch.distributions import kl_divergence
from torch.func import vmap

from metarl.learning.experience import StochasticPolicy
from metarl.nets.policy import MLP, Categorical, Choices, GaussianPolicy, Normal, count, load_params, stack
from tests.helpers.toys import DOUBLE, assert_params_close, categorical, gaussian, init, near, normal, seeded, task

POLICIES: dict[str, StochasticPolicy] = {
    "gaussian": gaussian(),
    "gaussian-normalised": gaussian(layer_norm=True, activation="elu"),
    "categorical": categorical(),
    "categorical-normalised": categorical(layer_norm=True),
}


@pytest.fixture(params=list(POLICIES))
def policy(request: pytest.FixtureRequest) -> StochasticPolicy:
    return POLICIES[request.param]


@pytest.mark.parametrize("activation", ["relu", "tanh", "elu"])
def test_the_network_is_torchs_own(activation: str) -> None:
    network = MLP(inputs=3, hidden=(4, 5), outputs=2, activation=activation, layer_norm=True)  # pyright: ignore
    params = {name: value + 0.1 * normal(*value.shape) for name, value in network.init(seeded(0), DOUBLE).items()}
    functions: dict[str, Any] = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "elu": torch.nn.ELU}
    layers: list[torch.nn.Module] = []
    for i, (rows, columns) in enumerate([(3, 4), (4, 5), (5, 2)]):
        linear = torch.nn.Linear(rows, columns, dtype=DOUBLE)
        linear.load_state_dict({"weight": params[f"w{i}"].T, "bias": params[f"b{i}"]})
        layers.append(linear)
        if i < 2:
            norm = torch.nn.LayerNorm(columns, dtype=DOUBLE)
            norm.load_state_dict({"weight": params[f"scale{i}"], "bias": params[f"shift{i}"]})
            layers += [norm, functions[activation]()]
    x = normal(7, 3, seed=1)
    torch.testing.assert_close(network(params, x), torch.nn.Sequential(*layers)(x), rtol=0.0, atol=1e-14)


def test_initial_parameters() -> None:
    network = MLP(inputs=30, hidden=(100,), outputs=2, layer_norm=True, output_gain=0.1)
    params = network.init(seeded(0))
    assert {name: tuple(value.shape) for name, value in params.items()} == {
        "w0": (30, 100),
        "b0": (100,),
        "scale0": (100,),
        "shift0": (100,),
        "w1": (100, 2),
        "b1": (2,),
    }
    assert count(params) == 30 * 100 + 3 * 100 + 2 * 100 + 2
    for name, bound in (("w0", (6 / 130) ** 0.5), ("w1", 0.1 * (6 / 102) ** 0.5)):
        assert 0.95 * bound < float(params[name].abs().max()) <= bound
        assert abs(float(params[name].mean())) < 0.1 * bound
    assert_params_close(network.init(seeded(0)), params, atol=0.0)
    assert not torch.equal(network.init(seeded(1))["w0"], params["w0"])


def test_gaussian_is_torchs_own() -> None:
    first = Normal(normal(6, 2), normal(1, 2, seed=1))
    second = Normal(normal(6, 2, seed=2), normal(1, 2, seed=3))
    torch_first, torch_second = (TorchNormal(x.mean, x.log_std.exp().expand_as(x.mean)) for x in (first, second))
    actions = normal(6, 2, seed=4)
    for ours, theirs in (
        (first.log_prob(actions), torch_first.log_prob(actions)),
        (first.entropy(), torch_first.entropy()),
        (first.kl(second), kl_divergence(torch_first, torch_second)),
    ):
        torch.testing.assert_close(ours, theirs.sum(-1), rtol=1e-12, atol=1e-12)
    assert bool((first.kl(first) == 0.0).all())


def test_categorical_is_torchs_own() -> None:
    first, second = Categorical(normal(6, 4)), Categorical(normal(6, 4, seed=1))
    torch_first, torch_second = TorchCategorical(logits=first.logits), TorchCategorical(logits=second.logits)
    chosen = torch.tensor([0, 3, 1, 2, 2, 0])
    one_hot = torch.nn.functional.one_hot(chosen, 4).to(DOUBLE)
    for ours, theirs in (
        (first.log_prob(one_hot), torch_first.log_prob(chosen)),
        (first.entropy(), torch_first.entropy()),
        (first.kl(second), kl_divergence(torch_first, torch_second)),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert bool((first.kl(first) == 0.0).all())


def test_several_choices_are_as_many_categoricals() -> None:
    first, second = Choices.of(normal(6, 5), (3, 2)), Choices.of(normal(6, 5, seed=1), (3, 2))
    chosen = torch.tensor([[0, 1], [2, 0], [1, 1], [0, 0], [2, 1], [1, 0]])
    one_hot = torch.cat([torch.nn.functional.one_hot(chosen[:, i], n) for i, n in enumerate((3, 2))], 1).to(DOUBLE)
    alone = [(TorchCategorical(logits=a), TorchCategorical(logits=b)) for a, b in zip(first, second, strict=True)]
    wanted = [
        sum(pair[0].log_prob(chosen[:, i]) for i, pair in enumerate(alone)),
        sum(pair[0].entropy() for pair in alone),
        sum(kl_divergence(*pair) for pair in alone),
    ]
    for ours, theirs in zip((first.log_prob(one_hot), first.entropy(), first.kl(second)), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    drawn = Choices(*(logits[:1].expand(40_000, -1) for logits in first)).sample(seeded(0))
    wanted_chances = torch.cat([logits[0].softmax(-1) for logits in first])
    assert float((drawn.mean(0) - wanted_chances).abs().max()) < 0.01
    assert torch.equal(drawn.split([3, 2], 1)[1].sum(1), torch.ones(40_000, dtype=DOUBLE))


@pytest.mark.parametrize("kind", ["gaussian", "categorical", "choices"])
def test_fisher_is_the_hessian_of_the_divergence(kind: str) -> None:
    kinds: dict[str, Any] = {
        "gaussian": Normal(normal(5, 2), normal(1, 2, seed=1)),
        "categorical": Categorical(normal(5, 4)),
        "choices": Choices.of(normal(5, 5), (3, 2)),
    }
    old = kinds[kind]
    weights = torch.tensor([0.1, 0.4, 0.0, 0.3, 0.2], dtype=DOUBLE)

    def divergence(*outputs: Tensor) -> Tensor:
        return (old.kl(type(old)(*outputs)) * weights).sum()

    tangent = type(old)(*(normal(*x.shape, seed=7 + i) for i, x in enumerate(old)))
    _, expected = torch.autograd.functional.hvp(divergence, tuple(old), tuple(tangent))
    for ours, theirs in zip(old.fisher(tangent, weights), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-13)


def test_a_batch_of_tasks_is_one_task_at_a_time(policy: StochasticPolicy) -> None:
    params, observations = near(init(policy), 4), normal(4, 6, 3)
    together = policy(params, observations)
    under_vmap = vmap(lambda p, x: tuple(policy(p, x)))(params, observations)
    for i in range(4):
        for part, mapped, alone in zip(together, under_vmap, policy(task(params, i), observations[i]), strict=True):
            torch.testing.assert_close(part[i], alone, rtol=0.0, atol=1e-14)
            torch.testing.assert_close(mapped[i], alone, rtol=0.0, atol=1e-14)


def test_shared_parameters_act_on_every_axis(policy: StochasticPolicy) -> None:
    params, observations = init(policy), normal(4, 6, 3)
    stacked = policy(stack(params, 4), observations)
    for shared, by_task in zip(policy(params, observations), stacked, strict=True):
        torch.testing.assert_close(shared.expand_as(by_task), by_task, rtol=0.0, atol=1e-14)


def test_the_deviation_has_a_floor() -> None:
    policy = GaussianPolicy(network=MLP(inputs=3, hidden=(4,), outputs=2), minimum_std=0.05)
    params = policy.init(seeded(0), DOUBLE)
    params["log_std"] = torch.tensor([-100.0, 0.3], dtype=DOUBLE)
    spread = policy(params, normal(2, 3)).log_std.exp()
    expected = torch.tensor([[0.05, 1.3498588075760032]], dtype=DOUBLE)
    torch.testing.assert_close(spread, expected, rtol=1e-14, atol=0.0)


def test_stored_parameters_come_back_in_order() -> None:
    current = gaussian().init(seeded(0))
    stored = {name: current[name] + 1.0 for name in reversed(current)}
    loaded = load_params(current, stored)
    assert list(loaded) == list(current)
    assert_params_close(loaded, {name: value + 1.0 for name, value in current.items()}, atol=0.0)


def test_parameters_that_do_not_fit_are_refused() -> None:
    current = gaussian().init(seeded(0))
    with pytest.raises(ValueError, match="use its own settings"):
        load_params(current, gaussian(hidden=6).init(seeded(0)))
    with pytest.raises(ValueError, match="use its own settings"):
        load_params(current, gaussian(layer_norm=True).init(seeded(0)))
    with pytest.raises(ValueError, match="use its own settings"):
        load_params(current, {name: value for name, value in current.items() if name != "log_std"})
