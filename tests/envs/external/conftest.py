"""Puts own_envs.py, which stands for a user's module, where Python and the child processes find it by its name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
