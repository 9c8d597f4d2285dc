"""The frame of every stage: its command line, its line of output, error messages, progress bars."""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from convline.errors import ServeError
from tqdm import tqdm

from pipeline.core.errors import ParamsError, StageError
from pipeline.core.paths import OUT, RESULTS

STAGE_LINE = re.compile(r"(\S*) *\| (\w+) +[\d.]+ s\b")  # as `stage_line` prints it
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DELAY_S = 2  # until a progress bar appears
PROGRESS_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s [{elapsed}<{remaining}{postfix}]"


def run(main: Callable[[], None]) -> None:
    """Call `main` and exit: with 0, with 1 and a one-sentence error, or with 130 after Ctrl-C.

    A traceback is a bug of ours.
    """
    try:
        main()
    except (ParamsError, ServeError, StageError) as error:
        sys.exit(f"{own_prefix()}error: {error}")
    except FileNotFoundError as error:
        sys.exit(f"{own_prefix()}error: {error.filename}: {explain_missing_file(error.filename)}")
    except PermissionError as error:
        cure = "let this user read and write it"
        sys.exit(f"{own_prefix()}error: {error.filename}: permission denied; {cure}")
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        cure = "free some space, and run it again"
        sys.exit(f"{own_prefix()}error: {Path.cwd()}: {error.strerror}; {cure}")
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in ("pipeline", "convline", "models"):
            raise  # a bug in our own code
        cure = "run `make`, or `pip install -e '.[train]'`"
        sys.exit(f"{own_prefix()}error: {error.name} is not installed in {sys.executable}; {cure}")
    except KeyboardInterrupt:
        print("\nstopped; run `dvc repro` again to continue", file=sys.stderr)
        sys.exit(130)


def explain_missing_file(file: object) -> str:
    """Return why a file is missing and the cure: stages write out/ and results/, users the rest."""
    path = Path(str(file)).resolve()
    if any(path.is_relative_to(folder.resolve()) for folder in (OUT, RESULTS)):
        return "not made yet; run `dvc repro`"
    return "no such file or program; put it there, or install it"


def line_names() -> list[str]:
    """Return the names of the line's entries and studies, as stage params laid them out."""
    files = [file for folder in ("params", "claims") for file in (OUT / folder).glob("*")]
    return [file.name.removesuffix(".json") for file in files]


def prefix(name: str) -> str:
    """Return what begins a line about an entry: its name, padded to the longest one, and a bar.

    name: of an entry or study, "" for a stage of all entries.
    """
    return f"{name:<{max(map(len, [name, *line_names()]))}} | "


def own_prefix() -> str:
    """Return the prefix of the entry or study that the command line names, "" if it names none."""
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    return prefix(name) if name in line_names() else ""


def note(text: str) -> None:
    """Print a line to stderr that begins with the entry of the command line."""
    print(f"{own_prefix()}{text}", file=sys.stderr, flush=True)


def stage_of_line(line: str) -> str | None:
    """Return the stage, as DVC names it, whose end a printed line tells; None for other lines."""
    found = STAGE_LINE.match(line)
    return "@".join(filter(None, (found[2], found[1]))) if found else None


@contextmanager
def stage_line(stage: str, name: str = "") -> Iterator[Callable[[str], None]]:
    """Print one line when a stage has ended well: entry, stage, seconds, summary.

    Yields the function that takes the summary. name: of the entry or study, "" for a stage of all.
    """
    summary: list[str] = []
    start = time.perf_counter()
    yield summary.append
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # else the process that started this one prints
        seconds = f"{time.perf_counter() - start:.1f} s"
        line = f"{prefix(name)}{stage:<7} {seconds:>8}  {'; '.join(summary)}"
        print(line.rstrip(), file=sys.stderr, flush=True)


@contextmanager
def entry_of_command_line(stage: str) -> Iterator[tuple[str, Callable[[str], None]]]:
    """Yield the entry that the command line names, and the function that takes the summary of
    `stage_line`.

    Raises StageError where the command line names no entry of `line:`.
    """
    if len(sys.argv) != 2:
        raise StageError(f"usage: python -m pipeline.{stage} ENTRY")
    name, folder = sys.argv[1], OUT / "params"
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if name not in names:
        choices = ", ".join(names) or "nothing yet: run `dvc repro params`"
        raise StageError(
            f"{stage}: no entry {name!r} under `line:` of params.yaml; it has {choices}"
        )
    with stage_line(stage, name) as summarize:
        yield name, summarize


def progress(total: int, what: str, unit: str, done: int = 0) -> tqdm[None]:
    """Return a progress bar on stderr that appears after DELAY_S and leaves no line.

    It is redrawn in place on a terminal; elsewhere it is a line each minute, or each
    TQDM_MININTERVAL seconds.
    """
    live = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        desc=f"{own_prefix()}{what}",
        unit=unit,
        delay=DELAY_S,
        mininterval=0.5 if live else float(os.environ.get("TQDM_MININTERVAL", 60)),
        bar_format=None if live else PROGRESS_LINE,
        leave=False,
        disable=os.environ.get("RANK", "0") != "0",  # of several processes the first prints
    )
