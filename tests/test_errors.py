from __future__ import annotations

from metarl.errors import LONGEST, UserError, nearest, one_line


def test_nearest_asks_for_the_closest_name_and_lists_all() -> None:
    choices = ["point-nav", "half-cheetah-vel", "ant-dir"]
    assert nearest("halfcheetah-vel", choices) == (
        " Did you mean 'half-cheetah-vel'? Choose from: point-nav, half-cheetah-vel, ant-dir."
    )
    assert nearest("zzz", choices) == " Choose from: point-nav, half-cheetah-vel, ant-dir."
    assert nearest("x", iter(())) == " There is nothing to choose from."


def test_user_errors_are_value_errors() -> None:
    assert issubclass(UserError, ValueError)


def test_a_line_has_an_end_however_long_what_was_given_is() -> None:
    line = one_line(f"Got {'9' * 100_000}. It must be\nat most 3.")
    assert len(line) == LONGEST + 5
    assert line.startswith("Got 999")
    assert line.endswith("999. It must be at most 3.")
    assert one_line("short\nand\x1b[31m") == "short and\\x1b[31m"
