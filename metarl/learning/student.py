"""A student, which finds out in the last steps of an episode what its teacher was told: acting, and learning it.

ẑ = φ(the last 50 (x, a) of the episode), in the place of z = μ(e)      (metarl/nets/history.py)
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.devices import numbered
from metarl.learning.chunks import passes
from metarl.learning.supervised import descend
from metarl.learning.trials import LARGEST_INPUT, Inputs
from metarl.nets.history import WINDOW, HistoryEncoder, windows
from metarl.nets.latent import LatentNetwork
from metarl.ranks import ALONE, Ranks
from metarl.types import Metrics


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What a step is in the window: what was seen, what was done, and the reward where it is among them.

    Attributes:
        inputs: how observations and rewards are scaled.
        rewards: whether the reward is among them.
    """

    inputs: Inputs
    rewards: bool

    def size(self, seen: int) -> int:
        """Return R, the numbers of a step in which `seen` numbers were seen."""
        return seen + self.inputs.action_size + self.rewards

    def __call__(
        self, seen: Float[Tensor, "*N J"], action: Float[Tensor, "*N A"], reward: Float[Tensor, "*N"]
    ) -> Float[Tensor, "*N R"]:
        """Put the parts of steps together."""
        parts = [seen, self.inputs.done(action).to(seen)]
        if self.rewards:
            scaled = reward / self.inputs.reward.on(reward)[2]
            parts.append(scaled.clamp(-LARGEST_INPUT, LARGEST_INPUT).unsqueeze(-1).to(seen))
        return torch.cat(parts, dim=-1)


