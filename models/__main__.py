"""python -m models: a table of all architectures. python -m models lenet5: options and layers."""

from __future__ import annotations

import argparse
import inspect
import sys
from typing import Any, Literal, get_args, get_origin

import models


def main(arguments: list[str] | None = None) -> int:
    """Print what `arguments` ask for; return 1 if a parameter count differs from its reference."""
    parser = argparse.ArgumentParser(prog="python -m models", description=__doc__)
    parser.add_argument(
        "arch", nargs="?", help="print the layers of this architecture, at its published sizes"
    )
    arch = parser.parse_args(arguments).arch
    if arch is None:
        return 0 if print_all() else 1
    if arch not in models.names():
        parser.error(f"unknown architecture {arch!r}; models/ has {', '.join(models.names())}")
    print(f"{models.description(arch)}\n")
    print_options(arch)
    for name, reference in models.references(arch).items():
        print_layers(arch, name, reference)
    return 0


def print_all() -> bool:
    """Print a row for each published network; return whether every count equals its reference."""
    from models import summary  # imports torch: seconds, and only after the arguments are checked

    rows: list[list[str]] = []
    for arch in models.names():
        for name, reference in models.references(arch).items():
            if sys.stderr.isatty():  # all take half a minute
                print(f"\r{len(rows)} counted, {name:40}", end="\r", file=sys.stderr, flush=True)
            count, stated = (
                summary.trainable(summary.on_meta(arch, reference["options"])),
                reference["trainable"],
            )
            equal = "yes" if count == stated else "NO"
            least = summary.least_input(arch, reference)
            rows.append(
                [
                    arch,
                    name,
                    models.paper(arch),
                    f"{count:,}",
                    f"{stated:,}",
                    equal,
                    _extent(reference, least),
                ]
            )
    print_table(
        ["arch", "name", "paper", "trainable", "reference", "equal", "least input"],
        rows,
        right={3, 4},
    )
    return all(row[5] == "yes" for row in rows)


def print_options(arch: str) -> None:
    """Print the options of `net:` in a recipe, with their defaults and their choices or types."""
    rows = [
        [name, _value(option.default), _choices(option.annotation)]
        for name, option in models.takes(arch).items()
        if option.default is not inspect.Parameter.empty
    ]
    if rows:
        print_table(["option", "default", "choices"], rows, right=set())
        print()


def print_layers(arch: str, name: str, reference: dict[str, Any]) -> None:
    """Print a published network: its layers with output shapes and parameters, then the totals."""
    from models import summary

    model = summary.on_meta(arch, reference["options"])
    layers = summary.layer_table(model, reference["input"])
    rows = [
        [row["layer"], row["type"], _shape(row["output"]), f"{row['parameters']:,}"]
        for row in layers
    ]
    print(f"{name}: input {_shape(reference['input'])}; parameter counts: {reference['source']}\n")
    print_table(["layer", "type", "output", "parameters"], rows, right={3})
    total, trainable = summary.total(model), summary.trainable(model)
    print(f"\ntotal {total:,}, trainable {trainable:,}, not trainable {total - trainable:,}\n")


def print_table(head: list[str], rows: list[list[str]], right: set[int]) -> None:
    """Print rows of text under `head`, columns in `right` flush right."""
    widths = [max(len(line[k]) for line in [head, *rows]) for k in range(len(head))]
    aligns = [">" if k in right else "<" for k in range(len(head))]
    for line in [head, ["-" * width for width in widths], *rows]:
        cells = [
            f"{cell:{align}{width}}"
            for cell, align, width in zip(line, aligns, widths, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _value(value: Any) -> str:
    """Return a default as a recipe states it."""
    words = {True: "true", False: "false", None: "null"}
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _choices(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, get_args(annotation)))
    names = {bool: "true, false", int: "whole number", float: "number"}
    return names.get(annotation, "list")


def _shape(shape: list[int] | tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _extent(reference: dict[str, Any], least: int) -> str:
    return f"{least} x {least}" if "size" in reference["options"] else f"{least} steps"


if __name__ == "__main__":
    sys.exit(main())
