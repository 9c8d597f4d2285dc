"""params.yaml: every mistake is one message with the place, what was expected or the choices, and
the cure.
"""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from recipes import IMAGE_RECIPE, ROOT, SERIES_RECIPE, SETS, copy_params
from ruamel.yaml import YAML

from pipeline.core.errors import ParamsError
from pipeline.params import __main__ as params_main
from pipeline.params import load as params
from pipeline.params.network_options import architectures
from pipeline.params.schema import CheckPart, DataPart, Recipe
from pipeline.study.runs import resolve_run

GOOD = {
    "line": {"tiny": "scratch"},
    "data": SETS,
    "models": {"tiny": IMAGE_RECIPE, "wave": SERIES_RECIPE},
}
STUDY = {
    "claim": "c",
    "recipe": "tiny",
    "settings": {"a": {}},
    "seeds": [1],
    "measures": ["accuracy"],
}


def write(content: Any) -> Path:
    YAML().dump(content, Path("params.yaml"))
    return Path("params.yaml")


def changed(*path: str, to: Any) -> dict[str, Any]:
    """Return GOOD with the value at `path` replaced, or removed if `to` is None."""
    content = json.loads(json.dumps(GOOD))
    at = content
    for key in path[:-1]:
        at = at.setdefault(key, {})
    if to is None:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return content


