"""Benchmarks, one a file: contenders interleaved in one run, medians and ratios."""
