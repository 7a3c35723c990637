"""Which files a process may touch, by the kernel's Landlock: a list of what may be read, one
folder that may be written, nothing else. Needs no privilege; from Linux 5.13, where it is enabled.

Where the kernel knows them, TCP, abstract sockets, signals to strangers and device controls are
refused as well. https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from typing import Final

from ingestion.sandbox_linux import libc, syscall

_CREATE: Final = 444  # the same numbers on every architecture
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1

_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_MAKE_CHAR: Final = 1 << 6
_MAKE_SOCK: Final = 1 << 9
_MAKE_BLOCK: Final = 1 << 11
_TRUNCATE: Final = 1 << 14
# The rights that each version of the interface added; what is not handled is not refused.
_FILE_RIGHTS: Final = ((1, (1 << 13) - 1), (2, 1 << 13), (3, _TRUNCATE), (5, 1 << 15))
_ON_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | 1 << 15
_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
_NOT_EVEN_PRIVATE: Final = _EXECUTE | _MAKE_CHAR | _MAKE_BLOCK | _MAKE_SOCK
_TCP: Final = 3  # bind, connect; version 4
_SCOPES: Final = 3  # abstract sockets, signals; version 6
SIGNALS_SCOPED: Final = 6
"""From this version on, a confined process can signal only itself and what it has started."""


def version() -> int:
    """Of the kernel's Landlock interface; 0 where there is none or it is switched off."""
    answer: int = libc.syscall(ctypes.c_long(_CREATE), None, ctypes.c_long(0), _ASK_VERSION)
    return max(0, answer)


def confine(*, readable: Iterable[str], writable: str) -> None:
    """Leave this process the files beneath ``readable``, to read and to run, and ``writable``.

    Paths that do not exist are passed over. Needs PR_SET_NO_NEW_PRIVS. Raises OSError.
    """
    interface = version()
    rights = sum(bits for since, bits in _FILE_RIGHTS if interface >= since)
    attributes = struct.pack(
        "=QQQ", rights, _TCP if interface >= 4 else 0, _SCOPES if interface >= 6 else 0
    )
    # Older kernels refuse a structure with more fields than they know, unless those are zero.
    ruleset = syscall(_CREATE, ctypes.c_char_p(attributes), len(attributes), 0)
    try:
        for path in readable:
            _allow(ruleset, path, _READ & rights)
        _allow(ruleset, os.devnull, (_READ_FILE | _WRITE_FILE | _TRUNCATE) & rights)
        _allow(ruleset, writable, rights & ~_NOT_EVEN_PRIVATE)
        syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(f"{path}/."):  # noqa: PTH112 - in every child, so it must be cheap
            rights &= _ON_FILES
        rule = struct.pack("=Qi", rights, descriptor)
        syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.c_char_p(rule), 0)
    finally:
        os.close(descriptor)
