"""fork(): the child's memory is its own, its end is reported, it may fork and exec."""
import gc
import os
import resource
import signal
import sys
import time


def child(action):
    """Runs the action in a child; its answer comes through a pipe."""
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        os.write(write_end, repr(action()).encode())
        os._exit(0)
    os.close(write_end)
    answer = b""
    while part := os.read(read_end, 1 << 16):
        answer += part
    os.close(read_end)
    status = os.waitpid(pid, 0)[1]
    return answer.decode(), os.waitstatus_to_exitcode(status)


numbers = list(range(200_000))


def change():
    for i in range(len(numbers)):
        numbers[i] = -numbers[i]
    return sum(numbers)


print("child", child(change), "parent", sum(numbers))
print("parent again", sum(numbers), child(lambda: sum(numbers)))

# The parent writes while the child reads what was.
data = bytearray(b"old!" * 500_000)
go_read, go_write = os.pipe()


def late():
    os.read(go_read, 1)
    return data.count(b"old!"), data.count(b"new!")


read_end, write_end = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(write_end, repr(late()).encode())
    os._exit(0)
data[:] = b"new!" * 500_000
os.write(go_write, b"g")
os.waitpid(pid, 0)
print("snapshot", os.read(read_end, 100), data.count(b"new!"))

print("grandchild", child(lambda: (child(lambda: (child(lambda: os.getppid() != 1), 3)), 2)))
print("pids", child(lambda: os.getppid() == parent_pid and os.getpid() != parent_pid) if (parent_pid := os.getpid()) else 0)
print("crash", child(lambda: os.kill(os.getpid(), signal.SIGSEGV)))
print("collects", child(gc.collect)[1])


def exits(n):
    pid = os.fork()
    if pid == 0:
        os._exit(n)
    return pid


pids = [exits(n) for n in range(12)]
print("statuses", [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
for n in range(8):
    exits(n)
print("any", sorted(os.waitstatus_to_exitcode(os.wait()[1]) for n in range(8)))
pid = exits(3)
info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
print("waitid", info.si_pid == pid, info.si_status, info.si_code == os.CLD_EXITED)
print("wait4", os.waitstatus_to_exitcode(os.wait4(pid, 0)[1]))

# A hundred one after the other.
print("hundred", sum(os.waitstatus_to_exitcode(os.waitpid(exits(n % 7), 0)[1]) for n in range(100)))

pid = os.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", "echo from exec; exit 8"])
print("exec", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

# SIGCHLD.
caught = []
signal.signal(signal.SIGCHLD, lambda number, frame: caught.append(number))
pid = exits(0)
while not caught:
    time.sleep(0.01)
os.waitpid(pid, 0)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
print("SIGCHLD", caught[0] == signal.SIGCHLD)

# Killed by the parent, in a blocked call and in a loop.
for busy in (False, True):
    pid = os.fork()
    if pid == 0:
        while True:
            if not busy:
                time.sleep(100)
    time.sleep(0.1)
    print("poll", os.waitpid(pid, os.WNOHANG))
    os.kill(pid, signal.SIGTERM)
    print("killed", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

# Directory and descriptors are the child's own; the file's position is shared.
file = os.open("file", os.O_RDWR | os.O_CREAT)
pid = os.fork()
if pid == 0:
    os.chdir("/")
    os.write(file, b"child ")
    os.close(file)
    os._exit(0)
os.waitpid(pid, 0)
os.write(file, b"parent")
print(os.path.exists("file"), open("file").read())

# Many children at a time, all of which write to memory.
pids = []
for n in range(10):
    pid = os.fork()
    if pid == 0:
        mine = [n] * 50_000
        data[:1000] = bytes([n]) * 1000
        os._exit(0 if sum(mine) == n * 50_000 and data[999] == n else 1)
    pids.append(pid)
print("writers", [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids], data[:4])

usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print("children used time", usage.ru_utime + usage.ru_stime > 0)
