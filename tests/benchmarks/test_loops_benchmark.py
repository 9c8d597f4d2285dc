"""benchmarks/loops.py: ratios are of rounds, Pillow's decode is infer's."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from convline.images.decode import read_image
from convline.model_file.document import ImageRule
from convline.runtime import host, openvino
from PIL import Image

from benchmarks import loops, shared
from benchmarks.page import END
from pipeline.core.errors import StageError


def test_ratios_are_medians_of_rounds() -> None:
    """By hand: 100/50, 400/100, 30/30, whose median is 2; the medians' ratio is 100/50 too, of the
    third loop 100/40 where the rounds give 100/40, 400/1000, 30/30.
    """
    rates = {loops.OURS: [100.0, 400.0, 30.0], "b": [50.0, 100.0, 30.0], "c": [40.0, 1000.0, 30.0]}
    lines = loops.table(rates, {"timm": "not installed (timm)"}).splitlines()
    assert lines[2] == f"| {loops.OURS} | 100 | 30 to 400 | 1.00 x (1.00 to 1.00) |"
    assert lines[3] == "| b | 50 | 30 to 100 | 2.00 x (1.00 to 4.00) |"
    assert lines[4] == "| c | 40 | 30 to 1,000 | 1.00 x (0.40 to 2.50) |"
    assert lines[5] == "| timm | not installed (timm) | – | – |"


@pytest.mark.parametrize(
    "rule", [ImageRule((24, 32), "rgb"), ImageRule((28, 28), "rgb", "crop", shorter_px=32)]
)
@pytest.mark.parametrize("size", [(50, 37), (32, 24)])
def test_pillows_decode_gives_the_pixels_of_infer(
    tmp_path: Path, rule: ImageRule, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(file := tmp_path / "x.png")
    np.testing.assert_array_equal(loops.decode(str(file), rule), read_image(file, rule))


def test_libraries_that_are_not_installed_are_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'optimum'", name="optimum")

    def plain(name: str, side: int, folder: Path) -> Path:
        return folder / "model.onnx"

    monkeypatch.setattr(loops, "export_plain", plain)
    monkeypatch.setattr(loops, "optimum_loop", missing)
    monkeypatch.setattr(loops, "TIMM", {})
    monkeypatch.setitem(sys.modules, "timm", ModuleType("timm"))
    fake = ModuleType("timm.data")
    vars(fake).update(ImageDataset=None, create_loader=None)
    monkeypatch.setitem(sys.modules, "timm.data", fake)
    monkeypatch.setattr(loops, "cv2_loop", lambda *_: lambda: 7.0)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(shared, "core", openvino.import_openvino)  # where there is no core yet
    package = loops.Package(tmp_path, "openvino", "fp32", "", ImageRule((24, 32), "rgb"), [])
    opened, absent = loops.peers("resnet50", package, [], 2, tmp_path)
    assert {name: run() for name, run in opened.items()} == {"cv2, one by one": 7.0}
    assert absent == {
        loops.ASYNC: "not installed (openvino)",
        "Optimum": "not installed (optimum)",
        "timm": "it has no such network",
    }


def test_a_photo_that_opencv_cannot_decode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("cv2")
    vars(fake)["imread"] = lambda file: None
    monkeypatch.setitem(sys.modules, "cv2", fake)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **options: None)
    with pytest.raises(StageError, match=r"^broken\.jpg: OpenCV cannot decode it"):
        loops.cv2_loop(Path("model.onnx"), 224, ["broken.jpg"])()


def test_a_section_takes_the_place_of_its_own(tmp_path: Path) -> None:
    page, name = tmp_path / "loops.md", host.processor()
    for title, section in (("resnet50", "first"), ("vgg16", "other"), ("resnet50", "second")):
        loops.write_section(page, title, f"{name}, {section}")
    assert page.read_text() == loops.HEAD + "".join(
        f"\n## {title}\n\n<!-- {title} -->\n\n{name}, {section}\n\n{END}\n\n<!-- /{title} -->\n"
        for title, section in (("resnet50", "second"), ("vgg16", "other"))
    )


def test_another_checkouts_infer_takes_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StageError, match="expected a git checkout of this repository"):
        loops.commit_of(tmp_path)
    ran = list[tuple[str, str]]()

    def infer(words: list[str], env: dict[str, str], **_: object) -> SimpleNamespace:
        ran.append((env["PYTHONPATH"], words[len(loops.INFER) + 1]))
        return SimpleNamespace(returncode=0, stderr="4 ok, 0 errors, 2.0 s, 2 images/s")

    monkeypatch.setattr(loops.subprocess, "run", infer)
    monkeypatch.setattr(loops, "commit_of", lambda checkout: "0123456")
    folder = tmp_path / "now" / "out" / "dist" / "pets"
    package = loops.Package(folder, "openvino", "fp32", "", ImageRule((24, 32), "rgb"), [])
    assert loops.infer(folder, [], tmp_path / "a.csv") == 2
    assert ran == [(loops.ENV["PYTHONPATH"], str(folder))]
    before = tmp_path / "before"
    same = {"infer images at 0123456": folder}
    own = same | {"infer images at 0123456, its package": before / "out" / "dist" / "pets"}
    for expected in (same, own):
        ran.clear()
        passes = loops.earlier_passes(before, package, [], tmp_path)
        assert [*passes] == [*expected] and {one() for one in passes.values()} == {2}
        assert ran == [(str(before / "serve"), str(path)) for path in expected.values()]
        own[[*own][1]].mkdir(parents=True, exist_ok=True)


def test_a_package_that_cannot_be_compared_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StageError, match=r"expected the package of an entry; run `dvc repro`$"):
        loops.read_package(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(StageError, match=r"were not measured; run the line with `check.engines"):
        loops.read_package(tmp_path)
    (tmp_path / "manifest.json").write_text('{"engines": {"cpu": {}}}')
    document = SimpleNamespace(document=SimpleNamespace(task="forecasting"))
    monkeypatch.setattr(loops, "read_model_file", lambda path: document)
    with pytest.raises(StageError, match=r"expected .* of a classifier, got forecasting$"):
        loops.read_package(tmp_path)
    with pytest.raises(StageError, match=r"expected a folder of \.jpg or \.png files$"):
        loops.find_images(tmp_path, 3)


def test_images_are_repeated_in_turns(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "c.txt"):
        (tmp_path / name).touch()
    names = [Path(file).name for file in loops.find_images(tmp_path, 3)]
    assert names == ["a.jpg", "b.png", "a.jpg"]
