"""`metarl bench`: speed on this machine."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

from metarl.bench.timing import explain
from metarl.cli.codes import BAD_INPUT
from metarl.cli.options import parse
from metarl.errors import UserError, nearest

BENCH = """\
Measure speed on this machine, contenders interleaved in one run: medians and ratios.

usage: metarl bench {engines,external,agents,maml,rl2,pearl,fewshot,gpu} [OPTIONS]

  engines   env-steps/s of the CPU engine, its open-loop ceiling, Gymnasium's vector environments and EnvPool
  external  environments of one's own in worker processes, beside a bare loop of the same ones
  agents    whole iterations of agents: seconds, beside the first one's, and the shares of worlds, policy and update
  maml      one meta-iteration by part, the task-batched forms against a loop over tasks
  rl2       what the memory costs while acting, and in a training pass beside a bare nn.GRU; transformer beside GRU
  pearl     its batched update beside a loop over tasks; what an iteration is made of
  fewshot   supervised meta-updates by every executor, Reptile and episode sampling, beside loops over tasks
  gpu       both engines: whole steps beside physics alone, by worlds and cores; iterations, few-shot updates

examples:
  metarl bench engines --family half-cheetah-vel --worlds 32 256 1024
  metarl bench engines --family all
  metarl bench external --family ml1@push --worlds 50 --processes 2
  metarl bench maml --tasks 40 --episodes 20 --json
  metarl bench rl2 --width 64 128
  metarl bench pearl --hidden 300 300 300
  metarl bench fewshot --cases sinusoid sampling"""

BENCHMARKS = {
    "engines": ("EnginesConfig", "run_engines"),
    "external": ("ExternalConfig", "run_external"),
    "agents": ("AgentsConfig", "run_agents"),
    "maml": ("MamlConfig", "run_maml"),
    "rl2": ("MemoryConfig", "run_rl2"),
    "pearl": ("PearlBenchConfig", "run_pearl"),
    "fewshot": ("FewShotConfig", "run_fewshot"),
    "gpu": ("GpuConfig", "run_gpu"),
}
"""Module in metarl/bench -> its settings and the function that runs it."""


def bench_command(arguments: list[str]) -> int:
    """Run `metarl bench`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(BENCH)
        return 0 if arguments else BAD_INPUT
    kind = arguments[0]
    if kind not in BENCHMARKS:
        raise UserError(f"Unknown benchmark '{kind}'.{nearest(kind, BENCHMARKS)}")
    config_class, run = BENCHMARKS[kind]
    module = import_module(f"metarl.bench.{kind}")
    about = f"{BENCH}\n\ncolumns of {kind}:\n{explain(module.COLUMNS)}"
    config: Any = parse(getattr(module, config_class), arguments[1:], f"metarl bench {kind}", about)
    report = getattr(module, run)(config)
    if config.json:
        print(json.dumps(report))
    return 0
