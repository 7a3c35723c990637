"""The Celery application. Tasks are doors: they carry ids and call the rooms behind them."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assistant.settings")

app = Celery("assistant")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["ingestion", "assistant.chat"])


@signals.celeryd_after_setup.connect
def _look_at_the_sandbox(**_: Any) -> None:
    from ingestion import sandbox_site

    sandbox_site.refuse_unsafe(app)


@signals.worker_ready.connect
def _begin(sender: Any, **_: Any) -> None:
    from ingestion import worker

    worker.begin(app, sender.hostname, threads=sender.controller.concurrency)


@signals.task_prerun.connect
def _message_arrived(**_: Any) -> None:
    from ingestion import worker

    worker.message_arrived()


@signals.worker_shutting_down.connect
def _stop_soon(**_: Any) -> None:
    from ingestion import worker

    worker.stop_soon()


@signals.worker_shutdown.connect
def _end(**_: Any) -> None:
    from ingestion import worker

    worker.end()
