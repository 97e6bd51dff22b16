"""What the tests of the environments share."""

from __future__ import annotations

import sys
from pathlib import Path

# Helpers that stand for a user's modules (own_envs.py): Python and the worker processes find them by their names.
sys.path.append(str(Path(__file__).parents[1] / "helpers"))
