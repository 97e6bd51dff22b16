"""Collections that are played again: where an engine's buffers were too small, nothing of what it made counts.

Worlds, policy and generator go back to where they were; with more room in the buffers the same starts, the same noise
and the same tasks give what they would have given in the first place.
"""

from __future__ import annotations

import torch

from metarl.errors import UserError
from metarl.types import BatchEnv, MemoryPolicy, Outgrowing, Policy, Returning


class Again:
    """Where a collection began.

    Args:
        env: its worlds, which have their tasks, before the reset.
        policy: acts in them.
        generator: draws starts and noise.
    """

    def __init__(self, env: BatchEnv, policy: Policy, generator: torch.Generator) -> None:
        self._env = env if isinstance(env, Outgrowing) else None
        self._worlds = None if self._env is None else self._env.keep()
        self._policy, self._generator = policy, generator
        self._memory = None
        if self._worlds is not None:
            self._drawn = generator.get_state()
            if isinstance(policy, Returning):
                self._memory = policy.keep()

    def needed(self) -> bool:
        """Tell whether the episodes have to be played again; then all is as it was where they began.

        On a GPU the host waits for it.

        Raises:
            UserError: they have to, and the policy has a memory that cannot go back.
        """
        if self._env is None or self._worlds is None or not self._env.outgrown():
            return False
        if self._memory is not None and isinstance(self._policy, Returning):
            self._policy.go_back(self._memory)
        elif isinstance(self._policy, MemoryPolicy):
            raise UserError(
                f"got a {type(self._policy).__name__}, which remembers episodes that have to be played again, since "
                "the engine's buffers were too small for them. Give it `keep` and `go_back` (metarl.types.Returning), "
                "or take engine cpu"
            )
        self._env.go_back(self._worlds)
        self._generator.set_state(self._drawn)
        return True
