"""One vLLM server at a time, and handles on its three processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from assistant.embedded.console import say
from assistant.embedded.ports import free_port

KEY = "sk-vllm-suite"
READY_SECONDS = 900
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}


@dataclass
class VLLM:
    """A server that answers ``/health``."""

    name: str
    root: str
    process: psutil.Process
    log: Path
    ready_after: float = 0.0
    _seen: set[psutil.Process] = field(default_factory=set)

    @property
    def base_url(self) -> str:
        return f"{self.root}/v1"

    def family(self) -> list[psutil.Process]:
        """API server, engine and worker, those that live; also when the first of them does not."""
        for process in [self.process, *self._seen]:
            with suppress(psutil.NoSuchProcess):
                self._seen.update(process.children(recursive=True))
        return [process for process in (self.process, *self._seen) if _lives(process)]

    def send(self, number: int) -> None:
        for process in self.family():
            process.send_signal(number)

    def metric(self, name: str) -> float:
        """The sum over all label sets of one of vLLM's metrics."""
        page = httpx.get(f"{self.root}/metrics", timeout=30).text
        values = re.findall(rf"^vllm:{name}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE)
        return sum(map(float, values))

    def wait_idle(self, *, seconds: float) -> float:
        """Seconds until the engine runs nothing. Raises AssertionError."""
        began = time.monotonic()
        while self.metric("num_requests_running") + self.metric("num_requests_waiting"):
            assert time.monotonic() - began < seconds, "the engine still works"
            time.sleep(0.05)
        return time.monotonic() - began


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def serving(folder: str, name: str, *flags: str) -> Iterator[VLLM]:
    """A server of the model in VLLM_MODEL_DIR/``folder``, ended with all its processes."""
    python, models = os.environ.get("VLLM_PYTHON"), os.environ.get("VLLM_MODEL_DIR")
    if not (python and models):
        pytest.skip("set VLLM_PYTHON and VLLM_MODEL_DIR to test against a real vLLM")
    model = Path(models, folder)
    if not model.is_dir():
        pytest.skip(f"{model} is absent: see tests/vllm/__init__.py")
    root = f"http://127.0.0.1:{free_port()}"
    command = [
        str(Path(python).parent / "vllm"), "serve", str(model), "--served-model-name", name,
        "--dtype", "bfloat16", "--max-model-len", "8192", "--enforce-eager",
        "--host", "127.0.0.1", "--port", root.rpartition(":")[2], "--api-key", KEY, *flags,
    ]  # fmt: skip
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.NamedTemporaryFile("wb", prefix=f"vllm-{folder}-", suffix=".log") as log:
        child = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | _OFFLINE | {"PATH": path},
            start_new_session=True,
        )
        server = VLLM(name, root, psutil.Process(child.pid), Path(log.name))
        try:
            server.ready_after = _wait_ready(server, child)
            say(f"{folder} is ready after {server.ready_after:.0f} s")
            yield server
        finally:
            processes = server.family()
            for process in processes:
                process.send_signal(signal.SIGKILL)
            psutil.wait_procs(processes, timeout=30)
            child.wait(30)


def _wait_ready(server: VLLM, child: subprocess.Popen[bytes]) -> float:
    began = time.monotonic()
    while True:
        try:
            if httpx.get(f"{server.root}/health", timeout=5).status_code == 200:
                return time.monotonic() - began
        except httpx.HTTPError:
            pass
        server.family()  # remembers what it starts
        late = time.monotonic() - began > READY_SECONDS
        if late or child.poll() is not None:
            end = server.log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"vLLM did not start within {READY_SECONDS} s:\n{end}")
        time.sleep(1)
