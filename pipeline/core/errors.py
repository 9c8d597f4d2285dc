"""Errors that a user can correct; each message is one sentence with its cure."""

from __future__ import annotations

import difflib


class StageError(Exception):
    """A stage cannot go on, or a check has failed."""


class ParamsError(Exception):
    """A mistake in params.yaml; the message begins with its place."""


def hint(word: str, choices: list[str]) -> str:
    """Return the cure for an unknown word: the nearest choice and, if they are few, all choices."""
    if len(choices) > 60:
        near = difflib.get_close_matches(word, choices, n=5, cutoff=0.3)
        return f"nearest of {len(choices)}: {', '.join(near)}"
    folded = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), list(folded), n=1)
    question = f"did you mean {folded[near[0]]!r}? " if near else ""
    return f"{question}choices: {', '.join(sorted(choices))}"
