"""Chunks whose terms an older analyser made get new ones, a few at a time.

They answer with their old terms until then. Each batch is one commit, so an interruption loses
nothing, and rows that somebody else holds are left for the next time.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from time import monotonic
from typing import Final

from django.db import connection, transaction

from assistant.retrieval import analysis
from assistant.retrieval.models import Chunk

_BATCH: Final = 500


def renew(*, seconds: float) -> int:
    """Renew batches for about ``seconds``; returns how many chunks were renewed."""
    end = monotonic() + seconds
    renewed = 0
    while batch := _renew_batch():
        renewed += batch
        if monotonic() > end:
            break
    return renewed


def _renew_batch() -> int:
    with transaction.atomic():
        stale = list(
            Chunk.objects.filter(analyser__lt=analysis.VERSION)
            .order_by("analyser", "pk")
            .select_for_update(skip_locked=True, no_key=True)
            .only("pk", "version_id", "context", "text")[:_BATCH]
        )
        analysed: list[analysis.Analysis] = []
        for _, rows in groupby(stale, key=attrgetter("version_id")):
            analysed += analysis.analyse([f"{row.context}\n{row.text}" for row in rows])
        with connection.cursor() as cursor:
            cursor.execute(
                f"""
                UPDATE {Chunk._meta.db_table} c
                SET language = n.language, terms = n.terms::tsvector, term_count = n.term_count,
                    frequencies = n.frequencies, analyser = %s
                FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::int[], %s::bytea[])
                    AS n(id, language, terms, term_count, frequencies)
                WHERE c.id = n.id
                """,
                [
                    analysis.VERSION,
                    [row.pk for row in stale],
                    [each.language for each in analysed],
                    [each.terms for each in analysed],
                    [each.term_count for each in analysed],
                    [each.frequencies for each in analysed],
                ],
            )
    return len(stale)
