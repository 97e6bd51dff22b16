"""Messages that come late: `+delay` of actions on their way to the actuators, and of observations on theirs back.

Both delays are whole control steps that stay as long as the task does; on top, each message is one step later still
with the probability `delay_jitter`, drawn anew in every step and on either way. With the delay d and the lateness j of
a step t, actuators get the action of the step t - d - j, and the agent sees the observation of that step. Before the
episode's first action the actuators have 0 (or the nearest value within the bounds); before its first observation the
agent sees that one. The reward's effort is that of the action which the agent gives now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.envs import chance
from metarl.envs.family import Family, State, on
from metarl.envs.modifiers.arguments import Arguments, read
from metarl.envs.modifiers.effect import STEP, Effect, salted
from metarl.errors import UserError
from metarl.space.parameter import Parameter
from metarl.types import Tasks

ACTIONS, OBSERVATIONS = "+delay.actions", "+delay.observations"
"""Carried fields: what was sent in the last steps, that of a step t at the place t modulo their number, [B, D, N]."""
LATE = "+delay.late"
"""Carried field: what decides whether the next message of either way is a step later still, uniform in 0..1, [B, 2]."""
WAYS = ("action", "observation")
SALT = 0x9E1A7
MOST = 50
"""Control steps; of so many messages every world keeps a copy."""


@dataclass(frozen=True, kw_only=True)
class Delay:
    """Actions, observations or both come late, by steps that are a part of the task.

    Raises:
        UserError: the steps are no range of whole numbers.
    """

    low: int | None = None
    """Fewest steps in training; 0 if not given."""
    high: int | None = None
    """Most steps in training; 3 if not given."""
    way: Literal["action", "observation"] | None = None
    """What comes late; both if not given."""

    word: ClassVar[str] = "delay"

    def __post_init__(self) -> None:
        low, high = self.bounds
        if (self.low is None) != (self.high is None) or not 0 <= low <= high <= MOST or high == 0:
            raise UserError(
                f"got a delay from {self.low} to {self.high} steps: give 0 <= LOW <= HIGH <= {MOST}, not 0..0"
            )

    @property
    def bounds(self) -> tuple[int, int]:
        """Fewest and most steps in training."""
        return (0, 3) if self.low is None or self.high is None else (self.low, self.high)

    @classmethod
    def read(cls, text: str) -> Delay:
        """Return it from its text in a name."""
        forms = ("+delay", "+delay=0..5", "+delay=action", "+delay=observation", "+delay=0..5,action")
        given = read(text, forms, WAYS)
        for end in (given.low, given.high):
            if end is not None and not end.is_integer():
                raise UserError(f"got '+{text}': give whole control steps, such as +delay=0..5")
        ends = (None, None) if given.low is None or given.high is None else (int(given.low), int(given.high))
        way = "action" if given.word == "action" else "observation" if given.word else None
        return cls(low=ends[0], high=ends[1], way=way)

    @property
    def summary(self) -> str:
        """What it adds to a family, in a few words."""
        return f"{f'{self.way}s' if self.way else 'actions and observations'} that come late"

    @property
    def arguments(self) -> Arguments:
        """What stands in a name."""
        ends = (None, None) if self.low is None or self.high is None else (float(self.low), float(self.high))
        return Arguments(*ends, self.way)

    def shortest(self, base: Family) -> Delay:
        """Return the same without what is default anyway."""
        plain = Delay(way=self.way)
        return plain if plain.bounds == self.bounds else self

    def effect(self, base: Family) -> Effect:
        """Return the delays of a family.

        Raises:
            UserError: its actions are choices, of which none would be in force before the first.
        """
        ways = (self.way,) if self.way else WAYS
        if base.discrete and "action" in ways:
            raise UserError(
                f"got +delay for {base.full_name}, whose actions are choices: before the first arrives there is none. "
                "Give +delay=observation"
            )
        low, high = self.bounds
        further = tuple(range(high + 1, high + 1 + max(1, (high - low + 1) // 2)))
        delays = tuple(
            Parameter(
                name=f"{way}_delay",
                unit="steps",
                description=f"control steps by which every {way} comes late",
                scale="choice",
                choices=tuple(float(steps) for steps in range(low, high + 1)),
                ood=tuple(float(steps) for steps in further),
            )
            for way in ways
        )
        jitter = Parameter(
            name="delay_jitter",
            unit="",
            description="probability that it is a step later still",
            scale="uniform",
            low=0.0,
            high=0.5,
            ood=(0.5, 0.75),
        )
        return Delayed((*delays, jitter), ways, base, further[-1] + 1)


class Delayed(Effect):
    """Messages of the last steps, and which of them arrives.

    Args:
        parameters: the delays, and the jitter.
        ways: what comes late.
        base: the family.
        longest: delay, with the jitter.
    """

    draws = True

    def __init__(self, parameters: tuple[Parameter, ...], ways: tuple[str, ...], base: Family, longest: int) -> None:
        self.parameters, self.longest = parameters, longest
        self.late_actions, self.recalls = "action" in ways, "observation" in ways
        self.carried = (LATE, *([ACTIONS] if self.late_actions else []), *([OBSERVATIONS] if self.recalls else []))
        low, high = (torch.tensor(bound, dtype=torch.float64) for bound in (base.action_low, base.action_high))
        self.rest = torch.zeros_like(low).clamp(low, high)
        self.size = base.observation_size

    def start(self, worlds: int) -> dict[str, Tensor]:
        """Return actions of rest; the first observation is not known yet."""
        actions = self.rest.expand(worlds, self.longest + 1, -1)
        # One place more than can be late: see `keep`.
        observations = torch.zeros(worlds, self.longest + 2, self.size, dtype=torch.float64)
        fields = {ACTIONS: actions, OBSERVATIONS: observations, LATE: torch.zeros(worlds, 2, dtype=torch.float64)}
        return {name: fields[name] for name in self.carried}

    def command(
        self, action: Float[Tensor, "B A"], state: State, tasks: Tasks
    ) -> tuple[Float[Tensor, "B A"], dict[str, Tensor]]:
        """Return the action that arrives, and keep the one that is sent, in its place.

        A world that does not move keeps what it is given here for a step that it is then asked for again.
        """
        if not self.late_actions:
            return action, {}
        _put(state[ACTIONS], action, state[STEP])
        return _arrived(state[ACTIONS], "action", state, tasks), {}

    def draw(self, state: State) -> dict[str, Tensor]:
        """Return what is drawn for the observation that is made in a step, and for the action that follows."""
        return {LATE: chance.uniform(*salted(state, SALT), 2)}

    def begin(self, observation: Float[Tensor, "B O"]) -> dict[str, Tensor]:
        """Return the first observation in the place of all that came before it."""
        return {OBSERVATIONS: observation.double()[:, None].expand(-1, self.longest + 2, -1)}

    def keep(self, observation: Float[Tensor, "B O"], state: State) -> None:
        """Keep a new observation, in its place.

        In a world that does not move this is the place of its next step, which no message that arrives now has.

        Args:
            observation: of the step.
            state: after the step.
        """
        _put(state[OBSERVATIONS], observation.double(), state[STEP])

    def recall(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return the observation that arrives, of those that are kept."""
        return _arrived(state[OBSERVATIONS], "observation", state, tasks)


_FIRSTS: dict[tuple[int, int], Tensor] = {}
"""By worlds and messages of each: the number of every world's first message, made once."""


def _rows(kept: Float[Tensor, "B D N"], step: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """Return the numbers of the messages of a step among those of all worlds."""
    worlds, count = kept.shape[:2]
    if (worlds, count) not in _FIRSTS:
        _FIRSTS[worlds, count] = torch.arange(worlds) * count
    return step.remainder(count).add_(on(step, _FIRSTS[worlds, count]))


def _put(kept: Float[Tensor, "B D N"], message: Float[Tensor, "B N"], step: Int[Tensor, " B"]) -> None:
    """Write the message of a step over the oldest: less is moved than where all make way for it."""
    kept.view(-1, kept.shape[2]).index_copy_(0, _rows(kept, step), message)


def _arrived(kept: Float[Tensor, "B D N"], way: str, state: State, tasks: Tasks) -> Float[Tensor, "B N"]:
    """Return, of the messages that are kept, those that arrive now."""
    late = (tasks[f"{way}_delay"] + (state[LATE][:, WAYS.index(way)] < tasks["delay_jitter"])).long()
    return kept.view(-1, kept.shape[2]).index_select(0, _rows(kept, state[STEP] - late))
