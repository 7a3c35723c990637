"""C-20: a second beat and a storm of sweeps and relays beside the first; nothing happens twice."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from tests.chaos.harness import Run, main
from tests.up_process import ROOT

_STORM = """
import django, threading, time
django.setup()
from ingestion import outbox, recovery
def storm():
    end = time.monotonic() + {seconds}
    while time.monotonic() < end:
        outbox.relay(); recovery.sweep()
threads = [threading.Thread(target=storm) for _ in range(2)]
[t.start() for t in threads]; [t.join() for t in threads]
"""
_TWICE = """
    SELECT count(*) FROM (
        SELECT object_id FROM audit_auditevent WHERE action = 'document.upload'
        GROUP BY object_id, detail->>'version' HAVING count(*) > 1) AS twice
"""


def fault(run: Run) -> None:
    environment = {
        **os.environ,
        **dict.fromkeys(("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "EMBEDDING_BASE_URL"), ""),
        "DATA_DIR": str(run.site.data_dir),
        "DJANGO_SETTINGS_MODULE": "assistant.settings",
    }
    schedule = run.site.data_dir / "run" / "second-schedule"
    beat = [sys.executable, "-m", "celery", "-A", "assistant", "beat", "--pidfile", ""]
    storm = [sys.executable, "-c", _STORM.format(seconds=20)]
    second = subprocess.Popen([*beat, "--schedule", str(schedule)], cwd=ROOT, env=environment)
    storms = [subprocess.Popen(storm, cwd=ROOT, env=environment) for _ in range(run.times)]
    feeding: threading.Thread = run.feed_beside()
    feeding.join()
    ends = [process.wait(timeout=120) for process in storms]
    run.check(not any(ends), f"C-20 a sweep or relay failed: {ends}")
    second.terminate()
    second.wait(timeout=30)


if __name__ == "__main__":
    main("C-20 two beats, a storm of sweeps", fault, times=2)
