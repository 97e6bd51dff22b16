"""Evaluating trained agents from Python: what `metarl evaluate` does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from metarl.api.adaptation import Adaptation
from metarl.api.meeting import Meeting, Split
from metarl.api.recording import Recording
from metarl.api.runs import Run, ending, grouped
from metarl.api.scoring import protocol_results, protocol_tasks
from metarl.arguments import check, checked
from metarl.devices import repeatable, resolve_device
from metarl.envs import mujoco_log
from metarl.envs.reality import find_realities
from metarl.errors import UserError
from metarl.evaluation.curve import Evaluation
from metarl.evaluation.elsewhere import summarise_elsewhere
from metarl.evaluation.summary import summarise
from metarl.files import Folder
from metarl.identification.log import Form
from metarl.run.plateau import training_said
from metarl.run.settings import Checkpoint, Device, Engine
from metarl.system import file_name

Runs = Run | Path | str | Iterable[Run | Path | str]
"""A run or several: folders, or what `metarl.train` and `metarl.load` return."""


@checked
def evaluate(
    runs: Runs,
    *,
    split: Split = "test",
    tasks: int = 40,
    steps: int | None = None,
    episodes: int | None = None,
    horizon: int | None = None,
    checkpoint: Checkpoint = "last",
    oracle: Runs = (),
    floor: Runs = (),
    random: bool = False,
    reality: str | Path | Sequence[str | Path] = (),
    probe: bool = False,
    probe_tasks: int = 256,
    protocol: bool = False,
    protocol_goals: int = 40,
    film: bool = False,
    seed: int = 0,
    out: Folder | Path | str | None = None,
    record: Path | str | None = None,
    record_format: Form = "npz",
    device: Device = "cpu",
    engine: Engine = "auto",
    deterministic: bool = False,
    threads: int = 0,
    trust: bool = False,
    source: Path | str | None = None,
) -> Adaptation:
    """Adapt trained agents to tasks they were not trained on, and return their adaptation curves.

    All agents meet the same tasks, and the same starts as far as their actions allow. Runs of one agent are its
    training seeds and make one curve, unless their settings differ.

    Args:
        runs: of one agent or of several; the agent of the first one comes first.
        split: where the tasks are from: `test` (held out), `ood` (out of distribution), `train`.
        tasks: how many tasks, M.
        steps: adaptation steps; if None 3, for one with a memory as many as lead to the last episode of its trials.
        episodes: parallel episodes of each task; if None as in the training of the first agent that takes gradient
            steps. If all have a memory: 10, fewer above 40 tasks (400 in all), at least 1.
        horizon: steps of an episode; if None as in training. Runs that were trained with several are compared so.
        checkpoint: of runs that are given as folders.
        oracle: runs of an agent that is told the task (oracle, teacher), for the gap closed; without `floor` it
            brings `random`.
        floor: runs of an agent that is told nothing (ppo, multitask), before it adapts: the gap closed is measured from
            there, not from an untrained policy.
        random: evaluate an untrained policy too.
        reality: other realities, by name (`metarl list --realities`) or as YAML files (see envs/reality.py): all agents
            meet the same tasks there too.
        probe: find out what the memory of agents that have one (rl2, varibad) knows of the task, and what a swap does.
        probe_tasks: tasks for the probe to be scored on; it is fitted to twice as many training tasks.
        protocol: play Meta-World's protocol too (metarl/evaluation/protocol.py): success by class and in all in 3
            episodes of a task after 10, and what the loop of Meta-World's package would have said.
        protocol_goals: tasks of each class for it.
        film: film the first task before and after adaptation, where this machine can draw the worlds.
        seed: of tasks, starts and policy noise: the same seed gives the same tasks.
        out: folder that the results are written to (see `Adaptation.write`); if None nothing is written.
        record: new folder for logs of all episodes, one for each training seed of each agent; see
            metarl/identification/README.md.
        record_format: what a log is: `npz`, a file, or `minari`, a data set (needs the extra `minari`).
        device: where the networks live.
        engine: what steps the worlds: `cpu`, `gpu` (mujoco_warp, on the device), or `auto`.
        deterministic: give the same numbers every time, bit for bit; a CPU does so anyway, a GPU is slower then.
        threads: CPU threads; 0 for all cores.
        trust: execute the files of the runs' family though you did not make them on this machine.
        source: file or module that defines the family, where that is not found, or is to be another one.

    Raises:
        UserError: something that was given is wrong, or runs do not fit one another.

    Example:
        >>> curve = metarl.evaluate(["runs/maml-seed0", "runs/maml-seed1", "runs/rl2"], split="ood")
        >>> curve.arrays("rl2")["mean"]
    """
    groups = grouped(_several(runs), checkpoint, device=device, trust=trust, source=source, horizon=horizon)
    if not groups:
        raise UserError("Got no run to evaluate. Give a folder of `metarl train`: metarl evaluate runs/...")
    meeting = Meeting(groups, split, tasks, steps, episodes, seed, resolve_device(device), engine, threads)
    if record is None and record_format != "npz":
        raise UserError(f"Got --record-format {record_format} without --record, which says where. Give that too.")
    recording = None if record is None else Recording(record, record_format)
    meeting.measure_gap(
        grouped(_several(oracle), checkpoint, device=device, trust=trust, source=source, horizon=horizon),
        grouped(_several(floor), checkpoint, device=device, trust=trust, source=source, horizon=horizon),
    )
    told, lowest = meeting.told, meeting.floor
    random = random or (told is not None and lowest is None)
    realities = find_realities(reality)
    with repeatable(on=deterministic):
        meeting.make()
        if recording is not None:
            meeting.record(recording, random=random)
        for there in realities:
            meeting.check_reality(there)
        if probe:
            meeting.prepare_probe(probe_tasks)
        for_score = protocol_tasks(meeting, protocol_goals) if protocol else None
        if out is not None:
            # Better refused now than when everything has been computed.
            for group in groups:
                Folder.of(out).make().below(file_name(group.label)).check()
        probes = meeting.probe() if probe else []
        scores = [] if for_score is None else protocol_results(meeting, *for_score)
        entries = tuple(meeting.entry(group) for group in groups)
        evaluation = Evaluation(
            family=meeting.family.full_name,
            split=split,
            seed=seed,
            entries=entries,
            oracle=meeting.oracle(),
            oracle_training=None if told is None else training_said([ending(run) for run in told.runs]),
            floor=meeting.lowest(),
            floor_agent=None if lowest is None else lowest.label,
            random=meeting.random() if random else None,
            coincide=meeting.family.space.coincide,
        )
        films = meeting.films(entries) if film else {}
        elsewhere = tuple(meeting.elsewhere(there, evaluation) for there in realities)
    summary = summarise(evaluation)
    if elsewhere:
        summary["realities"] = [summarise_elsewhere(evaluation, there) for there in elsewhere]
    curve = Adaptation(
        evaluation=evaluation, summary=summary, probes=probes, protocols=scores, films=films, elsewhere=elsewhere
    )
    if out is not None:
        curve.write(out)
    mujoco_log.report(out)
    return curve


def _several(runs: Runs) -> list[Run | Path | str]:
    several = [runs] if isinstance(runs, Run | Path | str) else list(runs)
    for run in several:
        check(Run | Path | str, run, "evaluate: got the run ")
    return several
