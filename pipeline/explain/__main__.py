"""Stage explain: how a trained network sees, in pictures, and how good the explanations of its answers are, in numbers.

Reads out/params/<entry>/, the weights of stage train, the file of stage export and the data.
Writes out/<entry>/explain/ (pictures, and page.json: what each shows, each section's numbers) and, of the numbers those
that are the same on another machine, results/<entry>/explain.json.
Fails when a number is not finite, when integrated gradients do not add up to the score (completeness), when the file's
maps are not torch's (parity), or when the network's ReLUs cannot be made modules. A method that fails its randomisation
check is recorded and marked, not an error.

    python -m pipeline.explain ENTRY
"""

from __future__ import annotations

import sys
import time

import torch

from pipeline.core.files import write_json
from pipeline.core.paths import RESULTS
from pipeline.core.stage import entry_of_command_line, run
from pipeline.explain.sections import DRIFTING, on_page, opened, repeated, rounded, sections


def main() -> None:
    with entry_of_command_line("explain") as name:
        torch.manual_seed(0)  # a module that forgets its own seed repeats all the same
        subject = opened(name)
        torch.set_num_threads(
            subject.recipe.threads
        )  # what the cores of this machine are decides no number
        found, facts = [], {}
        for module in sections(subject.recipe):
            start, part = time.perf_counter(), module.__name__.rpartition(".")[2]
            section = module.section(subject)
            if section:
                found.append(on_page(section))
                facts[part] = rounded(section.facts, part)
            print(f"   {part} {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
        write_json(subject.folder / "page.json", {"sections": found, "facts": facts})
        same = {
            part: repeated(f, DRIFTING.get(part, ()))
            for part, f in facts.items()
            if DRIFTING.get(part) != ("",)
        }
        write_json(RESULTS / name / "explain.json", {"facts": same})


if __name__ == "__main__":
    run(main)
