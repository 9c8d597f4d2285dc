"""Image sources: the embedded digits, torchvision's layout on disk, and a user's folders; and the
errors of each.
"""

import gzip
import os
import shutil
import struct
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from convline.images.decode import read_image
from convline.model_file.document import ImageRule
from PIL import Image
from recipes import ROOT

from pipeline.core.errors import StageError
from pipeline.data import image_sources, prepare
from pipeline.data.splits import Sample, stratified

MNIST = ROOT.parent / "shared/datasets"
Spec = Callable[..., dict[str, Any]]
TORCHVISION = pytest.mark.slow  # its first import takes 4-11 s


def ids(splits: image_sources.Splits) -> dict[str, list[str]]:
    return {split: [s.id for s in samples] for split, samples in splits.items()}


def counts(samples: list[Sample]) -> list[int]:
    return np.bincount([s.label for s in samples]).tolist()


@pytest.mark.slow  # imports scikit-learn
def test_digits_are_split_1137_300_360_in_proportion(spec_of: Spec) -> None:
    """Compared with scikit-learn's own reading of the file; in each split each class has its share
    to within one image.
    """
    from sklearn.datasets import load_digits

    truth = load_digits()
    splits, labels = image_sources.images(spec_of("digits"))
    assert {k: len(v) for k, v in splits.items()} == {"train": 1137, "validation": 300, "test": 360}
    every = [s for samples in splits.values() for s in samples]
    assert sorted(int(s.id) for s in every) == list(range(1797))  # disjoint, and nothing is lost
    for sample in every[:50]:
        assert sample.label == truth.target[int(sample.id)]
        grey = np.rint(truth.images[int(sample.id)] * 255 / 16)
        np.testing.assert_array_equal(np.asarray(sample.image), grey)
    share = np.bincount(truth.target) / 1797
    for samples in splits.values():
        assert np.abs(np.array(counts(samples)) - share * len(samples)).max() <= 1.5
    assert labels == list("0123456789")


