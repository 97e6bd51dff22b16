"""Spaces of Gymnasium: what arrives of an action, which numbers are pictures, and advice that works."""

from __future__ import annotations

import re
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import ClipAction

from metarl.envs import GymnasiumFamily, make_worlds
from metarl.envs.external import child
from metarl.envs.family import random_actions
from metarl.envs.gym.vector import FamilyVectorEnv
from metarl.errors import NotFiniteError, UserError
from tests.helpers.adapted import GOAL, begin, named, own_envs
from tests.helpers.toys import seeded

pytestmark = pytest.mark.usefixtures("own_registry")

FREE = spaces.Box(-np.inf, np.inf, (2,), np.float32)
WIDE = spaces.Box(-1000, 1000, (2,), np.int64)
MIXED = spaces.Dict({"go": spaces.Discrete(2), "turn": spaces.Box(-1.0, 1.0, (1,))})

# -- actions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "counts"),
    [
        (spaces.Discrete(3, start=4), (3,)),
        (spaces.MultiDiscrete([3, 2]), (3, 2)),
        (spaces.MultiDiscrete(np.array([[3, 2], [4, 1]]), start=np.array([[5, 0], [0, 7]])), (3, 2, 4, 1)),
        (spaces.MultiBinary(3), (2, 2, 2)),
        (spaces.MultiBinary((2, 1)), (2, 2)),
        (spaces.Box(-2, 1, (2,), np.int64), (4, 4)),
        (spaces.Box(np.array([0, 5], np.uint8), np.array([2, 9], np.uint8), dtype=np.uint8), (3, 5)),
        (spaces.Tuple((spaces.Discrete(2), spaces.Dict({"a": spaces.MultiBinary(1)}))), (2, 2)),
        (spaces.Dict({"b": spaces.MultiDiscrete([3, 2]), "a": spaces.Discrete(4, start=-1)}), (4, 3, 2)),
    ],
    ids=named,
)
def test_every_choice_is_an_action_of_the_space_and_all_differ(space: Any, counts: tuple[int, ...]) -> None:
    assert tuple(child.describe_actions(space, None)["choices"]) == counts
    chosen = np.stack(np.meshgrid(*(np.arange(count) for count in counts), indexing="ij"), -1).reshape(-1, len(counts))
    made = [child.action_of(space, row.astype(float)) for row in chosen]
    assert all(space.contains(action) for action in made)
    assert len({str(action) for action in made}) == len(chosen)
    # Of vector environments all worlds' actions come together.
    together = child.action_of(space, chosen.astype(float))
    batched = gymnasium.vector.utils.batch_space(space, len(chosen))
    each = list(gymnasium.vector.utils.iterate(batched, together))
    assert [str(np.array(own_values(space, a))) for a in each] == [str(np.array(own_values(space, a))) for a in made]


def own_values(space: Any, action: Any) -> list[float]:
    return [float(number) for value in child.values(space, action) for number in np.ravel(value)]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(np.array([0.0, -1.0], np.float32), np.array([10.0, 3.0], np.float32)),
        spaces.Tuple((spaces.Box(0.0, 1.0, (2, 2)), spaces.Dict({"x": spaces.Box(-3.0, 2.0, (), np.float64)}))),
    ],
    ids=named,
)
def test_numbers_reach_every_part_within_its_bounds(space: Any) -> None:
    found = child.describe_actions(space, None)
    for numbers in (np.array(found["low"]), np.array(found["high"])):
        action = child.action_of(space, numbers)
        assert space.contains(action)
        np.testing.assert_allclose(own_values(space, action), numbers)


def family_of(space: Any, **kwargs: Any) -> GymnasiumFamily:
    fields = {"make": own_envs.Echo, "kwargs": {"kind": space, **kwargs}, "parameters": (GOAL,), "horizon": 3}
    return GymnasiumFamily(name="echo", **fields)


