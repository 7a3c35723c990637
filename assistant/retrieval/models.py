"""Chunks and their vectors. Nobody outside this package imports these models.

Rows fall with what they belong to by the database's own ON DELETE CASCADE (migration 0003): a
vector that another worker adds while a version is deleted would escape Django's collector. Columns
that only repeat what the version says have no constraint, which would be checked row by row.
"""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.db.models import Q
from django.utils import timezone
from pgvector.django import HalfVectorField

LOTS = 1 << 20


class Lot(models.Func):
    """A number from 0 to LOTS - 1 that depends on the id alone and looks random."""

    template = f"(hashint8(%(expressions)s) & {LOTS - 1})"
    output_field = models.IntegerField()


class EmbeddingSpace(models.Model):
    """The model that made a set of vectors. Vectors of different spaces are never compared.

    Exactly one space is active: queries embed with it and search it. A space that is not active
    is either being filled beside it (``target_since`` is set) or was left behind by a switch and
    kept so that the switch can be undone. ``source`` is the name or directory the model is loaded
    from, ``base_url`` the server that has it where that is not EMBEDDING_BASE_URL. ``lease_until``
    keeps two workers from filling it at once; ``error`` is why filling stands still.
    """

    model = models.CharField(max_length=200)
    revision = models.CharField(max_length=100)
    dimension = models.PositiveIntegerField()
    window = models.PositiveIntegerField()
    query_prefix = models.TextField(blank=True)
    passage_prefix = models.TextField(blank=True)
    source = models.CharField(max_length=500, blank=True)
    base_url = models.URLField(max_length=500, blank=True)
    is_active = models.BooleanField(default=False)
    target_since = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(null=True)
    error = models.TextField(blank=True)
    activated_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["model", "revision", "dimension", "query_prefix", "passage_prefix"],
                name="space_identity",
            ),
            models.UniqueConstraint(
                fields=["is_active"], name="space_one_active", condition=Q(is_active=True)
            ),
        ]

    def __str__(self) -> str:
        return self.model


class Chunk(models.Model):
    """A piece of one version's text. It answers only while its version is the current one.

    ``text`` is the slice ``[char_start, char_end)`` of the version's text; ``context`` (title and
    headings) is embedded and indexed in front of it. ``content_hash`` is of both together.

    ``terms`` are what ``analysis`` made of both, with their positions, ``term_count`` how many
    positions there are, ``frequencies`` how often each stands there (see ``frequencies``; None
    from an older analyser); ``language`` (ISO 639-1) is that of the text around, "" where it is not
    sure; ``analyser`` is the analyser's version, older ones are renewed by ``reanalysis``.
    """

    id = models.BigAutoField(primary_key=True)
    version = models.ForeignKey(
        "documents.DocumentVersion", on_delete=models.DO_NOTHING, related_name="+"
    )
    document = models.ForeignKey(
        "documents.Document",
        on_delete=models.DO_NOTHING,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    collection = models.ForeignKey(
        "documents.Collection",
        on_delete=models.DO_NOTHING,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    ordinal = models.PositiveIntegerField()
    text = models.TextField()
    context = models.TextField(blank=True)
    heading_path = ArrayField(models.TextField(), default=list)
    page = models.PositiveIntegerField(null=True)
    char_start = models.PositiveIntegerField()
    char_end = models.PositiveIntegerField()
    content_hash = models.BinaryField(max_length=32)
    terms = SearchVectorField()
    term_count = models.PositiveIntegerField()
    frequencies = models.BinaryField(null=True)
    language = models.CharField(max_length=8, blank=True, default="", db_default="")
    analyser = models.PositiveSmallIntegerField(default=0, db_default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["version", "ordinal"], name="chunk_ordinal")]
        indexes: ClassVar[list[models.Index]] = [
            # An insert would else wait now and then for a long list of others' terms to be merged,
            # and every search would read through that list.
            GinIndex(fields=["terms"], name="chunk_terms", fastupdate=False),
            models.Index(
                fields=["collection", "language"],
                include=["id", "term_count"],
                name="chunk_collection",
            ),
            # Chunks in random order: see ``statistics``.
            models.Index(
                Lot("id"),
                models.F("collection"),
                include=["id", "language", "term_count"],
                name="chunk_lot",
            ),
            models.Index(fields=["analyser", "id"], name="chunk_analyser"),
        ]

    def __str__(self) -> str:
        return f"chunk {self.ordinal} of {self.version_id}"


class Embedding(models.Model):
    """The vector of one chunk in one space.

    Each space has its own HNSW index, made with the space: the column has no fixed dimension, and
    the partial index casts to the space's.
    """

    id = models.BigAutoField(primary_key=True)
    chunk = models.ForeignKey(Chunk, on_delete=models.DO_NOTHING, related_name="+")
    space = models.ForeignKey(EmbeddingSpace, on_delete=models.DO_NOTHING, related_name="+")
    collection = models.ForeignKey(
        "documents.Collection",
        on_delete=models.DO_NOTHING,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    content_hash = models.BinaryField(max_length=32)
    vector = HalfVectorField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["chunk", "space"], name="embedding_once_a_space")
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["space", "collection"], name="embedding_collection"),
            models.Index(fields=["space", "content_hash"], name="embedding_content"),
        ]

    def __str__(self) -> str:
        return f"vector of chunk {self.chunk_id}"


class Calibration(models.Model):
    """What ``manage.py calibrate`` learnt for one space and reranker; the latest one holds.

    ``learnt`` has the curves and the bins of the reliability plot, see ``calibration``.
    """

    space = models.ForeignKey(EmbeddingSpace, on_delete=models.CASCADE, null=True, related_name="+")
    reranker = models.CharField(max_length=500, blank=True)
    threshold = models.FloatField()
    false_answers = models.FloatField()
    answered = models.FloatField()
    ece = models.FloatField()
    sets = ArrayField(models.TextField(), default=list)
    learnt = models.JSONField()
    made_at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["space", "reranker", "-made_at"], name="calibration_latest")
        ]

    def __str__(self) -> str:
        return f"calibration of {self.made_at:%Y-%m-%d}"
