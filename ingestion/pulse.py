"""A worker's proof to others, and to itself, that it works and does not only run.

Each worker sends itself a message through the broker and notes when it arrives. A worker that is
busy with long documents notes its leases' heartbeats instead. One that finds neither although the
broker answers has lost its connection without being told (celery #8030, #8091, #9054) or its
threads are stuck: it ends itself, and whoever started it starts it again. The same note is a file
in ``DATA_DIR/run/workers``, whose age tells ``manage.py up`` and a container's health check of a
worker too stuck to end itself.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError

from assistant.database import release_connection
from ingestion import leases, recovery, workers

log = logging.getLogger(__name__)

PROBE_SECONDS = 15.0
# Less than an outsider's patience, so that the worker's own words are in its log.
STUCK_SECONDS = 75.0
EXIT_STUCK = 75  # EX_TEMPFAIL: start me again
_TICK_SECONDS = 5.0


class Pulse:
    """One worker's. ``send_probe`` sends a message that makes this worker call ``beat``."""

    def __init__(
        self,
        node: str,
        *,
        queues: Sequence[str],
        send_probe: Callable[[], None],
        end: Callable[[int], None] = os._exit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._queues = queues
        self._send_probe = send_probe
        self._end = end
        self._clock = clock
        self._file = Path(settings.DATA_DIR) / "run" / "workers" / node
        self._beat_at = self._excused_at = clock()
        self._signed_at = self._probed_at = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file.touch()
        self._thread.start()

    def stop(self) -> None:
        """An orderly end: the site knows at once that this worker is gone."""
        self._stopped.set()
        self._file.unlink(missing_ok=True)
        self._in_database(lambda: workers.sign_off(self._node))

    def beat(self) -> None:
        """A message arrived. Cheap; called from any thread."""
        self._beat_at = self._clock()

    def look(self) -> None:
        """One round: pass the last sign on, mend what this node left, ask for the next sign."""
        now = self._clock()
        beat_at = max(self._beat_at, leases.extended_at())
        if beat_at > self._signed_at:
            self._signed_at = beat_at
            self._file.touch()
            self._in_database(lambda: workers.sign(self._node, self._queues))
        if now - self._probed_at < PROBE_SECONDS:
            return
        self._probed_at = now
        self._in_database(recovery.take_back_strays)
        if not workers.broker_answers():
            # Nobody can consume now, and ending would not help. Afterwards the consumer has all
            # the time again to come back by itself.
            self._excused_at = now
            self._file.touch()
        elif (silent := now - max(beat_at, self._excused_at)) > STUCK_SECONDS:
            log.critical(
                "no message and no lease for %.0f s although the broker answers: this worker"
                " ends, to be started again",
                silent,
            )
            self._end(EXIT_STUCK)
        else:
            self._send_probe()

    def _run(self) -> None:
        while not self._stopped.wait(_TICK_SECONDS):
            try:
                self.look()
            except Exception:
                log.exception("the watch over this worker failed once")

    def _in_database(self, write: Callable[[], object]) -> None:
        try:
            write()
        except DatabaseError as error:
            log.warning("a sign of life could not be passed on: %s", error)
        finally:
            release_connection()
