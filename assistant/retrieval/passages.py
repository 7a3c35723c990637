"""From ranked chunks to passages: load under the scope, join neighbours, fit a budget."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from assistant import engines
from assistant.database import server_cursor
from assistant.documents.locators import Locator, PageBox
from assistant.retrieval.scope import Params, Scope
from assistant.retrieval.tracing import Decision
from assistant.retrieval.vector import Ranked
from inference.types import TokenCounter

# Passages of one version that are no further apart than this are one passage with a gap.
JOIN_GAP_CHARACTERS = 4
# Places in one prompt.
MOST_OF_A_DOCUMENT = 5
MOST_COMPLETED = 3


@dataclass(frozen=True, slots=True)
class Passage:
    """What retrieval returns; never saved. ``text`` is the slice that ``locator`` names.

    ``score`` is the calibrated probability that it answers. ``parts`` are the places of the chunks
    that were joined into it, ascending, ``chunk_ids`` their ids and ``ordinals`` their first and
    last number within the version. ``is_instructed``: its collection has instructions for answers.
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
    chunk_ids: tuple[int, ...] = ()
    ordinals: tuple[int, int] = (0, 0)
    is_instructed: bool = False

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
    ids = f"{{{','.join(map(str, scores))}}}"
    rows = _rows("c.id = ANY(%(ids)s::bigint[])", {"ids": ids}, scope=scope)
    return [_passage(rows[key], scores[key]) for key in scores if key in rows]


def load_neighbours(found: Sequence[Passage], *, scope: Scope) -> list[Passage]:
    """The chunks right before and after those of ``found``, score 0, under the same scope."""
    places = {
        (passage.version_id, ordinal)
        for passage in found
        for ordinal in (passage.ordinals[0] - 1, passage.ordinals[1] + 1)
        if ordinal >= 0
    } - {(passage.version_id, ordinal) for passage in found for ordinal in passage.ordinals}
    if not places:
        return []
    versions, ordinals = zip(*places, strict=True)
    rows = _rows(
        "(c.version_id, c.ordinal) IN"
        " (SELECT * FROM unnest(%(versions)s::uuid[], %(ordinals)s::int[]))",
        {"versions": list(versions), "ordinals": list(ordinals)},
        scope=scope,
    )
    return [_passage(row, 0.0) for row in rows.values()]


def _rows(condition: str, params: Params, *, scope: Scope) -> dict[int, Sequence[Any]]:
    with server_cursor() as cursor:
        cursor.execute(
            f"""
            SELECT c.id, d.id, d.external_id, d.title, v.id, v.number, v.created_at,
                   v.media_type, d.source_url, col.id, col.name,
                   c.text, c.heading_path, c.page, c.char_start, c.char_end,
                   (
                       SELECT jsonb_agg(box ORDER BY p.page, at) FROM documents_pageboxes p
                       CROSS JOIN LATERAL
                           jsonb_array_elements(p.boxes) WITH ORDINALITY AS boxes(box, at)
                       WHERE p.version_id = v.id
                       AND p.char_start < c.char_end AND p.char_end > c.char_start
                       AND (box ->> 'char_start')::int < c.char_end
                       AND (box ->> 'char_end')::int > c.char_start
                   ),
                   c.ordinal, col.instructions <> ''
            FROM retrieval_chunk c {scope.live}
            JOIN documents_collection col ON col.id = c.collection_id
            WHERE {condition} AND {scope.on("c.collection_id")}
            """,
            {**scope.params, **params},
        )
        return {row[0]: row for row in cursor.fetchall()}


def _passage(row: Sequence[Any], score: float) -> Passage:
    heading_path, page, char_start, char_end, boxes, ordinal, is_instructed = row[12:]
    locator = Locator(
        char_start=char_start,
        char_end=char_end,
        heading_path=tuple(heading_path),
        page=page,
        boxes=tuple(PageBox(**box) for box in _as_json(boxes)),
    )
    return Passage(
        document_id=row[1],
        external_id=row[2],
        title=row[3],
        version_id=row[4],
        version_number=row[5],
        version_created_at=row[6],
        media_type=row[7],
        source_url=row[8],
        collection_id=row[9],
        collection_name=row[10],
        text=row[11],
        score=score,
        locator=locator,
        parts=(locator,),
        chunk_ids=(row[0],),
        ordinals=(ordinal, ordinal),
        is_instructed=is_instructed,
    )


def _as_json(value: Any) -> list[dict[str, Any]]:
    """A raw cursor hands jsonb over as text."""
    if value is None:
        return []
    parsed: list[dict[str, Any]] = json.loads(value) if isinstance(value, str) else value
    return parsed


def fit(
    found: Sequence[Passage], *, limit: int, budget: int, neighbours: Sequence[Passage] = ()
) -> tuple[list[Passage], list[Decision]]:
    """At most ``limit`` of the best that fit into ``budget`` tokens together, neighbours joined.

    No document takes more than ``MOST_OF_A_DOCUMENT`` places while others wait. What room is left
    is used to complete the best passages by those of ``neighbours`` that stand under the same
    headings, so that a section is read whole.
    """
    counter = engines.token_counter()
    decisions: list[Decision] = []
    kept: list[Passage] = []
    left = budget
    for passage in _spread(found, decisions)[:limit]:
        cost = counter.count(passage.text)
        if cost > left:
            decisions.append(
                Decision(passage.chunk_ids[0], "over_budget", f"{cost} tokens, {left} were left")
            )
            continue
        left -= cost
        kept.append(passage)
    return _joined_all([*kept, *_completing(kept, neighbours, left, counter)], decisions), decisions


def _spread(found: Sequence[Passage], decisions: list[Decision]) -> list[Passage]:
    """What is beyond a document's share comes after all others, so nothing starves."""
    count: Counter[UUID] = Counter()
    first: list[Passage] = []
    later: list[Passage] = []
    for passage in found:
        count[passage.document_id] += 1
        (first if count[passage.document_id] <= MOST_OF_A_DOCUMENT else later).append(passage)
    if len(count) > 1:
        decisions += [
            Decision(
                passage.chunk_ids[0],
                "capped",
                f"{MOST_OF_A_DOCUMENT} better passages are of the same document",
            )
            for passage in later
        ]
    return first + later


def _completing(
    kept: Sequence[Passage], neighbours: Sequence[Passage], left: int, counter: TokenCounter
) -> list[Passage]:
    by_place = {(p.version_id, p.ordinals[0]): p for p in neighbours}
    added: list[Passage] = []
    for passage in kept[:MOST_COMPLETED]:
        for ordinal in (passage.ordinals[1] + 1, passage.ordinals[0] - 1):
            other = by_place.get((passage.version_id, ordinal))
            if other is None or other.locator.heading_path != passage.locator.heading_path:
                continue
            cost = counter.count(other.text)
            if cost <= left:
                left -= cost
                added.append(by_place.pop((passage.version_id, ordinal)))
    return added


def _joined_all(found: Sequence[Passage], decisions: list[Decision]) -> list[Passage]:
    joined = join_neighbours(found)
    scores = {passage.chunk_ids[0]: passage.score for passage in found}
    for passage in joined:
        best = max(passage.chunk_ids, key=lambda chunk: scores.get(chunk, 0.0), default=0)
        decisions += [
            Decision(chunk, "joined", "it stands right beside it in the document", into=best)
            for chunk in passage.chunk_ids
            if chunk != best
        ]
    return joined


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
        chunk_ids=first.chunk_ids + second.chunk_ids,
        ordinals=(first.ordinals[0], second.ordinals[1]),
    )
