"""Which files may be written: never an input, never a file of someone else, by one run at a time.

A result is written to `<file>.part`, which is locked, and renamed when it is complete. A symbolic
link is followed: the file that it leads to is replaced. The mode of a replaced file is kept, and a
read-only file is refused. Only an empty file or an earlier result of `infer` is replaced.
"""

import os
import platform
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from convline.errors import ServeError

if sys.platform != "win32":
    import fcntl

# The workers of a killed run hold its lock until they notice that their parent is gone.
LOCK_TRIES, LOCK_PAUSE_S = 20, 0.05
CHOOSE = "choose another name"

IsOurs = Callable[[Path], bool]  # whether `infer` wrote a file
FileId = tuple[int, int]  # device and inode


def follow_link(target: str) -> Path:
    """Return the file that is replaced: `target`, or the file that it leads to as a link."""
    return Path(os.path.realpath(target))


def part_of(target: str) -> Path:
    """Return the file that is written until the target is complete."""
    return Path(f"{follow_link(target)}.part")


def checkpoint_of(target: str) -> Path:
    """Return the file beside a part that says how far an interrupted run came."""
    return Path(f"{part_of(target)}.journal")


def new_checkpoint_of(target: str) -> Path:
    """Return the file that replaces an earlier checkpoint file once it has a first entry."""
    return Path(f"{part_of(target)}.journal.new")


def parquet_part_of(target: str) -> Path:
    """Return the file that the JSON lines of a part are converted to."""
    return Path(f"{follow_link(target)}.parquet.part")


def require_replaceable(target: str, is_ours: IsOurs) -> None:
    """Raise ServeError if the target exists and must not be replaced."""
    path = follow_link(target)
    try:
        status = path.lstat()
        expected = cure = ""
        if stat.S_ISDIR(status.st_mode):
            expected, cure = "a file to write, got a folder", "name a file in it"
        elif not stat.S_ISREG(status.st_mode):
            expected = "a regular file to write, got a link, pipe or device"
        elif not (status.st_mode & 0o222 and os.access(path, os.W_OK)):
            expected = "a file that can be written, got a read-only one"
        elif status.st_size and not is_ours(path):
            expected = "a new name or an earlier result of `infer`, got another file"
            cure = f"remove it or {CHOOSE}"
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_write(target, error) from error
    if expected:
        raise ServeError(f"{target}: expected {expected}; {cure or CHOOSE}")


def require_folder(target: str) -> None:
    """Raise ServeError if the target's folder is not there or cannot be written to."""
    folder = follow_link(target).parent
    if not folder.is_dir():
        raise ServeError(f"{target}: expected a folder that exists, got {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ServeError(f"{target}: expected a folder to write in, got {folder}; {CHOOSE}")


def require_not_an_input(option: str, target: str, inputs: Iterable[str]) -> None:
    """Raise ServeError if writing the target would change an input.

    "-" is stdout as the target and stdin as an input.
    """
    if target == "-":
        written = {_file_id(sys.stdout)}
    else:
        files = [follow_link(target), part_of(target), parquet_part_of(target)]
        files += [checkpoint_of(target), new_checkpoint_of(target)]
        written = {_file_id(path) for path in files}
    written.discard(None)
    for name in inputs if written else ():
        if _file_id(sys.stdin if name == "-" else name) in written:
            expected = f"expected a file that is not read, got {name}, which would be lost"
            raise ServeError(f"{option} {target}: {expected}; {CHOOSE}")


def require_folder_apart(option: str, folder: str, inputs: Iterable[str]) -> None:
    """Raise ServeError if an input is in the output folder, or is a folder that contains it."""
    output = follow_link(folder)
    for name in inputs:
        path = follow_link(name)
        if path.is_dir() and output.is_relative_to(path):
            got = f"one inside {name}"
        elif not path.is_dir() and path.exists() and output == path.parent:
            got = f"one that {name} is in"
        else:
            continue
        expected = f"expected a folder apart from the inputs, got {got}"
        cure = "a second run would read the results of the first"
        raise ServeError(f"{option} {folder}: {expected}; {cure}")


@contextmanager
def open_part(target: str, is_ours: IsOurs) -> Iterator[IO[bytes]]:
    """Yield the locked part of a target, in the replaced file's mode; the caller renames it."""
    require_replaceable(target, is_ours)
    path, part = follow_link(target), part_of(target)
    for beside in (checkpoint_of(target), new_checkpoint_of(target)):
        _require_leftover(beside, b'{"model": ')
    _require_leftover(parquet_part_of(target), b"PAR1")
    try:
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
        file = _open_locked(part, 0o666 if mode is None else mode)
    except OSError as error:
        raise _cannot_write(part, error, f"make the folder or {CHOOSE}") from error
    with file:
        if file.read(1) and not is_ours(part) and not checkpoint_of(target).exists():
            raise _not_left_by_us(part)
        if mode is not None and sys.platform != "win32":
            os.fchmod(file.fileno(), mode)
        file.seek(0)
        yield file


def create_with_mode_of(path: Path, other: IO[bytes]) -> IO[bytes]:
    """Return a new, empty file that is as private as an open one."""
    path.unlink(missing_ok=True)
    mode = stat.S_IMODE(os.fstat(other.fileno()).st_mode)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags, mode), "r+b")
    if sys.platform != "win32":
        os.fchmod(file.fileno(), mode)  # the process's umask does not apply
    return file