TINY = ("models", "tiny")
WAVE = ("models", "wave")
MISTAKES = [
    # unknown keys, at each level
    (("lines",), [], "params.yaml lines: unknown key; did you mean 'line'? choices: check, data, "),
    (("data", "digits", "sed"), 1, "data.digits.sed: unknown key; did you mean 'seed'?"),
    ((*TINY, "trian"), {}, "models.tiny.trian: unknown key; did you mean 'train'?"),
    (
        (*TINY, "data", "colur"),
        "grey",
        "models.tiny.data.colur: unknown key; did you mean 'colour'?",
    ),
    ((*TINY, "train", "learning_rate"), 1, "models.tiny.train.learning_rate: unknown key; "),
    (
        (*TINY, "train", "augment"),
        {"spin": 1},
        "models.tiny.train.augment.spin: unknown key; choices: area, aspect, colour, crop, crop_pad",
    ),
    (
        (*TINY, "net", "hiden"),
        [3],
        "models.tiny.net.hiden: unknown key; did you mean 'hidden'? choices: dropout, hidden",
    ),
    ((*TINY, "full"), {"trian": {}}, "models.tiny.full.trian: unknown key; did you mean 'train'?"),
    (("check", "tolerance"), 1, "check.tolerance: unknown key; choices: atol"),
    # unknown names
    (
        (*TINY, "arch"),
        "fcn",
        "models.tiny.arch: unknown architecture 'fcn'; did you mean 'fcnn'? choices: alexnet, captioner, causal, c",
    ),
    (
        ("data", "digits", "source"),
        "digit",
        "data.digits.source: unknown source 'digit'; did you mean 'digits'?",
    ),
    (
        ("data", "digits", "source"),
        ["a"],
        "data.digits.source: unknown source \"['a']\"; choices: coco, csv, digits",
    ),
    (
        (*TINY, "train", "optimizer"),
        "sdg",
        "models.tiny.train.optimizer: unknown value 'sdg'; did you mean 'sgd'?",
    ),
    ((*TINY, "train", "schedule"), "cos", "models.tiny.train.schedule: unknown value 'cos'; "),
    (
        (*TINY, "data", "set"),
        "digts",
        "models.tiny.data.set: unknown data set 'digts'; did you mean 'digits'?",
    ),
    ((*TINY, "data", "set"), ["digits"], "models.tiny.data.set: unknown data set"),
    (
        ("line",),
        {"tiny": "scratch", "tinny": "scratch"},
        "line: nothing is named 'tinny'; did you mean 'tiny'? choices: tiny, wave",
    ),
    (("line_studies",), ["s"], "line_studies: nothing is named 's'; "),
    (("line",), ["tiny"], "line: expected a mapping, got ['tiny']"),
    (
        ("line",),
        {"tiny": "wave"},
        "line.tiny: expected scratch, as models.tiny needs no other entry, got 'wave'",
    ),
    (("line_studies",), ["s", "s"], "line_studies: "),
    (
        ("models", "Tiny_Net"),
        IMAGE_RECIPE,
        "models.Tiny_Net: names are lower-case letters, digits and single hyphens",
    ),
    (("size",), "large", "size: unknown value 'large'; choices: full, small"),
    # wrong types and limits
    (
        (*TINY, "train", "epochs"),
        "ten",
        "models.tiny.train.epochs: expected a whole number, got 'ten'",
    ),
    (
        (*TINY, "train", "epochs"),
        True,
        "models.tiny.train.epochs: expected a whole number, got True",
    ),
    (
        (*TINY, "train", "epochs"),
        0,
        "epochs: 0 is for published weights; add `weights:` or train an epoch",
    ),
    (
        (*TINY, "train", "lr"),
        float("nan"),
        "models.tiny.train.lr: expected a finite number, got nan",
    ),
    (
        (*TINY, "train", "label_smoothing"),
        2,
        "models.tiny.train.label_smoothing: expected at most 1.0, got 2",
    ),
    (
        (*TINY, "train", "snapshots"),
        ["one"],
        "models.tiny.train.snapshots[0]: expected a whole number, got 'one'",
    ),
    ((*TINY, "data", "size"), [8], "models.tiny.data.size: expected 2 values, got [8]"),
    ((*TINY, "data", "size"), [0, 8], "models.tiny.data.size[0]: expected at least 1, got 0"),
    (
        (*TINY, "data", "fit"),
        "crop",
        "models.tiny.data.shorter_px: expected at least 8 to crop, got None",
    ),
    ((*TINY, "net", "hidden"), 16, "models.tiny.net.hidden: expected a list, got 16"),
    ((*TINY, "net", "dropout"), "much", "models.tiny.net.dropout: expected a number, got 'much'"),
    (
        (*WAVE, "data", "quantiles"),
        [0.9, 0.1],
        "models.wave.data.quantiles: expected rising levels in (0, 1), symmetric",
    ),
    (("deterministic",), "yes", "deterministic: expected true or false, got 'yes'"),
    ((*TINY, "train"), 3, "models.tiny.train: expected a mapping, got 3"),
    (
        ("models", "tiny"),
        "fcnn",
        "expected a mapping with arch, data, net, train, weights, head, needs, full, saliency, streaming, synthesis, "
        "got 'fcnn'",
    ),
    (("data", "digits"), 3, "data.digits.source: missing; choices: digits, torchvision"),
    # missing keys
    (("models",), None, "models: missing; add it (a mapping)"),
    ((*TINY, "arch"), None, "models.tiny.arch: missing; add it (text)"),
    ((*TINY, "data", "set"), None, "models.tiny.data.set: missing; choices: digits, waves"),
    ((*TINY, "data", "size"), None, "models.tiny.data.size: missing; add it (a list of 2 values)"),
    ((*TINY, "data", "size"), 8, "models.tiny.data.size: expected a list of 2 values, got 8"),
    ((*TINY, "train", "optimizer"), "SGD", "unknown value 'SGD'; did you mean 'sgd'? choices: ada"),
    ((*WAVE, "data", "horizon"), None, "models.wave.data.horizon: missing; add it (a whole"),
    # keys at the wrong place
    ((*TINY, "epochs"), 3, "models.tiny.epochs: unknown key here; move it to `train:`"),
    ((*TINY, "train", "dropout"), 0.1, "train.dropout: unknown key here; move it to `net:`"),
    ((*TINY, "train", "colour"), "grey", "train.colour: unknown key here; move it to `data:`"),
    ((*TINY, "head"), {"kind": "mlp", "lr": 1}, "head.lr: unknown key here; move it to `train:`"),
    ((*TINY, "train", "lr"), "1e-3", "expected a number, got '1e-3'; remove the quotes"),
    ((*TINY, 3), 4, "models.tiny.3: expected a name that is text, got a number; put it in quotes"),
    # networks of torchvision, which are not files of models/
    (
        (*TINY, "arch"),
        "mobilenet_v2",
        "models.tiny.arch: 'mobilenet_v2' is a network of torchvision; write arch: zoo and net: "
        "{name: mobilenet_v2}; ",
    ),
    # one task's options for the other
    (
        (*WAVE, "arch"),
        "cnn1",
        "models.wave.arch: models/cnn1.py does not take series, since its __init__ has no `horizon`",
    ),
    ((*TINY, "arch"), "causal", "models.tiny.arch: models/causal.py does not take images, since"),
    (
        (*TINY, "train", "loss"),
        "mse",
        "models.tiny.train.loss: 'mse' is not for classification; choices: auto, cross-entropy",
    ),
    (
        (*WAVE, "train", "loss"),
        "softmax-clip",
        "models.wave.train.loss: 'softmax-clip' is not for forecasting; ",
    ),
    (
        (*WAVE, "train", "augment"),
        {"rotate": 3},
        "models.wave.train.augment: it is for classification and segmentation, not for forecasting; leave it out",
    ),
    (
        (*WAVE, "train", "mixup"),
        0.2,
        "models.wave.train.mixup: it is for classification, not for forecasting; leave it out",
    ),
    (
        (*TINY, "train"),
        {"loss": "softmax-clip", "cutmix": 1.0},
        "models.tiny.train.loss: expected cross-entropy for mixed labels, got softmax-clip; or leave"
        " mixup and cutmix out",
    ),
    ((*TINY, "train", "ema"), 1.0, "models.tiny.train.ema: expected below 1.0, got 1.0"),
    (
        (*TINY, "train", "augment"),
        {"policy": "autoaugment"},
        "models.tiny.train.augment.policy: unknown value 'autoaugment'; did you mean 'randaugment'?",
    ),
    (
        (*TINY, "train"),
        {"optimizer": "sgd", "momentum": 0.0, "nesterov": True},
        "models.tiny.train.nesterov: expected sgd with a momentum, got sgd, momentum 0; leave"
        " nesterov out",
    ),
    (
        (*TINY, "train"),
        {"optimizer": "adam", "nesterov": True},
        "models.tiny.train.nesterov: expected sgd with a momentum, got adam, momentum 0.9; leave"
        " nesterov out",
    ),
    # set to their defaults, but without effect
    (
        (*TINY, "data", "shard_mb"),
        128.0,
        "models.tiny.data.shard_mb: it is for layout: shards; leave it out",
    ),
    (
        (*TINY, "data", "max_skipped"),
        0.01,
        "models.tiny.data.max_skipped: it is for on_undecodable: skip; leave it out",
    ),
    (
        (*TINY, "train", "augment"),
        {"policy": "trivialaugment", "magnitude": 9},
        "models.tiny.train.augment.magnitude: it is for policy: randaugment; leave it out",
    ),
    (
        (*TINY, "train", "augment"),
        {"flip": "horizontal", "area": [0.5, 1.0]},
        "models.tiny.train.augment.area: it is for crop: random_resized; leave it out",
    ),
    (
        (*TINY, "train", "augment"),
        {"flip": "horizontal", "aspect": [1.0, 1.0]},
        "models.tiny.train.augment.aspect: it is for crop: random_resized; leave it out",
    ),
    # in a `full:` block, although the size is small; in a study's last setting
    (
        (*TINY, "full"),
        {"train": {"lr": "low"}},
        "models.tiny (with its full block).train.lr: expected a number, got 'low'",
    ),
    (
        ("studies", "s"),
        {**STUDY, "recipe": "tinny"},
        "studies.s.recipe: no recipe 'tinny'; did you mean 'tiny'?",
    ),
    (
        ("studies", "s"),
        {**STUDY, "seeds": []},
        "studies.s.seeds: expected at least one value, got []",
    ),
    (
        ("studies", "s"),
        {**STUDY, "settings": {"a": {}, "b": {"train": {"lrr": 1}}}},
        "studies.s.settings.b.train.lrr: unknown key; did you mean 'lr'?",
    ),
    # two factors, all of whose pairs are settings
    (
        ("studies", "s"),
        {**STUDY, "factors": {"network": ["a", "b"]}},
        "studies.s.factors: expected two, got 1",
    ),
    (
        ("studies", "s"),
        {**STUDY, "settings": {"a, x": {}}, "factors": {"n": ["a", "b"], "r": ["x", "y"]}},
        "studies.s.factors: nothing is named 'a, y'; did you mean 'a, x'?",
    ),
]


