"""What boxes, pixels and words rest on, for networks whose answers follow from known pixels."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from subjects import subject
from torch import Tensor, nn

from pipeline.data.dataset import Data
from pipeline.explain import answer_maps, box_attribution, pixel_attribution, word_attribution
from pipeline.explain.box_attribution import Find

SIDE = 20  # a patch is 2 x 2
RNG = np.random.default_rng(0)


def source(**about: Any) -> Data:
    """Three images uint8 (3, 20, 20, 3)."""
    x = {"test": RNG.integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)}
    return SimpleNamespace(x=x, about={"labels": ["a", "b"], **about})  # type: ignore[return-value]


def region_mean(images: Tensor) -> Tensor:
    """Rows 4 to 7, columns 8 to 11, as a share of white, (N,)."""
    return images[:, 4:8, 8:12].float().mean((1, 2, 3)) / 255


def test_hiding_and_gradient_find_the_pixels_that_a_score_reads() -> None:
    """The score is a mean: each of its 2 x 2 patches takes its own mean less the image's, over 4;
    the gradient is 3 channels / (48 * 255) on its 16 pixels.
    """
    image = source().x["test"][0]
    falls = answer_maps.occlusion_maps(region_mean, image)
    expected = np.zeros((SIDE, SIDE))
    for row in (4, 6):
        for column in (8, 10):
            patch = image[row : row + 2, column : column + 2].astype(float)
            fall = (patch - image.mean((0, 1))).mean() / 255 / 4
            expected[row : row + 2, column : column + 2] = fall
    np.testing.assert_allclose(falls, expected, atol=1e-6)
    gradient = answer_maps.gradient_map(region_mean, image)
    expected = np.zeros((SIDE, SIDE))
    expected[4:8, 8:12] = 3 / (48 * 255)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)
    assert answer_maps.share_inside(gradient, expected > 0) == pytest.approx(1)


def test_several_scores_at_once_have_a_map_each() -> None:
    image = source().x["test"][1]

    def both(images: Tensor) -> Tensor:
        return torch.stack([region_mean(images), -2 * region_mean(images)], 1)

    first, second = answer_maps.occlusion_maps(both, image)
    np.testing.assert_allclose(second, -2 * first, atol=1e-6)
    assert np.abs(first).max() > 0


class OneBox(nn.Module):
    """One find of class 1 at the region, whose score is the region's mean, then an empty row."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        n = len(images)
        boxes = torch.tensor([[8.0, 4, 12, 8], [0, 0, 0, 0]]).expand(n, 2, 4)
        scores = torch.stack([region_mean(images), torch.zeros(n)], 1)
        return boxes, torch.tensor([1, 0]).expand(n, 2), scores, torch.ones(n, dtype=torch.int64)


def test_a_box_rests_on_its_own_pixels(tmp_path: Path) -> None:
    section = box_attribution.make_section(subject(tmp_path, OneBox(), source()))
    assert section is not None
    assert section.facts["inside"] == pytest.approx({"hiding": 1, "gradient": 1}, abs=1e-5)
    assert section.facts["area"] == pytest.approx(16 / 400) and section.facts["images"] == 3
    [shown] = section.pictures
    assert "box, which covers 4 % of the image" in shown.caption and "b 0." in shown.picture.alt
    assert (tmp_path / "explain" / "boxes.png").is_file()


def test_a_find_that_moves_loses_its_overlap() -> None:
    """Half of the box: score times overlap is half the score, whichever find comes first."""
    find = Find(np.array([8.0, 4, 12, 12]), 1, 0.5)
    image = torch.full((1, SIDE, SIDE, 3), 255, dtype=torch.uint8)
    assert box_attribution.find_score(OneBox(), find)(image).tolist() == [0.5]
    other = Find(np.array([8.0, 4, 12, 12]), 0, 0.5)
    assert box_attribution.find_score(OneBox(), other)(image).tolist() == [0.0]


def test_images_without_a_find_are_left_out(tmp_path: Path) -> None:
    class Empty(OneBox):
        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            *finds, count = super().forward(images)
            return *finds, count * (torch.arange(len(images)) == 1)

    section = box_attribution.make_section(subject(tmp_path, Empty(), source()))
    assert section is not None and section.facts["images"] == 1


class Halves(nn.Module):
    """Class 1 in columns 8 to 11, where its probability is the mean of the region."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = torch.zeros(len(images), 2, SIDE, SIDE)
        probabilities[:, 1, :, 8:12] = region_mean(images)[:, None, None]
        masks = torch.zeros(len(images), SIDE, SIDE, dtype=torch.uint8)
        masks[:, :, 8:12] = 1
        return masks, probabilities


def test_a_pixel_rests_on_the_region_that_its_probability_reads(tmp_path: Path) -> None:
    section = pixel_attribution.make_section(subject(tmp_path, Halves(), source()))
    assert section is not None
    assert section.facts["inside"] == pytest.approx({"hiding": 1, "gradient": 1}, abs=1e-5)
    assert section.facts["area"] == pytest.approx(4 / 20)
    assert 2 < section.facts["reach"] < 6  # from (9, 9) or (10, 10) to rows 4 to 7
    assert (
        pixel_attribution.middle_pixel(Halves()(torch.zeros(1, SIDE, SIDE, 3))[0][0].numpy())[2]
        == 1
    )


class Writer(nn.Module):
    """Writes "a dark" or "a light" by the region: <start>, then "a", the colour, <end>."""

    net: Any

    def __init__(self) -> None:
        super().__init__()
        self.net = self

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        light = region_mean(images.permute(0, 2, 3, 1))[:, None]
        return light, light

    def step(self, word: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        n, light = len(word), hidden[:, 0].clamp(0.01, 0.99)
        chance = torch.full((n, 6), 1e-3)
        chance[word == 0, 3] = 1  # "a" follows <start>
        colours = torch.stack([1 - light, light], 1)
        chance[word == 3, 4:] = colours[word == 3]
        chance[word >= 4, 1] = 1
        return chance.log(), hidden, cell

    def follow(self, words: Tensor, hidden: Tensor, cell: Tensor) -> Tensor:
        return torch.stack([self.step(word, hidden, cell)[0] for word in words.unbind(1)], 1)


def test_a_word_of_the_grammar_rests_on_nothing_and_one_of_content_on_its_pixels(
    tmp_path: Path,
) -> None:
    words = ["<start>", "<end>", "<unknown>", "a", "dark", "light"]
    given = source(words=words, longest=6)
    given.x["test"][0, 4:8, 8:12] = 255
    given.x["test"][1, 4:8, 8:12] = 0
    net = Writer()
    assert word_attribution.greedy_caption(net, given.x["test"][0], 6) == [3, 5]
    assert word_attribution.greedy_caption(net, given.x["test"][1], 6) == [3, 4]
    section = word_attribution.make_section(subject(tmp_path, net, given))
    assert section is not None
    falls = section.facts["largest_fall"]
    assert falls["a"] == 0 and min(falls["dark"], falls["light"]) > 0.02
    assert [*falls][-1] == "a" and "a light; a dark; a " in section.pictures[0].picture.alt
