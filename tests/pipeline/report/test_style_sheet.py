"""style.css has rules for the classes that pages use, and for no others."""

from __future__ import annotations

import re
from pathlib import Path

TEMPLATES = Path(__file__).parents[3] / "pipeline" / "report" / "templates"
PAGES = " ".join(
    path.read_text(encoding="utf-8")
    for path in sorted(TEMPLATES.rglob("*"))
    if path.suffix in (".j2", ".js") and path.parent == TEMPLATES
)
FOLDERS = (TEMPLATES.parent, TEMPLATES.parents[1] / "plots")  # kinds of pictures are classes
PYTHON = " ".join(p.read_text(encoding="utf-8") for folder in FOLDERS for p in folder.glob("*.py"))
LIBRARY = {"visible", "key"}  # of Vega's tooltip
CLASS = r"\.([A-Za-z][\w-]*)"


def styled_classes() -> set[str]:
    """Return the classes of the selectors."""
    css = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.S)
    return set(re.findall(CLASS, " ".join(re.findall(r"([^{};]+)\{", css))))


def written_classes() -> set[str]:
    """Return the classes of class="..." and className in templates, without those of Jinja."""
    text = re.sub(r"\{%.*?%\}|\{\{.*?\}\}", " ", PAGES)
    values = re.findall(r'class(?:Name)?(?:=|: | = )"([^"]*)"', text)
    return {name for value in values for name in value.split()}


def scripted_classes() -> set[str]:
    """Return the classes by which a script finds elements."""
    found = re.findall(r'(?:querySelector(?:All)?|matches|closest)\(["`]([^"`]*)["`]', PAGES)
    return set(re.findall(CLASS, " ".join(found)))


def test_every_rule_is_for_a_class_that_a_page_has() -> None:
    """A class may be a string of Jinja, of a script or, as a cell's state, of Python."""
    strings = re.findall(r"[\"'`]([\w -]+)[\"'`]", f"{PAGES} {PYTHON}")
    words = {name for string in strings for name in string.split()}
    assert not styled_classes() - words - written_classes() - scripted_classes() - LIBRARY


def test_every_class_has_a_rule_or_a_script() -> None:
    assert not written_classes() - styled_classes() - scripted_classes()
