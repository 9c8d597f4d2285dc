"""The commands about images: `infer images` and `infer explain`."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convline.cli import messages, options
from convline.cli.open_model import ModelChoice, read_model
from convline.cli.streams import stdout_bytes
from convline.errors import describe_count

if TYPE_CHECKING:
    from convline.images.image_model import Options as AnswerOptions
    from convline.jobs.run import Summary
    from convline.model_file.onnx_file import ModelFile


@click.command()
@options.MODEL
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@options.OUTPUT
@options.FORMAT
@click.option(
    "--top-k",
    type=click.IntRange(1),
    help="Labels per image of a classifier, the most probable first.  [default: 1]",
)
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    help="Lowest score of a detector's finds.  [default: that of the model file]",
)
@click.option(
    "--beams",
    type=click.IntRange(1, 16),
    help="Captions that a captioner's search keeps after each word.  [default: 3]",
)
@click.option(
    "--masks",
    metavar="FOLDER",
    help="Write the class of each pixel, of a segmenter: a PNG with a palette for each image.",
)
@click.option(
    "--draw",
    metavar="FOLDER",
    help="Write each image with its labels, boxes, classes or caption on it, as a PNG.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 4096),
    help="Images per run of the network.  [default: by the time of one]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Batches that are processed at the same time.  [default: one per core]",
)
@options.RESUME
@click.option(
    "--cluster",
    is_flag=True,
    help="Run the workers on the Ray cluster that RAY_ADDRESS names, or on one of this machine.",
)
@options.NUL
@options.QUIET
@options.STRICT
@options.model_choice
def images(
    choice: ModelChoice, paths: tuple[str, ...], output: str, form: str | None,
    batch: int | None, workers: int | None, resume: bool, cluster: bool, nul: bool, strict: bool,
    **asked: Any,
) -> None:  # fmt: skip
    """Label images, their objects or their pixels, or caption them.

    A PATH is an image file, a folder (searched recursively), a .zip or .tar archive of images, a
    .parquet file with a column `bytes`, a glob in quotes, or - to read file names from stdin, one
    per line.

    The table has the rows of each image, in input order: path, the columns below, status, error. An
    image that cannot be read gets a row with status error and the reason; the other images are not
    affected.

    \b
    classifier  label, score, and with --top-k also label_2, score_2 and so on
    detector    label, score, x_min, y_min, x_max, y_max: a row for each object that was found, in
                pixels of the upright image; an image without one has a row without a label
    segmenter   label, share, mask: a row for each class in the image, its share of the pixels,
                and with --masks the name of the mask
    captioner   caption, score

    A picture of --masks and --draw has the path of its image below FOLDER, with .png behind it.

    \b
    infer images lenet5-digits digits/ 'more/*.png' --top-k 3 -o labels.csv
    infer images lenet5-digits digits/ --format jsonl
    find . -name '*.jpg' -print0 | infer images lenet5-digits -0 - -o labels.parquet --resume
    infer images fasterrcnn-scenes photos/ --min-score .7 --draw drawn -o finds.csv
    infer images farabet-scenes photos/ --masks masks -o shares.csv
    """
    # numpy's BLAS threads are not used, and they would make a fork of this process unsafe.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    options.check_output(output, [choice.model, *paths], form, resume=resume)
    from convline.images.decode import LOW_CONTRAST
    from convline.images.sources import ImageSources
    from convline.jobs.image_job import answer_images

    file, device, engine = read_model(choice, "images")
    answer_options = _answer_options(file, asked, paths)
    sources = ImageSources(paths, sys.stdin.buffer, nul=nul, live=output == "-")
    progress, started = messages.Progress("images"), time.perf_counter()

    def show(summary: "Summary") -> None:
        if summary.checkpoint.rows == summary.resumed and choice.device == "auto":
            messages.note(f"device: {summary.device}")
        progress.count(summary.checkpoint.rows, summary.checkpoint.failed)

    with messages.advice_on_interrupt(messages.resume_advice(output)):
        done = answer_images(
            file, device, sources, output, stdout_bytes(), options=answer_options,
            engine=engine, batch=batch, workers=workers, resume=resume, table_format=form,
            cluster=cluster, watch=show,
        )  # fmt: skip
    progress.clear()
    messages.note_skipped_and_resumed(sources.skipped, done.resumed)
    if done.low_contrast:
        messages.note(f"{describe_count(done.low_contrast, 'image')} came out {LOW_CONTRAST}")
    parts = (
        f", run {done.reduced_batch} at a time because memory was short"
        if done.reduced_batch
        else ""
    )
    messages.note(
        f"started in {done.start_s:.2f} s; batches of {done.batch}{parts}, {done.workers}: "
        f"decoding {done.decode_s:.2f} s, inference {done.inference_s:.2f} s, "
        f"writing {done.write_s:.2f} s, summed over the workers"
    )
    messages.finish(
        done.checkpoint.rows, done.checkpoint.failed, "images", started=started + done.start_s,
        device=done.device, strict=strict, output=output, resumed=done.resumed,
    )  # fmt: skip


def _answer_options(
    file: "ModelFile", asked: dict[str, Any], paths: tuple[str, ...]
) -> "AnswerOptions":
    """Return the options that a model takes; UsageError for one that its task has not."""
    from convline.images.image_model import Options
    from convline.images.kinds import KINDS
    from convline.jobs.output_files import follow_link, require_folder_apart
    from convline.model_file.document import ClassifierDocument

    given = {name: value for name, value in asked.items() if value is not None}
    takes = (*KINDS[file.task].OPTIONS, "draw")
    for name in given:
        if name not in takes:
            tasks = " and ".join(task for task, kind in KINDS.items() if name in kind.OPTIONS)
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} is for {tasks}, and {file.name!r} is for {file.task}")
    document = file.document
    if isinstance(document, ClassifierDocument) and given.get("top_k", 1) > len(document.labels):
        raise click.BadParameter(
            f"expected at most the model's {len(document.labels)} labels", param_hint="--top-k"
        )
    for name in ("masks", "draw"):
        if name in given:
            named = [path for path in paths if path != "-"]
            require_folder_apart(f"--{name}", given[name], named)
    folders = [follow_link(given[name]) for name in ("masks", "draw") if name in given]
    if len({*folders}) < len(folders):
        expected = "expected a folder apart from that of --masks, got the same one"
        raise click.UsageError(f"--draw {given['draw']}: {expected}; choose another")
    return Options(**given)


@click.command()
@options.MODEL
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "-o", "--output", metavar="FOLDER", required=True, help="Folder for the maps and their table."
)
@click.option(
    "--method",
    type=click.Choice(["saliency", "integrated-gradients", "smoothgrad", "occlusion", "rise"]),
    help="How maps are computed. The first three need a model that was exported with "
    "`saliency: true`.  [default: saliency for such a model, else occlusion]",
)
@click.option(
    "--baseline",
    type=click.Choice(["black", "grey"]),
    help="Colour that replaces a pixel (integrated-gradients, occlusion, rise).  "
    "[default: grey for occlusion, else black]",
)
@click.option(
    "--steps", type=click.IntRange(1, 10000), default=50, help="Steps of integrated-gradients."
)
@click.option(
    "--samples",
    type=click.IntRange(1, 10**6),
    help="Random samples of smoothgrad (default 50) or rise (default 2000).",
)
@click.option(
    "--sigma",
    type=click.FloatRange(0, 1),
    default=0.15,
    help="Standard deviation of smoothgrad's noise; 1 is the range from black to white.",
)
@click.option(
    "--patch",
    type=click.IntRange(1),
    help="Side, in pixels, of the square with which occlusion covers the image.  "
    "[default: an eighth of the image]",
)
@click.option(
    "--stride",
    type=click.IntRange(1),
    help="Pixels from one square of occlusion to the next.  [default: half a patch]",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of random samples.")
@click.option("--batch", type=click.IntRange(1, 4096), default=32, help="Images per run.")
@options.NUL
@options.QUIET
@options.STRICT
@options.file_choice
def explain(
    choice: ModelChoice, paths: tuple[str, ...], output: str, method: str | None,
    nul: bool, strict: bool, **method_options: Any,
) -> None:  # fmt: skip
    """Draw heat maps of the pixels that an answer depends on.

    The answer is the most probable class; of a detector the best find, of a segmenter the class of
    the most pixels apart from the background, of a captioner the caption.

    A PATH is an image file, a folder, an archive, a glob in quotes, or - to read file names from
    stdin.

    FOLDER receives for each image NAME.png (the image as the network sees it, beside the same image
    with the map over it) and NAME.npy (the map), and explanations.csv with a row per image: path,
    label, score, method, gap, file, status, error. The gap, of integrated-gradients only, is the
    difference between the map's sum and what the map should explain, as a share of the latter; more
    --steps make it smaller.

    \b
    infer explain lenet5-digits digits/ -o maps
    infer explain lenet5-digits photo.jpg -o maps --method rise --samples 4000 --seed 1
    """
    from convline.explain.job import COLUMNS, TABLE, explain, make_folder
    from convline.explain.methods import Options, explainer
    from convline.images.sources import ImageSources
    from convline.jobs.output_files import require_folder_apart
    from convline.jobs.writers import open_table

    require_folder_apart("--output", output, [path for path in paths if path != "-"])
    file = read_model(choice, "images").file
    method = method or ("saliency" if file.has_gradient else "occlusion")
    model = explainer(file, method, choice.device)
    messages.note(f"device: {model.device}; method: {method}")
    make_folder(folder := Path(output))
    sources = ImageSources(paths, sys.stdin.buffer, nul=nul)
    progress, started = messages.Progress("images"), time.perf_counter()
    rows, failed, gaps = 0, 0, list[float]()
    table = open_table(str(folder / TABLE), COLUMNS, stdout_bytes())
    with messages.advice_on_interrupt(f"{folder} holds the finished maps"), table as write:
        for rows, row in enumerate(
            explain(model, sources, method, Options(**method_options), folder), 1
        ):
            write([row])
            failed += row["status"] == "error"
            gaps += [float(row["gap"])] if row["gap"] is not None else []
            progress.count(rows, failed)
    progress.clear()
    if gaps:
        median = sorted(gaps)[len(gaps) // 2]
        messages.note(
            f"completeness gap: median {median:.2g}, largest {max(gaps):.2g}; "
            "more --steps make it smaller"
        )
    messages.finish(
        rows, failed, "images", started=started, device=model.device, strict=strict,
        output=str(folder / TABLE),
    )  # fmt: skip
