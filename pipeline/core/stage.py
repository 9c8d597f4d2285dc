"""The frame of every stage: command line, header line, error messages, progress bar."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from convline.errors import ServeError
from tqdm import tqdm

from pipeline.core.errors import ParamsError, StageError
from pipeline.core.paths import OUT, RESULTS


def run(main: Callable[[], None]) -> None:
    """Call `main` and exit: with 0, with 1 and a one-sentence error, or with 130 after Ctrl-C.

    A traceback is a bug of ours.
    """
    try:
        main()
    except (ParamsError, ServeError, StageError) as error:
        sys.exit(f"error: {error}")
    except FileNotFoundError as error:
        sys.exit(f"error: {error.filename}: {explain_missing_file(error.filename)}")
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in ("pipeline", "convline", "models"):
            raise  # a bug in our own code
        cure = "run `make`, or `pip install -e '.[train]'`"
        sys.exit(f"error: {error.name} is not installed in {sys.executable}; {cure}")
    except KeyboardInterrupt:
        print("\nstopped; run `dvc repro` again to continue", file=sys.stderr)
        sys.exit(130)


def explain_missing_file(file: object) -> str:
    """Return why a file is missing and the cure: stages write out/ and results/, users the rest."""
    path = Path(str(file)).resolve()
    if any(path.is_relative_to(folder.resolve()) for folder in (OUT, RESULTS)):
        return "not made yet; run `dvc repro`"
    return "no such file or program; put it there, or install it"


@contextmanager
def entry_of_command_line(stage: str) -> Iterator[str]:
    """Yield the entry that the command line names; print a header before and the seconds after.

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
    if "TORCHELASTIC_RUN_ID" in os.environ:
        yield name  # one of several processes: the process that started them prints
        return
    print(f"── {stage}  {name}", file=sys.stderr, flush=True)
    start = time.perf_counter()
    yield name
    print(f"   {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)


def progress(total: int, what: str, unit: str, done: int = 0) -> tqdm[None]:
    """Return a progress bar on stderr that appears after 2 s.

    It is redrawn in place on a terminal, and printed every 20 s elsewhere.
    """
    live = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        desc=f"   {what}",
        unit=unit,
        delay=2,
        mininterval=0.5 if live else 20,
        ascii=not live,
        disable=os.environ.get("RANK", "0") != "0",  # of several processes the first prints
    )
