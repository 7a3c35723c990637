"""``manage.py doctor`` against services that work, fail, or are set up wrongly."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.core.management import call_command
from django.utils import timezone
from pytest_django.fixtures import Settings

from assistant import engines
from assistant.embedded.ports import free_port
from assistant.management.diagnosis import Finding, diagnose

pytestmark = pytest.mark.django_db


@pytest.fixture
def broker(settings: Settings) -> Iterator[Any]:
    """The session's Valkey, set up as a site's is."""
    client = redis.Redis.from_url(settings.REDIS_URL, decode_responses=True)
    before = client.config_get("appendonly")
    client.config_set("appendonly", "yes")
    yield client
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("appendonly", before["appendonly"] or "no")
    client.close()


def _findings() -> dict[str, Finding]:
    return {finding.name: finding for finding in diagnose()}


def test_what_works_is_reported_as_working(broker: Any, fake_embedder: Any) -> None:
    findings = _findings()
    working = {"database", "pgvector", "migrations", "broker", "embeddings", "storage"}
    assert {name: findings[name].state for name in working} == dict.fromkeys(working, "ok")
    assert findings["database"].detail.startswith("PostgreSQL 18")
    assert findings["ingestion"].detail == "0 uploads in work"


def test_missing_workers_are_a_problem_and_the_exit_status_says_so(
    broker: Any, fake_embedder: Any
) -> None:
    out = io.StringIO()
    with pytest.raises(SystemExit) as exit_info:
        call_command("doctor", json=True, stdout=out)
    assert exit_info.value.code == 1
    report = json.loads(out.getvalue())
    assert report["ok"] is False
    (workers,) = [check for check in report["checks"] if check["name"] == "workers"]
    assert workers["state"] == "problem"
    assert workers["detail"] == "nobody works on default, embed, parse"


def test_the_table_tells_what_to_do(broker: Any, fake_embedder: Any) -> None:
    out = io.StringIO()
    with pytest.raises(SystemExit):
        call_command("doctor", stdout=out, no_color=True)
    text = out.getvalue()
    assert "WRONG  workers" in text
    assert "Start the workers" in text
    assert " wrong." in text


def test_a_broker_that_forgets_is_noticed(broker: Any, fake_embedder: Any) -> None:
    broker.config_set("maxmemory-policy", "allkeys-lru")
    assert _findings()["broker"].state == "problem"
    broker.config_set("maxmemory-policy", "noeviction")
    broker.config_set("appendonly", "no")
    assert _findings()["broker"].state == "warning"


def test_a_broker_that_is_gone_is_noticed(settings: Settings, fake_embedder: Any) -> None:
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"
    finding = _findings()["broker"]
    assert finding.state == "problem"
    assert "REDIS_URL" in finding.advice


def test_model_servers_that_are_gone_are_noticed(settings: Settings, broker: Any) -> None:
    settings.EMBEDDING_BASE_URL = f"http://127.0.0.1:{free_port()}/v1"
    settings.LLM_BASE_URL = f"http://127.0.0.1:{free_port()}/v1"
    settings.LLM_MODEL = "absent"
    engines.reset()
    findings = _findings()
    assert findings["embeddings"].state == "problem"
    assert "EMBEDDING_BASE_URL" in findings["embeddings"].advice
    assert findings["language model"].state == "problem"
    assert "LLM_BASE_URL" in findings["language model"].advice


def test_a_site_without_a_language_model_is_told_but_not_wrong(
    broker: Any, fake_embedder: Any
) -> None:
    assert _findings()["language model"].state == "warning"


def test_messages_that_nobody_relays_are_noticed(broker: Any, fake_embedder: Any) -> None:
    from ingestion.models import OutboxEntry

    job = _job()
    entry = OutboxEntry.objects.create(job=job, task="ingestion.tasks.parse_version")
    assert _findings()["ingestion"].state == "ok"
    OutboxEntry.objects.filter(pk=entry.pk).update(not_before=timezone.now() - timedelta(minutes=5))
    finding = _findings()["ingestion"]
    assert (finding.state, finding.detail[:22]) == ("problem", "1 messages not relayed")


def test_a_lapsed_lease_that_nobody_takes_is_noticed(broker: Any, fake_embedder: Any) -> None:
    job = _job()
    job.lease_owner = "gone"
    job.lease_until = timezone.now() - timedelta(minutes=10)
    job.save()
    assert _findings()["ingestion"].state == "problem"


def _job() -> Any:
    from assistant.documents.models import Collection, Document, DocumentVersion
    from ingestion.models import IngestionJob

    collection = Collection.objects.create(name="Handbook")
    document = Document.objects.create(collection=collection, title="A", external_id="a")
    version = DocumentVersion.objects.create(
        document=document, number=1, sha256="0" * 64, size=1, media_type="text/plain"
    )
    return IngestionJob.objects.create(version=version)


def test_storage_that_cannot_be_written_is_noticed(
    settings: Settings, tmp_path: Any, broker: Any, fake_embedder: Any
) -> None:
    settings.MEDIA_ROOT = tmp_path / "absent"
    finding = _findings()["storage"]
    assert finding.state == "problem"
    assert "write access" in finding.advice
