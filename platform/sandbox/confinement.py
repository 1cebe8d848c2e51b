"""Take away from this process what it does not need: decoding a file, or downloading one.

Limits of resources always hold. The rest is as strong as the kernel allows: no network (an own
network namespace), no file but some (Landlock), no new process, socket or trace (seccomp). What a
kernel or container forbids is left out; the format whitelists and the limits still stand.

References:
    Linux documentation, userspace-api/landlock and userspace-api/seccomp_filter.
"""

import ctypes
import os
import platform
import resource
import stat
import struct
from collections.abc import Sequence
from pathlib import Path

_CLONE_NEWNET, _CLONE_NEWUSER, _CLONE_THREAD = 0x40000000, 0x10000000, 0x10000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_RET_ALLOW, _RET_ERRNO, _RET_KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38

# Landlock has the same numbers on every architecture.
_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION = 1
_EXECUTE, _READ = 1 << 0, 1 << 2 | 1 << 3
_WRITE = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 14
"""Write and cut files, make and remove files and folders; no links, sockets or devices."""
_OF_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14
"""What there is to allow for a path that is no folder."""
_FS_BITS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15}
_FS_BITS = 16
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1

# First what nobody needs: listen, ptrace, process_vm_readv, process_vm_writev, mount, unshare,
# setns, bpf, perf_event_open, io_uring_setup, keyctl, userfaultfd. Then what only a downloader
# needs: execve, execveat, socket, connect, bind; fork, vfork.
_MACHINES = {
    "x86_64": (
        0xC000003E, 56, (50, 101, 310, 311, 165, 272, 308, 321, 298, 425, 250, 323),
        (59, 322, 41, 42, 49, 57, 58),
    ),
    "aarch64": (
        0xC00000B7, 220, (201, 117, 270, 271, 40, 97, 268, 280, 241, 425, 219, 282),
        (221, 281, 198, 203, 200),
    ),
}  # fmt: skip
_CLONE3 = 435


def limit_resources(
    *, memory_bytes: int, cpu_s: float, max_open_files: int = 64, written_bytes: int = 0
) -> None:
    """Limit memory (address space), processor time, open files, a file's size and core dumps."""
    seconds = max(1, round(cpu_s))
    for kind, soft, hard in (
        (resource.RLIMIT_AS, memory_bytes, memory_bytes),
        (resource.RLIMIT_CPU, seconds, seconds + 1),  # a signal of its own, then a kill
        (resource.RLIMIT_FSIZE, written_bytes, written_bytes),
        (resource.RLIMIT_NOFILE, max_open_files, max_open_files),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(kind, (soft, hard))


def leave_network() -> bool:
    """Move this process to a network namespace of its own, which has no network.

    Returns:
        Whether the kernel allowed it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return True
    return libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0


def die_with_parent(signal_number: int) -> None:
    """Ask the kernel to send this process a signal when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def allow_only(
    *,
    reading: Sequence[Path],
    writing: Sequence[Path] = (),
    running: Sequence[Path] = (),
    is_online: bool = False,
) -> bool:
    """Forbid every file access but to some files, or all files below some folders.

    Args:
        reading: What may be read.
        writing: What may be read and written.
        running: What may be read and run as a program.
        is_online: Whether TCP connections may be opened; none may be waited for in any case.

    Returns:
        Whether the kernel has Landlock.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return False
    handled_fs = (1 << _FS_BITS_OF_ABI.get(version, _FS_BITS)) - 1
    attributes = struct.pack("=Q", handled_fs)
    if version >= 4:
        attributes += struct.pack("=Q", _BIND_TCP | (0 if is_online else _CONNECT_TCP))
    ruleset = libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        for paths, access in (
            (reading, _READ), (writing, _READ | _WRITE), (running, _READ | _EXECUTE)
        ):  # fmt: skip
            for path in paths:
                _add_rule(libc, ruleset, path, access & handled_fs)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _add_rule(libc: ctypes.CDLL, ruleset: int, path: Path, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a file that is not there stays unreadable
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _OF_FILES
        rule = struct.pack("=Qi", access, descriptor)
        libc.syscall(_LANDLOCK_ADD_RULE, ruleset, 1, rule, 0)
    finally:
        os.close(descriptor)


def forbid_system_calls(*, is_online: bool = False) -> bool:
    """Forbid new processes, programs, sockets and traces of others; threads stay allowed.

    Args:
        is_online: Whether sockets, processes and programs stay allowed, too.

    Returns:
        Whether this machine and kernel have such a filter.
    """
    known = _MACHINES.get(platform.machine())
    if known is None:
        return False
    architecture, clone, denied, denied_offline = known
    program = (
        _filter_program(architecture, None, denied)
        if is_online
        else _filter_program(architecture, clone, denied + denied_offline)
    )
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    data = ctypes.create_string_buffer(program, len(program))
    header = _FilterHeader(len(program) // 8, ctypes.cast(data, ctypes.c_void_p))
    return libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(header), 0, 0) == 0


class _FilterHeader(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _filter_program(architecture: int, clone: int | None, denied: Sequence[int]) -> bytes:
    """Return classic BPF: offsets 4, 0 and 16 hold architecture, call number and its first word.

    Args:
        clone: The call that may make threads and no processes; None allows it all.
        denied: Numbers of the other calls that fail.
    """
    load, equal, at_least, has_bits, give = 0x20, 0x15, 0x35, 0x45, 0x06
    rules = [
        (load, 0, 0, 4),
        (equal, 1, 0, architecture),
        (give, 0, 0, _RET_KILL),
        (load, 0, 0, 0),
        (at_least, 0, 1, 0x40000000),  # the x32 numbers of x86_64
        (give, 0, 0, _RET_ERRNO | _EPERM),
        (equal, 0, 1, _CLONE3),  # its flags cannot be seen; glibc falls back to clone
        (give, 0, 0, _RET_ERRNO | _ENOSYS),
    ]
    for number in denied:
        rules += [(equal, 0, 1, number), (give, 0, 0, _RET_ERRNO | _EPERM)]
    if clone is not None:
        rules += [
            (equal, 0, 3, clone),
            (load, 0, 0, 16),
            (has_bits, 1, 0, _CLONE_THREAD),
            (give, 0, 0, _RET_ERRNO | _EPERM),
        ]
    rules.append((give, 0, 0, _RET_ALLOW))
    return b"".join(struct.pack("=HBBI", *rule) for rule in rules)