@pytest.mark.parametrize(
    ("path", "to", "sentence"),
    MISTAKES,
    ids=lambda v: ".".join(map(str, v)) if isinstance(v, tuple) else "",
)
def test_a_mistake_is_one_sentence(
    workspace: Path, path: tuple[str, ...], to: Any, sentence: str
) -> None:
    """The message of each mistake is written by hand."""
    with pytest.raises(ParamsError) as error:
        params.load(write(changed(*path, to=to)))
    message = str(error.value)
    assert message.startswith("params.yaml ") and sentence in message
    assert "\n" not in message


def test_valid_params_load_with_defaults(workspace: Path) -> None:
    """The defaults of pipeline/params/schema/, and the dataset's own spec laid out in the recipe."""
    loaded = params.load(write(GOOD))
    tiny = loaded.models["tiny"]
    assert (loaded.size, loaded.device, loaded.deterministic) == ("small", "auto", True)
    assert tiny.train.optimizer == "adam" and tiny.data.spec.test == 1297
    assert isinstance(tiny.train.lr, float)


@pytest.mark.parametrize(("kind", "epochs"), [("mlp", 0), ("best", 0), ("softmax", 30)])
def test_a_head_on_features_has_no_epochs(workspace: Path, kind: str, epochs: int) -> None:
    """The loop trains softmax alone; what a recipe states stays."""
    head = {"needs": "tiny", "data": {"set": "digits"}, "head": {"kind": kind}}
    stated = {**json.loads(json.dumps(head)), "train": {"epochs": 7}}
    models = params.load(
        write({**GOOD, "models": {**GOOD["models"], "a": head, "b": stated}})
    ).models
    assert (models["a"].train.epochs, models["b"].train.epochs) == (epochs, 7)


