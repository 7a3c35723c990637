"""Nothing is downloaded and nobody is told anything: the site works with the network cut."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.up_process import ROOT

pytestmark = pytest.mark.e2e
UNSHARE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-current-user"]


@pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode != 0,
    reason="network namespaces are not allowed here",
)
def test_upload_and_answer_without_a_network() -> None:
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-m", "tests.e2e.offline_visit"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["meter"] >= 1, "the meter does not count"
    assert seen["statuses"] == dict.fromkeys(seen["statuses"], "ready")
    assert len(seen["statuses"]) == 5
    assert "noon" in seen["answer"]
    assert seen["sent"] == 0