class StudentPolicy:
    """Acts in B worlds on what it finds out there (see `metarl.types.MemoryPolicy` and `SteadyPolicy`).

    What it remembers of a world stays when the episode ends, to be looked at, and is gone with the first action of the
    next one.

    Args:
        network: the policy.
        student: φ.
        steps: what is in its window.
        device: where both live.
        ranks: which of them have a share of the worlds each, as these B.
    """

    def __init__(
        self, network: LatentNetwork, student: HistoryEncoder, steps: Steps, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        self.network, self.student, self.steps, self.device, self.ranks = network, student, steps, device, ranks
        self.window: Tensor | None = None
        self._forgets = True

    def begin_episode(self) -> None:
        """Let the next action be the first one of an episode."""
        self._forgets = True

    @torch.no_grad()
    def act(self, observation: Float[Tensor, "B O"], generator: torch.Generator) -> Float[Tensor, "B A"]:
        """Draw an action in every world."""
        if self._forgets:
            self._forget(observation)
        assert self.window is not None
        self._seen = self.network.see(self.steps.inputs.shown(observation).to(self.device))
        drawn = self.network.act(self._seen, self.student(self.window)).sample(generator, self.ranks)
        self._action = drawn.to(observation.device)
        return self._action

    def see(self, reward: Float[Tensor, " B"], ended: Bool[Tensor, " B"]) -> None:
        """Take in the step, where the episode had not ended before it."""
        assert self.window is not None
        step = self.steps(self._seen, self._action, reward)
        after = torch.cat((self.window[:, 1:], step[:, None]), dim=1)
        self.window.copy_(torch.where(self._waiting[:, None, None], self.window, after))
        self._waiting |= ended.to(self.device)

    @torch.no_grad()
    def look(self, observation: Float[Tensor, "B O"]) -> tuple[Float[Tensor, "B D"], None]:
        """Return ẑ as it was when the last episode ended, and stay as before; there is no other memory."""
        return self.student(self._nothing(observation) if self.window is None else self.window), None

    def carried(self, order: Int[Tensor, " B"]) -> StudentPolicy:
        """Return the policy with the window of world `order[i]` in world i; this one keeps its own."""
        other = StudentPolicy(self.network, self.student, self.steps, self.device, self.ranks)
        if self.window is not None:
            rows = order.to(self.device)
            other.window, other._waiting, other._forgets = self.window[rows], self._waiting[rows], self._forgets
        return other

    def _nothing(self, observation: Float[Tensor, "B O"]) -> Float[Tensor, "B W R"]:
        """Return the window of a first step."""
        seen = self.network.see(self.steps.inputs.shown(observation[:1]).to(self.device))
        return seen.new_zeros(len(observation), WINDOW, self.steps.size(seen.shape[-1]))

    def _forget(self, observation: Float[Tensor, "B O"]) -> None:
        self.window = self._nothing(observation)
        self._waiting = torch.zeros(len(observation), dtype=torch.bool, device=self.device)
        self._forgets = False

    # -- collections that are played again, and steps that are captured -----------------------------------------------

    def keep(self) -> bool:
        """Return all that an episode begins with: that it does."""
        return True

    def go_back(self, kept: bool) -> None:
        """Let the episode begin again."""
        self._forgets = kept

    def key(self, device: torch.device) -> Hashable | None:
        """Return what tells its operations; None where worlds and network are on two devices."""
        if numbered(self.device) != numbered(device):
            return None
        return type(self), self.network, self.student, self.steps.inputs.key(), self.steps.rewards, self.ranks

    def twin(self, observation: Float[Tensor, "B O"]) -> StudentPolicy:
        """Return a policy whose window stays in its place; the networks are the same ones."""
        other = StudentPolicy(self.network, self.student, self.steps, self.device, self.ranks)
        other._forget(observation)
        return other

    def take_over(self, other: StudentPolicy) -> None:
        """Remember what another policy in as many worlds remembers, with the inputs' scale of now."""
        self.steps.inputs.refresh()
        if self.window is None:
            assert other.window is not None
            self.window, self._waiting = other.window.clone(), other._waiting.clone()
        elif other.window is None or other._forgets:
            self.window.zero_()
            self._waiting.zero_()
        else:
            self.window.copy_(other.window)
            self._waiting.copy_(other._waiting)
        self._forgets = False


# -- learning ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What a student learns from: N episodes of L steps.

    Attributes:
        steps: as they are in a window.
        wanted: z of every episode.
        mask: 1 for real steps.
    """

    steps: Float[Tensor, "N L R"]
    wanted: Float[Tensor, "N D"]
    mask: Float[Tensor, "N L"]

    def errors(self, student: HistoryEncoder, rows: Int[Tensor, " n"]) -> Float[Tensor, "n L"]:
        """Compute ‖ẑ - z‖² at every step of some of the episodes."""
        return (student(windows(self.steps[rows])) - self.wanted[rows, None]).square().sum(-1)


def teach(
    student: HistoryEncoder,
    optimiser: torch.optim.Optimizer,
    lesson: Lesson,
    generator: torch.Generator,
    *,
    epochs: int,
    minibatches: int,
    ranks: Ranks = ALONE,
) -> Metrics:
    """Bring ẑ closer to z, in place: steps on mean ‖ẑ - z‖² over all real steps of a minibatch of episodes.

    Args:
        student: φ.
        optimiser: of its parameters.
        lesson: what was played, by this rank.
        generator: draws the minibatches.
        epochs: passes over all episodes.
        minibatches: steps of the optimiser in a pass.
        ranks: which of them have N episodes each.

    Returns:
        How far from z the student was before.
    """
    before = _far(student, lesson, minibatches, ranks)
    descend(
        student,
        optimiser,
        lambda rows: lesson.errors(student, rows),
        lesson.mask,
        generator,
        epochs=epochs,
        minibatches=minibatches,
        ranks=ranks,
    )
    return before


@torch.no_grad()
def _far(student: HistoryEncoder, lesson: Lesson, minibatches: int, ranks: Ranks) -> Metrics:
    """Return the mean squared error in variances of z over the tasks; nothing where these are all the same."""
    wanted, mask = lesson.wanted, lesson.mask
    parts = min(passes(mask, minibatches), len(mask))
    rows = torch.arange(len(mask), device=mask.device).tensor_split(parts)
    errors = torch.cat([lesson.errors(student, some) for some in rows]) * mask
    last = errors.gather(1, mask.sum(1, keepdim=True).long() - 1)
    sums = ranks.sum((wanted.sum(0), wanted.square().sum(0), errors.sum(), mask.sum(), last.sum()))
    episodes = len(mask) * ranks.size
    mean, square = sums[0] / episodes, sums[1] / episodes
    error, steps, at_end = (float(x) for x in sums[2:])
    variance = float((square - mean.square()).sum())
    if variance <= 1e-6 * float(square.sum()):
        return {}
    return {"student/error": error / steps / variance, "student/error_at_end": at_end / episodes / variance}
