"""Captioning: an encoder of images and one step of the LSTM, in one graph.

Inputs and outputs besides images, first_hidden and first_cell:

    word                     int64 (M,), the word before; default 0, <start>
    hidden, cell             float32 (M, D) and (M, D'), the state before it; default 0
    log_probabilities        float32 (M, V), of the word after it
    next_hidden, next_cell   the state after it

The defaults let a caller run the encoder alone; `convline` cuts the file in two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from convline.images.beam_search import Floats, Ints, State, search
from convline.images.captioner import START, STEP_INPUTS, STEP_OUTPUTS, sentence
from convline.images.image_model import Options
from torch import Tensor, nn

from pipeline.export.graph import BATCH_AXIS, add_input_defaults, check_graph, trace_network
from pipeline.export.graph import difference as difference
from pipeline.export.image_inputs import golden_inputs as golden_inputs
from pipeline.export.image_inputs import measured_fields as measured_fields
from pipeline.export.image_inputs import random_inputs as random_inputs
from pipeline.network.modules import channels_first
from pipeline.network.tasks.captioning import Captioner

OUTPUT_NAMES = ("first_hidden", "first_cell", "log_probabilities")
SENTENCE_AXIS = {0: torch.export.Dim("M")}  # sentences that get a word together
BEAMS = Options().beams  # of `infer images`
count_correct = None  # no other precisions


class EncoderAndStep(nn.Module):
    """The inputs of both graphs to the outputs of both."""

    def __init__(self, captioner: Captioner):
        super().__init__()
        self.captioner = captioner

    def forward(
        self, images: Tensor, word: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, ...]:
        state = self.captioner.encode(channels_first(images))
        return *state, *self.captioner.net.step(word, hidden, cell)


def export(net: nn.Module, x: np.ndarray) -> onnx.ModelProto:
    """Return the checked graph of encoder and step."""
    assert isinstance(net, Captioner)
    images = torch.from_numpy(np.array(x[:2]))
    zeros = (torch.zeros(1, part.shape[1]) for part in net.encode(channels_first(images)))
    defaults = dict(zip(STEP_INPUTS, (torch.tensor([START]), *zeros), strict=True))
    examples = (value.repeat(2, *[1] * (value.dim() - 1)) for value in defaults.values())
    inputs, outputs = ["images", *defaults], [*OUTPUT_NAMES[:2], *STEP_OUTPUTS]
    axes = BATCH_AXIS, *[SENTENCE_AXIS] * len(defaults)
    graph = trace_network(EncoderAndStep(net), (images, *examples), inputs, outputs, axes)
    add_input_defaults(graph, defaults)
    check_graph(graph)
    return graph


def parity_limit(outputs: list[np.ndarray], relative: float) -> float:
    """Return `relative` of the largest value, since log-probabilities have no bound."""
    return relative * max(float(np.abs(output).max()) for output in outputs)


def document_fields(about: dict[str, Any]) -> dict[str, Any]:
    """Return the words and the length of the longest caption."""
    return {"words": about["words"], "caption": {"longest": about["longest"]}}


@torch.no_grad()
def answers(net: Captioner, x: np.ndarray, about: dict[str, Any]) -> list[np.ndarray]:
    """Return torch's own caption of each image, unicode (N,)."""

    def step(words: Ints, state: State) -> tuple[Floats, State]:
        inputs = (torch.from_numpy(np.ascontiguousarray(part)) for part in (words, *state))
        log_probabilities, *later = (part.numpy() for part in net.net.step(*inputs))
        return log_probabilities, tuple(later)

    captions = []
    for images in torch.from_numpy(np.array(x)).split(256):
        state = tuple(part.numpy() for part in net.encode(channels_first(images)))
        found, _ = search(step, state, beams=BEAMS, longest=about["longest"])
        captions += [sentence(ids, about["words"]) for ids in found.tolist()]
    return [np.array(captions)]
