"""What the kernel refuses the parser, whatever the parser is made to call: a seccomp filter.

This is the one protection that needs nothing from the host but a kernel, so it is in every child
and is what keeps it off the network where namespaces are refused. Calls that a parser has no use
for fail with EPERM. Calls newer than this list, and those whose arguments a filter cannot see
(clone3, io_uring), fail with ENOSYS, which makes the C library fall back on older ones. A call by
another architecture's numbers kills the process. Filters hold for what the process starts, too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from typing import Final

from ingestion.sandbox_linux import libc

# Name: number on x86_64, number on aarch64 (None: does not exist there). From the kernel's
# arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_FORBIDDEN: Final[dict[str, tuple[int | None, int | None]]] = {
    # the network, and sockets of services on this machine
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "tkill": (200, 130),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # leaving the process group that is killed when time is over
    "setsid": (112, 157),
    "setpgid": (109, 154),
    # file systems and roots
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    # namespaces, identities, rights
    "unshare": (272, 97),
    "setns": (308, 268),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "setgroups": (116, 159),
    "capset": (126, 91),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    # parts of the kernel with a history
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "vmsplice": (278, 75),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    # the machine
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "iopl": (172, None),
    "ioperm": (173, None),
    "vhangup": (153, 58),
    # memory that no limit counts or that outlives the process
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
}
_STARTING: Final[dict[str, tuple[int | None, int | None]]] = {
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
}
_ABSENT: Final[dict[str, tuple[int, int]]] = {
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
_CLONE: Final = (56, 220)
_SOCKETPAIR: Final = (53, 199)
_IOCTL: Final = (16, 29)
_PRCTL: Final = (157, 167)
_PERSONALITY: Final = (135, 92)
_PRLIMIT: Final = (302, 261)
_KILL: Final = (62, 129)
_TGKILL: Final = (234, 131)
_NEWEST: Final = 456  # futex_requeue; what came later is not there

_ARCHITECTURES: Final = {"x86_64": (0, 0xC000_003E), "aarch64": (1, 0xC000_00B7)}
_X32: Final = 0x4000_0000
_NAMESPACES: Final = 0x7E02_0000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_THREAD: Final = 0x0001_0000
_AF_UNIX: Final = 1
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
_PERSONALITY_QUERY: Final = 0xFFFF_FFFF
# Death with the zygote, and being closed to one's equals, are not to be undone.
_PRCTL_REFUSED: Final = (1, 4, 35, 0x5961_6D61)

# Classic BPF: load a word, jump, mask, return.
_LOAD: Final = 0x20
_EQUAL: Final = 0x15
_AT_LEAST: Final = 0x35
_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
_NUMBER: Final = 0  # offsets into struct seccomp_data
_ARCHITECTURE: Final = 4
_KILL_PROCESS: Final = 0x8000_0000
_ALLOW: Final = 0x7FFF_0000
_ERRNO: Final = 0x0005_0000
_PERMISSION: Final = _ERRNO | errno.EPERM
_NO_SUCH_CALL: Final = _ERRNO | errno.ENOSYS
_SET_FILTER: Final = 2  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
_PR_SET_SECCOMP: Final = 22

_INSTRUCTION_BYTES: Final = 8
_Instruction = tuple[int, int, int, int]


def assemble(*, may_start_programs: bool, signals_to: int | None) -> bytes:
    """The filter as the kernel reads it: an array of struct sock_filter.

    ``may_start_programs`` is for formats that other programs read (pandoc, tesseract).
    ``signals_to`` is the only process that may be signalled; None, where Landlock keeps signals
    among a process and what it has started. Raises OSError on other machines than x86_64 and
    aarch64.
    """
    program = _program(may_start_programs=may_start_programs, signals_to=signals_to)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def install(code: bytes) -> None:
    """Put this process and all it starts under an assembled filter, for ever.

    Needs PR_SET_NO_NEW_PRIVS. Raises OSError when the kernel has no filters.
    """
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a count and a pointer, aligned as C does
    filter_ = struct.pack("@HP", len(code) // _INSTRUCTION_BYTES, ctypes.addressof(buffer))
    if libc.prctl(_PR_SET_SECCOMP, _SET_FILTER, filter_, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no system call filter: {os.strerror(number)}")


def _program(*, may_start_programs: bool, signals_to: int | None) -> list[_Instruction]:
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no system call filter for {machine}")
    column, architecture = _ARCHITECTURES[machine]
    program: list[_Instruction] = [
        _load(_ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        _return(_KILL_PROCESS),
        _load(_NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        _return(_KILL_PROCESS),
        (_AT_LEAST, 0, 1, _NEWEST + 1),
        _return(_NO_SUCH_CALL),
    ]
    refused = _FORBIDDEN if may_start_programs else _FORBIDDEN | _STARTING
    for numbers in refused.values():
        program += _refuse(numbers[column], _PERMISSION)
    for known in _ABSENT.values():
        program += _refuse(known[column], _NO_SUCH_CALL)
    program += _only(_SOCKETPAIR[column], 0, [_AF_UNIX])
    program += _only(_PERSONALITY[column], 0, [_PERSONALITY_QUERY])
    program += _only(_PRLIMIT[column], 0, [0])
    program += _never(_IOCTL[column], 1, [_TIOCSTI, _TIOCLINUX])
    program += _never(_PRCTL[column], 0, _PRCTL_REFUSED)
    program += _clone(_CLONE[column], may_start_programs=may_start_programs)
    if signals_to is not None:
        program += _only(_KILL[column], 0, [signals_to])
        program += _only(_TGKILL[column], 0, [signals_to])
    return [*program, _return(_ALLOW)]


def _load(offset: int) -> _Instruction:
    return _LOAD, 0, 0, offset


def _return(action: int) -> _Instruction:
    return _RETURN, 0, 0, action


def _refuse(number: int | None, action: int) -> list[_Instruction]:
    return [] if number is None else [(_EQUAL, 0, 1, number), _return(action)]


def _argument(index: int) -> _Instruction:
    """The low half of an argument; both machines are little-endian and the kernel reads int."""
    return _load(16 + 8 * index)


def _only(number: int, index: int, values: Sequence[int]) -> list[_Instruction]:
    """Of the call ``number``, only those whose argument is one of ``values``."""
    tests: list[_Instruction] = []
    for position, value in enumerate(values):
        # To the ALLOW behind the remaining tests and the refusal.
        tests.append((_EQUAL, len(values) - position, 0, value))
    return _block(number, [_argument(index), *tests, _return(_PERMISSION), _return(_ALLOW)])


def _never(number: int, index: int, values: Sequence[int]) -> list[_Instruction]:
    """Of the call ``number``, all but those whose argument is one of ``values``."""
    tests: list[_Instruction] = []
    for position, value in enumerate(values):
        tests.append((_EQUAL, len(values) - position, 0, value))
    return _block(number, [_argument(index), *tests, _return(_ALLOW), _return(_PERMISSION)])


def _clone(number: int, *, may_start_programs: bool) -> list[_Instruction]:
    """No new namespaces; without leave to start programs, threads only."""
    body = [_argument(0), (_ANY_BIT, 0, 1, _NAMESPACES), _return(_PERMISSION)]
    if not may_start_programs:
        body += [(_ANY_BIT, 1, 0, _THREAD), _return(_PERMISSION)]
    return _block(number, [*body, _return(_ALLOW)])


def _block(number: int, body: list[_Instruction]) -> list[_Instruction]:
    return [(_EQUAL, 0, len(body), number), *body]
