"""Every key of params.yaml with its type, default, limits and description, as frozen pydantic
models, in a file for each block.

    params_file     the keys at the top of the file
    datasets        `data:` at the top: the data sets
    recipes         `models:` at the top: the recipes, as they are written and as stages read them
    data_block      `data:` of a recipe
    train_block     `train:` of a recipe
    transfer        `backbone:`, `weights:` and `head:` of a recipe
    check_block     `check:` at the top
    explain_block   `explain:` at the top
    studies         `studies:` at the top
    block           what each of them is made of

The models also carry a checked recipe through the stages: `recipe.train.lr`.
"""

from pipeline.params.schema.block import TASKS, Layer, Part
from pipeline.params.schema.check_block import ERROR_LIMIT, Check, ExportCheck, Int8
from pipeline.params.schema.data_block import (
    AnyData,
    ImageBlock,
    ImageData,
    SeriesBlock,
    SeriesData,
)
from pipeline.params.schema.datasets import (
    SOURCES,
    AnnotatedSet,
    AnyImageSet,
    AnySeriesSet,
    Camera,
    CocoSet,
    CsvSet,
    DigitsSet,
    FolderSet,
    ImageSet,
    MaskSet,
    PackedSet,
    ParquetSet,
    ScenesSet,
    StatsmodelsSet,
    TorchvisionSet,
    WavesSet,
    WebDatasetSet,
)
from pipeline.params.schema.explain_block import Explain
from pipeline.params.schema.params_file import File
from pipeline.params.schema.recipes import (
    NAME_PATTERN,
    RESERVED,
    CheckPart,
    DataPart,
    EntryRecipe,
    ExplainRecipe,
    ExportRecipe,
    FullBlock,
    Recipe,
    RecipeBlock,
    Setting,
    Training,
)
from pipeline.params.schema.studies import MEASURES, Curve, Study
from pipeline.params.schema.train_block import Augment, ResolvedTrain, Train
from pipeline.params.schema.transfer import Backbone, Head, Weights

__all__ = [
    "ERROR_LIMIT",
    "MEASURES",
    "NAME_PATTERN",
    "RESERVED",
    "SOURCES",
    "TASKS",
    "AnnotatedSet",
    "AnyData",
    "AnyImageSet",
    "AnySeriesSet",
    "Augment",
    "Backbone",
    "Camera",
    "Check",
    "CheckPart",
    "CocoSet",
    "CsvSet",
    "Curve",
    "DataPart",
    "DigitsSet",
    "EntryRecipe",
    "Explain",
    "ExplainRecipe",
    "ExportCheck",
    "ExportRecipe",
    "File",
    "FolderSet",
    "FullBlock",
    "Head",
    "ImageBlock",
    "ImageData",
    "ImageSet",
    "Int8",
    "Layer",
    "MaskSet",
    "PackedSet",
    "ParquetSet",
    "Part",
    "Recipe",
    "RecipeBlock",
    "ResolvedTrain",
    "ScenesSet",
    "SeriesBlock",
    "SeriesData",
    "Setting",
    "StatsmodelsSet",
    "Study",
    "TorchvisionSet",
    "Train",
    "Training",
    "WavesSet",
    "WebDatasetSet",
    "Weights",
]
