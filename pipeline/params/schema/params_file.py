"""The keys at the top of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.params.schema.block import Part, Positive
from pipeline.params.schema.check_block import Check
from pipeline.params.schema.explain_block import Explain
from pipeline.params.schema.studies import Study


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
