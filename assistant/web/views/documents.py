"""Reading one document, at the passage that a citation points to."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from assistant.chat.attaching import conversation_of
from assistant.documents.models import Document, DocumentVersion, PageBoxes, VersionText
from assistant.permissions.policy import abilities, role_on
from assistant.web.access import readable_document
from assistant.web.library import DocumentRow
from assistant.web.pages import DRAWABLE, marks_of
from assistant.web.reading import blocks_of, part_with, parts_of
from assistant.web.requests import SignedInRequest
from assistant.web.versions import children_of, versions_of
from ingestion.admission import SUPPORTED


@login_required
@require_GET
def document(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """``v`` is a version's id or number, ``start`` and ``end`` offsets in its text, ``part`` which
    stretch of a long text.
    """
    shown = readable_document(request.user, pk)
    version = _version(request, shown)
    versions = versions_of(shown, user=request.user)
    parts, part_total = children_of(shown, user=request.user)
    can = abilities(role_on(request.user, shown.collection_id))
    blocked = next((v.progress.blocked for v in versions if v.progress.blocked), None)
    newest = next((v for v in versions if v.is_newest), None)
    if newest is None:  # deleted this moment
        raise Http404
    context: dict[str, object] = {
        "document": shown,
        "collection": shown.collection,
        "attached_to": conversation_of(shown, user=request.user),
        "version": version,
        "row": DocumentRow(shown, newest.job, newest.progress),
        "versions": versions,
        "parts": parts,
        "part_total": part_total,
        "is_moving": any(v.is_open for v in versions) or any(p.is_open for p in parts),
        "abilities": can,
        "blocked": blocked if can["contribute"] else None,
        "is_newest": version is None or version.pk == shown.current_version_id,
        "extensions": ",".join(SUPPORTED),
    }
    stored = (
        VersionText.objects.readable_by(request.user)
        .filter(version=version)
        .select_related("version")
        .first()
        if version
        else None
    )
    if stored is not None:
        context |= _text(request, stored)
    return render(request, "web/document.html", context)


def _text(request: SignedInRequest, stored: VersionText) -> dict[str, object]:
    elements = stored.elements or [
        {"kind": "paragraph", "char_start": 0, "char_end": len(stored.text)}
    ]
    passage = _passage(request, len(stored.text))
    parts = parts_of(elements)
    asked = request.GET.get("part", "")
    if asked.isdecimal() and 1 <= int(asked[:9]) <= len(parts):
        part = parts[int(asked[:9]) - 1]
    else:
        part = part_with(parts, elements, passage[0]) if passage else parts[0]
    shown = elements[part.first : part.last]
    marks = marks_of(stored.text, _boxes(request, stored, passage), passage) if passage else []
    return {
        "has_text": True,
        "blocks": blocks_of(stored.text, shown, passage),
        "pages": {
            "kind": DRAWABLE.get(stored.version.media_type),
            "marks": json.dumps(marks),
            "first": marks[0][0] if marks else next((e["page"] for e in shown if e.get("page")), 1),
        },
        "passage": passage,
        "part": part,
        "part_count": len(parts),
    }


def _boxes(
    request: SignedInRequest, stored: VersionText, passage: tuple[int, int]
) -> list[dict[str, Any]]:
    """Of the pages that show the passage."""
    start, end = passage
    pages = PageBoxes.objects.readable_by(request.user).filter(
        version=stored.version, char_start__lt=end, char_end__gt=start
    )
    return list(chain.from_iterable(pages.order_by("page").values_list("boxes", flat=True)))


def _version(request: SignedInRequest, shown: Document) -> DocumentVersion | None:
    """The asked version, else the one that answers, else the newest."""
    asked = request.GET.get("v", "")
    if not asked:
        return shown.current_version or shown.latest_version
    versions = DocumentVersion.objects.readable_by(request.user).filter(document=shown)
    try:
        found = (
            versions.filter(number=int(asked[:9]))
            if asked.isdecimal()
            else versions.filter(pk=UUID(asked))
        ).first()
    except ValueError:
        found = None
    if found is None:
        raise Http404
    return found


def _passage(request: SignedInRequest, length: int) -> tuple[int, int] | None:
    start, end = request.GET.get("start", ""), request.GET.get("end", "")
    if not (start.isdecimal() and end.isdecimal()):
        return None
    begin, stop = int(start[:10]), min(int(end[:10]), length)
    return (begin, stop) if begin < stop else None
