"""`data:` at the top of params.yaml: the data sets, a class for each source."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, Strict

from pipeline.params.schema.block import (
    FractionOrCount,
    Names,
    NonNegative,
    Part,
    Positive,
    Rising,
    Seed,
)

SceneSide = Annotated[int, Field(ge=64, le=96)]
DigitCount = Annotated[int, Field(ge=1, le=6)]
# Keys of several sources.
Licence = Annotated[
    str, Field(description="licence of the data; it is written into the model file")
]
ValidationImages = Annotated[
    FractionOrCount, Field(description="validation images: a count, or a fraction below 1")
]
TestImages = Annotated[
    FractionOrCount, Field(description="test images: a count, or a fraction below 1")
]
Gaps = Annotated[Literal["error", "interpolate"], Field(description="what to do with gaps")]
ValidationRows = Annotated[NonNegative, Field(description="fraction of the rows")]
TestRows = Annotated[NonNegative, Field(description="fraction of the rows, the newest")]
Season = Annotated[
    Positive | None,
    Field(
        description=(
            "rows of one period, for the seasonal naive forecast; null: from the step between times"
            " (hourly 24, daily 7, weekly 52, monthly 12, quarterly 4, else 1)"
        )
    ),
]


class Camera(Part):
    """Another camera: corruptions of every image of a data set."""

    blur: NonNegative = Field(0.0, description="radius of a Gaussian blur, in pixels of the source")
    noise: NonNegative = Field(
        0.0, description="standard deviation of noise in grey levels, drawn anew for each pixel"
    )
    colour: Annotated[tuple[NonNegative, NonNegative, NonNegative], Strict(False)] = Field(
        (1.0, 1.0, 1.0), description="gains of red, green and blue"
    )
    scramble: bool = Field(
        False, description="one fixed permutation of the pixels: the same numbers without any shape"
    )


class ImageSet(Part):
    """Keys that every data set of images with a class each has."""

    TASKS: ClassVar[tuple[str, ...]] = ("classification",)
    seed: Seed = Field(0, description="seed of the split")
    camera: Camera | None = Field(None, description="corruptions of every image")
    classes: Names | None = Field(
        None, description="the classes to keep, in this order; null: all of them"
    )
    per_class: Positive | None = Field(
        None, description="training images of each class; validation and test stay whole"
    )
    draw: Seed | None = Field(
        None, description="seed that draws the `per_class` images; null: the same as `seed`"
    )


class DigitsSet(ImageSet):
    """1,797 handwritten digits of 8 x 8 pixels, which come with scikit-learn."""

    source: Literal["digits"]
    validation: Positive = Field(300, description="images of the validation split")
    test: Positive = Field(360, description="images of the test split")
    licence: Licence = "CC BY 4.0 (UCI optical recognition of handwritten digits)"


class TorchvisionSet(ImageSet):
    """A data set of torchvision, below DATA_ROOT or downloaded."""

    source: Literal["torchvision"]
    name: str = Field(description="name of torchvision's class: MNIST, CIFAR10, Imagenette ...")
    train: Positive | None = Field(None, description="training images; null: all that are left")
    validation: ValidationImages = 0.1
    test: Positive | None = Field(None, description="test images; null: all")
    licence: Licence


class FolderSet(ImageSet):
    """A folder of images: one sub-folder for each class, below train/, val/, test/ or not."""

    source: Literal["folder"]
    path: str = Field(description="the folder, relative to here or else to DATA_ROOT")
    labels: Literal["folders", "imagenet"] = Field(
        "folders",
        description="imagenet: all 1,000 classes of ImageNet, and folders named as some of them",
    )
    validation: ValidationImages = 0.15
    test: TestImages = 0.15
    licence: Licence


class PackedSet(ImageSet):
    """Keys of images that are packed with their labels in files, of a split each or of all.

    A file is of the split that its name, or that of a folder above it, says: train, val or test.
    """

    source: Literal["webdataset", "parquet"]
    path: str = Field(
        description="a file, or a folder of files, relative to here or else to DATA_ROOT"
    )
    label: str
    names: Names | None = Field(
        None,
        description="names of the classes 0, 1, ...; null: as the files say, or the labels found",
    )
    validation: ValidationImages = 0.15
    test: TestImages = 0.15
    licence: Licence


class WebDatasetSet(PackedSet):
    """Uncompressed tar files in WebDataset's layout: KEY.jpg beside KEY.cls."""

    source: Literal["webdataset"]
    label: str = Field("cls", description="suffix of the members that hold an index or a name")


class ParquetSet(PackedSet):
    """Parquet files with a column of images, as Hugging Face's data sets have them."""

    source: Literal["parquet"]
    label: str = Field("label", description="column of class indices or names")


class AnnotatedSet(Part):
    """Keys that every data set of images with annotations has."""

    TASKS: ClassVar[tuple[str, ...]] = ("detection", "segmentation", "captioning")
    seed: Seed = Field(0, description="seed of the split, and of what is drawn")


