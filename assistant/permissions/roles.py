from __future__ import annotations

from django.db import models


class Role(models.IntegerChoices):
    """What a grant allows; a higher role includes the lower ones."""

    READER = 10, "reader"  # search, ask, open, download
    CONTRIBUTOR = 20, "contributor"  # upload, replace, delete, retry
    MANAGER = 30, "manager"  # rename, share, delete the collection

    @classmethod
    def of(cls, name: str) -> Role:
        """Raises KeyError for a name that is no role."""
        return cls[name.upper()]

    @property
    def slug(self) -> str:
        return self.name.lower()
