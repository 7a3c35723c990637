"""Free TCP ports on this machine."""

from __future__ import annotations

import random
import socket

# Below those of outgoing connections, of which one may be taken the next moment.
_CANDIDATES = range(20_000, 32_000)
_given: set[int] = set()


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port(host: str = "127.0.0.1", *, preferred: int | None = None) -> int:
    """``preferred`` if a server could listen there, else one that was not given here before."""
    if preferred and is_free(host, preferred):
        return preferred
    for candidate in random.sample(_CANDIDATES, 200):
        if candidate not in _given and is_free(host, candidate):
            _given.add(candidate)
            return candidate
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


def next_free_port(host: str, port: int, *, tries: int = 100) -> int | None:
    """The first free port from ``port`` upward, None when all of ``tries`` are taken."""
    candidates = range(port, min(port + tries, 65536))
    return next((candidate for candidate in candidates if is_free(host, candidate)), None)
