"""What every block of params.yaml is made of: its base class, and types of keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

ImageTask = Literal["classification", "detection", "segmentation", "captioning"]
TASKS = [*get_args(ImageTask), "forecasting"]
# A seed times a million still fits 64 bits: training mixes the epoch in.
Seed = Annotated[int, Field(ge=0, le=10**12)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
FractionOrCount = Annotated[int, Field(ge=0)] | NonNegative
Names = Annotated[list[str], Field(min_length=1)]
Layer = dict[str, Any]  # keys of a recipe, laid over another recipe before both are checked

E = TypeVar("E", int, float)


def require_rising(ends: tuple[E, E]) -> tuple[E, E]:
    """Raise ValueError where the first is above the second."""
    if ends[0] > ends[1]:
        raise ValueError(f"expected [least, largest], got {list(ends)}")
    return ends


Rising = AfterValidator(require_rising)  # of a pair


class Part(BaseModel):
    """A block of params.yaml.

    Unknown keys, true for 1, "3" for 3, and numbers that are not finite are errors.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        defer_build=True,
    )

    def updated(self, **changes: Any) -> Self:
        """Return a copy with changed fields, unchecked; a mapping changes fields of a nested
        part.
        """
        fields = {
            key: (
                getattr(self, key).updated(**value)
                if isinstance(value, dict) and isinstance(getattr(self, key), Part)
                else value
            )
            for key, value in changes.items()
        }
        return self.model_copy(update=fields)
