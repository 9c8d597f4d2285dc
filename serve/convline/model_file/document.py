"""The model document: what a model file says about itself, as frozen dataclasses.

`parse_document` makes one of JSON that `convline.model_file.schema` has checked. The JSON form is
described in docs/model-file.md and docs/model-file.schema.json.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NoReturn, Self

import numpy.typing as npt

from convline.model_file.golden import unpack_array
from convline.model_file.schema import CROPS, INTERPOLATIONS

POLICIES = {"exif": "apply", "sixteen_bit": "high byte", "frames": "first"}  # of every model


@dataclass(frozen=True)
class ImageRule:
    """How any image becomes uint8 (H, W, C): C is 1 for "grey" (ITU-R 601 luma) and 3 for "rgb".

    ImageRule((28, 28), "grey")                            # the whole image, stretched to 28 x 28
    ImageRule((224, 224), "rgb", "crop", shorter_px=256)   # shorter side to 256, then the centre

    `crop` resamples once, from the exact centre of the image, which may begin between two pixels.
    `torchvision` scales to whole pixels first and then cuts at whole pixels, as torchvision's
    Resize and CenterCrop do.
    """

    size: tuple[int, int]  # (H, W)
    colour: str  # "grey" | "rgb"
    fit: str = "stretch"  # "stretch" | "crop" | "torchvision"
    shorter_px: int | None = None  # only with crop and torchvision
    interpolation: str = "bilinear"
    background: tuple[int, int, int] = (0, 0, 0)
    # Decode a JPEG at 1/2, 1/4 or 1/8 where that leaves enough pixels for the resize.
    draft: bool = False

    def __post_init__(self) -> None:
        choices = {
            "colour": ("grey", "rgb"),
            "fit": ("stretch", *CROPS),
            "interpolation": INTERPOLATIONS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                self._refuse(name, f"one of {', '.join(known)}")
        if self.fit == "stretch" and self.shorter_px is not None:
            self._refuse("shorter_px", "None with fit 'stretch'")
        if self.fit != "stretch" and (self.shorter_px or 0) < max(self.size):
            self._refuse("shorter_px", f"at least {max(self.size)} to crop")
        if self.fit == "torchvision" and self.draft:
            expected = "false with fit 'torchvision', whose pixels it changes"
            raise ValueError(f"ImageRule.draft: expected {expected}, got true")

    def _refuse(self, name: str, expected: str) -> NoReturn:
        got = getattr(self, name)
        raise ValueError(f"ImageRule.{name}: expected {expected}, got {got!r}")

    @property
    def channels(self) -> int:
        return 1 if self.colour == "grey" else 3

    def to_dict(self) -> dict[str, Any]:
        """Return the `input` object of the model document."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        lists = {"size": [*self.size], "background": [*self.background]}
        return {"kind": "image", **values, **lists, **POLICIES}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "ImageRule":
        """Return the rule of an `input` object; ValueError if its values do not agree."""
        values = {one.name: document[one.name] for one in fields(cls) if one.name in document}
        tuples = {"size": tuple(document["size"]), "background": tuple(document["background"])}
        return cls(**values | tuples)


@dataclass(frozen=True)
class Step:
    """The time from one row to the next: `count` seconds, calendar months, or units of an index."""

    unit: str  # "seconds" | "months" | "index" (whole numbers)
    count: int

    def __str__(self) -> str:
        unit = self.unit if self.unit != "index" else "(whole numbers)"
        return f"{self.count} {unit}"


@dataclass(frozen=True)
class TrainingRange:
    """The range of the training inputs of each column; predictions for others mean nothing."""

    of: str  # "values" of the rows | "changes" of the rows from the last row of their window
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class SeriesRule:
    """How a file of series is read: its columns, its step, and what the network takes of it."""

    context: int  # rows of a window, T
    columns: list[str]  # that the network reads, D
    id: str | None
    time: str | None
    gaps: str  # "error" | "interpolate"
    step: Step
    offset: str | None = None  # of the training times from UTC: "none" | "utc"; None is not known
    calendar: list[str] | None = None  # features of each row's time; None if it reads no calendar
    range: TrainingRange | None = None

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "SeriesRule":
        """Return the rule of an `input` object."""
        values = {key: value for key, value in document.items() if key != "kind"}
        values["step"] = Step(**document["step"])
        if document.get("range"):
            values["range"] = TrainingRange(**document["range"])
        return cls(**values)


@dataclass(frozen=True)
class Golden:
    """Samples, and the outputs of the exported graph for them on the exporter's machine."""

    input: npt.NDArray[Any]
    calendar: npt.NDArray[Any] | None
    outputs: dict[str, npt.NDArray[Any]]
    atol: float  # the largest difference that the exporter allows


