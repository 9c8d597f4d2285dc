"""The parts of workers: bound batches, the choice of batch size and workers, usable cores; and
`convline.load` in Python.
"""

import io
import os
import threading
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import convline
import numpy as np
import pytest
import tiny
from convline.errors import DeviceMemoryError
from convline.images.classifier import Classifier
from convline.images.predict import PaddedRunner
from convline.jobs import image_job
from convline.jobs.batch_size import (
    BATCH_SIZES,
    choose_batch_size,
    choose_task_size,
    measure_batch_size,
    time_image,
)
from convline.jobs.image_job import DEFAULTS, ImageWorker, answer_images, answer_sources
from convline.jobs.run import EncodedBatch
from convline.loading import load_file, open_model
from convline.model_file.onnx_file import read_model_file
from convline.runtime.engine import Engine
from convline.runtime.host import usable_cores
from convline.runtime.sources import Source
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def test_padded_batches_equal_plain_runs(classifier: Path) -> None:
    """Also batches shorter than the padding, and several threads at once."""
    model = load_file(classifier, "cpu")
    images = np.random.default_rng(1).integers(0, 256, (37, 8, 8, 1), dtype=np.uint8)
    run = PaddedRunner(model, 16, "cpu")
    parts = [images[:16], images[16:32], images[32:]]
    found: dict[int, tuple[np.ndarray, ...]] = {}
    workers = [
        threading.Thread(target=lambda k=k: found.update({k: run(parts[k])})) for k in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    np.testing.assert_allclose(
        np.concatenate([found[k][0] for k in range(3)]),
        model.predict_proba(images),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("cost", "expected"),
    [(lambda n: 5.0, 4), (lambda n: 1.0 * n, 1), (lambda n: 1.0 * n**2, 1)],
    ids=["a call costs all", "an image costs all", "a batch takes longer than its parts"],
)
def test_the_batch_grows_while_throughput_grows(
    monkeypatch: pytest.MonkeyPatch, cost: Callable[[int], float], expected: int
) -> None:
    """By a clock that only the runs move: this machine's own has other work."""
    now = 0.0

    def run(size: int) -> None:
        nonlocal now
        now += cost(size) * 1e-3

    monkeypatch.setattr("convline.jobs.batch_size.time.perf_counter", lambda: now)
    assert measure_batch_size(run, 1, (1, 2, 4)) == expected


def test_there_is_at_least_one_usable_core() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("holds", "expected"), [(64, 64), (8, 8), (3, 2), (1, 1)])
def test_the_batch_is_limited_by_device_memory(
    monkeypatch: pytest.MonkeyPatch, holds: int, expected: int
) -> None:
    """Larger is faster here, and memory holds `holds` images: the last of 16, 32, 64 that fits, or
    a half.
    """

    def rate(run: object, size: int, count: int) -> float:
        if size > holds:
            raise DeviceMemoryError("full")
        return float(size)

    monkeypatch.setattr("convline.jobs.batch_size._throughput", rate)
    monkeypatch.setattr("convline.jobs.batch_size.LONG_RUN_S", 9.0)
    assert measure_batch_size(lambda n: None, 2, (16, 32, 64, 128)) == expected


def test_a_single_image_that_does_not_fit_is_an_error() -> None:
    """The error of the run itself, whatever the first size."""

    def full(n: int) -> None:
        raise DeviceMemoryError(f"no memory for {n}")

    for sizes in ((16, 32), (1, 2)):
        with pytest.raises(DeviceMemoryError, match="no memory for 1"):
            measure_batch_size(full, 2, sizes)


