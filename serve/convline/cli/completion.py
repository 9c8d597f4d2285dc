"""Shell completion of the argument MODEL."""

import glob

import click
from click.shell_completion import CompletionItem

from convline.model_file.registry import names


def complete_model(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return package names and .onnx files that begin with `incomplete`; folders if there are
    none."""
    packages = [name for name in names() if name.startswith(incomplete)]
    files = sorted(glob.glob(f"{glob.escape(incomplete)}*.onnx"))
    return [CompletionItem(incomplete, type="dir"), *map(CompletionItem, packages + files)]
