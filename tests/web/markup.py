"""Reading rendered HTML as a browser would, to find what must not be there."""

from __future__ import annotations

from html.parser import HTMLParser


class Elements(HTMLParser):
    """Every start tag of a page with its attributes, and the text between the tags."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def with_tag(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


ACTIVE_TAGS = frozenset(
    {"script", "style", "iframe", "object", "embed", "img", "svg", "math", "link", "meta", "base"}
    | {"form", "input", "button", "video", "audio", "source", "template"}
)
"""Tags that a model's text must never become."""


def dangers_in(html: str, *, allowed_links: tuple[str, ...] = ()) -> list[str]:
    """What in ``html`` could run, load or lead elsewhere."""
    found: list[str] = []
    try:
        elements = Elements(html).found
    except AssertionError:  # how html.parser gives up; a sanitised text never makes it
        return ["not HTML"]
    for tag, attributes in elements:
        if tag in ACTIVE_TAGS:
            found.append(f"<{tag}>")
        for name, value in attributes.items():
            if name.startswith("on") or name in {"style", "src", "srcset", "srcdoc", "formaction"}:
                found.append(f"{tag}[{name}]")
            if name == "href" and not value.startswith(allowed_links or ("\0",)):
                found.append(f"{tag}[href={value}]")
    return found
