"""C-25: workers that live and consume nothing: stopped, or cut off from the broker in silence."""

from __future__ import annotations

import signal
import socket
import threading
import time
from pathlib import Path

from tests.chaos.harness import Fault, Run, main
from tests.chaos.site import wait_until

LIMIT_SECONDS = 120.0


class Proxy:
    """Between the site and its broker; ``cut`` leaves connections open and forwards no more."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._data_dir: Path | None = None
        self._generation = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def lead_to(self, data_dir: Path) -> None:
        """To the embedded broker of a site, whose port is chosen when it starts."""
        self._data_dir = data_dir

    def cut(self) -> None:
        """What is connected now will never hear of the broker again; new connections do."""
        self._generation += 1

    def _target(self) -> int:
        assert self._data_dir is not None
        lines = (self._data_dir / "run" / "valkey.conf").read_text().splitlines()
        return int(dict(line.split(" ", 1) for line in lines)["port"])

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self._target()), timeout=5)
            except (OSError, LookupError):
                client.close()
                continue
            server.settimeout(None)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        generation = self._generation
        try:
            while data := source.recv(65536):
                if generation == self._generation:
                    target.sendall(data)
            if generation == self._generation:
                target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def stop(run: Run, name: str) -> None:
    """SIGSTOP: the process is there, its sockets are open, and nothing moves."""
    worker = run.site.worker(name)
    assert worker is not None
    worker.send_signal(signal.SIGSTOP)
    run.feed(run.share)
    run.figures[f"{name} stopped: replaced after"] = wait_until(
        lambda: run.site.worker(name) not in (None, worker), seconds=LIMIT_SECONDS + 60
    )
    took = run.figures[f"{name} stopped: replaced after"]
    run.check(took <= LIMIT_SECONDS, f"C-25 {name}: {took:.0f} s until it was replaced")


def cut(run: Run, proxy: Proxy) -> None:
    """Every connection to the broker falls silent at once, as behind a firewall that forgot."""
    proxy.cut()
    run.feed(run.share)
    began = time.monotonic()
    wait_until(lambda: run.site.open_jobs() == 0, seconds=LIMIT_SECONDS + 60)
    took = run.figures["broker connections cut: work done after"] = time.monotonic() - began
    run.check(took <= LIMIT_SECONDS, f"C-25 cut: {took:.0f} s until work went on")


def faults(proxy: Proxy) -> Fault:
    def fault(run: Run) -> None:
        run.feed(run.share)
        run.wait_for_work()
        cut(run, proxy)
        for name in ("parse", "embed"):
            run.feed(run.share)
            run.wait_for_work()
            stop(run, name)

    return fault


if __name__ == "__main__":
    between = Proxy()
    main(
        "C-25 alive but not consuming",
        faults(between),
        times=6,
        before=between.lead_to,
        CHAOS_BROKER_PORT=str(between.port),
    )
