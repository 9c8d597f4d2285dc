"""Published weights through the whole line, on real photographs.

A copy of this tree, as in test_journey.py; data and weights are copies below DATA_ROOT and
TORCH_HOME.
"""

import json
import shutil

import pytest
from convline.model_file.onnx_file import read_model_file
from journey import ROOT, copy_tree, dvc, edit_params, run

SHARED = ROOT.parent / "shared"
NEEDED = [
    SHARED / path for path in ("datasets/photos/clothing/test", "datasets/cifar10-small", "weights")
]
LINE = ["squeezenet-imagenet", "resnet20-published", "mobilenet-imagenet"]
# Folders of the photos, and the class of ImageNet that is most of what they show.
CLOTHES = {
    "pants": "jean",
    "t-shirt": "jersey",
    "longsleeve": "sweatshirt",
    "outwear": "trench coat",
}
CLOTHES |= {"shoes": "Loafer", "shorts": "swimming trunks", "skirt": "miniskirt"}
EACH = 8

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not all(path.is_dir() for path in NEEDED),
        reason="needs the project's shared photos, weights",
    ),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A copy of the tree in which the two entries are made, from raw data to served predictions."""
    folder = tmp_path_factory.mktemp("zoo")
    photos, cifar = folder / "data" / "photos" / "imagenet", folder / "data" / "cifar10-small"
    wanted = [(NEEDED[0] / shown, photos / name, EACH) for shown, name in CLOTHES.items()]
    for split, count in (("train", 20), ("test", 100)):
        wanted += [
            (path, cifar / split / path.name, count)
            for path in (NEEDED[1] / split).iterdir()
            if path.is_dir()
        ]
    for source, target, count in wanted:
        target.mkdir(parents=True)
        for file in sorted(source.iterdir())[:count]:
            shutil.copyfile(file, target / file.name)
    tree = copy_tree(folder / "con line", git=False)
    edit_params(tree, lambda p: p.update(line=dict.fromkeys(LINE, "scratch"), line_studies=[]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_ROOT", str(folder / "data"))
        patch.setenv("TORCH_HOME", str(NEEDED[2]))
        dvc(tree, "repro", *(f"infer@{name}" for name in LINE))
    return tree


def result(made, entry, stage):
    return json.loads((made / "results" / entry / f"{stage}.json").read_text())


@pytest.mark.parametrize("entry", LINE)
def test_served_as_checked(made, entry):
    """The checked predictions for the same files; the network is trained by nobody but its
    publisher.
    """
    checked, served = result(made, entry, "check"), result(made, entry, "infer")
    assert checked["passed"] and served["equal"] and served["rows_error"] == 0
    assert result(made, entry, "train")["epochs"] == 0


def test_resnet20_is_as_good_as_published(made):
    """929 of the same 1,000 images are right in plain torch (README.md of the shared data); two may
    be ties.
    """
    metric = result(made, LINE[1], "check")["metric"]
    assert metric["n"] == 1000 and metric["value"] == pytest.approx(0.929, abs=0.002)


def test_squeezenet_recognises_the_classes(made):
    """The folder's class among 1,000. Measured in torch, on these 56: first .29, among five .63."""
    photos = made.parent / "data" / "photos" / "imagenet"
    table = made / "labels.jsonl"
    run(
        made,
        "infer",
        "images",
        f"out/dist/{LINE[0]}",
        str(photos),
        "--top-k",
        "5",
        "-o",
        str(table),
    )
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    ranks = [[row["label"], *(row[f"label_{k}"] for k in range(2, 6))] for row in rows]
    truth = [row["path"].split("/")[-2] for row in rows]
    assert len(rows) == EACH * len(CLOTHES)
    assert sum(name == five[0] for name, five in zip(truth, ranks, strict=True)) / len(rows) > 0.2
    assert sum(name in five for name, five in zip(truth, ranks, strict=True)) / len(rows) > 0.5


def test_squeezenets_preprocessing_equals_torchvision(made):
    """torchvision's preset of these weights: shorter side 256 and centre 224, with Pillow's
    bilinear.
    """
    document = read_model_file(made / "out" / "dist" / LINE[0] / "model.onnx").json
    expected = {
        "size": [224, 224],
        "colour": "rgb",
        "fit": "crop",
        "shorter_px": 256,
        "interpolation": "bilinear",
    }
    assert {key: document["input"][key] for key in expected} == expected
    assert len(document["labels"]) == 1000 and "Apache-2.0" in document["provenance"]["licence"]
