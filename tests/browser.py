"""A page of the report in a browser, with what went wrong on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LOCAL = ("file:", "data:", "blob:")


class Tab:
    """A page of the report, and the errors on it."""

    def __init__(
        self, browser: Any, path: Path, width: int = 1280, scheme: str = "light", address: str = ""
    ):
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.wrong: list[str] = []
        self.page.on(
            "console",
            lambda said: said.type in ("error", "warning") and self.wrong.append(said.text),
        )
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("requestfailed", lambda request: self.wrong.append(request.url))
        self.page.on(
            "request", lambda request: request.url[:5] in LOCAL or self.wrong.append(request.url)
        )
        self.page.goto(path.as_uri() + address)

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *raised: object) -> None:
        self.page.close()
        if not any(raised):
            assert self.wrong == []


def see_all(page: Any) -> None:
    """Open what is folded and scroll to the end, so that lazy pictures and charts load; wait until
    all have.
    """
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.evaluate(
        """async () => { for (const it of document.querySelectorAll('img, figure.read')) {
             it.scrollIntoView(); await new Promise(requestAnimationFrame); } }"""
    )
    page.wait_for_function("[...document.images].every((i) => i.complete && i.naturalWidth)")
    page.wait_for_function(
        "[...document.querySelectorAll('figure.read')].every((f) => 'drawn' in f.dataset)"
    )
