"""What moved to maml.py and rl2.py, under its old name."""

from metarl.bench.maml import MamlConfig, run_maml
from metarl.bench.rl2 import MemoryConfig, run_rl2

__all__ = ["MamlConfig", "MemoryConfig", "run_maml", "run_rl2"]
