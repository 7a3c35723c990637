"""The whole system on one machine: PostgreSQL, Valkey, models, web, workers, under one process.

Imports no Django: ``manage.py up`` runs before any setting is read.
"""

from __future__ import annotations

from assistant.embedded.up import main

__all__ = ["main"]
