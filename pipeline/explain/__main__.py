"""Stage explain: pictures of what a trained network has learned, and measures of its explanations.

Reads out/params/<entry>/, results/<entry>/train.json, the weights of stage train, the file of stage
export and the data.
Writes out/<entry>/explain/: pictures, and page.json with sections, captions and facts; those facts
that are the same on another machine go to results/<entry>/explain.json.
Fails when a number is not finite, when integrated gradients do not add up to the score, when the
occlusion maps of the file and of torch differ, or when a ReLU of the network cannot be made a
module. A method that fails its randomisation check is marked in the facts; it is not an error.

    python -m pipeline.explain ENTRY
"""

from __future__ import annotations

import torch

from pipeline.core.stage import entry_of_command_line, progress, run
from pipeline.explain.sections import Section, write_sections
from pipeline.explain.subject import open_subject
from pipeline.explain.tasks import TASKS


def main() -> None:
    with entry_of_command_line("explain") as (name, summarize):
        torch.manual_seed(0)  # results repeat even where a module does not seed its own generator
        subject = open_subject(name)
        torch.set_num_threads(subject.recipe.threads)  # sums in the same order on every machine
        sections: dict[str, Section] = {}
        task = TASKS[subject.source.task]
        modules = task.SECTIONS + (task.SYNTHESIS if subject.recipe.synthesis else ())
        bar = progress(len(modules), "explain", "section")
        for module in modules:
            if section := module.make_section(subject):
                sections[module.__name__.rpartition(".")[2]] = section
            bar.update()
        bar.close()
        write_sections(subject, sections)
        summarize(describe_sections(sections))


def describe_sections(sections: dict[str, Section]) -> str:
    """Return the number of pictures, and the attribution method whose deletion order gains most."""
    pictures = sum(len(section.pictures) for section in sections.values())
    text = f"{pictures} pictures in {len(sections)} sections"
    if "attribution" not in sections:
        return text
    gains = {
        name: facts["deletion_gain"]
        for name, facts in sections["attribution"].facts["methods"].items()
        if "deletion_gain" in facts and facts.get("sane", True) and name != "edges"
    }
    if not gains:
        return text
    best = max(gains, key=lambda name: float(gains[name][0]))
    return f"{text}; best attribution {best}, {gains[best][0]:+.2f} by deletion over random order"


if __name__ == "__main__":
    run(main)