def test_full_lays_its_block_over_the_recipe(workspace: Path) -> None:
    """Mapping by mapping: what the block does not name stays, and the small size does not see it."""
    full = {"train": {"batch": 7}, "data": {"size": [16, 16]}}
    content = changed(*TINY, "full", to=full)
    small, large = (
        params.load(write({**content, "size": size})).models["tiny"] for size in ("small", "full")
    )
    assert (small.train.batch, small.data.size) == (64, (8, 8))
    assert (large.train.batch, large.data.size) == (7, (16, 16))
    assert large.train.epochs == small.train.epochs == 3


def test_a_study_setting_wins_at_both_sizes(workspace: Path) -> None:
    """The order is recipe, base, setting, without the full block; another architecture drops the
    recipe's net options.
    """
    content = changed(*TINY, "full", to={"train": {"batch": 7, "lr": 1}})
    study = {
        **STUDY,
        "base": {"train": {"batch": 8}},
        "settings": {"a": {"arch": "cnn1", "train": {"epochs": 9}}},
    }
    every = params.load(write({**content, "size": "full", "studies": {"s": study}}))
    of = every.studies["s"]
    made = params.lay_over(of.recipe, of.base, of.settings["a"], every)
    assert made["train"] == {"epochs": 9, "batch": 8, "lr": 0.01}
    assert (made["arch"], made["net"], "full" in made) == ("cnn1", {}, False)


