"""Moving a site to another embedding model: fill beside, switch in one commit, keep, drop.

    start -> fill, step by step, by the workers -> switch -> (start with the old one: back) -> drop

Searches use the active space until the commit of the switch and the new one after it. A document
that is published meanwhile is in the active space by then; the switch waits until the new space has
every chunk that answers.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from assistant.audit.models import record
from assistant.retrieval import index, spaces
from assistant.retrieval.models import Chunk, Embedding, EmbeddingSpace
from assistant.users.models import User
from inference.embedding_models import UnknownModelError, resolve_model
from inference.types import EmbeddingSpec, EngineError

# Texts per request to the embedding server.
BATCH = 256
_LEASE = timedelta(seconds=180)
# Longer than any search: none that began before the switch still needs the old vectors.
KEEP_AFTER_SWITCH = timedelta(minutes=2)


class ReembedError(Exception):
    """It cannot be done; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Chunks that answer and have their vector in the space that is being filled."""

    model: str
    done: int
    total: int
    since: datetime
    error: str

    @property
    def is_complete(self) -> bool:
        return self.done >= self.total


def target() -> EmbeddingSpace | None:
    """The space that is being filled."""
    return EmbeddingSpace.objects.filter(target_since__isnull=False).first()


def previous() -> EmbeddingSpace | None:
    """The space that was active before the present one and can be gone back to."""
    return (
        EmbeddingSpace.objects.filter(is_active=False, activated_at__isnull=False)
        .order_by("-activated_at")
        .first()
    )


def start(source: str, *, actor: User | None, base_url: str = "") -> EmbeddingSpace:
    """Begin, or go on, to fill the space of a known model name or model directory.

    ``base_url`` names the server that has the model when it is not the one at EMBEDDING_BASE_URL.
    The model is asked once, so that a wrong address or dimension is found before anything is made.

    Raises ReembedError.
    """
    try:
        model = resolve_model(source)
    except UnknownModelError as error:
        raise ReembedError(str(error)) from error
    present = spaces.active()
    if present is None:
        raise ReembedError(
            "Nothing is indexed yet, so there is nothing to embed again. Set EMBEDDING_MODEL to"
            f" {source} and restart."
        )
    if spaces.spec_of(present) == model.spec and present.base_url == base_url:
        raise ReembedError(f"{model.name} is already the model that is searched.")
    if model.window < present.window:
        raise ReembedError(
            f"{model.name} reads {model.window} tokens at once, but the documents were cut into"
            f" passages of up to {present.window}. Choose a model with a larger window."
        )
    with transaction.atomic():
        spaces.lock_switch()
        other = target()
        if other is not None and spaces.spec_of(other) != model.spec:
            raise ReembedError(
                f"{other.model} is being filled already. Wait until it is done, or cancel it first:"
                " manage.py reembed --cancel"
            )
        space = _space_for(model.spec, source=source, base_url=base_url)
        if space.target_since is None:
            space.target_since = timezone.now()
            space.error = ""
            space.save(update_fields=["target_since", "error"])
            record(actor, "reembed.start", space, model=space.model)
    _try_out(space)
    return space


def _space_for(spec: EmbeddingSpec, *, source: str, base_url: str) -> EmbeddingSpace:
    """The space of this model that is there, with its vectors, or a new one."""
    identity = asdict(spec)
    del identity["window"]  # how much it reads does not change what a vector means
    same = EmbeddingSpace.objects.filter(**identity).first()
    if same is None:
        return spaces.create(spec, source=source, base_url=base_url)
    same.source, same.base_url = source, base_url
    same.save(update_fields=["source", "base_url"])
    return same


def _try_out(space: EmbeddingSpace) -> None:
    health = spaces.embedder_of(space).check()
    if not health.ok:
        EmbeddingSpace.objects.filter(pk=space.pk).update(error=health.detail)
        raise ReembedError(
            f"{health.detail} The work goes on by itself once it answers; to give up:"
            " manage.py reembed --cancel"
        )


def go_back(*, actor: User | None) -> EmbeddingSpace:
    """Begin to return to the previous model; only what came since needs vectors.

    Raises ReembedError.
    """
    space = previous()
    if space is None:
        raise ReembedError("There is no earlier model whose vectors are still there.")
    return start(spaces.source_of(space), actor=actor, base_url=space.base_url)


def cancel(*, actor: User | None) -> bool:
    """Stop filling. What was made stays until it is dropped; False when nothing was under way."""
    with transaction.atomic():
        spaces.lock_switch()
        space = target()
        if space is None:
            return False
        EmbeddingSpace.objects.filter(pk=space.pk).update(target_since=None, lease_until=None)
        record(actor, "reembed.cancel", space, model=space.model)
    return True


def progress() -> Progress | None:
    """How far the filling is; None when none is under way."""
    space = target()
    if space is None or space.target_since is None:
        return None
    total = _count("TRUE", space)
    missing = _count(_MISSING, space)
    return Progress(space.model, total - missing, total, space.target_since, space.error)


def fill(*, seconds: float = 20.0) -> bool:
    """Embed what is missing for about ``seconds``, then switch if all is there.

    True when there is more to do. One worker at a time does it; another one's call returns False.
    Safe to interrupt anywhere: what is stored stays, and the next call goes on.
    """
    space = _lease()
    if space is None:
        return False
    try:
        more = _fill(space, until=time.monotonic() + seconds)
        EmbeddingSpace.objects.filter(pk=space.pk).update(error="")
        return more
    except EngineError as error:
        EmbeddingSpace.objects.filter(pk=space.pk).update(error=error.detail)
        return False
    finally:
        EmbeddingSpace.objects.filter(pk=space.pk).update(lease_until=None)


def _lease() -> EmbeddingSpace | None:
    free = Q(lease_until=None) | Q(lease_until__lt=Now())
    taken = EmbeddingSpace.objects.filter(free, target_since__isnull=False).update(
        lease_until=Now() + _LEASE
    )
    return target() if taken else None


def _fill(space: EmbeddingSpace, *, until: float) -> bool:
    embedder = spaces.embedder_of(space)
    last = 0
    while time.monotonic() < until:
        pending = _missing_after(last, space)
        if not pending:
            if last == 0:
                return not switch(space)
            last = 0  # from the start again: documents were published meanwhile
            continue
        last = pending[-1].chunk_id
        index.take_over_vectors([chunk.chunk_id for chunk in pending], space=space)
        pending = index.without_vector(pending, space=space)
        if pending:
            vectors = embedder.embed([chunk.embed_text for chunk in pending], kind="passage")
            index.store_vectors(pending, vectors, space=space)
        extended = EmbeddingSpace.objects.filter(
            pk=space.pk, target_since__isnull=False, lease_until__isnull=False
        ).update(lease_until=Now() + _LEASE)
        if not extended:  # cancelled
            return False
    return True


def switch(space: EmbeddingSpace) -> bool:
    """Search ``space`` from this commit on; False when it lacks a chunk that answers now."""
    with transaction.atomic():
        spaces.lock_switch()
        fresh = EmbeddingSpace.objects.filter(pk=space.pk, target_since__isnull=False).first()
        if fresh is None:
            return True
        if _count(_MISSING, fresh, limit=1):
            return False
        EmbeddingSpace.objects.filter(is_active=True).update(is_active=False)
        EmbeddingSpace.objects.filter(pk=fresh.pk).update(
            is_active=True, target_since=None, lease_until=None, activated_at=Now(), error=""
        )
        record(None, "reembed.switch", fresh, model=fresh.model)
    return True


def drop_unused(*, actor: User | None) -> list[str]:
    """Remove the vectors of every space that is neither searched nor being filled; their models.

    Raises ReembedError when a search that began before the last switch may still need them.
    """
    unused = list(EmbeddingSpace.objects.filter(is_active=False, target_since=None))
    if not unused:
        return []
    still_needed = EmbeddingSpace.objects.filter(
        is_active=True, activated_at__gt=Now() - KEEP_AFTER_SWITCH
    )
    if still_needed.exists():
        raise ReembedError(
            "The switch was less than two minutes ago and searches may still use the old vectors."
            " Try again in two minutes."
        )
    for space in unused:
        _drop(space)
        record(actor, "reembed.drop", space, model=space.model)
    return [space.model for space in unused]


def _drop(space: EmbeddingSpace) -> None:
    """Vectors piece by piece, so that no transaction is long; then the index and the row."""
    while True:
        some = Embedding.objects.filter(space=space).values_list("pk", flat=True)[:5_000]
        if not Embedding.objects.filter(pk__in=list(some)).delete()[0]:
            break
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX IF EXISTS {spaces.index_name(space.pk)}")
        space.delete()


# On chunk c: it answers, and the space has no vector of it.
_MISSING = (
    "NOT EXISTS (SELECT 1 FROM retrieval_embedding e"
    " WHERE e.chunk_id = c.id AND e.space_id = %(space)s)"
)
_ANSWERING = (
    "retrieval_chunk c JOIN documents_document d ON d.id = c.document_id"
    " AND d.current_version_id = c.version_id AND d.deleted_at IS NULL"
)


def _count(condition: str, space: EmbeddingSpace, *, limit: int | None = None) -> int:
    bound = f" LIMIT {limit:d}" if limit else ""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {_ANSWERING} WHERE {condition}{bound}) found",
            {"space": space.pk},
        )
        return int(cursor.fetchone()[0])


def _missing_after(chunk_id: int, space: EmbeddingSpace) -> list[index.PendingChunk]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT c.id FROM {_ANSWERING} WHERE c.id > %(after)s AND {_MISSING}"
            f" ORDER BY c.id LIMIT {BATCH:d}",
            {"space": space.pk, "after": chunk_id},
        )
        ids = [row[0] for row in cursor.fetchall()]
    return index.pending(Chunk.objects.filter(pk__in=ids).order_by("pk"))
