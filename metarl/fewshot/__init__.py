"""Supervised few-shot learning: episodes, data sets, learners."""
