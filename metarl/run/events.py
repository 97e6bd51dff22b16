"""TensorBoard events, which are written inside their folder as all other files are (metarl/files.py)."""

from __future__ import annotations

import io
import itertools
import os
import socket
import time
from importlib import import_module
from typing import IO, Any

from PIL import Image
from tensorboard.summary.writer.event_file_writer import EventFileWriter, _AsyncWriter
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.writer import FileWriter

from metarl.files import Folder
from metarl.run.glossary import look_up

QUEUE, FLUSH_SECONDS = 10, 10
"""Events that wait to be written at most, and for how long, s."""
_BEGIN = "events.out.tfevents."
_NUMBERS = itertools.count()


class Events(SummaryWriter):
    """Writes events.

    Args:
        folder: where a new file of events is made.
        suffix: end of its name.
        purge_step: TensorBoard is to forget what earlier files say of this step and later ones; None: nothing.
    """

    def __init__(self, folder: Folder, suffix: str = "", purge_step: int | None = None) -> None:
        self._folder = folder
        super().__init__(str(folder), purge_step=purge_step, filename_suffix=suffix)

    def _get_file_writer(self) -> FileWriter:
        if self.file_writer is None:
            # What the base class makes opens its file by a path, whatever lies there.
            writer = FileWriter.__new__(FileWriter)
            writer.event_writer = _InFolder(self._folder, self.filename_suffix)
            self.file_writer = writer
            self.all_writers = {str(self._folder): writer}
            if self.purge_step is not None:
                event = import_module("tensorboard.compat.proto.event_pb2")
                writer.add_event(event.Event(step=self.purge_step, file_version="brain.Event:2"))
                started = event.SessionLog(status=event.SessionLog.START)
                writer.add_event(event.Event(step=self.purge_step, session_log=started))
                self.purge_step = None
        return self.file_writer

    def add(self, summary: Any) -> None:
        """Write what a SummaryWriter has no method for."""
        self._get_file_writer().add_summary(summary)

    def add_picture(self, tag: str, content: bytes) -> None:
        """Write a PNG, or a GIF that moves, as it is.

        Args:
            tag: of the glossary.
            content: of the file.

        Raises:
            ValueError: the glossary lacks the tag.
        """
        look_up(tag)
        with Image.open(io.BytesIO(content)) as picture:
            width, height = picture.size
        # The generated classes have no types.
        summary = import_module("tensorboard.compat.proto.summary_pb2").Summary
        image = summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
        self.add(summary(value=[summary.Value(tag=tag, image=image)]))


class _InFolder(EventFileWriter):
    """Does what its base class does, into a file that a folder opens."""

    def __init__(self, folder: Folder, suffix: str) -> None:
        self._logdir = str(folder)
        self._file_name, self._general_file_writer = _new_file(folder, suffix)
        self._async_writer = _AsyncWriter(RecordWriter(self._general_file_writer), QUEUE, FLUSH_SECONDS)
        self.add_event(
            import_module("tensorboard.compat.proto.event_pb2").Event(
                wall_time=time.time(), file_version="brain.Event:2"
            )
        )
        self.flush()


def _new_file(folder: Folder, suffix: str) -> tuple[str, IO[bytes]]:
    """Make a file; TensorBoard reads files in the order of their names."""
    begin = f"{_BEGIN}{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
    for number in _NUMBERS:
        name = f"{begin}.{number}{suffix}"
        try:
            return str(folder.path / name), folder.create(name)
        except FileExistsError:
            # Not ours: what lies there stays as it is.
            continue
    raise AssertionError("numbers do not end")


def clear_events(folder: Folder, suffix: str) -> None:
    """Remove the events files with this end of their names from a folder and from the folders in it."""
    for name in folder.folders():
        inner = folder.below(name)
        if _clear(inner, suffix):
            # That of an agent which may not be there any more.
            folder.remove_empty(name)
    _clear(folder, suffix)


def _clear(folder: Folder, suffix: str) -> bool:
    """Remove such files, and tell whether there were any."""
    found = [name for name in folder.entries() if name.startswith(_BEGIN) and name.endswith(suffix)]
    for name in found:
        folder.remove(name)
    return bool(found)
