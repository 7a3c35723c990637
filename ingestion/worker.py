"""The life of one Celery worker, from its first message to an end that leaves nothing held."""

from __future__ import annotations

import logging
import threading
from functools import partial

from celery import Celery
from celery.utils.nodenames import worker_direct
from kombu.exceptions import OperationalError as BrokerError

from ingestion import leases, recovery, slots, workers
from ingestion.pulse import Pulse

log = logging.getLogger(__name__)

# What runs gets this long to finish after a stop signal; then its leases are given back.
GRACE_SECONDS = 5.0

_pulse: Pulse | None = None


def begin(app: Celery, node: str, *, threads: int) -> None:
    """The worker ``node``, as Celery names it, is about to take messages."""
    global _pulse
    slots.share_out(threads)
    own = worker_direct(node).name
    queues = [name for name in app.amqp.queues.consume_from if name != own]
    leases.work_as(node)
    recovery.remove_workplaces()
    _pulse = Pulse(node, queues=queues, send_probe=partial(_send_probe, app, own))
    _pulse.start()


def message_arrived() -> None:
    if _pulse is not None:
        _pulse.beat()


def stop_soon() -> None:
    """A stop signal came. Celery waits for what runs; after a while that must stop too."""
    slots.end()
    timer = threading.Timer(GRACE_SECONDS, leases.give_all_back)
    timer.daemon = True
    timer.start()


def end() -> None:
    if _pulse is not None:
        _pulse.stop()


def _send_probe(app: Celery, queue: str) -> None:
    try:
        app.send_task(workers.PROBE_TASK, queue=queue, retry=False, expires=60)
    except (BrokerError, OSError) as error:
        log.warning("the broker takes no messages: %s", error)
