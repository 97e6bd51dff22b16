"""What varies between the tasks of a family: parameters, their ranges and splits."""

from metarl.space.fixed import FixedTasks, ListedTasks
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import SPLITS, ParameterSpace

__all__ = ["SPLITS", "FixedTasks", "ListedTasks", "Parameter", "ParameterSpace"]
