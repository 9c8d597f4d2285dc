"""`Captioner`: an image model that writes a sentence about each image."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from convline.images.beam_search import Floats, Ints, State, search
from convline.images.draw import draw_caption
from convline.images.image_model import ImageLike, ImageModel, Options, Outputs, Sizes
from convline.model_file.document import CaptionerDocument, Golden
from convline.model_file.schema import SPECIAL_WORDS
from convline.runtime.model import Array, Tensors
from convline.runtime.rows import Columns, Row
from convline.runtime.session import open_session, translate_errors

START, END = map(SPECIAL_WORDS.index, ("<start>", "<end>"))
MOST_BEAMS = 16  # work and memory of a search grow with them
PROBES = 8  # words through which parity and golden samples follow the LSTM
STEP_INPUTS = ("word", "hidden", "cell")
STEP_OUTPUTS = ("log_probabilities", "next_hidden", "next_cell")
NOT_FINITE = "the model answered probabilities that are not finite"
ABOVE_ONE = "the model answered a probability above 1"


@dataclass(frozen=True)
class Caption:
    """A sentence about an image.

    ids: of its words, without <start> and <end>. score: its probability by the model.
    """

    ids: tuple[int, ...]
    text: str
    score: float


def probe_words(count: int, longest: int, vocabulary: int) -> Ints:
    """Return words (count, L) that a network is led through to compare it with another one.

    <start>, then words from all over the vocabulary, the same for each image: what is said of an
    image does not depend on its batch.
    """
    words = np.linspace(START, vocabulary - 1, min(longest, PROBES)).astype(np.int64)
    return np.tile(words, (count, 1))


def sentence(ids: Iterable[int], words: Sequence[str]) -> str:
    """Return the text of word ids up to <end> or -1."""
    return " ".join(words[k] for k in spoken(ids))


def spoken(ids: Iterable[int]) -> tuple[int, ...]:
    """Return the word ids before <end> or -1."""
    told = []
    for word in ids:
        if word in (END, -1):
            break
        told.append(int(word))
    return tuple(told)


def search_options(beams: int) -> Options:
    """Return the options of a search with so many beams; ValueError for too few or too many."""
    if not 1 <= beams <= MOST_BEAMS:
        raise ValueError(f"beams: expected 1 to {MOST_BEAMS}, got {beams}")
    return Options(beams=beams)


class Captioner(ImageModel[Caption]):
    """A captioner: an encoder of images, and a step for one more word, in one file.

    load("captioner.onnx").caption(["a.png", image])   # list of Caption
    """

    OPTIONS = ("beams",)

    @property
    def document(self) -> CaptionerDocument:
        assert isinstance(self.file.document, CaptionerDocument)
        return self.file.document

    def caption(self, images: ImageLike | Iterable[ImageLike], beams: int = 3) -> list[Caption]:
        """Return the caption of each image. Images: see `run_many`.

        beams: sentences that the search keeps after each word, 1 to MOST_BEAMS; 1 is greedy search.
        Raises InputError for the first image that cannot be read.
        """
        return self._predict(images, search_options(beams))

    def predict_table(self, images: ImageLike | Iterable[ImageLike], beams: int = 3) -> list[Row]:
        """Return the rows of `infer images`, one per image in order; see `ImageModel`.

        The keys are path, caption, score, status, error.
        """
        return self._table(images, search_options(beams))

    @classmethod
    def own_columns(cls, options: Options) -> Columns:
        return {"caption": str, "score": float}

    def answers(self, outputs: Outputs, sizes: Sizes, options: Options) -> list[Caption | str]:
        """Return the caption that the search finds from each state; outputs: hidden and cell."""
        longest, words = self.document.longest, self.document.words
        found, scores = search(self.step, outputs, beams=options.beams, longest=longest)
        return [
            Caption(spoken(ids), sentence(ids, words), math.exp(min(score, 0)))
            if math.isfinite(score)
            else (ABOVE_ONE if score > 0 else NOT_FINITE)
            for ids, score in zip(found.tolist(), scores.tolist(), strict=True)
        ]

    def rows(self, answer: Caption, options: Options) -> list[Row]:
        return [{"caption": answer.text, "score": answer.score}]

    def draw(self, image: Image.Image, answer: Caption) -> Image.Image:
        """Return the image with the caption below it."""
        return draw_caption(image, answer.text)

    def step(self, words: Ints, state: State) -> tuple[Floats, State]:
        """Return log-probabilities (M, V) of the words after words (M,), and the next state."""
        inputs = dict(zip(STEP_INPUTS, (words, *state), strict=True))
        with translate_errors(self.name, f"a step of {len(words)} sentences"):
            log_probabilities, *later = self._step_session.run([*STEP_OUTPUTS], inputs)
        expected = len(words), len(self.document.words)
        if log_probabilities.shape != expected:
            got = log_probabilities.shape
            raise self._misfit(f"output {STEP_OUTPUTS[0]!r}: expected {expected}, got {got}")
        if any(len(part) != len(words) for part in later):
            raise self._misfit("its step: expected a state of each sentence, got others")
        return log_probabilities, tuple(later)

    def follow(self, words: Ints, state: State) -> Floats:
        """Return log-probabilities (N, L, V) of the word after each of words (N, L)."""
        steps = []
        for word in words.T:
            log_probabilities, state = self.step(word, state)
            steps.append(log_probabilities)
        return np.stack(steps, 1)

    def parity_outputs(self, images: npt.NDArray[np.uint8]) -> Outputs:
        """Return hidden and cell, and log-probabilities (N, L, V) along the probe words."""
        words = probe_words(len(images), self.document.longest, len(self.document.words))
        if not len(images):
            width = {node.name: node.shape[1] for node in self._step_session.get_outputs()}
            states = [np.empty((0, width[name]), np.float32) for name in STEP_OUTPUTS[1:]]
            return *states, np.empty((*words.shape, width[STEP_OUTPUTS[0]]), np.float32)
        state = self.run(images)
        return *state, self.follow(words, state)

    def _replay(self, golden: Golden) -> dict[str, Array]:
        names = (*self.document.OUTPUTS, STEP_OUTPUTS[0])
        if {*names} != {*golden.outputs}:
            got = ", ".join(golden.outputs)
            raise self._misfit(f"expected golden outputs {', '.join(names)}, got {got}")
        return dict(zip(names, self.parity_outputs(golden.input), strict=True))

    @cached_property
    def _step_session(self) -> Any:
        """The session of a step, with the threads of the encoder's session."""
        options = self.session.get_session_options()
        session = open_session(
            self.file.step_graph, self.kind, threads=options.intra_op_num_threads or None
        )
        outputs = {node.name for node in session.get_outputs()}
        inputs = {node.name for node in session.get_overridable_initializers()}
        if outputs != {*STEP_OUTPUTS} or not inputs >= {*STEP_INPUTS}:
            raise self._misfit("its step graph does not fit its metadata")
        return session

    def _outputs(self) -> Tensors:
        return {name: ("float", [None, None]) for name in self.document.OUTPUTS}
