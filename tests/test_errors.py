from __future__ import annotations

from metarl.errors import UserError, nearest


def test_nearest_asks_for_the_closest_name_and_lists_all() -> None:
    choices = ["point-nav", "half-cheetah-vel", "ant-dir"]
    assert nearest("halfcheetah-vel", choices) == (
        " Did you mean 'half-cheetah-vel'? Choose from: point-nav, half-cheetah-vel, ant-dir."
    )
    assert nearest("zzz", choices) == " Choose from: point-nav, half-cheetah-vel, ant-dir."
    assert nearest("x", iter(())) == " There is nothing to choose from."


def test_user_errors_are_value_errors() -> None:
    assert issubclass(UserError, ValueError)