def test_the_full_block_of_a_study_is_checked_at_both_sizes(workspace: Path) -> None:
    """It is the study's own: in `base` and in a setting, laid over the setting."""
    study = {
        **STUDY,
        "base": {"train": {"batch": 8}, "full": {"train": {"epochs": 90, "batch": 9}}},
        "settings": {"a": {"train": {"epochs": 4}, "full": {"train": {"lr": 0.5}}}},
    }
    content = changed(*TINY, "full", to={"train": {"momentum": 0.1}})
    for size, expected in (("small", (4, 8, 0.01, 0.9)), ("full", (90, 9, 0.5, 0.9))):
        every = params.load(write({**content, "size": size, "studies": {"s": study}}))
        train = resolve_run("tiny", study["base"], study["settings"]["a"], 1, every).train
        assert (train.epochs, train.batch, train.lr, train.momentum) == expected
    study["settings"]["a"]["full"]["train"]["lr"] = "low"
    what = r"studies.s.settings.a \(with its full block\).train.lr: expected a number, got 'low'"
    with pytest.raises(ParamsError, match=what):
        params.load(write({**content, "studies": {"s": study}}))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("line: [a\nmodels: {", "params.yaml: not YAML: "),
        ("- a\n- b\n", "params.yaml: expected a mapping, got list"),
        ("", "params.yaml: expected a mapping, got NoneType"),
        ("size: small\nsize: full\n", "params.yaml: not YAML: "),
        (
            "models:\n\ttiny: 3\n",
            "params.yaml line 2: expected spaces before the first word, got a",
        ),
    ],
)
def test_a_file_that_is_no_mapping_is_an_error(workspace: Path, text: str, sentence: str) -> None:
    """A key that occurs twice is an error; the last one is not taken."""
    Path("params.yaml").write_text(text)
    with pytest.raises(ParamsError) as error:
        params.load()
    assert str(error.value).startswith(sentence) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("blocks", "sentence"),
    [
        (
            "train: *t",
            "models.b.train: expected a mapping of its own, got an alias of models.a.train; write `train: {",
        ),
        (
            "train: {<<: *t}",
            "models.b.train.augment: expected a mapping of its own, got an alias of models.a.train.a",
        ),
        ("train: {<<: *t, augment: {<<: *g}}", ""),
    ],
    ids=["alias", "alias in a merge", "merges"],
)
def test_an_aliased_mapping_is_refused(workspace: Path, blocks: str, sentence: str) -> None:
    """DVC changes an aliased mapping at both places or at neither, without a word."""
    Path("params.yaml").write_text(
        "line: {b: scratch}\ndata: {digits: {source: digits}}\nmodels:\n"
        "  a: {arch: cnn1, data: {set: digits, size: [8, 8], colour: grey}, "
        "train: &t {epochs: 3, augment: &g {rotate: 3}}}\n"
        f"  b: {{arch: cnn1, data: {{set: digits, size: [9, 9], colour: grey}}, {blocks}}}\n"
    )
    if not sentence:
        assert params.load().models["b"].train.augment.rotate == 3
        return
    with pytest.raises(ParamsError) as error:
        params.load()
    assert str(error.value).startswith(f"params.yaml {sentence}")


def leaves(mapping: dict[str, Any], path: str) -> dict[str, Any]:
    """Return {"models.a.train.epochs": 3}: every value below `mapping` that is no mapping."""
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        found |= (
            leaves(value, f"{path}.{key}") if isinstance(value, dict) else {f"{path}.{key}": value}
        )
    return found


def shipped(path: Path) -> dict[str, Any]:
    content = YAML(typ="safe").load(path)
    return {
        key: value for part in content for key, value in leaves({part: content[part]}, "").items()
    }


@pytest.mark.slow
def test_an_override_changes_its_own_key_alone(workspace: Path) -> None:
    """DVC's own code for `-S`, on the repository's params.yaml.

    Every leaf of every recipe and dataset gets a number of its own, at once: if two shared a
    mapping, one would read the other's. Then, alone, a leaf that others merge, one that is merged,
    one inside a merged block, and a new key: nothing else changes.
    """
    from dvc.utils.hydra import apply_overrides

    path = copy_params(workspace)
    before = shipped(path)
    wanted = {
        key.lstrip("."): k
        for k, key in enumerate(before, 1000)
        if key.startswith((".models.", ".data."))
    }
    assert len(wanted) > 1000
    apply_overrides(path, [f"{key}={value}" for key, value in wanted.items()])
    assert shipped(path) == before | {f".{key}": value for key, value in wanted.items()}
    for key in (
        "models.alexnet-digits.full.train.lr",
        "models.vgg16-digits.train.epochs",
        "models.vgg13-digits.full.train.augment.colour",
        "++models.vgg11-digits.full.train.patience",
    ):
        path = copy_params(workspace)
        apply_overrides(path, [f"{key}=77"])
        assert shipped(path) == before | {f".{key.lstrip('+')}": 77}


def test_a_missing_params_file_is_an_error(workspace: Path) -> None:
    with pytest.raises(
        ParamsError, match=r"params.yaml: not found in .*; run the command in the repository's root"
    ):
        params.load()


