"""Files that results are written to: never an input, never what something else wrote, by one run at a time.

A result is written as `<file>.part`, which is locked, and renamed when it is whole. A link is written through, to the
file that it leads to; that file's mode is kept, and one that is read-only is refused. Only a file that is empty or that
`infer` itself wrote is replaced.
"""

import os
import platform
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from convline.errors import ServeError

if sys.platform != "win32":
    import fcntl

HEAD = 2**20  # bytes of a file that tell whether it is ours
TRIES, PAUSE_S = 20, 0.05  # a killed run's workers hold its lock until they notice that it is gone
CHOOSE = "choose another name"

Own = Callable[[Path], bool]  # whether `infer` wrote a file
Identity = tuple[int, int]  # device and inode


def real(target: str) -> Path:
    """Return the file that is replaced: `target`, or where it leads as a link."""
    return Path(os.path.realpath(target))


def part_of(target: str) -> Path:
    """Return where `target` is written until it is whole."""
    return Path(f"{real(target)}.part")


def second_part_of(target: str) -> Path:
    """Return where a part is made into another form before it takes the target's place."""
    return Path(f"{real(target)}.parquet.part")


def check_replaceable(target: str, own: Own) -> None:
    """Raise ServeError where there is a file in the target's place that must not be replaced."""
    path = real(target)
    try:
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            raise ServeError(f"{target}: expected a file to write, got a folder; name a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise ServeError(
                f"{target}: expected a regular file to write, got a link, pipe or device; {CHOOSE}"
            )
        if not (status.st_mode & 0o222 and os.access(path, os.W_OK)):
            raise ServeError(
                f"{target}: expected a file that can be written, got a read-only one; {CHOOSE}"
            )
        if status.st_size and not own(path):
            what = "expected a new name or an earlier result of `infer`, got another file"
            raise ServeError(f"{target}: {what}; remove it or {CHOOSE}")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ServeError(f"{target}: cannot be written ({error.strerror}); {CHOOSE}") from error


def check_apart(option: str, target: str, inputs: Iterable[str]) -> None:
    """Raise ServeError where writing a target, or stdout for "-", would change one of the inputs; "-" is stdin."""
    written = {_of_stream(sys.stdout)} if target == "-" else {*map(_of_path, _written(target))}
    written.discard(None)
    for name in inputs if written else ():
        if (_of_stream(sys.stdin) if name == "-" else _of_path(name)) in written:
            what = f"expected a file that is not read, got {name}, which would be lost"
            raise ServeError(f"{option} {target}: {what}; {CHOOSE}")


def check_folder_apart(option: str, folder: str, inputs: Iterable[str]) -> None:
    """Raise ServeError where a folder of results is, lies in, or holds one of the inputs: it would be read as one."""
    own = real(folder)
    for name in inputs:
        path = real(name)
        inside = own.is_relative_to(path) if path.is_dir() else own == path.parent and path.exists()
        if inside:
            what = f"expected a folder apart from the inputs, got one that {name} is in"
            what = (
                what
                if not path.is_dir()
                else f"expected a folder apart from the inputs, got one inside {name}"
            )
            raise ServeError(
                f"{option} {folder}: {what}; a second run would read the results of the first"
            )


def _written(target: str) -> list[str]:
    """Return every file that is written on the way to a target."""
    return [target, str(part_of(target)), *map(str, _beside(target))]


def _beside(target: str) -> dict[Path, bytes]:
    """Return what is written beside a part, and how each begins."""
    part = part_of(target)
    journals = [Path(f"{part}.journal"), Path(f"{part}.journal.new")]
    return {**dict.fromkeys(journals, b'{"model": '), second_part_of(target): b"PAR1"}


def _check_left(path: Path, beginning: bytes) -> None:
    """Raise ServeError where a file that is written beside a part is there, and is not what an earlier run left."""
    try:
        if stat.S_ISREG((status := path.lstat()).st_mode):
            with path.open("rb") as file:
                head = file.read(len(beginning))
            if head == beginning or not status.st_size:
                return
    except FileNotFoundError:
        return
    except OSError as error:
        raise ServeError(f"{path}: cannot be written ({error.strerror}); {CHOOSE}") from error
    raise ServeError(
        f"{path}: expected what an earlier run left, got another file; move it or {CHOOSE}"
    )


def _of_path(name: str | int) -> Identity | None:
    try:
        status = os.stat(name)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _of_stream(stream: IO[str] | None) -> Identity | None:
    try:
        return _of_path(stream.fileno()) if stream else None
    except (OSError, ValueError):  # a stream in memory, or closed
        return None


@contextmanager
def open_part(target: str, own: Own) -> Iterator[IO[bytes]]:
    """Give the part of a target, locked, with the mode of the file that it will replace; the caller renames it."""
    check_replaceable(target, own)
    path, part = real(target), part_of(target)
    for beside, beginning in _beside(target).items():
        _check_left(beside, beginning)
    try:
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
        file = _locked(part, 0o666 if mode is None else mode)
    except OSError as error:
        raise ServeError(
            f"{part}: cannot be written ({error.strerror}); make the folder or {CHOOSE}"
        ) from error
    with file:
        head = file.read(1)
        if head and not own(part) and not Path(f"{part}.journal").exists():
            raise ServeError(
                f"{part}: expected what an earlier run left, got another file; move it or {CHOOSE}"
            )
        if mode is not None and sys.platform != "win32":
            os.fchmod(file.fileno(), mode)
        file.seek(0)
        yield file


def open_like(path: Path, other: IO[bytes]) -> IO[bytes]:
    """Return a new file, empty, with the mode of an open one: what it holds is shown to nobody else."""
    path.unlink(missing_ok=True)
    mode = stat.S_IMODE(os.fstat(other.fileno()).st_mode)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags, mode), "r+b")
    if sys.platform != "win32":
        os.fchmod(file.fileno(), mode)
    return file


def write_whole(target: str, content: bytes, own: Own) -> None:
    """Write a small file at once, in place of what has its name."""
    with open_part(target, own) as file:
        try:
            file.truncate(0)
            file.write(content)
            file.flush()
            os.replace(part_of(target), real(target))
        except OSError as error:
            raise ServeError(f"{target}: cannot be written ({error.strerror}); {CHOOSE}") from error


def _locked(part: Path, mode: int) -> IO[bytes]:
    """Return a part that no other run writes; ServeError says who does."""
    # Never through a link: in a folder that others can write to, it might lead to any file of ours.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    for _ in range(TRIES):
        number = os.open(part, flags, mode)
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise ServeError(
                f"{part}: expected a regular file to write, got a pipe or device; {CHOOSE}"
            )
        file = os.fdopen(number, "r+b")
        if _lock(file) and _of_path(str(part)) == _of_path(
            file.fileno()
        ):  # else the other has just renamed it
            return file
        holder = _holder(file)
        file.close()
        time.sleep(PAUSE_S)
    raise ServeError(f"{part}: {holder} is writing it; wait for that run to end or {CHOOSE}")


def _lock(file: IO[bytes]) -> bool:
    if sys.platform == "win32":
        return True  # a file that is open cannot be renamed there
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: IO[bytes]) -> str:
    """Return who holds the lock of a file, as far as Linux tells: a process of this machine that this one may see."""
    status = os.fstat(file.fileno())
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5] == place and words[4] != "0":
                return f"process {words[4]} on {platform.node()}"
    return "another process"
