"""Instructions for the model: the site's, and those of the collections whose passages are used.

The site's come from the settings and are the same in every prompt. A collection's are written by
its managers and come after them, so that the beginning of prompts stays the same.
"""

from __future__ import annotations

from collections.abc import Collection as AnyOf
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError

from assistant.audit.models import AuditEvent, record
from assistant.database import in_database
from assistant.documents.actions import check_instructions, instructions_digest
from assistant.documents.models import Collection
from assistant.permissions.policy import AnyUser
from assistant.retrieval import Passage
from inference.tokens import estimated_tokens

_SITE_CHANGED = "site.instruct"


@dataclass(frozen=True, slots=True)
class OfCollection:
    id: UUID
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Instructions:
    """``collections`` are in an order that does not depend on the question; ``left_out`` are those
    whose instructions had no room in the prompt.
    """

    site: str = ""
    collections: tuple[OfCollection, ...] = ()
    left_out: tuple[UUID, ...] = ()

    def within(self, used: AnyOf[UUID]) -> Instructions:
        """Without those of collections that have no passage in the prompt."""
        return replace(
            self,
            collections=tuple(each for each in self.collections if each.id in used),
            left_out=tuple(each for each in self.left_out if each in used),
        )

    def name(self, collection: UUID) -> str:
        """Of a collection that has instructions here, else ""."""
        return next((each.name for each in self.collections if each.id == collection), "")

    def to_json(self) -> dict[str, Any]:
        """For the bundle: which texts there were, not the texts."""
        return {
            "site": instructions_digest(self.site) if self.site else None,
            "collections": [
                {"id": str(each.id), **instructions_digest(each.text)} for each in self.collections
            ],
            "left_out": [str(each) for each in self.left_out],
        }


def site_instructions() -> str:
    """Raises ImproperlyConfigured when they are too long."""
    try:
        return check_instructions(settings.ANSWER_INSTRUCTIONS)
    except ValidationError as error:
        raise ImproperlyConfigured(f"ANSWER_INSTRUCTIONS: {' '.join(error.messages)}") from error


async def instructions_for(passages: Sequence[Passage], *, user: AnyUser) -> Instructions:
    """For a prompt with these passages, best first: the best one's collection has room first."""
    site = site_instructions()
    wanted = dict.fromkeys(each.collection_id for each in passages if each.is_instructed)
    # Mostly none has any: the first word comes a thread and a query sooner.
    return await _with_those_of(list(wanted), site, user=user) if wanted else Instructions(site)


@in_database
def _with_those_of(wanted: Sequence[UUID], site: str, *, user: AnyUser) -> Instructions:
    found = Collection.objects.for_user(user).filter(pk__in=wanted).exclude(instructions="")
    texts = {each.pk: each for each in found.only("pk", "name", "instructions")}
    kept: list[OfCollection] = []
    left_out: list[UUID] = []
    room = settings.INSTRUCTIONS_TOKEN_BUDGET
    for each in (texts[key] for key in wanted if key in texts):
        cost = estimated_tokens(each.instructions)
        if cost > room:
            left_out.append(each.pk)
            continue
        room -= cost
        kept.append(OfCollection(each.pk, each.name, each.instructions))
    kept.sort(key=lambda each: str(each.id))
    return Instructions(site, tuple(kept), tuple(left_out))


def note_site_instructions() -> None:
    """Put a change of the site's instructions on record, once; called when a site is prepared.

    Raises ImproperlyConfigured when they are too long.
    """
    present = instructions_digest(site_instructions())
    last = AuditEvent.objects.filter(action=_SITE_CHANGED).first()
    before = last.detail if last else instructions_digest("")
    if present != before:
        record(None, _SITE_CHANGED, **present)
