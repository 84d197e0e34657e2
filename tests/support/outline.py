"""What a reader, or a test, meets in an HTML page."""

from __future__ import annotations

from html.parser import HTMLParser


class Outline(HTMLParser):
    """The tags of a page in order, and the texts of its headings, cells, paragraphs and footer."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.title: list[str] = []
        self.headings: list[str] = []
        self.cells: list[str] = []
        self.paragraphs: list[str] = []
        self.footer: list[str] = []
        self._kinds = {"title": self.title, "p": self.paragraphs, "footer": self.footer}
        self._kinds |= dict.fromkeys(("h1", "h2", "h3"), self.headings) | dict.fromkeys(("td", "th"), self.cells)
        self._into: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in self._kinds:
            self._into = self._kinds[tag]
            self._into.append("")
        elif tag == "br" and self._into is not None:
            self._into[-1] += " "

    def handle_endtag(self, tag: str) -> None:
        if tag in self._kinds:
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data