def test_choices_of_an_agent_reach_the_environment() -> None:
    family = family_of("choices")
    assert family.discrete
    assert family.choices == (3, 2)
    assert family.spec().choices == (3, 2)
    worlds, _ = begin(family, 6, 2)
    chosen = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]])
    one_hot = torch.cat([torch.nn.functional.one_hot(part, n) for part, n in zip(chosen.T, (3, 2), strict=True)], 1)
    assert worlds.step(one_hot.float()).observation.tolist() == chosen.tolist()
    assert worlds.step(random_actions(family, 6, seeded())).observation.isfinite().all()
    with pytest.raises(
        UserError, match=r"one-hot actions side by side, a single 1 for each of the choices of \[3, 2\]"
    ):
        worlds.step(torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]]).expand(6, -1))
    with pytest.raises(NotFiniteError):
        worlds.step(torch.full((6, 5), torch.nan))
    env = FamilyVectorEnv(2, family)
    assert env.single_action_space == spaces.MultiDiscrete([3, 2])
    env.reset(seed=0)
    assert env.step(np.array([[2, 1], [0, 1]]))[0].tolist() == [[2.0, 1.0], [0.0, 1.0]]
    with pytest.raises(UserError, match="whole numbers from 0 to 2 and 1"):
        env.step(np.array([[2, 2], [0, 1]]))


# -- advice -----------------------------------------------------------------------------------------------------------


def refused(space: Any, env: Any = None) -> str:
    with pytest.raises(child.Unfit) as error:
        child.describe_actions(space, env)
    return str(error.value)


def advised(text: str, env: Any) -> Any:
    """Return the environment with the wrapper that an error names."""
    found = re.search(r"gymnasium\.wrappers\.[\w.]+\(env, .*\)", text)
    assert found is not None, text
    return eval(found.group(), {"gymnasium": gymnasium, "env": env})


@pytest.mark.parametrize("space", [FREE, WIDE, spaces.Box(0.0, np.inf, (2,))], ids=named)
def test_actions_without_bounds_get_them_by_the_advice(space: Any) -> None:
    env = own_envs.Reach(action_space=space)
    bounded = advised(refused(space, env), env)
    found = child.describe_actions(bounded.action_space, bounded)
    bounded.reset(options={"task": {"goal": [0.0, 0.0]}})
    bounded.step(child.action_of(bounded.action_space, np.array(found["low"])))
    assert len(found["low"]) == 2


def test_a_vector_environment_is_bounded_by_the_advice_too() -> None:
    env = gymnasium.vector.SyncVectorEnv([lambda: own_envs.Reach(action_space=FREE)] * 2)
    bounded = advised(refused(FREE, env), env)
    assert child.describe_actions(bounded.single_action_space, bounded)["low"] == [-1.0, -1.0]


def test_clip_action_is_named_where_it_took_the_bounds() -> None:
    env = gymnasium.wrappers.TimeLimit(ClipAction(own_envs.Reach()), 10)
    text = refused(env.action_space, env)
    assert "because of gymnasium.wrappers.ClipAction. Leave ClipAction out" in text.replace("transform_action.", "")
    assert child.describe_actions(own_envs.Reach().action_space, None)["low"] == [-1.0, -1.0]


def test_choices_and_numbers_together_are_refused() -> None:
    assert "choices and numbers: allowed are all choices, or all numbers. Write a gymnasium.ActionWrapper" in refused(
        MIXED
    )

    class AsChoices(gymnasium.ActionWrapper[Any, Any, Any]):
        def __init__(self, env: gymnasium.Env) -> None:
            super().__init__(env)
            self.action_space = spaces.MultiDiscrete([2, 5])

        def action(self, action: Any) -> Any:
            return {"go": action[0], "turn": np.array([action[1] / 2.0 - 1.0], np.float32)}

    env = AsChoices(own_envs.Reach(action_space=MIXED))
    assert child.describe_actions(env.action_space, env) == {"choices": [2, 5]}
    assert MIXED.contains(env.action(child.action_of(env.action_space, np.array([1.0, 4.0]))))


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (spaces.Text(4), "got action in the space Text"),
        (spaces.Tuple((spaces.Discrete(2), spaces.Sequence(spaces.Discrete(2)))), "got action.1 in the space Sequence"),
        (spaces.Tuple((own_envs.UNIT, FREE)), "action.1 in the space Box.* Give that part finite bounds"),
    ],
    ids=named,
)
def test_other_actions_are_refused_by_name(space: Any, says: str) -> None:
    assert re.search(says, refused(space))


