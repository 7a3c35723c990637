"""Parts of a Word document (.docx, .docm, templates): styles, numbering, relations."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from dataclasses import dataclass
from typing import Any, Final

from lxml import etree

W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
R: Final = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_STRICT: Final = (
    (b"http://purl.oclc.org/ooxml/wordprocessingml/main", W),
    (b"http://purl.oclc.org/ooxml/officeDocument/relationships", R),
)
_MAIN_RELATION: Final = "/officeDocument"
_HEADING_NAME: Final = re.compile(r"heading (\d)")
_MAX_DEPTH: Final = 12
_MAX_PART: Final = 512 << 20
_ROMAN: Final = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l")),
    *((40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)
_MAX_ROMAN: Final = 5_000


@dataclass(frozen=True, slots=True)
class Style:
    """``level`` of heading, 0 for none. ``number`` and ``depth`` name a list, "" for none."""

    level: int = 0
    number: str = ""
    depth: int = 0
    is_list: bool = False


class WordPackage:
    """The zip container and what is looked up in it. Raises zipfile.BadZipFile, KeyError."""

    def __init__(self, data: bytes) -> None:
        self.archive = zipfile.ZipFile(io.BytesIO(data))
        self._names = {name.lower(): name for name in self.archive.namelist()}
        self.main = self._main_part()
        self.relations = self.relations_of(self.main)
        self.styles = _styles(self.part_by_type("/styles"))
        self.numbering = Numbering(self.part_by_type("/numbering"))

    def xml(self, name: str) -> Any:
        """The root of a part; None when it is missing or broken beyond repair."""
        raw = self.read(name)
        if raw is None:
            return None
        for strict, usual in _STRICT:
            raw = raw.replace(strict, usual.strip("{}").encode())
        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True, recover=True
        )
        return etree.fromstring(raw, parser)

    def read(self, name: str) -> bytes | None:
        actual = self._names.get(name.lower())
        if actual is None:
            return None
        with self.archive.open(actual) as stream:
            return stream.read(_MAX_PART)

    def parts_by_type(self, ending: str) -> list[str]:
        """Parts that the main part is related to, by the end of the relation's type."""
        found = [target for kind, target in self.relations.values() if kind.endswith(ending)]
        return list(dict.fromkeys(found))

    def part_by_type(self, ending: str) -> Any:
        names = self.parts_by_type(ending)
        return self.xml(names[0]) if names else None

    def relations_of(self, part: str) -> dict[str, tuple[str, str]]:
        """Relation identifier to its type and the name of the part."""
        folder, _, name = part.rpartition("/")
        root = self.xml(posixpath.join(folder, "_rels", f"{name}.rels"))
        if root is None:
            return {}
        relations = {}
        for node in root.iter("{*}Relationship"):
            target = node.get("Target", "")
            if node.get("TargetMode") != "External":
                path = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
                relations[node.get("Id", "")] = (node.get("Type", ""), path)
        return relations

    def _main_part(self) -> str:
        for kind, target in self.relations_of("").values():
            if kind.endswith(_MAIN_RELATION) and target.lower() in self._names:
                return target
        return "word/document.xml"


class Numbering:
    """Counts list items as Word does and says what stands in front of each."""

    def __init__(self, root: Any) -> None:
        self._abstract: dict[str, dict[int, tuple[str, str, int]]] = {}
        self._of_number: dict[str, str] = {}
        self._counters: dict[str, dict[int, int]] = {}
        if root is None:
            return
        for node in root.iter(W + "abstractNum"):
            self._abstract[node.get(W + "abstractNumId", "")] = dict(
                map(_level, node.iter(W + "lvl"))
            )
        for node in root.iter(W + "num"):
            self._of_number[node.get(W + "numId", "")] = value_of(node, "abstractNumId")

    def next(self, number: str, depth: int) -> str:
        """``1.``, ``b)``, ``2.3`` or "" for bullets and lists that are not declared."""
        abstract = self._of_number.get(number, "")
        levels = self._abstract.get(abstract, {})
        if depth not in levels:
            return ""
        counters = self._counters.setdefault(abstract, {})
        counters[depth] = counters.get(depth, levels[depth][2] - 1) + 1
        for deeper in [level for level in counters if level > depth]:
            del counters[deeper]
        kind, pattern, _ = levels[depth]
        if kind in ("bullet", "none"):
            return ""

        def shown(match: re.Match[str]) -> str:
            level = int(match[1]) - 1
            if level not in levels:
                return ""
            return _in_figures(levels[level][0], counters.get(level, levels[level][2]))

        return re.sub(r"%(\d)", shown, pattern).strip()


