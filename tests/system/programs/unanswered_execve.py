"""A thread is in execve of a file that Linux asks us about (fanotify), and we don't answer.

unanswered_execve.py ENDING COMMAND...: runs COMMAND, which is to run this script's PROGRAM in Python, and prints how
that ended. ENDING: exit or fault, what its main thread does when the other one is in execve; threads, that it makes
some before it exits; memory, that it has a limit on its address space and writes to more than a GiB before, and we
answer, no, when it gets none. Status 77, and why: fanotify is not permitted here.
"""
import ctypes
import os
import select
import struct
import subprocess
import sys

FAN_CLASS_CONTENT, FAN_CLOEXEC, FAN_MARK_ADD, FAN_OPEN_EXEC_PERM, FAN_DENY, AT_FDCWD = 4, 1, 1, 0x40000, 2, -100
FILE = b"./executed"

PROGRAM = """
import ctypes, mmap, os, resource, sys, threading
if sys.argv[1] == "memory": resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
libc = ctypes.CDLL(None)
arguments = (ctypes.c_char_p * 2)(b"executed", None)
threading.Thread(target=lambda: libc.execv(b"./executed", arguments), daemon=True).start()
sys.stdin.readline()
if sys.argv[1] == "fault": ctypes.string_at(0)
if sys.argv[1] == "threads":
    together = threading.Barrier(9)
    for n in range(8): threading.Thread(target=together.wait).start()
    together.wait()
if sys.argv[1] == "memory":
    memory = mmap.mmap(-1, 5 << 28, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for at in range(0, 5 << 28, 1 << 21):
        ctypes.memset(address + at, 1, 1 << 21)
        os.write(1, b"+")
os._exit(3)
"""

libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result < 0:
        print("fanotify:", os.strerror(ctypes.get_errno()), file=sys.stderr)
        sys.exit(77)
    return result


with open(FILE, "w") as file:
    file.write("#!/bin/sh\nexit 9\n")
os.chmod(FILE, 0o755)
events = check(libc.fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, os.O_RDONLY | os.O_CLOEXEC))
check(libc.fanotify_mark(events, FAN_MARK_ADD, ctypes.c_uint64(FAN_OPEN_EXEC_PERM), AT_FDCWD, FILE))
program = subprocess.Popen([*sys.argv[2:], sys.executable, "-c", PROGRAM, sys.argv[1]], stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE)
# Nobody answers before this script ends. Then Linux lets the execve pass.
if not select.select([events], [], [], 60)[0]:
    sys.exit("no thread came to execute the file")
file = struct.unpack_from("=IBBHQii", os.read(events, 4096))[5]
program.stdin.write(b"\n")
program.stdin.flush()
if sys.argv[1] == "memory":
    output = program.stdout.fileno()
    # As soon as nothing comes any more: the program waits for memory, or has ended.
    while select.select([output], [], [], 0.3)[0] and os.read(output, 4096):
        pass
    try:
        os.write(events, struct.pack("=iI", file, FAN_DENY))
    except FileNotFoundError:  # the program has ended
        pass
    while os.read(output, 4096):
        pass
try:
    status = program.wait(60)
except subprocess.TimeoutExpired:
    os.close(events)
    program.kill()
    sys.exit("the program did not end")
print("exit" if status >= 0 else "signal", abs(status))
