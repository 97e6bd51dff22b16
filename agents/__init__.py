"""Agents by name: maml-trpo, rl2, multitask, oracle, random, and those that `register` adds."""

from metarl.agents.registry import AGENTS, config_class, make, register

__all__ = ["AGENTS", "config_class", "make", "register"]
