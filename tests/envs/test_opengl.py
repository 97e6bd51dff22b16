"""What is said where MuJoCo cannot be imported for want of the OpenGL that is asked for."""

import pytest

from metarl.envs import opengl
from metarl.errors import UserError


@pytest.mark.parametrize("error", [AttributeError("no glGetError"), RuntimeError("no glGetError"), OSError("no lib")])
def test_the_opengl_that_was_asked_for_is_named(monkeypatch: pytest.MonkeyPatch, error: Exception):
    def fails(name: str) -> None:
        assert name == "mujoco"
        raise error

    monkeypatch.setattr(opengl, "import_module", fails)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(UserError, match=rf"got MUJOCO_GL=osmesa, with which .* \({error}\)\. Unset it, .*libosmesa6"):
        opengl.import_mujoco()
    # What else is wrong with it is not a matter of OpenGL.
    monkeypatch.delenv("MUJOCO_GL")
    with pytest.raises(type(error), match=str(error)):
        opengl.import_mujoco()


def test_where_it_can_be_imported_nothing_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    opengl.import_mujoco()
