"""Check a block of params.yaml against its model; say every mistake in one sentence with its cure.

pydantic finds the mistakes; the words are ours: place, what was expected, what was got, choices.
"""

from __future__ import annotations

import re
import types
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError

from pipeline.core.errors import ParamsError, hint
from pipeline.params.schema import Part

P = TypeVar("P", bound=Part)


class BlockError(ParamsError):
    """Mistakes in a block of params.yaml."""

    def __init__(self, mistakes: dict[str, str]) -> None:
        super().__init__("; ".join(f"{w.lstrip('.')}: {s}" for w, s in mistakes.items()))
        self.mistakes = mistakes

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, str]]]:
        return type(self), (self.mistakes,)  # as a process pool needs it


class Mistakes(dict[str, str]):
    """The sentence about each mistake, by its place in params.yaml."""

    def check(self, kind: type[P], value: Any, place: str) -> P | None:
        """Return the block as a model; note its mistakes and return None where it has any."""
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                where, sentence = describe_problem(kind, problem, place)
                if where not in self or not problem["type"].endswith(("_type", "literal_error")):
                    self[where] = sentence
            return None

    def raise_any(self) -> None:
        """Raise BlockError with every mistake, if there are any."""
        if self:
            raise BlockError(self)


def check_block(kind: type[P], value: Any, place: str) -> P:
    """Return the block as a model.

    Raises BlockError with the place, the cure and the choices of every mistake in it.
    """
    mistakes = Mistakes()
    block = mistakes.check(kind, value, place)
    mistakes.raise_any()
    assert block is not None
    return block


def describe_problem(kind: type[Part], problem: Any, place: str) -> tuple[str, str]:
    """Return the place of one of pydantic's errors, and the sentence for it."""
    name, loc, got = problem["type"], problem["loc"], problem["input"]
    where, expected, parent = locate(kind, loc)
    where, limits = f"{place}{where}", problem.get("ctx", {})
    if name == "extra_forbidden":
        return where, f"unknown key; {hint(str(loc[-1]), list(parent.model_fields))}"
    if name == "invalid_key":
        return where, "expected a name that is text, got a number; put it in quotes"
    if loc and loc[-1] == "[key]":
        return f"{where}.{got}", f"expected a name that is text, got {got!r}; put it in quotes"
    if name == "missing" and isinstance(loc[-1], int):  # of a tuple
        where, expected, _ = locate(kind, loc[:-1])
        return f"{place}{where}", f"expected {len(get_args(expected))} values, got {got!r}"
    if name == "missing":
        return where, f"missing; add it ({describe_type(expected)})"
    if name == "literal_error" and get_origin(expected) is Literal:
        return where, f"unknown value {got!r}; {hint(str(got), list(map(str, get_args(expected))))}"
    if name == "value_error":
        field, colon, rest = str(limits["error"]).partition(": ")
        inner = isinstance(expected, type) and issubclass(expected, Part)
        if colon and inner and field in expected.model_fields:
            return f"{where}.{field}", rest
        return where, str(limits["error"])
    if not loc:
        return where, f"expected a mapping with {', '.join(kind.model_fields)}, got {got!r}"
    needed = describe_limit(name, limits) or describe_type(expected)
    cure = "; remove the quotes" if is_quoted_number(got, expected) else ""
    return where, f"expected {needed}, got {got!r}{cure}"


def is_quoted_number(got: Any, expected: Any) -> bool:
    """Return whether a text has a number in it where one is expected."""
    wanted = without_none(expected)
    return isinstance(got, str) and (
        (wanted is float and re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", got) is not None)
        or (wanted is int and got.isdigit())
    )


def describe_limit(name: str, limits: dict[str, Any]) -> str | None:
    """Return what a limit of pydantic's allows, in words; None for an error of another kind."""
    if name == "finite_number":
        return "a finite number"
    for key, words in (("ge", "at least"), ("le", "at most"), ("lt", "below")):
        if key in limits:
            return f"{words} {limits[key]}"
    counts = {"too_short": "at least one value", "too_long": f"{limits.get('max_length')} values"}
    return counts.get(name)


def locate(kind: type[Part], loc: tuple[int | str, ...]) -> tuple[str, Any, type[Part]]:
    """Return the dotted place of pydantic's location, the type that is expected there, and its
    model.
    """
    at: Any = kind
    place, parent = "", kind
    for step in loc:
        inner = without_none(at)
        origin = get_origin(inner)
        if isinstance(inner, type) and issubclass(inner, Part):
            place, parent = f"{place}.{step}", inner
            at = inner.model_fields[step].annotation if step in inner.model_fields else None
        elif origin in (list, tuple) and isinstance(step, int):
            arguments = get_args(inner)
            place, at = f"{place}[{step}]", arguments[step if origin is tuple else 0]
        elif origin is dict and step != "[key]":
            place, at = f"{place}.{step}", get_args(inner)[1]
        # What is left is pydantic's name of a union's member.
    return place, without_annotations(at), parent


def without_annotations(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def without_none(kind: Any) -> Any:
    """Return `X` of `X | None`, and of what is annotated."""
    kind = without_annotations(kind)
    if get_origin(kind) in (Union, types.UnionType):
        some = [part for part in get_args(kind) if part is not type(None)]
        return without_annotations(some[0]) if len(some) == 1 else kind
    return kind


TYPES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
    type(None): "null",
}


def describe_type(kind: Any) -> str:
    """Return a type in words: "a whole number or null"."""
    kind = without_annotations(kind)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(describe_type, get_args(kind))))
    if origin is Literal:
        return " or ".join(map(str, get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, Part):
        return "a mapping"
    if origin is tuple:
        return f"a list of {len(get_args(kind))} values"
    return TYPES.get(origin or kind, "a value")
