"""A site at random, and a model in plain Python of who may see what on it.

``benchmarks.canary`` takes thousands of steps, tests/retrieval/test_rights.py a few hundred.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from uuid import UUID

from django.contrib.auth.models import Group
from django.db import transaction

from assistant import engines
from assistant.documents import actions as documents
from assistant.documents.actions import Upload
from assistant.documents.models import Collection, Document
from assistant.permissions.models import Grant
from assistant.permissions.roles import Role
from assistant.retrieval import search, vector
from assistant.users.models import User
from inference.fakes import FakeEmbedder
from tests.factories import file_named, make_collection, make_document, make_user, publish

CANARY = re.compile(r"canary[0-9a-f]{10}")
EVERYTHING = "canteen noon"


@dataclass(slots=True)
class Person:
    """``stale`` is the row as it was read at some time before: rights may have changed since."""

    pk: UUID
    stale: User
    groups: set[int] = field(default_factory=set)
    active: bool = True
    superuser: bool = False


@dataclass(slots=True)
class Paper:
    """A document: its collection and the canary of the version that answers."""

    collection: UUID
    canary: str
    parts: int
    disabled: bool = False


class House:
    """Take steps; what went wrong is in ``leaks``, what was done in ``done``."""

    def __init__(self, seed: int, *, people: int = 24, collections: int = 20) -> None:
        self.chance = random.Random(seed)
        self.leaks: list[str] = []
        self.done: Counter[str] = Counter()
        embedder = FakeEmbedder()
        engines.embedder = cache(lambda: embedder)
        self.people = []
        for number in range(people):
            user = make_user(email=f"canary{number}@house.example")
            self.people.append(Person(user.pk, user))
        self.actor = make_user(email="actor@house.example")
        self.groups = [Group.objects.create(name=f"house {n}").pk for n in range(6)]
        self.collections = [make_collection().pk for _ in range(collections)]
        # Subject: a person's id, a group's number, or None for everyone.
        self.grants: dict[tuple[UUID, UUID | int | None], Role] = {}
        self.papers: dict[UUID, Paper] = {}
        for _ in range(2 * collections):
            self.change_a_grant()
            self.upload()

    # --- The model -----------------------------------------------------------------------------

    def readable(self, person: Person) -> set[UUID]:
        if not person.active:
            return set()
        if person.superuser:
            return set(self.collections)
        subjects = {person.pk, None, *person.groups}
        return {collection for collection, subject in self.grants if subject in subjects}

    def visible(self, person: Person) -> dict[UUID, Paper]:
        readable = self.readable(person)
        return {
            pk: paper
            for pk, paper in self.papers.items()
            if paper.collection in readable and not paper.disabled
        }

    # --- The steps -----------------------------------------------------------------------------

    def step(self) -> None:
        kinds = [self.ask] * 60 + [self.change_a_grant] * 12 + [self.change_a_group] * 7
        kinds += [self.change_a_person] * 5 + [self.upload] * 4 + [self.replace] * 5
        kinds += [self.delete] * 4 + [self.disable] * 3
        self.chance.choice(kinds)()

    def ask(self) -> None:
        chance, person = self.chance, self.chance.choice(self.people)
        is_stale = chance.random() < 0.3
        user = person.stale if is_stale else User.objects.get(pk=person.pk)
        if not is_stale:
            person.stale = user
        # Half of the searches walk HNSW, as on a large site.
        vector.EXACT_AT_LEAST, vector.WALK_COST = chance.choice([(5_000, 20.0), (0, 0.0)])
        options: dict[str, Any] = {
            "mode": chance.choice(["hybrid", "hybrid", "vector", "keyword"]),
            "explain": chance.random() < 0.3,
            "limit": 100,
        }
        canaries = [paper.canary for paper in self.papers.values()]
        query = chance.choice([EVERYTHING, EVERYTHING, *canaries[:2], chance.choice(canaries)])
        if chance.random() < 0.2:
            options["budget"] = 2000
        if chance.random() < 0.2:
            options["filters"] = self._filters()
        if chance.random() < 0.3:
            options["collections"] = chance.sample(self.collections, chance.randrange(1, 4))
        self.done[f"searches_{options['mode']}"] += 1
        visible = self.visible(person)
        named = options.get("collections")
        try:
            found = search(query, user=user, **options)
        except Collection.DoesNotExist:
            self.done["refused collections"] += 1
            if not is_stale and named and set(named) <= self.readable(person):
                self.leaks.append(f"refused, but readable: {named}")
            return
        if named and not is_stale and not set(named) <= self.readable(person):
            self.leaks.append(f"a hidden collection was not refused: {options}")
        said = " ".join(f"{p.title} {p.text} {p.collection_name}" for p in found.passages)
        said += repr(found.trace)
        allowed = {paper.canary for paper in visible.values()}
        asked = set(CANARY.findall(query))
        for canary in set(CANARY.findall(said)) - allowed - asked:
            self.leaks.append(f"{canary} for {query!r} with {options}, stale user: {is_stale}")
        ids = {passage.document_id for passage in found.passages}
        if not ids <= set(visible):
            self.leaks.append(f"{ids - set(visible)} for {query!r} with {options}")
        complete = not is_stale and query == EVERYTHING and not set(options) & {"filters", "budget"}
        if complete and sum(paper.parts for paper in visible.values()) <= 100:
            wanted = {pk for pk, p in visible.items() if named is None or p.collection in named}
            self.done["searches that must be complete"] += 1
            if ids != wanted:
                self.leaks.append(f"missing {wanted - ids} with {options}")

    def _filters(self) -> dict[str, Any]:
        some = self.chance.sample(sorted(self.papers), min(5, len(self.papers)))
        return self.chance.choice(
            [
                {"document_ids": [str(pk) for pk in some]},
                {"created_after": "2020-01-01"},
                {"metadata": {"site": "north"}},
            ]
        )

    def change_a_grant(self) -> None:
        chance = self.chance
        collection = chance.choice(self.collections)
        subject: UUID | int | None = chance.choice(
            [*[p.pk for p in self.people], *self.groups * 3, None]
        )
        column = {UUID: "user_id", int: "group_id"}.get(type(subject))
        who = {column: subject} if column else {"everyone": True}
        if (collection, subject) in self.grants and chance.random() < 0.7:
            Grant.objects.filter(collection_id=collection, **who).delete()
            del self.grants[collection, subject]
            self.done["grants taken"] += 1
            return
        if subject is None and chance.random() < 0.7:
            return  # else everything is soon everyone's
        role = chance.choice(list(Role))
        Grant.objects.update_or_create(collection_id=collection, **who, defaults={"role": role})
        self.grants[collection, subject] = role
        self.done["grants given"] += 1

    def change_a_group(self) -> None:
        person, group = self.chance.choice(self.people), self.chance.choice(self.groups)
        user = User.objects.get(pk=person.pk)
        if group in person.groups:
            user.groups.remove(group)
        else:
            user.groups.add(group)
        person.groups ^= {group}
        self.done["memberships changed"] += 1

    def change_a_person(self) -> None:
        person = self.chance.choice(self.people)
        if self.chance.random() < 0.3:
            person.superuser = not person.superuser and self.chance.random() < 0.5
        else:
            person.active = not person.active
        User.objects.filter(pk=person.pk).update(
            is_active=person.active, is_superuser=person.superuser
        )
        self.done["people changed"] += 1

    def upload(self) -> None:
        if len(self.papers) > 3 * len(self.collections):
            return
        collection = Collection.objects.get(pk=self.chance.choice(self.collections))
        canary, text, parts = self._text()
        document = make_document(collection, text=text, title=f"Title {canary}", actor=self.actor)
        if self.chance.random() < 0.5:
            Document.objects.filter(pk=document.pk).update(metadata={"site": "north"})
        self.papers[document.pk] = Paper(collection.pk, canary, parts)
        self.done["documents uploaded"] += 1

    def replace(self) -> None:
        """A new version; the canary of the old one is gone."""
        if not self.papers:
            return
        pk, paper = self.chance.choice(sorted(self.papers.items(), key=lambda item: item[0]))
        canary, text, parts = self._text()
        Document.objects.filter(pk=pk).update(external_id=str(pk))
        with transaction.atomic():
            version, _ = documents.store_version(
                paper.collection,
                Upload(
                    content=file_named("page.md", text.encode()),
                    filename="page.md",
                    media_type="text/markdown",
                    external_id=str(pk),
                    title=f"Title {canary}",
                ),
                actor=self.actor,
            )
        publish(version, text)
        paper.canary, paper.parts = canary, parts
        self.done["documents replaced"] += 1

    def delete(self) -> None:
        if len(self.papers) <= len(self.collections):
            return
        pk = self.chance.choice(sorted(self.papers))
        documents.delete_document(Document.objects.get(pk=pk), actor=self.actor)
        del self.papers[pk]
        self.done["documents deleted"] += 1

    def disable(self) -> None:
        if not self.papers:
            return
        pk = self.chance.choice(sorted(self.papers))
        paper = self.papers[pk]
        paper.disabled = not paper.disabled
        documents.set_disabled(
            Document.objects.get(pk=pk), disabled=paper.disabled, actor=self.actor
        )
        self.done["documents disabled or enabled"] += 1

    def _text(self) -> tuple[str, str, int]:
        canary = f"canary{self.chance.getrandbits(40):010x}"
        parts = self.chance.randrange(1, 4)
        rules = [f"The canteen opens at noon, rule {n} says {canary}." for n in range(parts)]
        return canary, "\n\n".join(rules), parts
