"""`data:` of a recipe: how images or series become the network's input."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from convline.model_file.document import ImageRule
from convline.model_file.schema import MAX_IMAGE_SIDE, QUANTILES
from pydantic import Field, Strict, field_validator, model_validator

from pipeline.params.schema.block import ImageTask, Names, Part, Positive, Share
from pipeline.params.schema.datasets import AnyAnnotatedSet, AnyImageSet, AnySeriesSet


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
    intervals: Literal["fixed", "scaled"] = Field(
        "fixed",
        description="fixed: of one width, from validation windows; scaled: as wide as their window"
        " varies, from training windows too",
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
