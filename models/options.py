"""Options of networks: types with limits, and checks. Without torch, since stage params uses it.

A constructor's keywords are the options of a recipe's `net:`, and its defaults are the paper's.
Stage params reads names, types and defaults from the source; `Literal` gives the choices, and the
types below give limits. Where one option limits another, or the size of the image, a module has a
function `check_options`: the constructor calls it, and stage params, too, alone with the constants
that it names. It is plain Python, without torch.
"""

from collections.abc import Mapping
from typing import Any

Count = int  # 0 or more
Positive = int  # 1 or more
Fraction = float  # a probability of dropping, from 0 to below 1


def choose(arch: str, option: str, value: Any, choices: Mapping[Any, Any]) -> Any:
    """Return the choice that an option names, or raise ValueError with all names."""
    if value not in choices:
        raise ValueError(
            f"{arch}: expected {option} {', '.join(map(str, choices))}, got {value!r}; choose one"
        )
    return choices[value]


def require_size(arch: str, size: tuple[int, int], least: int, cure: str = "enlarge size") -> None:
    """Raise ValueError where an image is smaller than the architecture accepts."""
    if min(size) < least:
        height, width = size
        needed = f"expected at least {least} x {least} pixels, got {height} x {width}"
        raise ValueError(f"{arch}: {needed}; {cure}")


def require_patch(arch: str, kernel_size: int, patch: int, stride: int) -> None:
    """Raise ValueError where patches leave gaps, or where a convolution sees one step alone."""
    if patch < stride or min(kernel_size - 1, stride) < 1:
        sizes = f"patch {patch}, stride {stride}, kernel_size {kernel_size}"
        needed = "expected patch >= stride >= 1 and kernel_size of 2 and more"
        raise ValueError(f"{arch}: {needed}, got {sizes}; change them")
