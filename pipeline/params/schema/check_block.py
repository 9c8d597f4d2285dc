"""`check:` at the top of params.yaml: limits of the gate, and what it measures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.params.schema.block import NonNegative, Part, Positive, Seed

ERROR_LIMIT = 1e-3  # of a forecast's error, relative: what onnxruntime's may differ from torch's by


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
    engines: Annotated[list[Literal["onnxruntime", "openvino", "all"]], Field(min_length=1)] = (
        Field(
            ["onnxruntime"],
            description=(
                "engines that are measured for the recommendation to `infer`, on a CPU; all: those "
                "that are installed; onnxruntime always is, as all files are judged under it"
            ),
        )
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
