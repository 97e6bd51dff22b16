from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from metarl.cli.main import main
from metarl.fewshot import LEARNERS
from tests.helpers.commands import refused


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("fewshot", ["audit", "examples:"]),
        ("fewshot --help", ["train", "evaluate", "audit", "list", "examples:"]),
        ("fewshot train --help", list(LEARNERS)),
        ("fewshot train --resume x --help", ["--iterations", "--data-root"]),
        ("fewshot evaluate --help", ["--both", "--manifest", "examples:"]),
        ("fewshot predict --help", ["--support", "--query", "signals", "molecules", "examples:"]),
        ("fewshot audit --help", ["--data-root"]),
        ("fewshot list --help", ["--json"]),
        ("fewshot show --help", ["--out"]),
        *((f"fewshot train {name} --help", ["--batch-norm", "--iterations", LEARNERS[name][2]]) for name in LEARNERS),
    ],
)
def test_help_explains(line: str, says: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    # tyro ends the process after its help, as argparse does.
    with contextlib.suppress(SystemExit):
        assert main(line.split()) == (2 if line == "fewshot" else 0)
    shown = capsys.readouterr().out
    for text in says:
        assert text in shown


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("fewshot trian", ["'fewshot trian'", "Did you mean 'train'?"]),
        ("fewshot train prot", ["Unknown learner 'prot'", "Did you mean 'proto'?"]),
        ("fewshot train --data glyphs", ["learner is needed first", "proto"]),
        ("fewshot train proto --data glyfs", ["Did you mean 'glyphs'?"]),
        ("fewshot train proto --learning-rat 1", ["Did you mean '--learning-rate'?"]),
        ("fewshot train proto --way 0 --data sinusoid", ["--way 0", "at least 2"]),
        ("fewshot train proto --data sinusoid", ["proto compares classes", "Use maml"]),
        ("fewshot train proto --device cuda", ["no CUDA device"]),
        ("fewshot train maml --query 3 --way 30 ARRAYS", ["Got 30 ways, and the split 'test' of", "--test-episodes 0"]),
        (
            "fewshot train proto --query 3 --way 30 --test-episodes 0 ARRAYS",
            ["Got 30 ways, and the split 'train' of"],
        ),
        ("fewshot train proto --query 15 ARRAYS", ["15 queries, 16 items of a class", "has 12"]),
        ("fewshot train --resume nowhere", ["no run in nowhere"]),
        ("fewshot evaluate", ["no run"]),
        ("fewshot evaluate nowhere", ["no run in nowhere"]),
        ("fewshot evaluate nowhere --steps -1", ["--steps -1", "from 0 to"]),
        ("fewshot evaluate RUN --way 50", ["Got 50 ways"]),
        ("fewshot evaluate RUN --episodes 0", ["Got --episodes 0", "at least 2"]),
        ("fewshot evaluate RUN --split tset", ["'tset'", "'test'"]),
        ("fewshot evaluate RUN --manifest nowhere", ["no manifest nowhere"]),
        ("fewshot evaluate RUN --meta-dataset --way 5", ["--meta-dataset", "Leave the others out"]),
        ("fewshot evaluate RUN --checkpoint previos", ["'previos'", "'previous'"]),
        ("fewshot audit glyfs", ["Did you mean 'glyphs'?"]),
        ("fewshot audit sinusoid", ["sinusoid", "no classes"]),
        ("fewshot list prot", ["Did you mean 'proto'?"]),
        ("fewshot show sinusoid --out x.png", ["sinusoid", "no images"]),
        ("fewshot show arrays --out x.png --data-root ROOT", ["no images"]),
        ("fewshot show glyphs --out x.gif", ["x.gif", "ends in .png"]),
        ("fewshot show glyphs", ["--out"]),
    ],
)
def test_bad_input_is_one_line(
    line: str,
    says: list[str],
    root: Path,
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    line = line.replace("ARRAYS", "--data arrays --data-root ROOT").replace("ROOT", str(root))
    line = line.replace("RUN", str(runs["proto"]))
    message = refused(line.split(), capsys)
    for text in says:
        assert text in message
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_torch() -> None:
    program = (
        "import sys; from metarl.cli.main import main\n"
        "try: main(['fewshot', 'evaluate', '--help'])\n"
        "except SystemExit: print(sorted({'torch', 'mujoco'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("[]\n")
