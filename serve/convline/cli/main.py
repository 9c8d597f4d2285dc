"""The command `infer`: predictions of a model file for images and time series.

Exit codes: 0 done (some rows may hold errors); 1 it could not be done, which one sentence explains,
or every row failed; 2 wrong usage; 3 with --strict, a row failed; 130 interrupted by Ctrl-C or
SIGTERM. Results go to stdout or --output, everything else to stderr. A command imports numpy,
Pillow and onnxruntime when it runs, so that --help is quick.
"""

import click

from convline.cli.error_handling import CommandGroup
from convline.cli.images import explain, images
from convline.cli.model import bench, check, evaluate, info, list_models
from convline.cli.series import series


@click.group(
    cls=CommandGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    },
)
@click.version_option(package_name="convline", prog_name="infer")
def main() -> None:
    """Classify images and forecast series with Convline models, without PyTorch.

    MODEL is an .onnx file, the folder of a package, or the name of a package. Packages are looked
    up by name in the folders that the environment variable CONVLINE_MODELS lists, then in
    out/dist/.

    \b
    infer list
    infer images lenet5-digits photos/ -o labels.csv
    infer series dilated-waves history.csv
    infer info lenet5-digits

    Results go to stdout or to a file, messages to stderr. Exit code: 0 done; 1 nothing could be
    done; 2 wrong usage; 3 a row failed, with --strict; 130 interrupted.

    To complete MODEL and options in bash: eval "$(_INFER_COMPLETE=bash_source infer)". In zsh and
    fish it is zsh_source and fish_source.
    """


for command in (images, series, list_models, info, check, bench, evaluate, explain):
    main.add_command(command)