def test_texts_are_left_out_by_the_advice() -> None:
    image = spaces.Box(0, 255, (3, 3), np.uint8)
    env = own_envs.Reach(observation_space=spaces.Dict({"image": image, "mission": spaces.Text(20)}))
    with pytest.raises(child.Unfit, match=r"observation\.mission in the space Text: allowed are Box") as error:
        child.labels(env.observation_space)
    found = re.search(r"gymnasium\.wrappers\.FilterObservation\(env, \[.*?\]\)", str(error.value))
    assert found is not None
    rest = eval(found.group(), {"gymnasium": gymnasium, "env": env})
    assert child.labels(rest.observation_space) == [f"observation.image[{i}]" for i in range(9)]
    with pytest.raises(child.Unfit, match="Or else turn it into numbers with gymnasium"):
        child.labels(spaces.Text(20))


# -- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "channels"),
    [
        (spaces.Box(0, 255, (16, 16, 3), np.uint8), [2]),
        (spaces.Box(0, 255, (8, 20), np.uint8), []),
        (spaces.Box(0, 10, (9, 9, 3), np.uint8), [2]),
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), [0]),
        (spaces.Box(0, 255, (4, 32, 32, 3), np.uint8), [0, 3]),
        (spaces.Box(0.0, 1.0, (16, 16, 3)), [2]),
        (spaces.Box(0.0, 255.0, (16, 16)), []),
        # Smaller than a picture; no range; another range; channels that could be any axis, or lie between.
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), None),
        (spaces.Box(-np.inf, np.inf, (16, 16, 3)), None),
        (spaces.Box(0.0, 2.0, (16, 16, 3)), None),
        (spaces.Box(-1.0, 1.0, (16, 16, 3)), None),
        (spaces.Box(0, 255, (12, 12, 12), np.uint8), None),
        (spaces.Box(0, 255, (16, 3, 16), np.uint8), None),
        (spaces.Box(0, 255, (40, 40, 17), np.uint8), None),
        (spaces.Box(0, 255, (64,), np.uint8), None),
        (spaces.MultiBinary((16, 16)), None),
    ],
    ids=named,
)
def test_what_is_a_picture(space: Any, channels: list[int] | None) -> None:
    found = child.picture(space)
    assert (None if found is None else found["channels"]) == channels
    if found is not None:
        assert found["shape"] == list(space.shape)
        assert found["largest"] == float(space.high.max())


def test_pictures_are_found_among_other_numbers() -> None:
    family = family_of("pictures")
    (first, second) = family.pictures
    assert (first.first, first.shape, first.size, first.largest) == (2, (8, 8, 3), 192, 255.0)
    assert (second.first, second.shape, second.channels) == (194, (8, 9), ())
    assert family.spec().pictures == family.pictures
    assert family.observation_size == 2 + 192 + 72 + 3
    _, start = begin(family, 2, 1)
    np.testing.assert_array_equal(start[0, 2:194].numpy(), np.arange(192))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"turned": True}, r"observation\.a has the shape \(3, 8, 8\) where its space has \(8, 8, 3\): correct one"),
        ({"bright": True}, r"observation\.b has pixels from 0 to 255 where its space goes from 0 to 1: correct one"),
    ],
    ids=named,
)
def test_a_picture_that_is_not_as_its_space_says_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        begin(family_of("pictures", **fields), 2, 1)


NESTED = spaces.Dict(
    {"b": spaces.Dict({"z": spaces.Discrete(3, start=5)}), "a": spaces.Tuple((spaces.Box(-1, 1, (1,)),))}
)


