"""The errors that a user of `serve` can meet.

    ServeError                  anything the user can cure; `infer` prints it and exits with code 1
    |-- ModelFileError          the model file, its metadata or its package cannot be used
    |-- DeviceError             the device that was asked for is not there
    |-- DeviceMemoryError       the device's memory is full
    +-- InputError              one input cannot be read: an image, a CSV file, one series of it

Messages have the shape `<where>: <expected>, got <value>; <cure>` and are one sentence.
"""

from typing import Self


class ServeError(Exception):
    """What `infer` turns into one line on stderr and exit code 1."""


class ModelFileError(ServeError):
    """The model file, its metadata or its package cannot be trusted or used."""


class DeviceError(ServeError):
    """The device that was asked for is not there."""


class DeviceMemoryError(ServeError):
    """The device's memory is full: a smaller batch may fit."""


class InputError(ServeError):
    """One input cannot be used: `where` names it, `reason` is one sentence; str() is both."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        # An exception that a worker process raises is made again from these in its parent.
        return type(self), (self.where, self.reason)


def describe_count(count: int, noun: str) -> str:
    """Return a count with its noun: "1 image", "1,137 images"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
