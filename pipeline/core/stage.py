"""What every stage shares: its header line with time left, its errors in one sentence, its JSON files."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convline.errors import ServeError
from tqdm import tqdm

from pipeline.core.errors import ParamsError, StageError
from pipeline.core.files import write_json
from pipeline.core.paths import OUT, RESULTS

SECONDS = OUT / "seconds.json"  # how long each stage took for each entry when it last ran


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main` and exit: 0, 1 with a one-sentence error, or 130 after Ctrl-C. A traceback is a bug."""
    try:
        main()
    except (ParamsError, ServeError, StageError) as error:
        sys.exit(f"error: {error}")
    except FileNotFoundError as error:
        ours = Path(str(error.filename)).resolve().is_relative_to
        if ours(OUT.resolve()) or ours(RESULTS.resolve()):
            sys.exit(f"error: {error.filename}: not made yet; run `dvc repro`")
        sys.exit(f"error: {error.filename}: no such file or program; put it there, or install it")
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in ("pipeline", "convline", "models"):
            raise  # a mistake in our own code
        sys.exit(
            f"error: {error.name} is not installed in {sys.executable}; run `make`, or `pip install -e '.[train]'`"
        )
    except KeyboardInterrupt:
        print("\nstopped; run `dvc repro` again to continue", file=sys.stderr)
        sys.exit(130)


@contextmanager
def of_entry(stage: str) -> Iterator[str]:
    """Yield the entry named on the command line, framed by a header (k of n, time left) and the time it took."""
    if len(sys.argv) != 2:
        raise StageError(f"usage: python -m pipeline.{stage} ENTRY")
    name = sys.argv[1]
    folder = OUT / "params"
    names = sorted(p.name for p in folder.iterdir()) if folder.exists() else []
    if name not in names:
        choices = ", ".join(names) or "nothing yet: run `dvc repro params`"
        raise StageError(
            f"{stage}: no entry {name!r} under `line:` of params.yaml; it has {choices}"
        )
    if (
        "TORCHELASTIC_RUN_ID" in os.environ
    ):  # one of several processes: who started them says what goes on
        yield name
        return
    log = read_log()
    done, seconds = log["done"].get(stage, []), log["seconds"].get(stage, {})
    print(header(stage, name, names, done, seconds), file=sys.stderr, flush=True)
    start = time.perf_counter()
    yield name
    took = time.perf_counter() - start
    log = read_log()  # again: another stage may have written it meanwhile
    log["done"][stage] = sorted({*log["done"].get(stage, []), name})
    log["seconds"].setdefault(stage, {})[name] = round(took, 1)
    write_json(SECONDS, log)
    print(f"   {took:.1f} s", file=sys.stderr, flush=True)


def read_log() -> dict[str, Any]:
    """Return which entries each stage has done in this run, and the seconds they took now or in earlier ones."""
    log = json.loads(SECONDS.read_text()) if SECONDS.exists() else {}
    if log.get("run") != os.getpgrp():  # a new `dvc repro`: count from the start again
        log = {"run": os.getpgrp(), "done": {}, "seconds": log.get("seconds", {})}
    return log


def header(
    stage: str, name: str, names: list[str], done: list[str], seconds: dict[str, float]
) -> str:
    """Return `── train  lenet5-digits  3 of 8, about 40 s left in this stage`, estimated from earlier runs."""
    done = [other for other in done if other != name]  # run by hand, an entry may come twice
    line = f"── {stage}  {name}  {len(done) + 1} of {len(names)}"
    if not seconds:
        return line
    mean = sum(seconds.values()) / len(seconds)
    left = sum(seconds.get(other, mean) for other in names if other not in done)
    return f"{line}, about {left:.0f} s left in this stage"


def progress(total: int, what: str, unit: str, done: int = 0) -> tqdm:
    """Return a progress bar on stderr after 2 s: live on a terminal, a line now and then elsewhere."""
    live = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        desc=f"   {what}",
        unit=unit,
        delay=2,
        mininterval=0.5 if live else 20,
        ascii=not live,
        disable=os.environ.get("RANK", "0") != "0",  # one of several processes speaks
    )
