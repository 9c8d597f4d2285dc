"""Every key of params.yaml with its type, default, limits and description, as frozen pydantic
models.

The models also carry a checked recipe through the stages: `recipe.train.lr`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from convline.model_file.document import ImageRule
from convline.model_file.schema import MAX_IMAGE_SIDE, QUANTILES
from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator, model_validator

ERROR_LIMIT = 1e-3  # of a forecast's error, relative: what onnxruntime's may differ from torch's by
NAME_PATTERN = r"[a-z0-9]+(-[a-z0-9]+)*"  # of an entry
RESERVED = (  # folders of out/, pages of the report, and `python -m pipeline.new net`
    "params", "scratch", "dist", "wheel", "report", "studies", "claims", "code", "metrics",
    "checkpoints", "features", "downloads", "gpu", "index", "plots", "compare", "live", "inside",
    "net",
)  # fmt: skip

ImageTask = Literal["classification", "detection", "segmentation", "captioning"]
TASKS = [*get_args(ImageTask), "forecasting"]

# What a study can measure: on which data, and the kind of number, which decides how it is averaged.
MEASURES = {
    "accuracy": ("image", "share"),
    "accuracy on old classes": ("image", "share"),
    "training accuracy": ("image", "share"),
    "accuracy gap": ("image", "difference"),
    "training loss": ("image", "error"),
    "test loss": ("image", "error"),
    "loss gap": ("image", "difference"),
    "epochs to 90 %": ("image", "count"),
    "settling lag": ("image", "difference"),
    "dead units": ("image", "share"),
    "near-zero weights": ("image", "share"),
    "weight diffuseness": ("image", "share"),
    "parameters": ("any", "count"),
    "gradient ratio": ("image", "error"),
    "mse 10 ahead": ("series", "error"),
    "mse 100 ahead": ("series", "error"),
    "validation loss": ("any", "error"),
}
Measure = Annotated[str, Field(json_schema_extra={"enum": list(MEASURES)})]
Curve = Literal[
    "training error",
    "test error",
    "gradient at the start",
    "gradient at the end",
    "epochs to settle",
]

# A seed times a million still fits 64 bits: training mixes the epoch in.
Seed = Annotated[int, Field(ge=0, le=10**12)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
AreaShare = Annotated[float, Field(gt=0, le=1)]
Aspect = Annotated[float, Field(ge=0.1, le=10)]  # width over height
FractionOrCount = Annotated[int, Field(ge=0)] | NonNegative
Names = Annotated[list[str], Field(min_length=1)]
SceneSide = Annotated[int, Field(ge=64, le=96)]
DigitCount = Annotated[int, Field(ge=1, le=6)]
Layer = dict[str, Any]  # keys of a recipe, laid over another recipe before both are checked


class Part(BaseModel):
    """A block of params.yaml.

    Unknown keys, true for 1, "3" for 3, and numbers that are not finite are errors.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        defer_build=True,
    )

    def updated(self, **changes: Any) -> Self:
        """Return a copy with changed fields, unchecked; a mapping changes fields of a nested
        part.
        """
        fields = {
            key: (
                getattr(self, key).updated(**value)
                if isinstance(value, dict) and isinstance(getattr(self, key), Part)
                else value
            )
            for key, value in changes.items()
        }
        return self.model_copy(update=fields)


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
    licence: str = Field(
        "CC BY 4.0 (UCI optical recognition of handwritten digits)",
        description="licence of the data; it is written into the model file",
    )


class TorchvisionSet(ImageSet):
    """A data set of torchvision, below DATA_ROOT or downloaded."""

    source: Literal["torchvision"]
    name: str = Field(description="name of torchvision's class: MNIST, CIFAR10, Imagenette ...")
    train: Positive | None = Field(None, description="training images; null: all that are left")
    validation: FractionOrCount = Field(
        0.1, description="validation images: a count, or a fraction below 1"
    )
    test: Positive | None = Field(None, description="test images; null: all")
    licence: str = Field(description="licence of the data; it is written into the model file")