@pytest.mark.parametrize(
    ("image_s", "megabytes", "batch", "task"),
    [
        (80e-6, 0.26, 64, 128),  # LeNet-5: the rows and the call of a batch cost as much as images
        (0.9e-3, 1.1, 16, 96),  # ResNet-20
        (8e-3, 14, 4, 12),  # mobilenet_v2
        (7e-3, 5, 4, 12),  # squeezenet1_1
        (23e-3, 245, 8, 8),  # AlexNet: reading the weights takes as long as an image
        (75e-3, 102, 4, 4),  # ResNet-50
        (130e-3, 553, 4, 4),  # VGG-16: a larger batch would leave workers idle at the end
        (2.0, 180, 4, 4),  # a detector
    ],
)
def test_the_batch_is_the_least_whose_overhead_is_small(
    image_s: float, megabytes: float, batch: int, task: int
) -> None:
    """Networks as they were timed (seconds of one image on a core, weights)."""
    assert choose_batch_size(image_s, int(megabytes * 1e6)) == batch
    assert choose_task_size(image_s, batch) == task


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_no_bad_second_chooses_the_batch(bad: int) -> None:
    """Each of the trials takes 80 us, but one is stopped for a second."""
    seconds = [1.0 if trial == bad else 8e-5 for trial in range(3)]
    ran: list[int] = []
    clock = chain.from_iterable((100.0, 100.0 + second) for second in seconds).__next__
    assert choose_batch_size(time_image(ran.append, clock=clock), 255_747) == 64
    assert ran == [1, 1, 1]


def test_an_image_is_timed_in_a_batch() -> None:
    """Of 4 images, which take 0.4 s at best."""
    clock = iter([0.0, 0.5, 1.0, 1.4, 2.0, 3.0]).__next__
    assert time_image(lambda size: None, 4, clock) == pytest.approx(0.1)