class ScenesSet(AnnotatedSet):
    """Scenes of handwritten digits, which come with scikit-learn, on a textured ground, with boxes,
    masks and a caption.
    """

    source: Literal["scenes"]
    size: Annotated[tuple[SceneSide, SceneSide], Strict(False)] = Field(
        (80, 80), description="height and width of a scene in pixels"
    )
    digits: Annotated[tuple[DigitCount, DigitCount], Strict(False), Rising] = Field(
        (1, 6), description="least and largest number of digits in a scene"
    )
    distinct: bool = Field(False, description="no digit is in a scene twice")
    train: Positive = Field(2000, description="scenes of the training split")
    validation: Positive = Field(300, description="scenes of the validation split")
    test: Positive = Field(400, description="scenes of the test split")
    licence: Licence = "CC BY 4.0 (UCI optical recognition of handwritten digits)"


class OwnAnnotatedSet(AnnotatedSet):
    """Keys of a user's images with annotations."""

    validation: ValidationImages = 0.15
    test: TestImages = 0.15
    licence: Licence


class CocoSet(OwnAnnotatedSet):
    """Images with a COCO file of boxes, polygons or captions."""

    source: Literal["coco"]
    path: str = Field(description="the JSON file, relative to here or else to DATA_ROOT")
    images: str | None = Field(
        None, description="folder of the images, relative as `path`; null: the file's own folder"
    )


class MaskSet(OwnAnnotatedSet):
    """A folder of images and a folder of PNG masks of class indices, as Pascal VOC has them."""

    TASKS: ClassVar[tuple[str, ...]] = ("segmentation",)
    source: Literal["masks"]
    path: str = Field(
        description=(
            "the folder that holds JPEGImages/ and SegmentationClass/, or images/ and masks/,"
            " relative to here or else to DATA_ROOT"
        )
    )
    classes: Names | None = Field(
        None, description="names of the indices from 1 on, 0 is the background; null: numbers"
    )


class SeriesSet(Part):
    """Of every data set of series."""

    TASKS: ClassVar[tuple[str, ...]] = ("forecasting",)


class WavesSet(SeriesSet):
    """Generated amplitude-modulated sines."""

    source: Literal["waves"]
    train: Positive = Field(800, description="training curves")
    validation: Positive = Field(200, description="validation curves")
    test: Positive = Field(200, description="test curves")
    length: int = Field(228, ge=2, description="samples of a test curve")
    noise: NonNegative = Field(
        0.1, description="standard deviation of noise, training and validation"
    )
    test_noise: NonNegative = Field(0.0, description="standard deviation of noise, test")
    seed: Seed = Field(0, description="seed of phases and noise")
    season: Positive = Field(
        14, description="samples of one period, for the seasonal naive forecast"
    )
    licence: Licence = "CC0 1.0 (generated)"


class StatsmodelsSet(SeriesSet):
    """A series that comes with statsmodels."""

    source: Literal["statsmodels"]
    name: Literal["sunspots", "co2"] = Field(description="yearly sunspots, or weekly CO2")
    gaps: Gaps = "error"
    validation: ValidationRows = 0.15
    test: TestRows = 0.15
    season: Season = None
    licence: Licence = "public domain"


class CsvSet(SeriesSet):
    """A CSV or Parquet file with one or many series."""

    source: Literal["csv"]
    path: str = Field(description="the file, relative to here or else to DATA_ROOT")
    columns: list[str] | None = Field(None, description="columns of values; null: all numeric ones")
    time: str | None = Field(None, description="column of times; null: `ds` if there is one")
    id: str | None = Field(
        None, description="column that names the series of a row; null: `unique_id` if there is one"
    )
    gaps: Gaps = "error"
    validation: ValidationRows = 0.15
    test: TestRows = 0.15
    splits: Annotated[tuple[Positive, Positive, Positive], Strict(False)] | None = Field(
        None,
        description="rows where train, validation and test end, in place of fractions",
    )
    season: Season = None
    licence: Licence


AnySeriesSet = WavesSet | StatsmodelsSet | CsvSet
AnyImageSet = DigitsSet | TorchvisionSet | FolderSet | WebDatasetSet | ParquetSet
AnyAnnotatedSet = ScenesSet | CocoSet | MaskSet
DataSet = AnyImageSet | AnyAnnotatedSet | AnySeriesSet
SOURCES: dict[str, type[Part]] = {
    "digits": DigitsSet,
    "torchvision": TorchvisionSet,
    "folder": FolderSet,
    "webdataset": WebDatasetSet,
    "parquet": ParquetSet,
    "scenes": ScenesSet,
    "coco": CocoSet,
    "masks": MaskSet,
    "waves": WavesSet,
    "statsmodels": StatsmodelsSet,
    "csv": CsvSet,
}