@dataclass(frozen=True)
class Document:
    """What all tasks have in common."""

    OUTPUTS: ClassVar[tuple[str, ...]]  # of the prediction graph, in order

    name: str
    task: str
    digest: str
    provenance: dict[str, Any]  # free-form
    golden_json: dict[str, Any]

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Return the typed document of checked JSON; ValueError if a rule contradicts itself."""
        common = {key: document[key] for key in ("name", "task", "digest", "provenance")}
        return cls(**common, golden_json=document["golden"], **cls._own_fields(document))

    @classmethod
    def _own_fields(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return the values of the fields that only this task has."""
        raise NotImplementedError

    @property
    def has_step(self) -> bool:
        """Whether the graph also computes one step at a time, from the state of the step before."""
        return False

    @property
    def has_other_outputs(self) -> bool:
        """Whether the graph also computes what predictions do not need."""
        return self.has_step

    @property
    def golden(self) -> Golden:
        """The golden samples, unpacked; ModelFileError if an array is damaged."""
        packed = self.golden_json
        calendar = packed.get("calendar")
        return Golden(
            unpack_array(packed["input"]),
            None if calendar is None else unpack_array(calendar),
            {name: unpack_array(array) for name, array in packed["outputs"].items()},
            float(packed["atol"]),
        )


@dataclass(frozen=True)
class ImageDocument(Document):
    """The document of a network that reads images."""

    input: ImageRule

    @classmethod
    def _own_fields(cls, document: dict[str, Any]) -> dict[str, Any]:
        return {"input": ImageRule.from_dict(document["input"])}


@dataclass(frozen=True)
class LabelledDocument(ImageDocument):
    """The document of a network that tells classes apart."""

    labels: list[str]  # the name of each class index

    @classmethod
    def _own_fields(cls, document: dict[str, Any]) -> dict[str, Any]:
        return super()._own_fields(document) | {"labels": document["labels"]}


@dataclass(frozen=True)
class ClassifierDocument(LabelledDocument):
    """The document of an image classifier; labels are in the order of the probabilities."""

    OUTPUTS = ("probabilities",)

    explain: bool  # the graph also computes `scores` and `saliency`, for `infer explain`

    @classmethod
    def _own_fields(cls, document: dict[str, Any]) -> dict[str, Any]:
        return super()._own_fields(document) | {"explain": "explain" in document}

    @property
    def has_other_outputs(self) -> bool:
        return self.explain


@dataclass(frozen=True)
class DetectorDocument(LabelledDocument):
    """The document of a detector; no label stands for the background."""

    OUTPUTS = ("boxes", "labels", "scores", "count")

    most: int  # finds of one image, K
    min_score: float  # finds of a lower score are left out, unless the user asks for them

    @classmethod
    def _own_fields(cls, document: dict[str, Any]) -> dict[str, Any]:
        detection: dict[str, Any] = document["detection"]
        return super()._own_fields(document) | detection


@dataclass(frozen=True)
class SegmenterDocument(LabelledDocument):
    """The document of a network that gives each pixel a class, by its index in the labels."""

    OUTPUTS = ("masks", "probabilities")


@dataclass(frozen=True)
class CaptionerDocument(ImageDocument):
    """The document of a captioner: an encoder of images, and a step for one more word."""

    OUTPUTS = ("first_hidden", "first_cell")

    words: list[str]  # by id; the first are SPECIAL_WORDS
    longest: int  # words of a caption with its <end>, L

    @classmethod
    def _own_fields(cls, document: dict[str, Any]) -> dict[str, Any]:
        own = {"words": document["words"], **document["caption"]}
        return super()._own_fields(document) | own

    @property
    def has_step(self) -> bool:
        return True


@dataclass(frozen=True)
class ForecasterDocument(Document):
    """The document of a forecaster."""

    OUTPUTS = ("forecast", "quantiles")

    input: SeriesRule
    horizon: int  # rows of one forecast, S
    quantiles: list[float]  # rising, symmetric about 0.5
    targets: list[str]  # the columns that it forecasts, D': the first of input.columns
    # Samples after which a forecast of the step graph equals that of the full window; None: the
    # file has no step graph.
    stream_samples: int | None

    @classmethod
    def _own_fields(cls, document: dict[str, Any]) -> dict[str, Any]:
        forecast, rule = document["forecast"], SeriesRule.from_dict(document["input"])
        return {
            "input": rule,
            "horizon": forecast["horizon"],
            "quantiles": forecast["quantiles"],
            "targets": forecast.get("columns", rule.columns),
            "stream_samples": document["stream"]["samples"] if "stream" in document else None,
        }

    @property
    def has_step(self) -> bool:
        return self.stream_samples is not None


DOCUMENTS: dict[str, type[Document]] = {
    "classification": ClassifierDocument,
    "detection": DetectorDocument,
    "segmentation": SegmenterDocument,
    "captioning": CaptionerDocument,
    "forecasting": ForecasterDocument,
}


def parse_document(document: dict[str, Any]) -> Document:
    """Return the typed document of checked JSON; ValueError if an image rule contradicts itself."""
    return DOCUMENTS[document["task"]].from_dict(document)
