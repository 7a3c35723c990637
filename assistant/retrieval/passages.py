"""From ranked chunks to passages: load under the scope, join neighbours, fit a budget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from assistant import engines
from assistant.documents.locators import Locator, PageBox
from assistant.retrieval.scope import Scope
from assistant.retrieval.vector import Ranked

# Passages of one version that are no further apart than this are one passage with a gap.
JOIN_GAP_CHARACTERS = 4


@dataclass(frozen=True, slots=True)
class Passage:
    """What retrieval returns; never saved. ``text`` is the slice that ``locator`` names.

    ``parts`` are the places of the chunks that were joined into it, ascending.
    """

    document_id: UUID
    external_id: str | None
    title: str
    version_id: UUID
    version_number: int
    version_created_at: datetime
    media_type: str
    source_url: str
    collection_id: UUID
    collection_name: str
    text: str
    score: float
    locator: Locator
    parts: tuple[Locator, ...]

    def locate(self, start: int, end: int) -> Locator:
        """Where ``text[start:end]`` stands in the version, with its own headings and boxes."""
        char_start = self.locator.char_start + start
        char_end = self.locator.char_start + end
        part = next((p for p in reversed(self.parts) if p.char_start <= char_start), self.locator)
        boxes = replace(part, boxes=self.locator.boxes)
        return boxes.narrowed(char_start, char_end)


def load(ranking: Sequence[Ranked], *, scope: Scope) -> list[Passage]:
    """Passages in the order of ``ranking``; what the scope no longer covers is left out.

    This is the re-check of rights and current version between ranking and use.
    """
    if not ranking:
        return []
    scores = {item.chunk_id: item.score for item in ranking}
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT c.id, d.id, d.external_id, d.title, v.id, v.number, v.created_at,
                   v.media_type, d.source_url, col.id, col.name,
                   c.text, c.heading_path, c.page, c.char_start, c.char_end,
                   CASE WHEN v.media_type = 'application/pdf' THEN (
                       SELECT jsonb_agg(box) FROM documents_versiontext t
                       CROSS JOIN LATERAL jsonb_array_elements(t.boxes) box
                       WHERE t.version_id = v.id
                       AND (box ->> 'char_start')::int < c.char_end
                       AND (box ->> 'char_end')::int > c.char_start
                   ) END
            FROM retrieval_chunk c {scope.live}
            JOIN documents_collection col ON col.id = c.collection_id
            WHERE c.id = ANY(%(ids)s) AND {scope.on("c.collection_id")}
            """,
            {**scope.params, "ids": list(scores)},
        )
        rows = {row[0]: row[1:] for row in cursor.fetchall()}
    return [_passage(rows[key], scores[key]) for key in scores if key in rows]


def _passage(row: Sequence[Any], score: float) -> Passage:
    heading_path, page, char_start, char_end, boxes = row[11:]
    locator = Locator(
        char_start=char_start,
        char_end=char_end,
        heading_path=tuple(heading_path),
        page=page,
        boxes=tuple(PageBox(**box) for box in _as_json(boxes)),
    )
    return Passage(
        document_id=row[0],
        external_id=row[1],
        title=row[2],
        version_id=row[3],
        version_number=row[4],
        version_created_at=row[5],
        media_type=row[6],
        source_url=row[7],
        collection_id=row[8],
        collection_name=row[9],
        text=row[10],
        score=score,
        locator=locator,
        parts=(locator,),
    )


def _as_json(value: Any) -> list[dict[str, Any]]:
    """A raw cursor hands jsonb over as text."""
    if value is None:
        return []
    parsed: list[dict[str, Any]] = json.loads(value) if isinstance(value, str) else value
    return parsed


def fit(found: Sequence[Passage], *, budget: int) -> list[Passage]:
    """Join neighbours and keep the best passages that fit into ``budget`` tokens together."""
    counter = engines.token_counter()
    kept: list[Passage] = []
    left = budget
    for passage in found:
        cost = counter.count(passage.text)
        if cost > left:
            continue
        left -= cost
        kept.append(passage)
    return join_neighbours(kept)


def join_neighbours(found: Sequence[Passage]) -> list[Passage]:
    """Passages of one version that touch or overlap become one, at the better one's place."""
    joined: list[Passage] = []
    by_place = sorted(found, key=lambda p: (str(p.version_id), p.locator.char_start))
    for passage in by_place:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.version_id == passage.version_id
            and passage.locator.char_start <= last.locator.char_end + JOIN_GAP_CHARACTERS
        ):
            joined[-1] = _joined(last, passage)
        else:
            joined.append(passage)
    return sorted(joined, key=lambda p: -p.score)


def _joined(first: Passage, second: Passage) -> Passage:
    a, b = first.locator, second.locator
    gap = b.char_start - a.char_end
    # Chunks leave out nothing but white space between them; see ingestion/chunking.py. Its kind is
    # not known here, so the joined text may differ from the stored one in white space only.
    text = first.text + "\n" * max(gap, 0) + second.text[max(0, -gap) :]
    heading_path = a.heading_path if first.score >= second.score else b.heading_path
    locator = Locator(
        char_start=a.char_start,
        char_end=max(a.char_end, b.char_end),
        heading_path=heading_path,
        page=a.page,
        boxes=tuple(dict.fromkeys(a.boxes + b.boxes)),
    )
    return replace(
        first,
        text=text,
        score=max(first.score, second.score),
        locator=locator,
        parts=first.parts + second.parts,
    )