def write_file(target: str, content: bytes, is_ours: IsOurs) -> None:
    """Write a small file as a whole, in place of an earlier one."""
    with open_part(target, is_ours) as file:
        try:
            file.truncate(0)
            file.write(content)
            file.flush()
            os.replace(part_of(target), follow_link(target))
        except OSError as error:
            raise _cannot_write(target, error) from error


def _cannot_write(path: str | Path, error: OSError, cure: str = CHOOSE) -> ServeError:
    return ServeError(f"{path}: cannot be written ({error.strerror}); {cure}")


def _not_left_by_us(path: Path) -> ServeError:
    expected = "expected what an earlier run left, got another file"
    return ServeError(f"{path}: {expected}; move it or {CHOOSE}")


def _require_leftover(path: Path, beginning: bytes) -> None:
    """Raise ServeError if a file exists that does not begin as an earlier run's would."""
    try:
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            with path.open("rb") as file:
                if not status.st_size or file.read(len(beginning)) == beginning:
                    return
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_write(path, error) from error
    raise _not_left_by_us(path)


def _file_id(file: str | Path | IO[Any] | None) -> FileId | None:
    """Return the identity of a regular file or of an open stream's file, None for others."""
    try:
        if file is None:
            return None
        status = os.stat(file if isinstance(file, str | Path) else file.fileno())
    except (OSError, ValueError):  # a stream in memory or closed; ValueError: a NUL in a name
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _open_locked(part: Path, mode: int) -> IO[bytes]:
    """Return the part, opened and locked. Raises ServeError if another run is writing it."""
    # O_NOFOLLOW: in a folder that others can write to, a link might lead to any file of ours.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    for _ in range(LOCK_TRIES):
        number = os.open(part, flags, mode)
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            expected = "expected a regular file to write, got a pipe or device"
            raise ServeError(f"{part}: {expected}; {CHOOSE}")
        file = os.fdopen(number, "r+b")
        # If the other run has just renamed its part, the locked file is no longer the part.
        if _try_lock(file) and _file_id(part) == _file_id(file):
            return file
        holder = _lock_holder(file)
        file.close()
        time.sleep(LOCK_PAUSE_S)
    raise ServeError(f"{part}: {holder} is writing it; wait for that run to end or {CHOOSE}")


def _try_lock(file: IO[bytes]) -> bool:
    if sys.platform == "win32":
        return True  # a file that is open cannot be renamed there
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_holder(file: IO[bytes]) -> str:
    """Return which process of this machine holds the lock of a file, where Linux tells."""
    status = os.fstat(file.fileno())
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5] == place and words[4] != "0":
                return f"process {words[4]} on {platform.node()}"
    return "another process"
