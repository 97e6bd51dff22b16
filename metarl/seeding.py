"""Random streams: one seed -> named generators whose state a checkpoint can hold.

Every consumer of randomness has a name (`tasks`, `policy`, `worlds`, ...) and its own generator, so that
a change in how often one of them draws never changes what another one draws. Nothing here, or anywhere in
the project, seeds a global generator.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from metarl.errors import UserError
from metarl.plain import shown


class Streams:
    """Named generators, all derived from one seed.

    A stream depends on the seed, its name and the rank only; not on when, or after which others, it is
    first used. Two ranks never share a stream.

    Args:
        seed: the run's seed, not negative.
        rank: number of this process among those that share the seed.

    Raises:
        UserError: if the seed or the rank is negative.

    Example:
        >>> streams = Streams(seed=0)
        >>> torch.rand(2, generator=streams["tasks"]).shape
        torch.Size([2])
    """

    def __init__(self, seed: int, rank: int = 0) -> None:
        if seed < 0 or rank < 0:
            raise UserError(f"Got seed {seed} and rank {rank}; both must be 0 or more. Choose another seed.")
        self.seed = seed
        self.rank = rank
        self._generators: dict[str, torch.Generator] = {}

    def __getitem__(self, name: str) -> torch.Generator:
        """Return the CPU generator called `name`, made on first use."""
        if name not in self._generators:
            self._generators[name] = torch.Generator().manual_seed(self._derive(name))
        return self._generators[name]

    def _derive(self, name: str) -> int:
        """Return the 64-bit seed of the stream `name`."""
        # Python's own hash() of a string differs from process to process.
        words = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype="<u4").tolist()
        return int(np.random.SeedSequence([self.seed, self.rank, *words]).generate_state(1, np.uint64)[0])

    def state_dict(self) -> dict[str, Any]:
        """Return seed, rank and the exact state of every stream used so far."""
        states = {name: generator.get_state() for name, generator in self._generators.items()}
        return {"seed": self.seed, "rank": self.rank, "generators": states}

    def load_state_dict(self, state: Any) -> None:
        """Restore `state_dict()`: every stream goes on exactly where it was.

        Raises:
            UserError: if the state belongs to another seed or rank, or is none.
        """
        if not isinstance(state, dict) or set(state) != {"seed", "rank", "generators"}:
            raise UserError(f"Got {shown(state)} where the state of random streams is needed.")
        # By type too: False is no rank.
        if repr((state["seed"], state["rank"])) != repr((self.seed, self.rank)):
            raise UserError(
                f"Got random streams of seed {state['seed']}, rank {state['rank']}, for a run of seed "
                f"{self.seed}, rank {self.rank}. Resume with the seed and the rank that were saved."
            )
        generators: dict[str, torch.Generator] = {}
        if not isinstance(state["generators"], dict):
            raise UserError(f"Got {shown(state['generators'])} where random streams are needed.")
        for name, saved in state["generators"].items():
            try:
                # set_state needs a CPU tensor, also when the checkpoint was mapped to another device.
                generators[name] = torch.Generator().set_state(saved.cpu())
            # What is no state of a generator.
            except (RuntimeError, TypeError, AttributeError) as error:
                raise UserError(f"Got {shown(saved)} for the random stream {shown(name)}: {error}.") from error
        self._generators = generators
