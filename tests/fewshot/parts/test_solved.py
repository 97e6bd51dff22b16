from __future__ import annotations

import torch

from metarl.fewshot.parts.solved import conjugate_gradients
from tests.helpers.toys import DOUBLE, seeded


def test_conjugate_gradients_solve_every_system() -> None:
    root = torch.randn(4, 6, 6, generator=seeded(), dtype=DOUBLE)
    systems = root @ root.transpose(1, 2) + torch.eye(6, dtype=DOUBLE)
    right = torch.randn(4, 6, generator=seeded(1), dtype=DOUBLE)
    right[2] = 0.0
    found = conjugate_gradients(lambda v: (systems @ v[..., None]).squeeze(-1), right, 12)
    torch.testing.assert_close(found, torch.linalg.solve(systems, right), rtol=1e-8, atol=1e-10)
    assert conjugate_gradients(lambda v: v, right, 0) is right