def stage(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.params", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_the_stage_says_its_error_without_a_traceback(workspace: Path) -> None:
    write(changed(*TINY, "arch", to="fcn"))
    done = stage(workspace)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: params.yaml models.tiny.arch: unknown architecture 'fcn'; did you mean 'fcnn'? "
        f"choices: {', '.join(architectures())}; this works: tiny: {{arch: fcnn, "
        "data: {set: digits, size: [8, 8], colour: grey}, train: {epochs: 3, batch: 64, lr: 0.01}}"
    ]


def test_params_accepts_what_dvc_needs(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dvc.yaml asks for the key `line`; what stage params accepts, DVC accepts."""
    path = copy_params(workspace)
    content = YAML(typ="safe").load(path)
    del content["line_studies"]
    with path.open("w") as file:
        YAML().dump(content, file)
    (workspace / "dvc.yaml").touch()
    monkeypatch.setattr(sys, "argv", ["params"])
    with pytest.raises(params.ParamsError, match=r"params.yaml line_studies: missing; .* add"):
        params_main.main()


@pytest.mark.parametrize("size", ["small", "full"])
def test_the_shipped_line_is_laid_out_at_both_sizes(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    """Each entry's block of params.yaml, with its `full:` block on top if the size is full."""
    path = copy_params(workspace)
    path.write_text(path.read_text().replace("\nsize: small", f"\nsize: {size}", 1))
    monkeypatch.setattr(sys, "argv", ["params"])
    params_main.main()
    raw = YAML(typ="safe").load(path)
    for name in raw["line"]:
        recipe = raw["models"][name]
        layers = [recipe, recipe.get("full", {})] if size == "full" else [recipe]
        laid = params.entry(name, Recipe)
        assert laid.size == size
        for block, key in (
            ("data", "set"),
            ("data", "size"),
            ("data", "context"),
            ("train", "epochs"),
        ):
            given = [layer[block][key] for layer in layers if key in layer.get(block, {})]
            found = getattr(getattr(laid, block), key, None)
            assert not given or (list(found) if key == "size" else found) == given[-1], (name, key)


@pytest.mark.slow
def test_the_stage_lays_out_each_entry(workspace: Path) -> None:
    """The repository's own params.yaml: one folder for each name of `line:`, and the same bytes
    again.
    """
    copy_params(workspace)
    assert stage(workspace).returncode == 0
    loaded = params.load()
    made = {p: p.read_bytes() for p in Path("out/params").rglob("*.json")}
    assert {p.parent.name for p in made} == set(loaded.line)
    (workspace / "out/params/old").mkdir()
    assert stage(workspace).returncode == 0
    assert {p: p.read_bytes() for p in Path("out/params").rglob("*.json")} == made
    assert not Path("out/params/old").exists()
    name = loaded.line[0]
    assert params.entry(name, DataPart).data == loaded.models[name].data
    assert params.entry(name, CheckPart).check == loaded.check
    with pytest.raises(
        ParamsError, match="nobody: no resolved recipe in out/params; put the name under `line:`"
    ):
        params.entry("nobody", DataPart)


def test_an_entry_without_its_weights_is_named_and_the_others_are_laid_out(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the weights are, the digest that stage train depends on is theirs, too."""
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.delenv("DATA_ROOT", raising=False)
    weights = {"file": "far.pth", "licence": "own"}
    content = changed("models", "far", to=changed(*TINY, "weights", to=weights)["models"]["tiny"])
    content["models"]["far"]["train"]["epochs"] = 0
    content["models"]["folder"] = changed(*TINY, "data", "set", to="mine")["models"]["tiny"]
    sets = SETS | {"mine": {"source": "folder", "path": "photos", "licence": "own"}}
    line = dict.fromkeys(("tiny", "far", "folder"), "scratch")
    write({**content, "data": sets, "line": line, "line_studies": []})
    told = stage(workspace)
    cure = "put it there, or take the name out of the line, which stops at it"
    assert told.returncode == 0
    assert [text for text in told.stderr.splitlines() if "cannot" in text] == [
        "far cannot be made: far.pth is not here nor below TORCH_HOME, which is not set; " + cure,
        "folder cannot be made: photos is not here nor below DATA_ROOT, which is not set; " + cure,
    ]
    files = {name: Path("out/params", name, "train.json") for name in line}
    before = {name: json.loads(file.read_text())["code"] for name, file in files.items()}
    Path("far.pth").write_bytes(b"weights")
    assert "far cannot" not in stage(workspace).stderr
    after = {name: json.loads(file.read_text())["code"] for name, file in files.items()}
    assert before["far"] != after["far"] and before["tiny"] == after["tiny"]


def test_a_study_is_judged_by_its_own_recipes(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At size: full, too, a study is made of the recipe without its full block."""
    monkeypatch.delenv("DATA_ROOT", raising=False)
    sets = SETS | {"mine": {"source": "folder", "path": "photos", "licence": "own"}}
    content = changed(*TINY, "full", to={"data": {"set": "mine"}})
    study = {
        "claim": "none",
        "recipe": "tiny",
        "settings": {"a": {}, "b": {"train": {"lr": 0.1}}},
        "seeds": [0],
        "measures": ["accuracy"],
    }
    studies = {
        "small": copy.deepcopy(study),
        "large": copy.deepcopy(study) | {"base": {"data": {"set": "mine"}}},
    }
    content |= {"data": sets, "size": "full", "line": {}, "studies": studies}
    write(content | {"line_studies": ["small", "large"]})
    ran = stage(workspace)
    told = [text for text in ran.stderr.splitlines() if "cannot" in text]
    assert ran.returncode == 0, ran.stderr
    assert len(told) == 1 and told[0].startswith("large cannot be made: photos is not here nor")
    assert told[0].count("photos") == 1


def test_what_a_renamed_entry_leaves_is_named_and_kept(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only by its own record: a user's results/mine looks the same, and is neither named nor
    touched.
    """

    def run(**line: str) -> str:
        renamed = (
            {"tiny": IMAGE_RECIPE, "newer": SERIES_RECIPE} if "newer" in line else GOOD["models"]
        )
        params.keep_record(params.load(write({**GOOD, "models": renamed, "line": line})))
        return capsys.readouterr().err

    mine = [
        Path("results/mine/data.json"),
        Path("out/mine/data/x.npy"),
        Path("out/dist/mine/manifest.json"),
    ]
    theirs = [
        Path("results/wave/data.json"),
        Path("out/wave/data/x.npy"),
        Path("out/dist/wave/manifest.json"),
    ]
    for path in [*mine, *theirs]:
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    assert run(wave="scratch", tiny="scratch") == ""
    said = "left by entries that params.yaml no longer names: rm -r results/wave out/wave out/dist/wave\n"
    assert run(newer="scratch") == said == run(newer="scratch")  # again, until it is gone
    assert all(path.exists() for path in [*mine, *theirs])
    subprocess.run(said.partition(": ")[2], shell=True, check=True)
    assert (
        run(newer="scratch") == ""
        and all(path.exists() for path in mine)
        and not Path("results/wave").exists()
    )


def test_one_recipe_changes_only_its_own_files(workspace: Path) -> None:
    """DVC compares these files, so another entry's must not change by a byte."""
    before, after = (
        params.load(
            write(
                {
                    **changed(*TINY, "train", "lr", to=lr),
                    "line": {"tiny": "scratch", "wave": "scratch"},
                }
            )
        )
        for lr in (0.01, 0.02)
    )
    assert params.lay_out(before, "wave") == params.lay_out(after, "wave")
    assert params.lay_out(before, "tiny")["data"] == params.lay_out(after, "tiny")["data"]
    assert params.lay_out(before, "tiny")["train"] != params.lay_out(after, "tiny")["train"]


@pytest.mark.slow
def test_make_all_puts_every_name_under_line(workspace: Path) -> None:
    """DVC itself lays the output of `--names` over params.yaml, as in `make all`."""
    from dvc.utils.hydra import apply_overrides

    path = write(GOOD)
    apply_overrides(
        path, [f"++line.{start}" for start in stage(workspace, "--names").stdout.split()]
    )
    assert params.load(path).line == ["tiny", "wave"]


def test_names_prints_every_recipe(workspace: Path) -> None:
    write(GOOD)
    assert stage(workspace, "--names").stdout == "tiny=scratch\nwave=scratch\n"
