"""Whose turn it is: nobody waits for all the files that somebody else sent before.

The line is made of rounds. Files sent together have one place in each round, and so has what a
person sends one by one; of files that one person attached to chats, where somebody waits for the
answer, ten have, and they come first in their round. A new file gets its place in the round that is
under way, or in the first one after its fellows' where there is room. So a file attached during an
upload of ten thousand is next, and the upload goes on beside any number of attached ones.

A place is given once and holds for every stage: what people are told of it stays true. Workers take
what stands first (``ingestion.leases``); a message only tells them that something waits.
"""

from __future__ import annotations

from typing import Final

from django.db import connection
from django.db.models import QuerySet

from assistant.documents.models import DocumentVersion
from ingestion.models import OPEN_STATUSES, IngestionJob, Lane

ORDER: Final = ("round", "lane", "created_at", "pk")
_IN_A_ROUND: Final = {Lane.ATTACHED: 10, Lane.UPLOADED: 1}

# What failed before keeps its place and comes late: it does not tell which round is under way.
_STATE: Final = """
    SELECT coalesce(
        (SELECT min(first) FROM (
            SELECT min(round) AS first FROM ingestion_ingestionjob
            WHERE status = 'queued' AND error_code = '' AND lease_owner = '' AND attempts = 0
            UNION ALL
            SELECT min(round) FROM ingestion_ingestionjob
            WHERE status = 'embedding' AND error_code = '' AND lease_owner = '' AND attempts = 0
        ) waiting),
        (SELECT max(round) FROM ingestion_ingestionjob
            WHERE status IN ('queued', 'parsing', 'embedding')),
        0)
"""


def enter(job: IngestionJob, version: DocumentVersion) -> None:
    """Give the job of ``version`` its place; the caller saves it."""
    collection = version.document.collection
    job.lane = Lane.UPLOADED if collection.private_to_id is None else Lane.ATTACHED
    person = version.created_by_id or collection.pk
    job.share = person if job.lane == Lane.ATTACHED else job.batch or person
    current = _round_under_way()
    fellows = _waiting().filter(share=job.share, lane=job.lane)
    last = fellows.order_by("-round").values_list("round", flat=True).first()
    if last is None:
        job.round = current + _other_shares(job, version)
    elif last < current:
        job.round = current
    else:
        is_full = fellows.filter(round=last).count() >= _IN_A_ROUND[Lane(job.lane)]
        job.round = last + is_full


def _waiting() -> QuerySet[IngestionJob]:
    return IngestionJob.objects.filter(status__in=OPEN_STATUSES, lease_owner="")


def _round_under_way() -> int:
    with connection.cursor() as cursor:
        cursor.execute(_STATE)
        current: int = cursor.fetchone()[0]
        return current


def _other_shares(job: IngestionJob, version: DocumentVersion) -> int:
    """How many other batches of this person wait: sending each file as one gains nothing."""
    if job.batch is None or job.lane == Lane.ATTACHED:
        return 0
    others = _waiting().filter(version__created_by=version.created_by_id, lane=job.lane)
    return others.exclude(share=job.share).values("share").distinct().count()
