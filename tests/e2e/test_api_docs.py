"""Every command of docs/api.md, run in one shell against the running system."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "api.md"

pytestmark = pytest.mark.e2e


def commands() -> str:
    """The ``bash`` blocks of the page, top to bottom."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) > 10
    return "\n".join(blocks)


def run(script: str, *, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "NO_PROXY": "*", **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_every_command_works(live_site: Any, tmp_path: Path) -> None:
    environment = {**os.environ, "DATA_DIR": str(live_site.data_dir)}
    for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "EMBEDDING_BASE_URL"):
        environment.pop(name, None)  # of the unit tests; the site wrote down its own
    made = subprocess.run(
        [sys.executable, "manage.py", "createtoken", live_site.admin_email, "--name", "docs"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    token = made.stdout.splitlines()[-1]
    assert token.startswith("ka_")
    base = live_site.base_url.rstrip("/")
    done = run(commands(), folder=tmp_path, BASE=base, TOKEN=token)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "event: done" in done.stdout
    assert '"verified"' in done.stdout
    assert "30 days" in done.stdout
    # Everything was tidied up: a second run starts from the same state.
    address = f"{base}/api/v1/documents/?q=people/leave"
    call = f'curl --silent --header "Authorization: Bearer $TOKEN" "{address}"'
    assert run(call, folder=tmp_path, TOKEN=token).stdout == '{"next":null,"results":[]}'
