"""Make the pictures of README.md and docs/ from the outputs of the pipeline: `make pictures`.

python -m docs.pictures [NAME ...]

Writes docs/img/NAME.png of each NAME, of all where none is given, and prints its text alternative.
A picture whose inputs are not at hand stays as it is; the command says what is missing, and exits
with 1. The same inputs give the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from convline import load
from convline.colours import WHITE
from convline.images.decode import read_full_size
from convline.images.image_model import ImageModel
from convline.jobs.image_job import answer_sources
from convline.runtime.sources import Source
from PIL import Image

from pipeline.evaluate.over_seeds import read_rows
from pipeline.params import load as params
from pipeline.plots.prediction import draw_predictions, reduce_colours
from pipeline.plots.studies import draw_study
from pipeline.plots.worked_convolution import draw_steps

IMG = Path("docs/img")
CLASSIFIER = "mobilenet-clothing"  # the dataset's licence is CC0 1.0
PHOTOS = ("shoes", "hat", "dress", "shorts")  # the first test photo of these classes
SEEING = "resnet20-digits"  # its page has every attribution method
SCENES = ("fasterrcnn-scenes", "farabet-scenes", "captioner-scenes")
BLACK = (0, 0, 0)
PANEL, GAP = 320, 12  # px: the width of a scene, and what is between two
REPORT = Path("out/report")
CHART_COLOURS = 256
SIZE = {"width": 1280, "height": 1200}  # of the report's picture


def require(path: Path, command: str) -> Path:
    """Return a path that exists; FileNotFoundError with the command that makes it."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; {command}")
    return path


def draw_convolution(path: Path) -> str:
    return draw_steps(path).alt


def draw_prediction(path: Path) -> str:
    make = f"add '{CLASSIFIER}: scratch' below line: in params.yaml, and run `make`"
    require(Path("out/dist", CLASSIFIER), f"{make} (docs/data.md: photos and weights)")
    test = Path(os.environ.get("DATA_ROOT", "data"), "photos", "clothing", "test")
    folders = [require(test / name, "set DATA_ROOT (docs/data.md)") for name in PHOTOS]
    return draw_predictions(CLASSIFIER, [min(folder.iterdir()) for folder in folders], path).alt


def draw_seeing(path: Path) -> str:
    folder = Path("out", SEEING, "explain")
    page = json.loads(
        require(folder / "page.json", f"run `dvc repro explain@{SEEING}`").read_text()
    )
    pictures = [picture for section in page["sections"] for picture in section["pictures"]]
    [picture] = [picture for picture in pictures if picture["file"] == "attribution.png"]
    with Image.open(folder / picture["file"]) as drawn:
        drawn.resize((drawn.width // 2, drawn.height // 2)).save(path)  # a quarter of the bytes
    reduce_colours(path, 48)
    return str(picture["alt"])


def draw_scenes(path: Path) -> str:
    """Draw what each network of SCENES answers about its first two test scenes, a column each."""
    columns = []
    for entry in SCENES:
        make = "run `make`"
        model = load(require(Path("out/dist", entry), make), device="cpu", variant="fp32")
        raw = sorted(require(Path("out", entry, "data/raw"), make).glob("*.png"))[:2]
        assert isinstance(model, ImageModel)
        answers = answer_sources(model, [Source(str(file)) for file in raw], batch=1, workers=1)
        pairs = zip(raw, answers, strict=True)
        drawn = [model.draw(read_full_size(file, BLACK), answer) for file, answer in pairs]
        columns.append([one.resize((PANEL, one.height * PANEL // one.width)) for one in drawn])
    tops = [0, GAP + max(column[0].height for column in columns)]
    bottom = tops[1] + max(column[1].height for column in columns)
    page = Image.new("RGB", (len(columns) * (PANEL + GAP) - GAP, bottom), WHITE)
    for place, column in enumerate(columns):
        for top, picture in zip(tops, column, strict=True):
            page.paste(picture, (place * (PANEL + GAP), top))
    page.quantize(CHART_COLOURS).save(path, optimize=True)
    return (
        "Six scenes of handwritten digits: two with a box, label and score for each digit, two "
        "whose pixels are coloured by digit, two with a sentence such as a large 3 left of a 7."
    )


def draw_roofline(path: Path) -> str:
    shutil.copyfile(require(REPORT / "img" / "verdict.roofline.png", "run `make`"), path)
    reduce_colours(path, CHART_COLOURS)
    return "Every file's rate over its arithmetic intensity, below the limits of the machine."


def draw_study_table(path: Path) -> str:
    """Draw a study from its table in results, as the report does."""
    table = require(
        Path("results/studies", f"{path.stem}.csv"), f"run `make study NAME={path.stem}`"
    )
    study = params.load().studies[path.stem]
    draw_study(study, read_rows(table), path, study.claim)
    reduce_colours(path, CHART_COLOURS)
    return study.claim


def draw_report(path: Path) -> str:
    from playwright.sync_api import Error, sync_playwright

    index = require(REPORT / "index.html", "run `make`")
    with sync_playwright() as driver:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        try:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        except Error as error:
            cure = "install Chromium, or run `playwright install chromium`"
            raise FileNotFoundError(f"no browser to show the report; {cure}") from error
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(index.resolve().as_uri())
        page.wait_for_function("document.fonts.ready")
        page.screenshot(path=path)
        browser.close()
    reduce_colours(path, CHART_COLOURS)
    return "The first page of the report: a table of models with metric, size and latency."


DRAW = {
    "prediction": draw_prediction,
    "report": draw_report,
    "convolution": draw_convolution,
    "architecture-or-recipe": draw_study_table,
    "degradation": draw_study_table,
    "generality": draw_study_table,
    "seeing": draw_seeing,
    "roofline": draw_roofline,
    "scenes": draw_scenes,
}


def main(names: list[str]) -> int:
    """Make the pictures; return 1 if the inputs of one are missing, or no picture has the name."""
    if unknown := sorted({*names} - DRAW.keys()):
        print(f"docs.pictures: expected some of {', '.join(DRAW)}, got {', '.join(unknown)}")
        return 1
    failed = 0
    for name in names or DRAW:
        path = IMG / f"{name}.png"
        try:
            print(f"{path}: {DRAW[name](path)}")
        except FileNotFoundError as error:
            print(f"{path} stays as it is: {error}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
