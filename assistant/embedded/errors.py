"""What can stop ``manage.py up``."""

from __future__ import annotations


class StartError(Exception):
    """Starting cannot go on; the message says why and what to do."""


class StopRequested(Exception):
    """Somebody asked the group to stop (SIGINT, SIGTERM, SIGHUP)."""
