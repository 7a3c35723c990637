"""What people may send, field by field; a field that is not named here is ignored."""

from __future__ import annotations

from typing import Any

from django import forms

from assistant.chat.choosing import EFFORTS
from assistant.chat.models import Feedback
from assistant.documents.models import Collection
from assistant.users.models import User
from assistant.web.answers import REASONS
from assistant.web.narrowing import NarrowForm


class QuestionForm(NarrowForm):
    """The length is judged by ``chat.actions.ask``, which words it for both doors."""

    content = forms.CharField(error_messages={"required": "Write a question first."})
    collections = forms.ModelMultipleChoiceField(Collection.objects.none(), required=False)
    key = forms.CharField(max_length=200, required=False)
    after = forms.UUIDField(required=False)
    model = forms.CharField(max_length=200, required=False)

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chosen = self.fields["collections"]
        assert isinstance(chosen, forms.ModelMultipleChoiceField)
        chosen.queryset = Collection.objects.for_user(user)


class AgainForm(forms.Form):
    effort = forms.ChoiceField(choices=[(each, each) for each in EFFORTS], required=False)
    model = forms.CharField(max_length=200, required=False)


class TitleForm(forms.Form):
    title = forms.CharField(max_length=200)


class CollectionForm(forms.Form):
    name = forms.CharField(max_length=200, error_messages={"required": "Give it a name."})
    description = forms.CharField(max_length=2000, required=False)


class CollectionSettingsForm(CollectionForm):
    """How long instructions may be is judged by ``documents.actions``, for both doors."""

    instructions = forms.CharField(max_length=100_000, required=False, strip=False)


class FeedbackForm(forms.Form):
    rating = forms.ChoiceField(choices=Feedback.Rating.choices)
    reasons = forms.MultipleChoiceField(
        choices=[(reason, reason) for reason in REASONS], required=False
    )
    comment = forms.CharField(max_length=2000, required=False)


class TokenForm(forms.Form):
    name = forms.CharField(max_length=100, error_messages={"required": "Give it a name."})
    can_write = forms.BooleanField(required=False)
    days = forms.TypedChoiceField(
        choices=[("30", "30 days"), ("90", "90 days"), ("365", "one year"), ("", "never")],
        coerce=int,
        empty_value=None,
        required=False,
    )
