"""Memory cores: steps give what one pass over whole trials gives, whichever worlds wait and whichever way they go."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from metarl.agents import make
from metarl.agents.rl2 import Rl2Config
from metarl.envs import get
from metarl.errors import UserError
from metarl.nets import memory
from metarl.nets.memory import FIRST_ROOM, Core, CoreName, Memory, Recurrent, Transformer, make_core
from metarl.seeding import Streams
from tests.helpers.toys import DOUBLE, normal, seeded

CORES: tuple[CoreName, ...] = get_args(CoreName)
RECURRENT: tuple[CoreName, ...] = ("gru", "lstm")
INPUTS, WIDTH, CONTEXT = 3, 8, 2 * FIRST_ROOM + 6


def core(name: CoreName, dtype: torch.dtype = DOUBLE, *, width: int = WIDTH, context: int = CONTEXT) -> Core:
    """Return a core of which no weight is special: no zero bias, no unit scale."""
    made = make_core(name, inputs=INPUTS, width=width, layers=2, context=context, generator=seeded()).to(dtype)
    with torch.no_grad():
        for number, weight in enumerate(made.parameters()):
            weight += 0.3 * normal(*weight.shape, seed=number).to(dtype)
    return made


def walk(made: Core, inputs: Tensor, before: Memory | None = None) -> tuple[Tensor, Memory]:
    """Return the features of all moments, one step after another, and the memory at the end."""
    memory = made.begin(len(inputs)) if before is None else before
    features = []
    for moment in inputs.unbind(1):
        seen, memory = made.step(moment, memory)
        features.append(seen)
    return torch.stack(features, dim=1), memory


# -- acting and learning ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (DOUBLE, 1e-13)], ids=["float32", "float64"])
@pytest.mark.parametrize("name", CORES)
def test_steps_give_what_one_pass_gives(name: CoreName, dtype: torch.dtype, close: float) -> None:
    made = core(name, dtype)
    inputs = normal(5, CONTEXT, INPUTS, seed=1).to(dtype)
    features, _ = walk(made, inputs)
    assert features.dtype == dtype
    torch.testing.assert_close(features, made(inputs), rtol=0.0, atol=close)


@pytest.mark.parametrize("width", [1, 2, 5, 6])
@pytest.mark.parametrize("name", CORES)
def test_any_width_will_do(name: CoreName, width: int) -> None:
    made = core(name, width=width)
    inputs = normal(2, 5, INPUTS)
    features, _ = walk(made, inputs)
    assert features.shape == (2, 5, width)
    torch.testing.assert_close(features, made(inputs), rtol=0.0, atol=1e-13)


@pytest.mark.parametrize("name", CORES)
def test_a_moment_has_no_influence_on_earlier_ones(name: CoreName) -> None:
    made = core(name)
    inputs = normal(2, 12, INPUTS)
    features = made(inputs)
    for moment in range(12):
        other = inputs.clone()
        other[0, moment] += 1.0
        changed = (made(other) - features).abs().amax(2)
        assert changed[0, :moment].eq(0.0).all()
        assert changed[0, moment:].gt(1e-9).all()
        assert changed[1].eq(0.0).all()


@pytest.mark.parametrize("name", CORES)
def test_the_length_of_a_trial_does_not_matter_to_its_beginning(name: CoreName) -> None:
    made = core(name)
    inputs = normal(2, 12, INPUTS)
    torch.testing.assert_close(made(inputs[:, :7]), made(inputs)[:, :7], rtol=0.0, atol=1e-13)


@pytest.mark.parametrize("name", CORES)
def test_every_weight_is_learned_and_acting_leaves_no_graph(name: CoreName) -> None:
    made = core(name)
    inputs = normal(3, 6, INPUTS)
    (made(inputs) * normal(3, 6, WIDTH, seed=2)).sum().backward()
    for label, weight in made.named_parameters():
        assert weight.grad is not None, label
        used = weight.grad[:6] if label == "positions" else weight.grad
        assert used.abs().max() > 1e-6, label
    features, after = walk(made, inputs)
    assert not features.requires_grad
    assert not any(part.requires_grad for part in after)


@pytest.mark.parametrize("name", RECURRENT)
def test_whole_trials_go_through_the_fused_kernel_at_once(name: CoreName) -> None:
    made = core(name)
    assert isinstance(made, Recurrent)
    assert type(made.cells) is {"gru": nn.GRU, "lstm": nn.LSTM}[name]
    calls: list[torch.Size] = []
    made.cells.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0].shape))
    made(normal(4, 9, INPUTS))
    assert calls == [(4, 9, INPUTS)]


# -- worlds that wait -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CORES)
def test_worlds_that_wait_remember_what_they_did_and_others_go_on(name: CoreName) -> None:
    made = core(name)
    worlds = 6
    inputs = normal(worlds, CONTEXT, INPUTS)
    # Far apart in the end: one hardly ever waits, another hardly ever does not.
    waiting = torch.rand(worlds, CONTEXT, generator=seeded(3)) < torch.linspace(0.0, 0.9, worlds)[:, None]
    waiting[:, 40] = True
    assert len((~waiting).sum(1).unique()) == worlds

    remembered = made.begin(worlds)
    features: list[list[Tensor]] = [[] for _ in range(worlds)]
    for step in range(CONTEXT):
        before = remembered
        seen, remembered = made.step(inputs[:, step], before, waiting[:, step])
        for world in range(worlds):
            if not waiting[world, step]:
                features[world].append(seen[world])
            else:
                assert_same(memory_of(made, before, world), memory_of(made, remembered, world))
    for world in range(worlds):
        met = inputs[world, ~waiting[world]]
        torch.testing.assert_close(torch.stack(features[world]), made(met[None])[0], rtol=0.0, atol=1e-13)


def memory_of(made: Core, remembered: Memory, world: int) -> list[Tensor]:
    """Return what a world remembers, without the room for what is to come."""
    if isinstance(made, Transformer):
        position, _, before, *caches = remembered
        return [position[world], before[world], *(cache[world, :, : position[world]].clone() for cache in caches)]
    return [part[world] for part in remembered]


def assert_same(first: list[Tensor], second: list[Tensor]) -> None:
    assert len(first) == len(second)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# -- a memory is a value ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("met", [0, 5, FIRST_ROOM - 2, FIRST_ROOM])
@pytest.mark.parametrize("name", CORES)
def test_one_memory_can_go_on_in_several_ways(name: CoreName, met: int) -> None:
    made = core(name)
    past = normal(3, met, INPUTS)
    futures = [normal(3, 6, INPUTS, seed=seed) for seed in (1, 2, 3)]
    memory = made.begin(3) if met == 0 else walk(made, past)[1]
    kept = [memory_of(made, memory, world) for world in range(3)]
    # Two steps of each, then two of each again: every way goes on while others have gone on from the same memory.
    ends = [memory] * 3
    features: list[list[Tensor]] = [[], [], []]
    for part in range(3):
        for way, future in enumerate(futures):
            seen, ends[way] = walk(made, future[:, 2 * part : 2 * part + 2], ends[way])
            features[way].append(seen)
    for world in range(3):
        assert_same(kept[world], memory_of(made, memory, world))
    for way, future in enumerate(futures):
        expected = made(torch.cat((past, future), dim=1))[:, met:]
        torch.testing.assert_close(torch.cat(features[way], dim=1), expected, rtol=0.0, atol=1e-13)


@pytest.mark.parametrize("name", CORES)
def test_a_memory_can_be_carried_to_other_worlds(name: CoreName) -> None:
    made = core(name)
    past, future = normal(3, 7, INPUTS), normal(3, 4, INPUTS, seed=1)
    order = torch.tensor([2, 0, 1])
    memory = walk(made, past)[1]
    own, _ = walk(made, future, memory)
    other, _ = walk(made, future, tuple(part[order] for part in memory))
    torch.testing.assert_close(own, made(torch.cat((past, future), 1))[:, 7:], rtol=0.0, atol=1e-13)
    torch.testing.assert_close(other, made(torch.cat((past[order], future), 1))[:, 7:], rtol=0.0, atol=1e-13)


def test_the_cache_is_copied_only_where_ways_part() -> None:
    made = core("transformer")
    moment = normal(3, INPUTS)
    first = made.begin(3)
    _, second = made.step(moment, first)
    _, third = made.step(moment, second)
    places = [part.data_ptr() for part in first[3:]]
    assert [part.data_ptr() for part in third[3:]] == places
    _, again = made.step(moment, first)
    assert not {part.data_ptr() for part in again[3:]} & set(places)


# -- room of the key-value cache --------------------------------------------------------------------------------------


def test_the_cache_doubles_until_the_context_is_full() -> None:
    made = core("transformer")
    memory = made.begin(2)
    rooms = []
    for moment in normal(2, CONTEXT, INPUTS).unbind(1):
        _, memory = made.step(moment, memory)
        rooms.append(memory[3].shape[2])
    assert rooms == [FIRST_ROOM] * FIRST_ROOM + [2 * FIRST_ROOM] * FIRST_ROOM + [CONTEXT] * (CONTEXT - 2 * FIRST_ROOM)
    assert core("transformer", context=4).begin(2)[3].shape == (2, memory_heads(made), 4, 2)


def memory_heads(made: Core) -> int:
    assert isinstance(made, Transformer)
    return made.heads


def test_a_trial_longer_than_the_context_is_refused() -> None:
    made = core("transformer", context=4)
    inputs = normal(2, 5, INPUTS)
    _, memory = walk(made, inputs[:, :4])
    with pytest.raises(UserError, match=r"remembers 4 steps.*--episodes"):
        made.step(inputs[:, 4], memory)
    with pytest.raises(UserError, match="remembers 4 steps, the trials have 5"):
        made(inputs)


# -- first weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CORES)
def test_all_first_weights_come_from_the_generator(name: CoreName, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.random.get_rng_state()
    make = memory.blank

    def spoilt(*sizes: Any, **options: Any) -> nn.Module:
        layer = make(*sizes, **options)
        for weight in layer.parameters():
            nn.init.constant_(weight, torch.nan)
        return layer

    monkeypatch.setattr(memory, "blank", spoilt)
    first, same, other = (
        make_core(name, inputs=INPUTS, width=WIDTH, layers=2, context=9, generator=seeded(seed)).state_dict()
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(weight.isfinite().all() for weight in first.values())
    assert all(torch.equal(weight, same[label]) for label, weight in first.items())
    drawn = {label for label, weight in first.items() if not torch.equal(weight, other[label])}
    assert {label for label, weight in first.items() if weight.dim() == 2} <= drawn


@pytest.mark.parametrize("name", CORES)
def test_an_agent_leaves_the_global_generator_alone(name: CoreName) -> None:
    before = torch.random.get_rng_state()
    make("rl2", Rl2Config(core=name, width=WIDTH), get("point-nav").spec(), Streams(0), torch.device("cpu"))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", RECURRENT)
def test_gates_begin_orthogonal_and_with_memories_up_to_the_context(name: CoreName) -> None:
    made = make_core(name, inputs=WIDTH, width=WIDTH, layers=1, context=100, generator=seeded())
    assert isinstance(made, Recurrent)
    weights = dict(made.cells.named_parameters())
    for kind in ("weight_ih_l0", "weight_hh_l0"):
        for gate in weights[kind].split(WIDTH):
            torch.testing.assert_close(gate @ gate.T, torch.eye(WIDTH), rtol=0.0, atol=1e-5)
    biases = weights["bias_ih_l0"].split(WIDTH)
    # A gate σ(log s) keeps 1 - 1/(1 + s) of a memory, which lasts 1 + s moments.
    spans = biases[1].exp()
    assert spans.min() >= 1.0
    assert 50.0 < spans.max() <= 99.0
    if name == "lstm":
        torch.testing.assert_close(biases[0], -biases[1])
    assert not any(gate.any() for gate in (*biases[2:], *biases[: name == "gru"], weights["bias_hh_l0"]))
