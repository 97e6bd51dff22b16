"""Stands in for the names of `mujoco`, which its compiled modules define and ship no stubs for."""

from typing import Any

def __getattr__(name: str) -> Any: ...
