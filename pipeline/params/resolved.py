"""What stages read from a resolved recipe: its geometry, and whether it is a head on features.

Not in recipe.py, which no stage's digest covers: what that checks and resolves lies in out/params.
"""

from __future__ import annotations

from typing import Any

from convline.images.decode import ImageRule


def on_features(recipe: dict[str, Any]) -> bool:
    """Return whether a resolved recipe is a head on features, which the training loop does not train."""
    return bool(recipe.get("head")) and recipe["head"]["kind"] != "softmax"


def image_rule(data: dict[str, Any]) -> ImageRule:
    """Return the geometry of a `data:` block; serving uses the same object."""
    height, width = data["size"]
    red, green, blue = data["background"]
    keys = ("colour", "fit", "shorter_px", "interpolation", "draft")
    return ImageRule(
        size=(height, width), background=(red, green, blue), **{key: data[key] for key in keys}
    )
