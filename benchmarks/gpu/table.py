"""The JSON of a run as Markdown: how each step ended, then a table for each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
# Title -> how a fact becomes a cell, for each kind of step; a fact without these keys is a line
# with its reason.
COLUMNS: dict[str, dict[str, Callable[[Row], str]]] = {
    "exported files": {
        "golden": lambda f: f"{f['golden']['difference']:.1e} of {f['golden']['limit']:.1e}",
        "largest difference": lambda f: worst(f, tf32=False),
        "TF32": lambda f: worst(f, tf32=True),
        "nodes": lambda f: f["text"],
    },
    "full-size steps": {
        "batch": lambda f: f"{f['batch']}",
        "bitwise equal": lambda f: yes(f["equal"]),
        "seconds": lambda f: f"{f['seconds']:.2f}",
        "peak memory": lambda f: f"{f['peak_bytes'] / 1e9:.2f} GB" if f["peak_bytes"] else "–",
    },
    "real training": {
        "epochs": lambda f: f"{f['epochs']}",
        "seconds": lambda f: f"{f['seconds']:.1f}",
        "validation loss": lambda f: f"{f['validation_loss']:.4g}",
        "on the CPU": lambda f: f"{f['on the CPU']['loss']:.4g}" if f["on the CPU"] else "–",
        "killed and resumed: equal": lambda f: yes(f["equal"]),
    },
    "ResNet-50": {
        "p50": lambda f: f"{f['p50_ms']:.2f} ms",
        "per second": lambda f: f"{f['per_second']:,.0f}",
        "largest difference": lambda f: f"{f['max_difference']:.1e}",
        "share of limit": lambda f: f"{f['share_of_limit']:.0%}" if "share_of_limit" in f else "–",
    },
    "training rates, compiled": {
        "network": lambda f: f["name"],
        "batch": lambda f: f"{f['batch']}",
        "samples/s": lambda f: f"{f['per_second']:,.0f}",
        "first steps": lambda f: f"{f['first_s']:.1f} s",
    },
    "training rates": {
        "network": lambda f: f["name"],
        "batch": lambda f: f"{f['batch']}",
        "samples/s": lambda f: f"{f['per_second']['whole']:,.0f}",
        "plain loop": lambda f: f"{f['per_second']['plain']:,.0f}",
        "input": lambda f: f"{f['input_share']:.0%}",
        "share of peak": lambda f: f"{f['share_of_peak']:.0%}",
        "peak memory": lambda f: f"{f['peak_bytes'] / 1e9:.2f} GB" if f["peak_bytes"] else "–",
    },
    "infer images": {
        "files": lambda f: f"{f['files']:,}",
        "per second, start included": lambda f: f"{f['per_second']:,.0f}",
        "labels as torch's": lambda f: f"{f['same']:.1%}",
    },
}


def yes(fact: bool) -> str:
    return "✓ yes" if fact else "✗ no"


def worst(facts: Row, tf32: bool) -> str:
    """Return the largest difference from torch's answers, of the rows with TF32 or of the
    others.
    """
    own = [row["max_difference"] for row in facts["rows"] if ("TF32" in row["variant"]) == tf32]
    return f"{max(own):.1e}" if own else "–"


def table(result: Row) -> str:
    """Return the whole run as Markdown."""
    parts = [
        f"# {result['device']}, {result['date']}",
        f"Revision {result['revision']}. {described(result)}",
    ]
    ends = [
        [name, found["status"], f"{found.get('seconds', 0):.1f} s", found["reason"]]
        for name, found in steps(result)
    ]
    parts.append(markdown(["Step", "Status", "Took", "Why"], ends))
    for name, found in steps(result):
        if columns := next(
            (columns for kind, columns in COLUMNS.items() if name.startswith(kind)), None
        ):
            parts += [f"## {name}", of_step(found["facts"], columns)]
    return "\n\n".join(parts) + "\n"


def described(result: Row) -> str:
    """Return the machine and the versions in a sentence."""
    facts = result["machine"] | result["steps"].get("start", {"facts": {}})["facts"].get(
        "versions", {}
    )
    return (
        ", ".join(f"{key} {value}" for key, value in facts.items() if isinstance(value, str | int))
        + "."
    )


def steps(result: Row) -> list[tuple[str, Row]]:
    return list(result["steps"].items())


def of_step(facts: Row, columns: dict[str, Callable[[Row], str]]) -> str:
    """Return one line for each fact; where it has none of the figures, its reason."""
    if "skipped" in facts:
        return f"Skipped: {facts['skipped']}."
    rows = []
    for name, fact in facts.items():
        if not isinstance(fact, dict) or not {"passed", "not_measured", "per_second"} & set(fact):
            continue
        why = fact.get("reason") or fact.get("not_measured")
        rows.append(
            [
                name,
                *(
                    [why] + [""] * (len(columns) - 1)
                    if why
                    else (cell(fact) for cell in columns.values())
                ),
            ]
        )
    return markdown(["", *columns], rows) if rows else "Nothing was measured."


def markdown(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(
        f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines
    )


def failures(result: Row) -> list[str]:
    """Return what did not end well, in words: steps that broke, and facts that did not pass."""
    found = [
        f"{name}: {step['status']}"
        for name, step in steps(result)
        if step["status"] in ("failed", "killed")
    ]
    for name, step in steps(result):
        wrong = [
            key
            for key, fact in step["facts"].items()
            if isinstance(fact, dict) and fact.get("passed") is False
        ]
        found += [f"{name}: {key}" for key in wrong]
    return found