class FolderSet(ImageSet):
    """A folder of images: one sub-folder for each class, below train/, val/, test/ or not."""

    source: Literal["folder"]
    path: str = Field(description="the folder, relative to here or else to DATA_ROOT")
    labels: Literal["folders", "imagenet"] = Field(
        "folders",
        description="imagenet: all 1,000 classes of ImageNet, and folders named as some of them",
    )
    validation: FractionOrCount = Field(
        0.15, description="validation images: a count, or a fraction below 1"
    )
    test: FractionOrCount = Field(0.15, description="test images: a count, or a fraction below 1")
    licence: str = Field(description="licence of the data; it is written into the model file")


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
    validation: FractionOrCount = Field(
        0.15, description="validation images: a count, or a fraction below 1"
    )
    test: FractionOrCount = Field(0.15, description="test images: a count, or a fraction below 1")
    licence: str = Field(description="licence of the data; it is written into the model file")


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
    digits: Annotated[tuple[DigitCount, DigitCount], Strict(False)] = Field(
        (1, 6), description="least and largest number of digits in a scene"
    )
    distinct: bool = Field(False, description="no digit is in a scene twice")
    train: Positive = Field(2000, description="scenes of the training split")
    validation: Positive = Field(300, description="scenes of the validation split")
    test: Positive = Field(400, description="scenes of the test split")
    licence: str = Field(
        "CC BY 4.0 (UCI optical recognition of handwritten digits)",
        description="licence of the data; it is written into the model file",
    )

    @field_validator("digits")
    @classmethod
    def require_rising_digits(cls, digits: tuple[int, int]) -> tuple[int, int]:
        if digits[0] > digits[1]:
            raise ValueError(f"expected [least, largest], got {list(digits)}")
        return digits


class OwnAnnotatedSet(AnnotatedSet):
    """Keys of a user's images with annotations."""

    validation: FractionOrCount = Field(
        0.15, description="validation images: a count, or a fraction below 1"
    )
    test: FractionOrCount = Field(0.15, description="test images: a count, or a fraction below 1")
    licence: str = Field(description="licence of the data; it is written into the model file")


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
    licence: str = Field(
        "CC0 1.0 (generated)", description="licence of the data; it is written into the model file"
    )


SEASON = Field(
    None,
    description=(
        "rows of one period, for the seasonal naive forecast; null: from the step between times"
        " (hourly 24, daily 7, weekly 52, monthly 12, quarterly 4, else 1)"
    ),
)


class StatsmodelsSet(SeriesSet):
    """A series that comes with statsmodels."""

    source: Literal["statsmodels"]
    name: Literal["sunspots", "co2"] = Field(description="yearly sunspots, or weekly CO2")
    gaps: Literal["error", "interpolate"] = Field("error", description="what to do with gaps")
    validation: NonNegative = Field(0.15, description="fraction of the rows")
    test: NonNegative = Field(0.15, description="fraction of the rows, the newest")
    season: Positive | None = SEASON
    licence: str = Field(
        "public domain", description="licence of the data; it is written into the model file"
    )


class CsvSet(SeriesSet):
    """A CSV or Parquet file with one or many series."""

    source: Literal["csv"]
    path: str = Field(description="the file, relative to here or else to DATA_ROOT")
    columns: list[str] | None = Field(None, description="columns of values; null: all numeric ones")
    time: str | None = Field(None, description="column of times; null: `ds` if there is one")
    id: str | None = Field(
        None, description="column that names the series of a row; null: `unique_id` if there is one"
    )
    gaps: Literal["error", "interpolate"] = Field("error", description="what to do with gaps")
    validation: NonNegative = Field(0.15, description="fraction of the rows")
    test: NonNegative = Field(0.15, description="fraction of the rows, the newest")
    splits: Annotated[tuple[Positive, Positive, Positive], Strict(False)] | None = Field(
        None,
        description="rows where train, validation and test end, in place of fractions",
    )
    season: Positive | None = SEASON
    licence: str = Field(description="licence of the data; it is written into the model file")


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


