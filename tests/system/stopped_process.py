"""Stops a program after its dynamic linker has relocated everything and before any of its code has run.

`python stopped_process.py OUTPUT PROGRAM [LIBRARY...]` starts PROGRAM with the libraries preloaded and immediate binding,
traces its system calls, and stops it as the dynamic linker makes its own relocated pages read-only, which is the last
thing it relocates: libraries' constructors and libc's early start come later.  Then it writes, as a pickle, the rows
of /proc/PID/maps that belong to files and to the vDSO (start, end, rights, path) with the bytes there, and kills the program.

Needs Linux on x86-64 and the right to trace an own child; exit status 3 where that is denied.
"""

import ctypes
import os
import pickle
import signal
import sys
from pathlib import Path

TRACEME, GETREGS, SYSCALL = 0, 12, 24
MPROTECT, EXIT_GROUP = 10, 231
PERSONALITY_ROOM = 27
RAX, RDI, ORIG_RAX = 10, 14, 15
ENOSYS = 38
DENIED = 3
VDSO = "[vdso]"
LINKER = "ld-linux-x86-64"


def main(output, program, *libraries):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    pid = os.fork()
    if pid == 0:
        if libc.ptrace(TRACEME, 0, None, None) != 0:
            os._exit(DENIED)
        environment = {"LD_BIND_NOW": "1", "LD_PRELOAD": " ".join(libraries)}
        os.execve(program, [program], environment)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    try:
        if not run_to_the_end_of_relocation(libc, pid):
            return 4
        rows = file_mappings(pid)
        Path(output).write_bytes(pickle.dumps(rows))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return 0


def run_to_the_end_of_relocation(libc, pid):
    """Run until the linker has protected its own pages; False if the program ended before."""
    registers = (ctypes.c_ulonglong * PERSONALITY_ROOM)()
    while True:
        if libc.ptrace(SYSCALL, pid, None, None) != 0:
            return False
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return False
        libc.ptrace(GETREGS, pid, None, ctypes.addressof(registers))
        done = registers[RAX] != 2**64 - ENOSYS
        if registers[ORIG_RAX] == EXIT_GROUP:
            return False
        if done and registers[ORIG_RAX] == MPROTECT and LINKER in owner(pid, registers[RDI]):
            return True


def mappings(pid):
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        start, end = (int(number, 16) for number in fields[0].split("-"))
        yield start, end, fields[1], fields[5] if len(fields) > 5 else ""


def owner(pid, address):
    return next((path for start, end, _, path in mappings(pid) if start <= address < end), "")


def file_mappings(pid):
    """The rows of files, each with the anonymous row right behind it, where the rest of its zeros lies."""
    rows, before = [], (0, "")
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        for start, end, rights, named in mappings(pid):
            path = before[1] if not named and before[0] == start else named
            if (path.startswith("/") or path == VDSO) and rights[0] == "r":
                memory.seek(start)
                rows.append((start, end, rights, path, memory.read(end - start)))
            before = (end, path)
    return rows


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
