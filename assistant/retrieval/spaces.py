"""Which model's vectors are searched, and the client of that model.

The active space in the database decides, not the setting: EMBEDDING_MODEL names the model of a new
site, and ``manage.py reembed`` moves an existing one to another.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import cache
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from assistant import engines
from assistant.database import in_database, server_cursor
from assistant.retrieval.models import Embedding, EmbeddingSpace
from inference.embedding_models import EmbeddingModel, UnknownModelError, resolve_model
from inference.types import Embedder, EmbeddingSpec, TokenCounter

EF_CONSTRUCTION = 200
_LOCK = "hashtext('embedding-space')"


_last_seen: EmbeddingSpace | None = None


def active() -> EmbeddingSpace | None:
    """The space that is searched; None before the first document."""
    global _last_seen
    # Asked in each search: composing the statement anew took longer than running it.
    names = [field.attname for field in EmbeddingSpace._meta.concrete_fields]
    with server_cursor() as cursor:
        cursor.execute(_active_statement())
        row = cursor.fetchone()
    _last_seen = None if row is None else EmbeddingSpace.from_db(connection.alias, names, row)
    return _last_seen


def last_seen() -> EmbeddingSpace | None:
    """What ``active`` last said in this process, asked of the database where it said nothing yet.

    For who asks again before using it.
    """
    return _last_seen or active()


async def alast_seen() -> EmbeddingSpace | None:
    """``last_seen`` for async callers: no thread where it was seen."""
    return _last_seen or await in_database(active)()


def forget() -> None:
    """Nothing was seen yet; for tests."""
    global _last_seen
    _last_seen = None


@cache
def _active_statement() -> str:
    return str(EmbeddingSpace.objects.filter(is_active=True).order_by().query)


def ensure_active(spec: EmbeddingSpec) -> EmbeddingSpace:
    """The active space; that of ``spec``, the site's embedding model, when there is none yet."""
    space = active()
    if space is not None:
        return space
    with transaction.atomic():
        lock_switch()  # two workers may meet the first document at once
        space = active()
        if space is None:
            space = create(
                spec,
                source=settings.EMBEDDING_MODEL,
                is_active=True,
                activated_at=timezone.now(),
            )
    return space


def create(spec: EmbeddingSpec, *, source: str, **values: Any) -> EmbeddingSpace:
    """A new space and its HNSW index, in the caller's transaction."""
    assert connection.in_atomic_block
    space = EmbeddingSpace.objects.create(**asdict(spec), source=source, **values)
    with connection.cursor() as cursor:
        cursor.execute(index_statement(space.pk, space.dimension))
    return space


def index_statement(space_id: int, dimension: int) -> str:
    """Makes the HNSW index of a space.

    While a vector is put in, more of its neighbours must be looked at than there are near copies of
    one text: where all of them are copies, no way leads out of their cluster or into it.
    """
    return (
        f"CREATE INDEX {index_name(space_id)} ON {Embedding._meta.db_table}"
        f" USING hnsw ((vector::halfvec({dimension:d})) halfvec_cosine_ops)"
        f" WITH (m = 16, ef_construction = {EF_CONSTRUCTION:d}) WHERE space_id = {space_id:d}"
    )


def index_name(space_id: int) -> str:
    return f"embedding_hnsw_{space_id:d}"


def spec_of(space: EmbeddingSpace) -> EmbeddingSpec:
    return EmbeddingSpec(
        **{field.name: getattr(space, field.name) for field in fields(EmbeddingSpec)}
    )


def embedder_of(space: EmbeddingSpace | None) -> Embedder:
    """The client of the space's model; of the site's embedding model when there is no space."""
    site = engines.embedder()
    if space is None or (spec_of(space) == site.spec and not space.base_url):
        return site
    return engines.embedder_for(spec_of(space), source=source_of(space), base_url=space.base_url)


def asks_alike(one: EmbeddingSpace | None, other: EmbeddingSpace) -> bool:
    """Whether both are the same space, its model at the same server."""
    return one == other and one is not None and one.base_url == other.base_url


def source_of(space: EmbeddingSpace) -> str:
    """What the model is loaded from; sites older than this field have its name only."""
    return space.source or space.model


def tokens_of(space: EmbeddingSpace) -> TokenCounter:
    """Counts as the space's model does; on the high side when its files are not here."""
    model = model_of(space)
    return engines.token_counter_for(model) if model else engines.token_counter()


def model_of(space: EmbeddingSpace) -> EmbeddingModel | None:
    """What the house knows of the space's model; None when nobody here does."""
    return _model(source_of(space), spec_of(space))


@cache
def _model(source: str, spec: EmbeddingSpec) -> EmbeddingModel | None:
    try:
        model = resolve_model(source)
    except UnknownModelError:
        return None
    return model if model.spec == spec else None


def lock_switch() -> None:
    """Until the transaction ends, this one alone may switch spaces, and nobody publishes."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")


def hold() -> None:
    """Until the transaction ends, the active space stays the active one."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_xact_lock_shared({_LOCK})")
