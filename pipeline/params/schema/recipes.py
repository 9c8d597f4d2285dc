"""`models:` at the top of params.yaml: a recipe as it is written, and resolved for each stage."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from pipeline.params.schema.block import Layer, Part
from pipeline.params.schema.check_block import Check, ExportCheck
from pipeline.params.schema.data_block import ImageData, SeriesData
from pipeline.params.schema.explain_block import Explain
from pipeline.params.schema.train_block import ResolvedTrain
from pipeline.params.schema.transfer import Head, Weights

NAME_PATTERN = r"[a-z0-9]+(-[a-z0-9]+)*"  # of an entry
RESERVED = (  # folders of out/, pages of the report, and `python -m pipeline.new net`
    "params", "scratch", "dist", "wheel", "report", "studies", "claims", "code", "metrics",
    "checkpoints", "features", "downloads", "gpu", "index", "plots", "compare", "live", "inside",
    "net",
)  # fmt: skip


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
    full: Layer = Field({}, description="laid over the recipe where `size: full`")


class RecipeBlock(Setting):
    """A recipe as it stands under `models:`, its `full:` block apart."""

    arch: str = Field(description="a module of models/")
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
    net: dict[str, Any] = Field({})
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
