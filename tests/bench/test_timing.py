"""What benchmarks share: turns, ratios, tables that can be read as a whole."""

import pytest

from metarl.bench.timing import explain, in_turn, percent, print_table, ratio, seconds_of


def test_contenders_take_turns_and_the_first_round_is_left_out():
    done: list[str] = []

    def note(name: str) -> int:
        done.append(name)
        return len(done)

    assert in_turn(2, {name: lambda name=name: note(name) for name in "ab"}) == {"a": [3, 5], "b": [4, 6]}
    assert done == list("ababab")


def test_a_ratio_is_the_median_of_the_rounds():
    assert ratio([1.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == 2.0


def test_seconds_are_those_of_one_call():
    calls = []
    assert seconds_of(lambda: calls.append(1)) < 0.1
    assert len(calls) == 1
    calls.clear()
    assert 0.0 < seconds_of(lambda: calls.append(1), least=0.02) <= 0.04 / len(calls) < 0.01


def test_tables_break_what_is_too_wide_and_cut_nothing_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "30")
    print_table(
        "a title that is longer", ("name", "s"), [("half-cheetah-terrain@v5", "123,456,789,012")], words=("name",)
    )
    shown = capsys.readouterr().out
    assert "a title that is longer\n" in shown
    assert "…" not in shown
    cells = [line.split("│")[1:3] for line in shown.splitlines() if line.startswith("│")]
    assert ["".join(part.strip() for part in column) for column in zip(*cells, strict=True)] == [
        "half-cheetah-terrain@v5",
        "123,456,789,012",
    ]


def test_small_shares_have_a_decimal():
    assert [percent(share) for share in (0.0012, 0.042, 0.25, 0.997)] == ["0.1%", "4.2%", "25%", "100%"]


def test_columns_are_explained_in_a_line_each():
    assert explain({"s": "seconds", "ratio": "of both"}) == "  s      seconds\n  ratio  of both"
