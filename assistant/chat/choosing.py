"""Which model answers: the site's own, or one that the person may choose instead."""

from __future__ import annotations

from typing import Final, cast, get_args

from django.core.exceptions import ValidationError

from assistant import engines
from assistant.chat.models import Message
from assistant.engines import ModelChoice
from assistant.permissions.policy import AnyUser
from assistant.users.models import User
from inference.types import Effort

EFFORTS: Final[tuple[str, ...]] = get_args(Effort)


def models_for(user: AnyUser) -> tuple[ModelChoice, ...]:
    """What this person may choose, in the order of LLM_MODELS."""
    if not engines.model_choices():
        return ()
    names = cast("User", user).groups.values_list("name", flat=True)
    return engines.choices_for(frozenset(names))


def chosen(user: AnyUser, name: str) -> ModelChoice | None:
    """The model of that name, None for the site's own.

    Raises ValidationError when there is none of that name, or it is not for this person: the two
    cannot be told apart.
    """
    if not name:
        return None
    found = {choice.name: choice for choice in models_for(user)}
    if name not in found:
        known = ", ".join(found) or "none but the one of the site"
        raise ValidationError(
            f"There is no model {name[:100]!r} to choose. There is: {known}.", code="unknown_model"
        )
    return found[name]


def still_chosen(user: AnyUser, name: str) -> ModelChoice | None:
    """As ``chosen`` when the answer begins: a choice withdrawn meanwhile is the site's own."""
    return next((choice for choice in models_for(user) if name and choice.name == name), None)


def name_of(user: AnyUser, answer: Message) -> str:
    """The choice that ``answer`` was made with; empty when it was the site's own, or is gone."""
    choices = models_for(user)
    if any(choice.name == answer.model for choice in choices):
        return answer.model  # not written yet
    if not answer.model or (choices and answer.model == engines.llm().model):
        return ""
    return next((choice.name for choice in choices if choice.model == answer.model), "")
