"""The errors that a user can mend, each one sentence with its cure."""

from __future__ import annotations

import difflib


class StageError(Exception):
    """A stage that cannot go on or a gate that refuses; the message is one sentence with the cure."""


class ParamsError(Exception):
    """A mistake in params.yaml; the message is one sentence with the place and the cure."""


def hint(word: str, choices: list[str]) -> str:
    """Return the cure for an unknown word: the nearest choice, if one is near, and all of them unless they are many."""
    choices = [str(choice) for choice in choices]
    near = difflib.get_close_matches(word, choices, n=1)
    if len(choices) > 200:
        return f"nearest of {len(choices)}: {', '.join(difflib.get_close_matches(word, choices, n=5, cutoff=0.3))}"
    return (
        f"did you mean {near[0]!r}? " if near else ""
    ) + f"choices: {', '.join(sorted(choices))}"
