"""`Classifier`: an image model that returns labels, probabilities or table rows."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image

from convline.images.draw import draw_label
from convline.images.image_model import ImageLike, ImageModel, Options, Outputs, Sizes
from convline.model_file.document import ClassifierDocument
from convline.runtime.model import Tensors
from convline.runtime.rows import Columns, Row

NOT_FINITE = "the model answered probabilities that are not finite"


class Classifier(ImageModel[Row]):
    """An image classifier, as `convline.load` returns it.

    load("lenet5.onnx").predict(["a.png", image])         # labels (N,)
    load("lenet5.onnx").predict_proba(["a.png", image])   # float32 (N, K)
    """

    OPTIONS = ("top_k",)

    @property
    def document(self) -> ClassifierDocument:
        assert isinstance(self.file.document, ClassifierDocument)
        return self.file.document

    @property
    def labels(self) -> list[str]:
        return self.document.labels

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> npt.NDArray[np.str_]:
        """Return the most probable label of each image, (N,). Images: see `run_many`."""
        return np.asarray(np.array(self.labels)[self.predict_proba(images).argmax(axis=1)])

    def predict_proba(self, images: ImageLike | Iterable[ImageLike]) -> npt.NDArray[np.float32]:
        """Return probabilities float32 (N, K) in the order of `labels`. Images: see `run_many`.

        Raises InputError for the first image that cannot be read.
        """
        (probabilities,), _ = self.run_many(images)
        return probabilities

    def predict_table(self, images: ImageLike | Iterable[ImageLike], top_k: int = 1) -> list[Row]:
        """Return the rows of `infer images`, one per image in order; see `ImageModel`.

        The keys are path, label, score, label_2, ..., status, error.
        """
        if not 1 <= top_k <= len(self.labels):
            expected = f"1 to the model's {len(self.labels)} labels"
            raise ValueError(f"top_k: expected {expected}, got {top_k}")
        return self._table(images, Options(top_k=top_k))

    @classmethod
    def own_columns(cls, options: Options) -> Columns:
        """Return label, score, label_2, score_2, ..."""
        columns: Columns = {}
        for rank in range(1, options.top_k + 1):
            columns |= {_ranked("label", rank): str, _ranked("score", rank): float}
        return columns

    def answers(self, outputs: Outputs, sizes: Sizes, options: Options) -> list[Row | str]:
        """Return label, score, label_2, ... of the most probable classes; the first wins a tie."""
        (probabilities,) = outputs
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : options.top_k]
        # Python's numbers: one conversion for all
        scores = np.take_along_axis(probabilities, best, axis=1).tolist()
        finite = np.asarray(np.isfinite(probabilities).all(axis=1)).tolist()
        ranks = range(1, best.shape[1] + 1)
        columns = [(_ranked("label", rank), _ranked("score", rank)) for rank in ranks]
        rows: list[Row | str] = []
        for classes, values, is_finite in zip(best.tolist(), scores, finite, strict=True):
            row: Row = {}
            for (label, score), index, value in zip(columns, classes, values, strict=True):
                row |= {label: self.labels[index], score: value}
            rows.append(row if is_finite else NOT_FINITE)
        return rows

    def rows(self, answer: Row, options: Options) -> list[Row]:
        return [answer]

    def draw(self, image: Image.Image, answer: Row) -> Image.Image:
        return draw_label(image, answer)

    def _outputs(self) -> Tensors:
        return {"probabilities": ("float", [None, len(self.labels)])}


def _ranked(name: str, rank: int) -> str:
    return name if rank == 1 else f"{name}_{rank}"