class ImageBlock(Part):
    """`data:` of a recipe for images: how an image becomes the network's input."""

    set: str = Field(description="name of a data set under `data:`")
    size: Annotated[
        tuple[
            Annotated[int, Field(ge=1, le=MAX_IMAGE_SIDE)],
            Annotated[int, Field(ge=1, le=MAX_IMAGE_SIDE)],
        ],
        Strict(False),
    ] = Field(description="height and width in pixels")
    colour: Literal["grey", "rgb"] = Field(description="one channel or three")
    standardise: Literal["none", "unit", "mean", "channel", "pixel", "imagenet"] = Field(
        "channel",
        description=(
            "subtract a mean and divide by a deviation of the training split: of each channel or"
            " pixel; unit: divide by 255; mean: subtract the mean alone; imagenet: ImageNet's mean"
            " and deviation"
        ),
    )
    fit: Literal["stretch", "crop", "torchvision"] = Field(
        "stretch",
        description=(
            "how an image gets the size; torchvision: crops at whole pixels, as its weights were"
            " tested"
        ),
    )
    shorter_px: Positive | None = Field(
        None, description="crops only: the shorter side before the crop, in pixels"
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = Field(
        "bilinear", description="how pixels are interpolated"
    )
    background: Annotated[
        tuple[
            Annotated[int, Field(ge=0, le=255)],
            Annotated[int, Field(ge=0, le=255)],
            Annotated[int, Field(ge=0, le=255)],
        ],
        Strict(False),
    ] = Field((0, 0, 0), description="red, green and blue behind transparent pixels")
    draft: bool = Field(
        False,
        description=(
            "decode large JPEGs at 1/2, 1/4 or 1/8: faster, off by one grey level on average"
        ),
    )
    layout: Literal["array", "shards", "auto"] = Field(
        "array",
        description=(
            "training split: an array in memory, or tar files of the photos on disk, which training"
            " reads as it goes; auto: shards where the arrays take more than a quarter of the"
            " memory; classification only"
        ),
    )
    longest_side: Positive | None = Field(
        None,
        description=(
            "shards only: a photo whose longer side exceeds so many pixels is scaled down to it and"
            " encoded as JPEG; null: every photo as it is"
        ),
    )
    shard_mb: Annotated[float, Field(gt=0)] = Field(
        128.0, description="shards only: megabytes of a shard, about"
    )
    on_undecodable: Literal["error", "skip"] = Field(
        "error",
        description="classification only: an image that cannot be decoded; skip: leave it out",
    )
    max_skipped: Share = Field(
        0.01, description="on_undecodable: skip only: share of the images that may be left out"
    )

    @property
    def image_rule(self) -> ImageRule:
        """The geometry, as the object that serving uses."""
        keys = ("size", "background", "colour", "fit", "shorter_px", "interpolation", "draft")
        return ImageRule(**{key: getattr(self, key) for key in keys})

    @model_validator(mode="after")
    def require_fitting_crop(self) -> Self:
        try:
            self.image_rule  # noqa: B018
        except ValueError as error:
            raise ValueError(str(error).removeprefix("ImageRule.")) from None
        return self

    @model_validator(mode="after")
    def require_enough_pixels(self) -> Self:
        least = max(*self.size, self.shorter_px or 0)
        if self.longest_side is not None and self.longest_side < least:
            what = f"expected at least {least} pixels, the size of the input or of its crop"
            raise ValueError(f"longest_side: {what}, got {self.longest_side}")
        return self


class SeriesBlock(Part):
    """`data:` of a recipe for series: how series become windows."""

    set: str = Field(description="name of a data set under `data:`")
    context: Positive = Field(description="rows of history that the network reads")
    horizon: Positive = Field(description="rows that it forecasts")
    quantiles: list[float] = Field(
        [0.1, 0.5, 0.9], description="quantile levels: rising, symmetric about 0.5"
    )
    stride: Positive = Field(1, description="rows between windows of validation and test")
    train_stride: Positive = Field(1, description="rows between windows of training")
    windows_per_epoch: Annotated[int, Field(ge=2)] | None = Field(
        None, description="training windows of an epoch, others each time, spread evenly; null: all"
    )
    targets: Names | None = Field(
        None, description="columns to forecast; the others are read alone; null: all"
    )
    calendar: list[Literal["minute", "hour", "weekday", "day", "month", "yearday"]] = Field(
        [], description="features of each row's time that the network gets, of the horizon too"
    )

    @field_validator("quantiles")
    @classmethod
    def require_symmetric_quantiles(cls, levels: list[float]) -> list[float]:
        expected, holds = QUANTILES
        if not holds(levels):
            raise ValueError(f"expected {expected}, got {levels!r}")
        return levels


class ImageData(ImageBlock):
    """A checked `data:` block with the data set that it names."""

    task: ImageTask = "classification"
    spec: AnyImageSet | AnyAnnotatedSet = Field(discriminator="source")


class SeriesData(SeriesBlock):
    """A checked `data:` block with the data set that it names."""

    task: Literal["forecasting"] = "forecasting"
    spec: AnySeriesSet = Field(discriminator="source")


AnyData = ImageData | SeriesData


class Augment(Part):
    """`train.augment`: random changes of training images."""

    rotate: NonNegative = Field(0.0, description="largest angle in degrees, either way")
    shift: Share = Field(0.0, description="largest shift as a fraction of height and width")
    zoom: Annotated[
        tuple[Annotated[float, Field(ge=0.01)], Annotated[float, Field(ge=0.01)]], Strict(False)
    ] = Field((1.0, 1.0), description="least and largest scale")
    flip: Literal["none", "horizontal", "vertical", "both"] = Field(
        "none", description="mirror half of the images"
    )
    crop_pad: int = Field(
        0, ge=0, description="pad by this many pixels, then crop the old size at random"
    )
    colour: NonNegative = Field(
        0.0, description="AlexNet's colour change: standard deviation of the PCA coefficients"
    )
    crop: Literal["none", "random", "random_resized"] = Field(
        "none",
        description=(
            "`data.layout: shards` only, what is cut out of a photo; random: the input's size, from"
            " the central square of `shorter_px` pixels; random_resized: a part of random area and"
            " aspect ratio"
        ),
    )
    area: Annotated[tuple[AreaShare, AreaShare], Strict(False)] = Field(
        (0.08, 1.0), description="random_resized only: least and largest share of the photo's area"
    )
    aspect: Annotated[tuple[Aspect, Aspect], Strict(False)] = Field(
        (3 / 4, 4 / 3),
        description="random_resized only: least and largest ratio of width to height",
    )
    policy: Literal["none", "randaugment", "trivialaugment"] = Field(
        "none",
        description=(
            "torchvision's, before the others: randaugment: two operations of one magnitude (Cubuk"
            " et al. 2020, arXiv:1909.13719); trivialaugment: one of any (Müller & Hutter 2021,"
            " arXiv:2103.10158), which turns by up to 135 degrees"
        ),
    )
    magnitude: int = Field(9, ge=0, le=30, description="randaugment only: of the operations")
    erase: Share = Field(
        0.0,
        description=(
            "probability that a rectangle gets the training images' mean colour, after the others"
            " (random erasing, Zhong et al. 2020, arXiv:1708.04896)"
        ),
    )

    @field_validator("zoom", "area", "aspect")
    @classmethod
    def require_rising_range(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if ends[0] > ends[1]:
            raise ValueError(f"expected [least, largest], got {list(ends)}")
        return ends


class Train(Part):
    """`train:` of a recipe: optimizer, schedule, loss, regularisation."""

    epochs: int = Field(
        30,
        ge=0,
        description=(
            "passes over the training split; 0: published weights as they are, and the default of a"
            " head on features"
        ),
    )
    batch: int = Field(64, ge=2, description="rows of a batch")
    optimizer: Literal["sgd", "adam", "adamw", "adadelta", "rmsprop"] = Field(
        "adam", description="the optimizer"
    )
    lr: NonNegative = Field(1e-3, description="learning rate")
    momentum: Share = Field(0.9, description="sgd and rmsprop only")
    nesterov: bool = Field(
        False, description="sgd only: Nesterov's momentum (Sutskever et al. 2013)"
    )
    weight_decay: NonNegative = Field(
        0.0, description="the optimizer's own: adds weight_decay * w to the gradient"
    )
    schedule: Literal["constant", "step", "cosine", "onecycle"] = Field(
        "constant",
        description=(
            "how the learning rate changes; cosine: Loshchilov & Hutter 2017, arXiv:1608.03983"
        ),
    )
    warmup: int = Field(
        0,
        ge=0,
        description=(
            "epochs of linear warm-up before the schedule (Goyal et al. 2017, arXiv:1706.02677)"
        ),
    )
    steps: list[int] = Field(
        [], description="schedule step only: epochs after which lr is multiplied by `factor`"
    )
    every: Positive | None = Field(
        None, description="schedule step only, in place of `steps`: after each so many epochs"
    )
    factor: NonNegative = Field(0.1, description="schedule step only: what lr is multiplied by")
    loss: Literal["auto", "cross-entropy", "softmax-clip", "mse", "pinball"] = Field(
        "auto",
        description="auto: cross-entropy for images, mse for series; pinball trains the quantiles",
    )
    aux_weight: NonNegative = Field(
        0.3, description="weight of each auxiliary head's loss, or of each further member's"
    )
    label_smoothing: Share = Field(
        0.0, description="cross-entropy only (Szegedy et al. 2016, arXiv:1512.00567, section 7)"
    )
    mixup: NonNegative = Field(
        0.0,
        description=(
            "classification only: each batch is mixed with itself, images and labels, by a share"
            " from Beta(mixup, mixup) (Zhang et al. 2018, arXiv:1710.09412)"
        ),
    )
    cutmix: NonNegative = Field(
        0.0,
        description=(
            "the same with a rectangle of each image, whose area is from Beta(cutmix, cutmix) (Yun"
            " et al. 2019, arXiv:1905.04899); with mixup, each batch gets one of the two"
        ),
    )
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description=(
            "decay of the exponential moving average of the weights, which is then what is"
            " validated, chosen and shipped (Polyak & Juditsky 1992); 0: the weights themselves"
        ),
    )
    balance: Share = Field(
        0.0,
        description=(
            "segmentation only: a pixel weighs n ** -balance, n the pixels of its class in the"
            " batch; 0: every pixel alike, 1: every class alike"
        ),
    )
    l1: NonNegative = Field(0.0, description="adds l1 * sum |w| to the loss")
    l2: NonNegative = Field(0.0, description="adds l2 * sum w^2 to the loss, or half of that")
    l2_convention: Literal["full", "half"] = Field("full", description="half: l2 / 2 * sum w^2")
    clip_norm: NonNegative | None = Field(None, description="largest norm of the gradient")
    patience: Positive | None = Field(
        None, description="stop after so many epochs without a better validation loss"
    )
    choose: Literal["best", "last"] = Field(
        "best", description="which epoch's weights ship; best: of the validation loss"
    )
    precision: Literal["auto", "fast", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 on a GPU that computes in it; fast: on such a CPU, too"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="torch.compile; auto: on a GPU where it pays"
    )
    augment: Augment | None = Field(
        None, description="random changes of training images; masks move with them"
    )
    snapshots: list[int] = Field([], description="epochs whose weights are kept for the report")
    seed: Seed = Field(1, description="seed of weights, order, dropout and augmentation")

    @model_validator(mode="after")
    def require_steps_below_epochs(self) -> Self:
        if self.steps and self.steps[-1] >= self.epochs:
            what = f"expected epochs below {self.epochs}, got {self.steps}"
            raise ValueError(f"steps: {what}; drop the last")
        return self


class ResolvedTrain(Train):
    """A checked `train:` block, and of loss pinball the quantile levels that the loss is for."""

    levels: list[float] = []


StageCount = Annotated[int, Field(ge=0)] | Literal["all"]


class Head(Part):
    """`head:` of a recipe: what a trained backbone gets for this task."""

    kind: Literal["softmax", "linear", "mlp", "forest", "svm-linear", "svm-rbf", "best"] = Field(
        description=(
            "softmax: trained by the loop, in place; the others: on the backbone's features; "
            "best: the one that cross-validation prefers"
        )
    )
    layer: str = Field(
        "penultimate",
        description=(
            "layer whose output is the features: penultimate, a layer's name, pixels or hog"
        ),
    )
    folds: int = Field(
        5, ge=2, description="folds of the cross-validation that tunes a head on features"
    )
    copied: StageCount = Field(
        "all",
        description=(
            "softmax: how many of the backbone's first stages are copied with their weights"
        ),
    )
    keep: bool = Field(
        False,
        description="softmax: classes that the backbone knew keep their weights in the last layer",
    )
    stages: StageCount = Field(
        0, description="softmax: how many of the backbone's last stages train too"
    )
    first: int = Field(0, ge=0, description="softmax: epochs in which the head trains alone")
    unfreeze: int = Field(
        0, ge=0, description="softmax: then one more stage every so many epochs; 0: all at once"
    )
    lr_factor: NonNegative = Field(
        1.0, description="softmax: learning rate of the stages, relative to the head's"
    )
    batch_norm: Literal["frozen", "trained"] = Field(
        "frozen", description="softmax: batch-norm statistics of the stages that train"
    )

    @model_validator(mode="after")
    def require_whole_backbone(self) -> Self:
        if self.kind != "softmax" and self.copied != "all":
            what = (
                f"expected all for kind: {self.kind}, whose backbone never trains, got"
                f" {self.copied!r}"
            )
            raise ValueError(f"copied: {what}; leave it out, or set kind: softmax")
        return self


class Weights(Part):
    """Published weights that training starts from."""

    file: str = Field(
        description=(
            "a state dict, relative to here or else to TORCH_HOME; imagenet: torchvision's own"
        )
    )
    licence: str = Field(description="licence of the weights; it is written into the model file")


class Backbone(Part):
    """`backbone:` of a recipe: an architecture with published weights, under a head of its own."""

    arch: str = Field(description="a module of models/")
    net: dict[str, Any] = Field({}, description="options of the architecture's constructor")
    weights: Weights = Field(description="published weights")


class FullBlock(Part):
    """`full:` of a recipe: what is laid over it where `size: full`."""

    arch: str = Field("", description="a module of models/")
    data: Layer = Field({}, description="keys of `data:`")
    net: Layer = Field({}, description="options of the architecture's constructor")
    train: Layer = Field({}, description="keys of `train:`")
    weights: Layer | None = Field(None, description="keys of `weights:`")
    head: Layer | None = Field(None, description="keys of `head:`")


class Setting(FullBlock):
    """What a study's setting lays over its recipe."""

    needs: str | None = Field(
        None, description="another recipe, whose trained network is the backbone"
    )


class RecipeBlock(Setting):
    """A recipe as it stands under `models:`, its `full:` block apart."""

    arch: str = Field(description="a module of models/")
    full: Layer = Field({}, description="laid over the recipe where `size: full`")
    saliency: bool = Field(
        False, description="the exported file also gives d score / d pixel, for `infer explain`"
    )
    streaming: bool = Field(
        False, description="the exported file also forecasts from one new sample at a time"
    )
    synthesis: bool = Field(
        False, description="stage explain also makes images from the network, which takes minutes"
    )


class Training(Part):
    """What stage train depends on besides the data: the recipe, and how it is run."""

    FILES: ClassVar[tuple[str, ...]] = ("train",)
    arch: str
    net: dict[str, Any] = {}
    train: ResolvedTrain
    weights: Weights | None = None
    needs: str | None = None
    head: Head | None = None
    size: Literal["small", "full"] = "small"
    device: Literal["auto", "cuda", "cpu"] = "auto"
    deterministic: bool = True
    threads: int = 1
    processes: int = 1
    workers: int | Literal["auto"] = "auto"
    code: str = ""  # digest of the architecture's code, and of the head's

    @property
    def on_features(self) -> bool:
        """Whether the recipe is a head on features, which the training loop does not train."""
        return self.head is not None and self.head.kind != "softmax"


class Recipe(Training):
    """A resolved recipe: `full:` laid over it, defaults filled in, its dataset looked up."""

    FILES: ClassVar[tuple[str, ...]] = ("data", "train")
    data: ImageData | SeriesData
    base: Recipe | None = None  # of a study: the recipe that makes the backbone


class EntryRecipe(Recipe):
    """A resolved recipe with what it asks of the stages after training."""

    saliency: bool = False
    streaming: bool = False
    synthesis: bool = False


class Int8(Part):
    """`check.int8`: the search for an int8 file."""

    methods: Annotated[list[Literal["MinMax", "Entropy", "Percentile"]], Field(min_length=1)] = (
        Field(["MinMax", "Entropy"], description="calibration methods, tried in turn")
    )
    images: Positive = Field(128, description="training images that calibrate")
    tries: Positive = Field(8, description="graphs that are made and measured, at most")


class ExportCheck(Part):
    """The keys of `check:` that stage export follows."""

    atol: Annotated[float, Field(ge=1e-9)] = Field(
        1e-4,
        description=(
            "largest difference between onnxruntime and torch: of probabilities, or of forecasts "
            "over their standard deviation"
        ),
    )
    fp16_atol: Annotated[float, Field(ge=1e-9)] = Field(1e-2, description="the same of fp16 files")
    random: Positive = Field(64, description="random inputs, besides the whole test split")
    seed: Seed = Field(7, description="seed of the random inputs")
    variants: list[Literal["int8", "fp16"]] = Field(
        ["int8", "fp16"], description="files made beside fp32, of classifiers"
    )
    budget: Annotated[float, Field(gt=0, le=1)] = Field(
        0.005, description="accuracy that a variant may lose and still ship"
    )
    int8: Int8 = Field(Int8(), description="the search for an int8 file")


class Check(ExportCheck):
    """`check:`: limits of the gate, and what it measures."""

    devices: list[Literal["cpu", "cuda", "tensorrt"]] = Field(
        [], description="devices to check on; none: all that are there"
    )
    baseline: Literal["report", "refuse"] = Field(
        "report",
        description=(
            "a network that is no better than its best baseline: report it, or stop the line"
        ),
    )
    undecided: Literal["leave_out", "package"] = Field(
        "leave_out",
        description=(
            "int8 where two test images are more than the budget, so that chance decides: "
            "leave it out of the package, or package it"
        ),
    )
    batches: Annotated[list[Positive], Field(min_length=1)] = Field(
        [1, 8, 32, 128],
        description="batch sizes that are timed, until throughput gains less than 5 %",
    )
    threads: list[Positive] = Field(
        [1], description="CPU threads that are timed, besides all cores"
    )
    seconds: NonNegative = Field(0.3, description="least seconds of a timing")


class Explain(Part):
    """`explain:`: counts, never seconds, so that the results are the same on every machine."""

    seed: Seed = Field(0, description="seed of everything that is drawn")
    images: int = Field(
        6, ge=1, le=12, description="images of a classifier's test split on the page"
    )
    of: Literal["score", "softmax"] = Field(
        "score", description="what gradients are of: score: before the softmax"
    )
    steps: int = Field(
        12,
        ge=2,
        description="steps of integrated gradients, doubled up to three times until they add up",
    )
    samples: Positive = Field(6, description="samples of SmoothGrad for each image")
    perturbations: int = Field(
        40, ge=8, description="perturbations of LIME for each image and seed"
    )
    judged: int = Field(
        8, ge=4, description="images that the quality of maps is measured on, at most"
    )
    macs: Positive = Field(
        1_200_000_000, description="multiply-adds of those images together, where that is fewer"
    )
    resamples: int = Field(1000, ge=100, description="resamples of the bootstrap")
    searched: int = Field(
        100, ge=9, description="images that are searched for what activates a unit most"
    )
    points: int = Field(200, ge=10, description="images in the embedding of the last hidden layer")
    attack_gmacs: NonNegative = Field(
        1.0, description="1e9 multiply-adds of one pass over the images that are attacked"
    )
    synthesis_steps: int = Field(
        48, ge=4, description="steps of gradient ascent, for recipes with `synthesis: true`"
    )


class DataPart(Part):
    """What stage data reads."""

    FILES: ClassVar[tuple[str, ...]] = ("data",)
    data: ImageData | SeriesData


class ExportRecipe(Recipe):
    """What stage export reads."""

    FILES: ClassVar[tuple[str, ...]] = ("data", "train", "export")
    saliency: bool
    streaming: bool
    check: ExportCheck


class CheckPart(Part):
    """What stage check reads."""

    FILES: ClassVar[tuple[str, ...]] = ("check",)
    check: Check


class ExplainRecipe(Recipe):
    """What stage explain reads."""

    FILES: ClassVar[tuple[str, ...]] = ("data", "train", "explain")
    synthesis: bool
    explain: Explain


class Study(Part):
    """A study: a recipe, settings laid over it, and seeds."""

    claim: str = Field(description="the sentence that the study tests")
    recipe: str = Field(description="name of a recipe under `models:`")
    base: Layer = Field({}, description="laid over the recipe, under every setting")
    settings: dict[str, Layer] = Field(
        min_length=1, description="name of a setting: keys laid over the recipe"
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(description="seeds of the trainings")
    measures: Annotated[list[Measure], Field(min_length=1)] = Field(
        description="what is measured on each trained network"
    )
    curves: list[Curve] = Field(
        [], description="what is drawn beside the measures, by epoch or by layer"
    )
    lines: dict[str, list[str]] = Field(
        {},
        description="name of a line: the settings that it joins in a plot; the others are levels",
    )


class File(Part):
    """The keys at the top of params.yaml."""

    size: Literal["small", "full"] = Field(
        "small", description="full: the papers' sizes, each recipe's `full:` block laid over it"
    )
    device: Literal["auto", "cuda", "cpu"] = Field("auto", description="where training runs")
    deterministic: bool = Field(True, description="two runs on one machine give equal numbers")
    threads: Positive = Field(1, description="CPU threads of one training")
    processes: Positive = Field(
        1, description="processes of one training, each with its share of every batch"
    )
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description=(
            "`data.layout: shards` only: processes that decode photos for each process of a"
            " training; auto: one for each core"
        ),
    )
    line: dict[str, str] = Field(
        description=(
            "entries that `dvc repro` makes: name of a recipe, and what its training starts from"
        )
    )
    line_studies: list[str] = Field([], description="studies that `dvc repro` makes")
    data: dict[str, Any] = Field(description="data sets by name")
    check: Check = Field(Check(), description="limits of the gate, and what it measures")
    explain: Explain = Field(Explain(), description="what stage explain draws and measures")
    models: dict[str, Any] = Field(description="recipes by name")
    studies: dict[str, Study] = Field({}, description="studies by name")