def value_of(node: Any, tag: str) -> str:
    """``w:val`` of a child, or ""."""
    child = node.find(W + tag) if node is not None else None
    return "" if child is None else child.get(W + "val", "")


def is_on(node: Any, tag: str) -> bool:
    """A switch such as ``<w:vanish/>``, which ``w:val="0"`` turns off."""
    child = node.find(W + tag) if node is not None else None
    return child is not None and child.get(W + "val", "1") not in ("0", "false", "off")


def number_of(properties: Any) -> tuple[str, int | None]:
    """List identifier ("" for none, "0" for explicitly none) and depth of a paragraph or style."""
    node = properties.find(W + "numPr") if properties is not None else None
    if node is None:
        return "", None
    depth = value_of(node, "ilvl")
    return value_of(node, "numId"), int(depth) if depth.isdigit() else None


def outline_level(properties: Any) -> int | None:
    """Heading level from 1; 0 when the paragraph is said to be body text; None when not said."""
    level = value_of(properties, "outlineLvl") if properties is not None else ""
    if not level.isdigit():
        return None
    return int(level) + 1 if int(level) < 9 else 0


def _level(node: Any) -> tuple[int, tuple[str, str, int]]:
    depth = node.get(W + "ilvl", "0")
    start = value_of(node, "start")
    return (
        int(depth) if depth.isdigit() else 0,
        (
            value_of(node, "numFmt") or "decimal",
            value_of(node, "lvlText"),
            int(start) if start.isdigit() else 1,
        ),
    )


def _in_figures(kind: str, number: int) -> str:
    if kind in ("lowerLetter", "upperLetter") and number > 0:
        letters = chr(ord("a") + (number - 1) % 26) * min(20, (number - 1) // 26 + 1)
        return letters if kind == "lowerLetter" else letters.upper()
    if kind in ("lowerRoman", "upperRoman") and 0 < number < _MAX_ROMAN:
        text, rest = "", number
        for value, letters in _ROMAN:
            text += letters * (rest // value)
            rest %= value
        return text if kind == "lowerRoman" else text.upper()
    return f"{number:02d}" if kind == "decimalZero" else str(number)


def _styles(root: Any) -> dict[str, Style]:
    if root is None:
        return {}
    nodes = {node.get(W + "styleId", ""): node for node in root.iter(W + "style")}
    return {name: _resolved(nodes, name) for name in nodes}


def _resolved(nodes: dict[str, Any], name: str) -> Style:
    """A style with what it inherits from those it is based on."""
    level: int | None = None
    number, depth, is_list = "", 0, False
    for _ in range(_MAX_DEPTH):
        node = nodes.get(name)
        if node is None:
            break
        title = value_of(node, "name").lower()
        properties = node.find(W + "pPr")
        if level is None:
            level = _named_level(title)
        if level is None:
            level = outline_level(properties)
        if not number:
            number, found = number_of(properties)
            depth = found or depth
        is_list = is_list or title.startswith(("list bullet", "list number"))
        name = value_of(node, "basedOn")
    return Style(level or 0, number, depth, is_list)


def _named_level(title: str) -> int | None:
    if match := _HEADING_NAME.fullmatch(title):
        return int(match[1])
    return {"title": 1, "subtitle": 2}.get(title)
