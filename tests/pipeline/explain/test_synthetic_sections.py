"""The sections on attacks and synthesis, of a small network trained on digits and its file."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import convline
import numpy as np
import pytest
import torch
from convline.model_file.onnx_file import seal
from PIL import Image
from recipes import SPECS
from subjects import CIFAR, GOOGLENET, LENET, built, classifier

import models
from pipeline.data import prepare
from pipeline.explain import activation_maximization, adversarial, feature_inversion, style_transfer
from pipeline.explain.activations import capture_maps
from pipeline.explain.image_grid import to_tensor
from pipeline.explain.image_optimization import step_network
from pipeline.explain.sections import Section
from pipeline.explain.subject import Subject
from pipeline.export import graph as export
from pipeline.export import metadata
from pipeline.params import load as params
from pipeline.params.schema import Explain
from pipeline.train import loop, losses

RECIPE = {
    "arch": "cnn2",
    "data": {"set": "digits", "size": [16, 16], "colour": "grey"},
    "net": {"dropout": 0.1},
    "train": {"epochs": 5, "batch": 32, "lr": 0.005},
}
SETTINGS = Explain(attack_gmacs=0.05, synthesis_steps=12)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("seen")
    recipe = params.resolve(
        "tiny", RECIPE, {name: params.check_set(name, spec) for name, spec in SPECS.items()}
    )
    source = prepare.make(recipe.data)[0]
    net = (
        loop.fit(recipe, source, on=torch.device("cpu"), label="tiny")[0]
        .eval()
        .requires_grad_(False)
    )
    x = source.served("test")[:4]
    metrics = {"validation": {"accuracy": 0.9}, "parameters": 1}
    about = metadata.model_document(
        "tiny", recipe, source.about, metrics, x, export.torch_outputs(net, x), 1e-4
    )
    graph = export.export_network(net, x)
    (folder / "model.onnx").write_bytes(seal(graph.SerializeToString(), about))
    return Subject(
        "tiny",
        recipe,
        source,
        net,
        convline.load(folder / "model.onnx", "cpu"),
        SETTINGS,
        folder,
        40_000,
    )


def assert_drawn(section: Section, folder: Path) -> None:
    """Assert that every picture exists at twice its size, and is neither empty nor of one colour."""
    for shown in section.pictures:
        with Image.open(folder / shown.picture.file) as picture:
            assert picture.size == (2 * shown.picture.width, 2 * shown.picture.height)
            assert np.asarray(picture)[..., 3].any() and np.asarray(picture.convert("L")).std() > 5
        assert (
            shown.caption.endswith(".")
            and shown.picture.alt.endswith(".")
            and "nan" not in shown.caption
        )


def test_attacks_on_the_network_fool_its_onnx_file(subject: Subject) -> None:
    """Attacks lower the accuracy, noise of their size does not; the file falls with the network;
    all of it repeats.
    """
    found = adversarial.make_section(subject)
    assert_drawn(found, subject.folder)
    facts = found.facts
    assert facts["transfer"] > 0.95 and facts["noise_confidence"] > 0.4  # of ten classes
    assert facts["pgd_accuracy"] == sorted(facts["pgd_accuracy"], reverse=True)
    assert facts["pgd_accuracy"][-1] < facts["noise_accuracy"][-1] - 0.2
    assert facts["pgd_accuracy"][-1] <= facts["fgsm_accuracy"][-1]
    assert adversarial.make_section(subject).facts == facts


def test_synthesis_exceeds_every_training_image(subject: Subject) -> None:
    found = activation_maximization.make_section(subject)
    assert_drawn(found, subject.folder)
    assert len(found.pictures) == 2 and found.facts["unit_over_data"]["plain"] > 1
    assert found.facts["class_over_data"]["score"] > found.facts["class_over_data"]["probability"]
    likeness = found.facts["class_likeness"]
    assert likeness["score, MACO"] > likeness["score, Fourier"]
    caption = found.pictures[1].caption
    assert f"{likeness['score, MACO']:.2f} with MACO" in caption
    assert found.facts["unit_over_data"]["MACO"] > 0 < found.facts["class_over_data"]["score, MACO"]
    assert activation_maximization.make_section(subject).facts == found.facts


def test_deeper_stages_contain_less_of_the_image(subject: Subject) -> None:
    found = feature_inversion.make_section(subject)
    assert_drawn(found, subject.folder)
    decibels = [*found.facts["psnr"].values()]
    assert decibels[0] == max(decibels) > 30 > decibels[-1] == min(decibels)
    assert feature_inversion.make_section(subject).facts == found.facts


def test_styles_lower_the_loss_of_other_stages_too(subject: Subject) -> None:
    found = style_transfer.make_section(subject)
    assert_drawn(found, subject.folder)
    left = found.facts["style_loss_left"]
    assert left["style"] < 0.7 and left["style"] < left["held_out"] < 1  # in 24 evaluations
    assert min(found.facts["dream_over_image"].values()) > 1
    assert style_transfer.make_section(subject).facts == found.facts


def test_entries_without_gradients_or_steps_have_no_section(subject: Subject) -> None:
    """A head without gradients is not attacked; with no steps nothing is synthesised."""
    headed = dataclasses.replace(subject, differentiable=False)
    still = dataclasses.replace(subject, settings=SETTINGS.updated(synthesis_steps=0))
    assert all(
        module.make_section(headed) is None
        for module in (adversarial, activation_maximization, feature_inversion, style_transfer)
    )
    assert all(
        module.make_section(still) is None
        for module in (activation_maximization, feature_inversion, style_transfer)
    )


@pytest.mark.parametrize("supported", [True, False])
def test_steps_are_computed_in_bf16_where_the_cpu_has_it(
    supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy's weights are bf16, its outputs float32 and near the original's, which stays."""
    monkeypatch.setattr(losses, "computes_in_bf16", lambda: supported)
    net = built("resnet", 32, **CIFAR)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    steps_net = step_network(net)
    weights = {p.dtype for p in steps_net.parameters()}
    assert weights == {torch.bfloat16 if supported else torch.float32}
    x = torch.rand(4, 1, 32, 32) * 255
    (maps,) = capture_maps(steps_net, x, ["net.features.stage1"])
    assert maps.dtype == torch.float32
    logits, exact = steps_net.logits(x), net.logits(x)
    assert logits.dtype == torch.float32
    error = float((logits - exact).norm() / exact.norm())
    assert (1e-4 < error < 0.03) if supported else error < 1e-5  # bf16 rounds to 8 bits
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    ("arch", "side", "options"),
    [
        ("alexnet", 67, {"init": "he"}),
        ("googlenet", 32, GOOGLENET),
        ("lenet5", 32, LENET),
        ("vgg", 32, {"configuration": "A-LRN", "init": "he"}),
        ("zoo", 32, {"name": "mobilenet_v2"}),
    ],
)
def test_steps_in_bf16_have_the_gradients_of_float32(
    arch: str, side: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after local response normalisation, whose result is float32."""
    monkeypatch.setattr(losses, "computes_in_bf16", lambda: True)
    torch.manual_seed(0)
    channels = 3 if arch == "zoo" else 1
    made = models.build(arch, in_channels=channels, size=(side, side), classes=10, **options)
    net = classifier(made, channels)
    x = torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(0)) * 255

    def step(net: Any) -> tuple[torch.Tensor, torch.Tensor]:
        images = x.clone().requires_grad_()
        logits = net.logits(images)
        return logits.detach(), torch.autograd.grad(logits[:, 0].sum(), images)[0].flatten()

    (logits, gradient), (exact, expected) = step(step_network(net)), step(net)
    assert logits.dtype == gradient.dtype == torch.float32 and gradient.isfinite().all()
    assert (logits - exact).norm() / exact.norm() < 0.03
    assert gradient @ expected > 0.9 * gradient.norm() * expected.norm()


@pytest.mark.parametrize("module", [activation_maximization, feature_inversion, style_transfer])
def test_steps_are_of_one_network_and_measures_of_the_other(
    module: Any, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the network of the steps, here with other weights, is passed through with a gradient,
    and only the entry's own without.
    """
    net = subject.net
    steps_net = copy.deepcopy(net)
    with torch.no_grad():
        for weight in steps_net.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    passes: dict[str, list[tuple[bool, bool]]] = {"steps": [], "measures": []}

    def watch(name: str, watched: Any) -> None:
        real = watched.logits

        def logits(x: torch.Tensor) -> torch.Tensor:
            passes[name].append((torch.is_grad_enabled(), x.requires_grad))
            return real(x)

        monkeypatch.setattr(watched, "logits", logits)

    watch("steps", steps_net)
    watch("measures", net)
    monkeypatch.setattr(module, "step_network", lambda given: steps_net if given is net else None)
    assert module.make_section(subject).facts
    steps = [graded for enabled, graded in passes["steps"] if graded]
    assert len(steps) >= SETTINGS.synthesis_steps
    assert all(enabled for enabled, _ in passes["steps"])
    assert passes["measures"] and not any(graded for _, graded in passes["measures"])


def test_attacked_images_are_predicted_once(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network and file see each distinct image in one batch, and accuracies are those of all."""
    images, classes = subject.samples(8)
    x, y = to_tensor(images), torch.from_numpy(classes)
    attacked = adversarial.pgd(subject.net, x, y)
    seen: dict[str, list[torch.Tensor]] = {"predict_torch": [], "predict_file": []}
    expected = [
        float((adversarial.predict_file(subject, moved).argmax(1) == classes).mean())
        for moved in attacked
    ]

    def watch(name: str, real: Any) -> None:
        def predict(of: Any, batch: torch.Tensor) -> Any:
            seen[name].append(batch)
            return real(of, batch)

        monkeypatch.setattr(adversarial, name, predict)

    for name in seen:
        watch(name, getattr(adversarial, name))
    section = Section(subject, "Attacks")
    adversarial.measure_accuracy(section, subject.net, x, y, attacked)
    for (batch,) in seen.values():
        assert len(batch) == len(batch.unique(dim=0)) < 3 * len(adversarial.LIMITS) * len(x)
    assert section.facts["pgd_accuracy"] == expected