def test_a_large_batch_is_not_timed(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task has one batch of more than 64 images, however long it takes; one of 64 is timed."""
    timed: list[int] = []
    monkeypatch.setattr(image_job, "time_image", lambda run, size: timed.append(size) or 1e-3)
    worker = ImageWorker(
        read_model_file(classifier), "cpu", DEFAULTS, "-", engine=Engine("openvino")
    )
    worker.model = open_model(worker.file, "cpu")  # OpenVINO need not be here
    assert worker.choose_sizes(4096)[1:] == (4096, 4096) and timed == []
    assert worker.choose_sizes(65)[1:] == (65, 65) and timed == []
    assert worker.choose_sizes(64)[1:] == (64, 64) and timed == [64]
    assert worker.choose_sizes(8)[1:] == (8, 96) and timed == [64, 8]


def in_threads(monkeypatch: pytest.MonkeyPatch, before: Callable[[str], object]) -> None:
    """Have threads answer, which call `before` with the first path of each of their tasks."""
    process = ImageWorker.process

    def process_after(worker: ImageWorker, task: image_job.Task) -> list[EncodedBatch]:
        before(task[0][0].path)
        return process(worker, task)

    monkeypatch.setattr(image_job, "SMALL_MODEL", 0)
    monkeypatch.setattr(ImageWorker, "process", process_after)


def test_no_bad_second_chooses_the_workers(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread per core, though the first image takes a second: each of the eight batches waits
    until four threads have one.
    """
    together = threading.Barrier(4)
    in_threads(monkeypatch, lambda path: together.wait(timeout=20))
    monkeypatch.setattr(image_job, "usable_cores", lambda: 4)
    monkeypatch.setattr(image_job, "MANY", 32)
    monkeypatch.setattr(image_job, "time_image", lambda *_: 1.0)
    sources = [Source(f"none-{n}.png") for n in range(32)]
    output = str(tmp_path / "rows.csv")
    summary = answer_images(read_model_file(classifier), "cpu", sources, output, io.BytesIO())
    assert (summary.workers, summary.batch) == ("4 threads", 4)


def test_rows_do_not_depend_on_the_choice(
    classifier: Path,
    shades: tuple[Classifier, dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bytes of a table are the same from one thread and from three, by batches of 3 and of 16,
    though of several the threads with dark images are late.
    """
    in_threads(monkeypatch, lambda path: time.sleep(0.02 * path.endswith("/0.png")))
    sources, file = [*map(Source, [*shades[1]] * 25)], read_model_file(classifier)
    tables = set()
    for workers, batch in ((1, 16), (3, 16), (3, 3)):
        output = tmp_path / f"{workers}-{batch}.csv"
        summary = answer_images(
            file, "cpu", sources, str(output), io.BytesIO(), batch=batch, workers=workers
        )
        assert summary.workers == f"{workers} thread{'s' * (workers > 1)}"
        tables.add(output.read_bytes())
    assert len(tables) == 1 and tables.pop().count(b"\n") == 1 + len(sources)


def test_a_given_batch_is_kept(classifier: Path) -> None:
    """And a task is whole batches; a chosen one is among the sizes."""
    worker = ImageWorker(read_model_file(classifier), "cpu", DEFAULTS, "-")
    assert worker.choose_sizes(None).batch in BATCH_SIZES
    for batch in (1, *BATCH_SIZES):
        sizes = worker.choose_sizes(batch)
        assert sizes.batch == batch and sizes.task % batch == 0


def test_the_api_accepts_every_form_of_an_image(classifier: Path, tmp_path: Path) -> None:
    """The label follows from the brightness, whatever the form; one image is a batch of one."""
    model = convline.load(classifier, "cpu")
    Image.new("RGB", (30, 20), (255, 255, 255)).save(tmp_path / "white.png")
    path = tmp_path / "white.png"
    pictures = [
        path,
        str(path),
        path.read_bytes(),
        Image.new("L", (5, 5), 255),
        np.full((40, 3), 255, np.uint8),
        np.zeros((8, 8, 3), np.uint8),
    ]
    assert model.predict(pictures).tolist() == ["bright"] * 5 + ["dark"]
    assert model.predict(path).tolist() == ["bright"] and model.predict_proba(
        pictures[4]
    ).shape == (1, 3)
    assert model.predict_proba([]).shape == (0, 3)
    expected = tiny.classify_by_brightness(np.full((1, 8, 8, 1), 255))
    np.testing.assert_allclose(model.predict_proba(p for p in pictures[:1]), expected, atol=1e-6)
    with pytest.raises(convline.errors.InputError, match=r"none\.png: no such file"):
        model.predict([path, tmp_path / "none.png"])
    with pytest.raises(convline.errors.InputError, match=r"expected uint8 \(H, W\)"):
        model.predict(np.zeros((3, 3)))


@pytest.fixture(scope="module")
def shades(
    tmp_path_factory: pytest.TempPathFactory, classifier_bytes: bytes
) -> tuple[Classifier, dict[str, str]]:
    """A model, and the label of each file: three shades, and one without a file."""
    folder = tmp_path_factory.mktemp("shades")
    (folder / "tiny.onnx").write_bytes(classifier_bytes)
    for grey in (0, 120, 255):
        Image.new("L", (9, 9), grey).save(folder / f"{grey}.png")
    model, names = (
        load_file(folder / "tiny.onnx", "cpu"),
        {"0": "dark", "120": "middle", "255": "bright", "none": None},
    )
    assert isinstance(model, Classifier)
    return model, {f"{folder}/{name}.png": label for name, label in names.items()}


@settings(max_examples=40, derandomize=True, database=None, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=50), st.integers(1, 9), st.integers(1, 5))
def test_rows_keep_the_order_of_the_inputs(
    shades: tuple[Classifier, dict[str, str]], drawn: list[int], batch: int, workers: int
) -> None:
    """For any mixture with bad files, any batch size and any number of workers."""
    model, labels = shades
    names = [list(labels)[k] for k in drawn]
    answers = answer_sources(model, map(Source, names), batch=batch, workers=workers)
    found = [None if isinstance(answer, str) else answer["label"] for answer in answers]
    assert found == [labels[name] for name in names]
