"""Supervised few-shot learning: episodes, data sets, learners; what a user needs to train and test them."""

from __future__ import annotations

from metarl.fewshot.data import DATA, from_arrays, from_functions
from metarl.fewshot.data import load as load_data
from metarl.fewshot.episodes import Episodes, EpisodeShape, Source, Support
from metarl.fewshot.learners import LEARNERS, config_class
from metarl.fewshot.loading import Trained, load
from metarl.fewshot.run import FewShotRun
from metarl.fewshot.training import train
from metarl.fewshot.use import predict, score

__all__ = [
    "DATA",
    "LEARNERS",
    "EpisodeShape",
    "Episodes",
    "FewShotRun",
    "Source",
    "Support",
    "Trained",
    "config_class",
    "from_arrays",
    "from_functions",
    "load",
    "load_data",
    "predict",
    "score",
    "train",
]
