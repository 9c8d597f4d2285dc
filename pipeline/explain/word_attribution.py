"""Section: what each word of a caption rests on: the image, or the words before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from convline.model_file.schema import SPECIAL_WORDS
from torch import Tensor

from pipeline.explain.answer_maps import (
    GRID,
    HEAD_PX,
    TILE_PX,
    Score,
    first_images,
    occlusion_maps,
    show_map,
)
from pipeline.explain.sections import Section
from pipeline.explain.subject import Subject
from pipeline.network.modules import channels_first
from pipeline.plots.style import show_image

START, END = map(SPECIAL_WORDS.index, ("<start>", "<end>"))
MAX_IMAGES, MAX_WORDS = 4, 12  # of the picture


def make_section(subject: Subject) -> Section | None:
    """Return a map for each word of the captions of test images; None where all are empty."""
    images = first_images(subject)
    words, longest = subject.source.about["words"], subject.source.about["longest"]
    sentences = [greedy_caption(subject.net, image, longest) for image in images]
    told = [(image, ids) for image, ids in zip(images, sentences, strict=True) if ids]
    if not told:
        return None
    maps = [occlusion_maps(word_scores(subject.net, ids), image) for image, ids in told]
    falls: dict[str, list[float]] = {}
    for (_, ids), of_image in zip(told, maps, strict=True):
        for k, values in zip(ids, of_image, strict=True):
            falls.setdefault(words[k], []).append(float(values.max()))
    means = {word: float(np.mean(found)) for word, found in falls.items()}
    ordered = sorted(means, key=lambda word: -means[word])
    section = Section(subject, "What a word rests on")
    section.facts |= {"images": len(told), "largest_fall": {word: means[word] for word in ordered}}
    listed = ", ".join(f"“{word}” {means[word]:.2f}" for word in ordered)
    caption = (
        f"Beside each image: what hiding one of {GRID} × {GRID} patches takes from the probability "
        "of each word of its caption, given the words before it: red where it falls, blue where it "
        "rises. A word without a colour follows from the words before it, not from the image. "
        f"The largest fall, its mean over {len(told)} images: {listed}."
    )
    draw_words(section, caption, told[:MAX_IMAGES], maps[:MAX_IMAGES], words)
    return section


def draw_words(
    section: Section,
    caption: str,
    told: list[tuple[np.ndarray, list[int]]],
    maps: list[np.ndarray],
    words: list[str],
) -> None:
    """Add a picture: in each row an image and the maps of its words, all on one scale."""
    columns = 1 + min(MAX_WORDS, max(len(ids) for _, ids in told))
    limit = max(float(np.abs(of_image).max()) for of_image in maps) or 1.0
    texts = [" ".join(words[k] for k in ids) for _, ids in told]
    alt = f"Captions of {len(told)} test images, a map for each word: {'; '.join(texts)}."
    size = TILE_PX * 3 // 4 * columns, (TILE_PX * 3 // 4 + HEAD_PX) * len(told)
    with section.draw(
        "words.png", size, alt, caption, "photograph", rows=len(told), columns=columns
    ) as axes:
        for line, (image, ids), of_image in zip(axes, told, maps, strict=True):
            show_image(line[0], image, "")
            for axis in line[1:]:
                axis.set_axis_off()
            for axis, k, values in zip(line[1:], ids, of_image, strict=False):
                axis.set_axis_on()
                show_map(axis, values, limit, words[k], signed=True)


@torch.no_grad()
def greedy_caption(net: Any, image: np.ndarray, longest: int) -> list[int]:
    """Return the ids of the most probable word after each other, without <start> and <end>."""
    state = net.encode(channels_first(torch.from_numpy(image[None])))
    word, ids = torch.tensor([START]), []
    for _ in range(longest):
        log_probabilities, *state = net.net.step(word, *state)
        word = log_probabilities.argmax(1)
        if int(word) == END:
            break
        ids.append(int(word))
    return ids


def word_scores(net: Any, ids: list[int]) -> Score:
    """Return the score function of a caption: the probability (N, len(ids)) of each word."""

    def score(images: Tensor) -> Tensor:
        words = torch.tensor([START, *ids[:-1]]).expand(len(images), -1)
        following: Tensor = net.net.follow(words, *net.encode(channels_first(images)))
        return following[:, torch.arange(len(ids)), ids].exp()

    return score