def test_the_seed_draws_the_splits(spec_of: Spec) -> None:
    first, again, other = (
        ids(image_sources.images(spec_of("digits", seed=seed))[0]) for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.parametrize("count", [1, 7, 10, 99])
def test_a_stratified_draw_has_the_count_and_the_shares(count: int) -> None:
    """Largest remainders: each class differs from its share by less than one."""
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    drawn = stratified(labels, count, np.random.default_rng(0))
    assert len(set(drawn.tolist())) == count
    got = np.bincount(labels[drawn], minlength=3)
    assert (np.abs(got - np.array([0.5, 0.3, 0.2]) * count) < 1).all()


def test_a_count_beyond_the_dataset_is_an_error(spec_of: Spec) -> None:
    with pytest.raises(
        StageError, match=r"^data.digits.test: 900 images asked for, 797 are left; ask for fewer$"
    ):
        image_sources.images(spec_of("digits", validation=1000, test=900))


# torchvision's layout


def write_idx(folder: Path, name: str, array: np.ndarray) -> None:
    """Write MNIST's idx format: magic 0x800 + dimensions, the shape, the bytes; all big-endian."""
    folder.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    (folder / name).write_bytes(head + array.astype(np.uint8).tobytes())


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset in MNIST's format, of 60 and 30 images; every pixel of image i has the value i."""
    for tag, n in (("train", 60), ("t10k", 30)):
        pixels = np.broadcast_to(np.arange(n)[:, None, None], (n, 28, 28))
        write_idx(tmp_path / "root/MNIST/raw", f"{tag}-images-idx3-ubyte", pixels)
        write_idx(tmp_path / "root/MNIST/raw", f"{tag}-labels-idx1-ubyte", np.arange(n) % 10)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture
def offline(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every download fail, as on a machine without a network."""

    def unreachable(*_: Any, **__: Any) -> None:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)


@TORCHVISION
def test_a_dataset_on_disk_is_read_without_a_download(
    small_mnist: Path, offline: None, spec_of: Spec
) -> None:
    """Image i has the value i and class i mod 10; the counts are those of params, in proportion."""
    spec = spec_of("torchvision", name="MNIST", train=40, validation=10, test=20)
    splits, labels = image_sources.images(spec)
    assert {k: counts(v) for k, v in splits.items()} == {
        "train": [4] * 10,
        "validation": [1] * 10,
        "test": [2] * 10,
    }
    for samples in splits.values():
        for sample in samples:
            number = int(sample.id.removeprefix("train").removeprefix("test"))
            assert sample.label == number % 10
            assert (np.asarray(sample.image) == number).all()
    assert labels[0] == "0 - zero"
    assert not Path("out").exists()
    assert ids(splits) == ids(image_sources.images(spec)[0])
    assert not {s.id for s in splits["train"]} & {s.id for s in splits["validation"]}


@TORCHVISION
def test_a_fraction_of_the_dataset_validates(
    small_mnist: Path, offline: None, spec_of: Spec
) -> None:
    splits, _ = image_sources.images(spec_of("torchvision", name="MNIST", validation=0.5))
    assert {k: len(v) for k, v in splits.items()} == {"train": 30, "validation": 30, "test": 30}


@TORCHVISION
def test_counts_beyond_a_dataset_on_disk_are_an_error(
    small_mnist: Path, offline: None, spec_of: Spec
) -> None:
    with pytest.raises(
        StageError, match="torchvision MNIST: 70 images asked for, the set has 60; ask for fewer"
    ):
        image_sources.images(spec_of("torchvision", name="MNIST", train=60, validation=10))


@TORCHVISION
def test_a_dataset_of_files_names_them_by_class_folder_and_file() -> None:
    dataset = SimpleNamespace(samples=[("/data/set/test/hat/1.jpg", 0), ("hat/2.jpg", 0)])
    samples = image_sources._labelled(dataset, "test", "here")
    assert [(s.id, s.name) for s in samples] == [("test0", "hat/1.jpg"), ("test1", "hat/2.jpg")]


def test_a_dataset_without_splits_or_name_is_an_error(offline: None, spec_of: Spec) -> None:
    with pytest.raises(
        StageError, match="torchvision has no set 'MNITS' with splits; did you mean 'MNIST'"
    ):
        image_sources.images(spec_of("torchvision", name="MNITS"))


@TORCHVISION
def test_a_dataset_without_classes_is_an_error(
    tmp_path: Path, offline: None, spec_of: Spec
) -> None:
    with pytest.raises(StageError, match=r"data: torchvision EMNIST: .*; choose another set"):
        image_sources.images(spec_of("torchvision", name="EMNIST"))


@TORCHVISION
@pytest.mark.parametrize("set_root", [True, False])
def test_a_missing_dataset_without_network_is_one_message(
    set_root: bool, tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch, spec_of: Spec
) -> None:
    """It says where the dataset was looked for, why the download failed, and what to do."""
    if set_root:
        monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    else:
        monkeypatch.delenv("DATA_ROOT", raising=False)
    with pytest.raises(StageError) as error:
        image_sources.images(spec_of("torchvision", name="MNIST"))
    where = f"{tmp_path} (DATA_ROOT) does not hold it whole" if set_root else "DATA_ROOT is not set"
    message = str(error.value)
    assert message.startswith(f"data: torchvision MNIST: {where}, and its download failed (")
    assert message.endswith("in torchvision's layout and set DATA_ROOT, or choose `source: digits`")
    assert "\n" not in message


@TORCHVISION
def test_a_repaired_download_is_read(small_mnist: Path, offline: None, spec_of: Spec) -> None:
    """The broken copy of the first attempt does not hide the repaired dataset."""
    missing = small_mnist / "MNIST/raw/t10k-images-idx3-ubyte"
    missing.rename(small_mnist / "kept")
    with pytest.raises(StageError, match="does not hold it whole, and its download failed"):
        image_sources.images(spec_of("torchvision", name="MNIST"))
    (small_mnist / "kept").rename(missing)
    assert len(image_sources.images(spec_of("torchvision", name="MNIST"))[0]["test"]) == 30


@TORCHVISION
def test_a_truncated_dataset_file_is_an_error(
    small_mnist: Path, offline: None, spec_of: Spec
) -> None:
    file = small_mnist / "MNIST/raw/train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(StageError, match="data: torchvision MNIST: "):
        image_sources.images(spec_of("torchvision", name="MNIST"))


@pytest.mark.slow
def test_the_exercise_on_real_mnist(
    offline: None, monkeypatch: pytest.MonkeyPatch, spec_of: Spec
) -> None:
    """2,400 / 600 / 1,000 images from packed files, compared with the idx files themselves."""
    if not (MNIST / "MNIST/raw").exists():
        pytest.skip(f"{MNIST} is absent")
    before = sorted(os.listdir(MNIST / "MNIST/raw"))
    monkeypatch.setenv("DATA_ROOT", str(MNIST))
    spec = spec_of("torchvision", name="MNIST", train=2400, validation=600, test=1000)
    splits, _ = image_sources.images(spec)
    assert {k: len(v) for k, v in splits.items()} == {
        "train": 2400,
        "validation": 600,
        "test": 1000,
    }
    raw = gzip.decompress((MNIST / "MNIST/raw/t10k-images-idx3-ubyte.gz").read_bytes())
    truth = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)
    for sample in splits["test"][:20]:
        np.testing.assert_array_equal(
            np.asarray(sample.image), truth[int(sample.id.removeprefix("test"))]
        )
    assert ids(image_sources.images(spec)[0]) == ids(splits)
    assert sorted(os.listdir(MNIST / "MNIST/raw")) == before  # the given folder stays as it is


# a user's folder


def test_a_folder_is_split_by_the_seed(photo_folder: Callable[..., Path], spec_of: Spec) -> None:
    root = photo_folder({"hat": 20, "shoe": 10})
    spec = spec_of("folder", path=str(root), validation=0.2, test=6)
    splits, labels = image_sources.images(spec)
    assert labels == ["hat", "shoe"]
    assert {k: counts(v) for k, v in splits.items()} == {
        "train": [12, 6],
        "validation": [4, 2],
        "test": [4, 2],
    }
    assert len({s.id for v in splits.values() for s in v}) == 30
    for sample in splits["test"]:  # a reader finds the file beside the folder by this name
        assert root.parent / sample.name == sample.image
    assert (
        ids(splits)
        == ids(image_sources.images(spec)[0])
        != ids(image_sources.images(spec.updated(seed=5))[0])
    )


@pytest.mark.parametrize("validation", [None, "val"])
def test_a_folder_with_given_splits(
    photo_folder: Callable[..., Path], spec_of: Spec, validation: str | None
) -> None:
    """train/ and test/ as they are; val/ as well, or else drawn from train/.

    One test image of a class is enough.
    """
    root = photo_folder({"train/hat": 10, "train/shoe": 10, "test/hat": 3, "test/shoe": 1})
    if validation:
        photo_folder({f"{validation}/hat": 2, f"{validation}/shoe": 2})
    splits, _ = image_sources.images(spec_of("folder", path=str(root), validation=4))
    assert all(s.id.startswith("test/") for s in splits["test"]) and counts(splits["test"]) == [
        3,
        1,
    ]
    assert counts(splits["validation"]) == [2, 2]
    assert counts(splits["train"]) == ([10, 10] if validation else [8, 8])


BAD_FOLDERS = [
    ({"hat": 5}, "has 1 class folder; at least 2 are needed"),
    ({"hat": 5, "shoe": 1}, "class 'shoe' in {root} has 1 image; it needs 2 or more"),
    ({"hat": 5, "shoe": 0}, "class 'shoe' in {root} has 0 images; it needs 2 or more"),
    (
        {"train/hat": 5, "train/shoe": 5},
        "has train/ but no test/; add test/, or rename train/ if it is a class",
    ),
    (
        {"test/hat": 5, "test/shoe": 5},
        "has test/ but no train/; add train/, or rename test/ if it is a class",
    ),
    (
        {"train/hat": 5, "train/shoe": 5, "test/hat": 2, "test/shoe": 2, "test/sock": 2},
        "{root}/test has class 'sock' that train/ lacks; use the same classes",
    ),
    (
        {"train/hat": 5, "train/shoe": 5, "test/hat": 2},
        "class 'shoe' in {root}/test has 0 images; it needs 1 or more",
    ),
    (
        {"Train/hat": 5, "Train/shoe": 5, "Val/hat": 2},
        "has Train/ but no test/; add test/, or rename Train/ if",
    ),
    (
        {"train/hat": 5, "train/shoe": 5, "test/hat": 2, "test/shoe": 2, "extra/hat": 3},
        "{root} has extra/ beside test/, which is named as a split; move it elsewhere, or rename it",
    ),
    (
        {"train/hat": 5, "dev/hat": 5, "val/hat": 5, "test/hat": 2},
        "has dev/ and val/, both named as validation; join",
    ),
    (
        {"a/hat": 5, "a/shoe": 5, "b/hat": 5, "b/shoe": 5},
        "a/ and b/ in {root} all hold the same folders (hat, shoe): they look like splits; name them train/, val/",
    ),
    (
        {"data/hat": 9, "data/shoe": 9, "licence": 3},
        "data/ in {root} holds folders and no image of its own, licence/ beside it does not; give {root}/data as",
    ),
]


@pytest.mark.parametrize(("classes", "sentence"), BAD_FOLDERS)
def test_an_unusable_folder_is_an_error(
    photo_folder: Callable[..., Path], spec_of: Spec, classes: dict[str, int], sentence: str
) -> None:
    root = photo_folder(classes)
    with pytest.raises(StageError) as error:
        image_sources.images(spec_of("folder", path=str(root), validation=2, test=2))
    assert str(error.value).startswith("data.folder: ") and sentence.format(root=root) in str(
        error.value
    )


@pytest.mark.parametrize("names", ["Train Test Val", "train TEST dev", "training testing valid"])
def test_split_folders_are_recognised_in_any_case(
    photo_folder: Callable[..., Path], spec_of: Spec, names: str
) -> None:
    """The counts of each folder.

    Once Train, Test and Val were three classes, and dev/ was ignored.
    """
    train, test, validation = names.split()
    root = photo_folder(
        {f"{train}/hat": 4, f"{train}/shoe": 4, f"{test}/hat": 2, f"{test}/shoe": 2}
    )
    photo_folder({f"{validation}/hat": 1, f"{validation}/shoe": 3})
    splits, labels = image_sources.images(spec_of("folder", path=str(root)))
    assert labels == ["hat", "shoe"]
    assert {k: counts(v) for k, v in splits.items()} == {
        "train": [4, 4],
        "test": [2, 2],
        "validation": [1, 3],
    }


def test_hidden_names_are_left_out_and_counted(
    photo_folder: Callable[..., Path], spec_of: Spec, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names that begin with a dot, as in serving; copies of training images in .ipynb_checkpoints
    were once test images.
    """
    root = photo_folder(
        {"hat": 10, "hat/.ipynb_checkpoints": 4, "shoe": 10, "shoe/old/left": 2, "__MACOSX/hat": 3}
    )
    (root / "hat" / "._0-00.png").write_bytes(b"resource fork")
    (root / "shoe" / "notes.txt").write_text("size 40")
    splits, labels = image_sources.images(spec_of("folder", path=str(root), validation=4, test=4))
    assert labels == ["hat", "shoe"] and sum(len(part) for part in splits.values()) == 22
    assert not [
        s.id for part in splits.values() for s in part if "/." in s.id or "__MACOSX" in s.id
    ]
    said = capsys.readouterr().err
    assert "left out: 3 hidden names, as .name and __MACOSX" in said
    assert "left out: 1 file without the suffix of an image" in said


def test_a_class_of_unsupported_files_is_an_error(
    photo_folder: Callable[..., Path], spec_of: Spec
) -> None:
    """The message names the format: a phone's HEIC pictures were once "0 images"."""
    root = photo_folder({"hat": 5, "shoe": 0})
    for k in range(3):
        (root / "shoe" / f"{k}.HEIC").write_bytes(b"x")
    with pytest.raises(
        StageError, match=r"has 0 images and 3 .heic files, .* convert to JPEG or PNG"
    ):
        image_sources.images(spec_of("folder", path=str(root)))


def test_class_names_in_two_forms_of_unicode_are_one_class(
    photo_folder: Callable[..., Path], spec_of: Spec
) -> None:
    """macOS writes e and an accent where others write one letter; train/ and test/ may come from
    both.
    """
    composed, apart = "caf\u00e9", "cafe\u0301"
    root = photo_folder({f"train/{composed}": 4, "train/tea": 4, f"test/{apart}": 2, "test/tea": 2})
    splits, labels = image_sources.images(spec_of("folder", path=str(root), validation=2))
    assert labels == [composed, "tea"] and counts(splits["test"]) == [2, 2]


def test_a_missing_folder_is_an_error(tmp_path: Path, spec_of: Spec) -> None:
    with pytest.raises(
        StageError, match="none is not a folder; put one sub-folder of images per class there"
    ):
        image_sources.images(spec_of("folder", path=str(tmp_path / "none")))


def test_a_fraction_of_no_image_is_an_error(
    photo_folder: Callable[..., Path], spec_of: Spec
) -> None:
    root = photo_folder({"hat": 5, "shoe": 5})
    with pytest.raises(
        StageError, match=r"data.folder.validation: 0.01 of 10 images is none; ask for more"
    ):
        image_sources.images(spec_of("folder", path=str(root), validation=0.01))


def test_a_link_out_of_the_folder_is_an_error(
    photo_folder: Callable[..., Path], spec_of: Spec, tmp_path: Path
) -> None:
    root = photo_folder({"hat": 5, "shoe": 5})
    shutil.copy(root / "hat/0-00.png", tmp_path / "secret.png")
    (root / "hat/link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(
        StageError, match=r"hat/link.png leads out of .*; copy the file instead of linking it"
    ):
        image_sources.images(spec_of("folder", path=str(root)))


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "truncated"])
def test_an_unreadable_image_is_named(
    content: bytes | None,
    photo_folder: Callable[..., Path],
    resolved: Callable[..., dict[str, Any]],
    recipe_of_folder: Callable[[Path], dict[str, Any]],
) -> None:
    root = photo_folder({"hat": 5, "shoe": 5})
    file = root / "shoe/1-03.png"
    file.write_bytes(file.read_bytes()[:60] if content is None else content)
    with pytest.raises(StageError) as error:
        prepare.make(recipe_of_folder(root))
    assert str(error.value).startswith("data: shoe/1-03.png: ")
    assert str(error.value).endswith("; repair or remove the file")
    assert "\n" not in str(error.value)


@pytest.fixture
def recipe_of_folder(resolved: Callable[..., dict[str, Any]]) -> Callable[[Path], dict[str, Any]]:
    def make(root: Path) -> dict[str, Any]:
        sets = {
            "mine": {
                "source": "folder",
                "path": str(root),
                "validation": 2,
                "test": 2,
                "licence": "own",
            }
        }
        block = {"set": "mine", "size": [4, 4], "colour": "rgb"}
        recipe = {"arch": "cnn1", "data": block, "net": {}, "train": {"epochs": 1}}
        return resolved(recipe, sets).data

    return make


@TORCHVISION
def test_fit_torchvision_is_torchvision_s_crop() -> None:
    """torchvision's Resize and CenterCrop on Pillow images of many sizes, each pixel equal."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    generator = np.random.default_rng(0)
    rule = ImageRule((17, 20), "rgb", "torchvision", 24)
    theirs = Compose([Resize(24, InterpolationMode.BILINEAR), CenterCrop((17, 20))])
    for width, height in generator.integers(1, 120, (60, 2)):
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        assert (read_image(image, rule) == np.asarray(theirs(image))).all(), (width, height)