@pytest.mark.parametrize(
    ("space", "value", "says"),
    [
        (spaces.Discrete(4, start=1), 0, "observation is 0, which is not in its space Discrete"),
        (spaces.Discrete(4), 4, "observation is 4, which is not"),
        (spaces.Discrete(4), 2.0, "observation is 2.0, which is not"),
        (spaces.MultiDiscrete([2, 3]), [2, 1], r"observation is \[2, 1\], which is not"),
        (spaces.MultiBinary(3), [0, 1, 7], r"observation is \[0, 1, 7\], which is not"),
        (spaces.Box(-1, 1, (2, 3)), np.zeros((3, 2)), r"has the shape \(3, 2\) where its space has \(2, 3\)"),
        (
            spaces.Box(-1, 1, (2,)),
            np.zeros(2) + 1j,
            r"observation is array\(\[0\.\+1\.j.*, and real numbers are needed",
        ),
        (spaces.Box(-1, 1, (2,)), ["0", "1"], r"observation is \['0', '1'\], and real numbers are needed"),
        (spaces.Box(-1, 1, (2,)), [None, 1], r"observation is \[None, 1\], and real numbers are needed"),
        (NESTED, {"b": {}, "a": (0.0,)}, r"observation\.b has no part 'z', which its space has: got \{\}"),
        (NESTED, {"b": 3, "a": (0.0,)}, r"observation\.b has no part 'z'"),
        (NESTED, {"b": {"z": 5}, "a": ()}, r"observation\.a is \(\) where its space has 1 parts"),
        (NESTED, {"b": {"z": 5}, "a": 1.0}, r"observation\.a is 1\.0 where its space has 1 parts"),
    ],
    ids=str,
)
def test_what_would_be_taken_for_another_observation_is_refused(space: Any, value: Any, says: str) -> None:
    with pytest.raises(child.Unfit, match=says):
        taken(space, value)


def test_what_is_in_the_space_is_taken() -> None:
    assert taken(spaces.Discrete(4, start=1), np.int64(1)).tolist() == [1, 0, 0, 0]
    assert taken(spaces.MultiDiscrete([2, 3], start=[1, -1]), np.array([2, -1])).tolist() == [0, 1, 1, 0, 0]
    assert taken(spaces.MultiBinary(2), [True, False]).tolist() == [1, 0]
    # One number is one, in whatever shape; numbers of a Box may leave its bounds.
    assert taken(spaces.Box(-1, 1, ()), np.array([7.0])).tolist() == [7.0]
    assert taken(NESTED, {"more": "words", "b": {"z": 7}, "a": [0.5]}).tolist() == [0.5, 0, 0, 1]


def taken(space: Any, value: Any) -> Any:
    group = object.__new__(child.Group)
    group.observation_space = space
    return group.flat(value)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(10**9),
        spaces.Box(-1.0, 1.0, (10**5,)),
        spaces.MultiDiscrete([40000, 40000]),
        spaces.Box(0, 1, (50000,), np.int8),
    ],
    ids=str,
)
def test_actions_of_too_many_numbers_are_refused_with_their_number(space: Any) -> None:
    assert re.search(
        r"action has [\d,]{6,} numbers or alternatives, .*, and there is room for 65,536: make", refused(space)
    )


def test_observations_of_too_many_numbers_are_refused_with_their_number() -> None:
    with pytest.raises(child.Unfit, match=r"observation has 1,000,000,000 numbers .* there is room for 16,777,216"):
        child.labels(spaces.Discrete(10**9))


def test_bounds_that_no_number_can_be_scaled_to_are_refused_as_none() -> None:
    far = spaces.Box(-3.4e38, 3.4e38, (2,))
    assert re.search(r"without bounds, or with farther ones than 1e\+30\. Give it some that suit", refused(far))


def test_worlds_are_made_without_a_picture_too() -> None:
    family = family_of("choices")
    assert make_worlds(family, 1).family.pictures == ()
