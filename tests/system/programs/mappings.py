"""mmap: anonymous, of files, private and shared, with fork, resizing and faults."""
import mmap
import os
import sys
from multiprocessing import shared_memory

PAGE = mmap.PAGESIZE
print("page", PAGE)

with mmap.mmap(-1, 64 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
    memory[:5] = b"hello"
    memory[63 * PAGE:63 * PAGE + 3] = b"end"
    print("anonymous", memory[:6], memory.rfind(b"end"), len(memory))
    memory.resize(4096 * PAGE)
    print("resized", memory[:6], memory.rfind(b"end"), memory[4095 * PAGE])
    memory.resize(2 * PAGE)
    print("smaller", memory[:6], len(memory))
    memory.madvise(mmap.MADV_DONTNEED)
    print("advised", memory[:6])

# A file, shared: what is written there is in the file.
with open("shared", "wb") as file:
    file.write(b"." * (10 * PAGE + 100))
file = os.open("shared", os.O_RDWR)
memory = mmap.mmap(file, 0)
memory[PAGE:PAGE + 7] = b"written"
memory.flush()
print("file", os.pread(file, 9, PAGE - 1), len(memory), memory[-1:])
os.pwrite(file, b"by pwrite", 2 * PAGE)
print("seen", memory[2 * PAGE:2 * PAGE + 9])
print("a child writes it", end=" ")
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    memory[:5] = b"child"
    os._exit(0)
os.waitpid(pid, 0)
print(memory[:6], os.pread(file, 6, 0))
memory.move(3 * PAGE, 0, 5)
print("moved", memory[3 * PAGE:3 * PAGE + 6])
memory.close()

# A private copy leaves the file alone.
memory = mmap.mmap(file, 4 * PAGE, access=mmap.ACCESS_COPY)
memory[:7] = b"private"
print("private", memory[:7], os.pread(file, 7, 0))
pid = os.fork()
if pid == 0:
    memory[:7] = b"changed"
    os._exit(0)
os.waitpid(pid, 0)
print("still", memory[:7])
memory.close()

# Read only, with an offset.
memory = mmap.mmap(file, 2 * PAGE, access=mmap.ACCESS_READ, offset=PAGE)
print("offset", memory[:7])
try:
    memory[0] = 1
except TypeError as error:
    print(error)
memory.close()

# Reading and writing through a mapping by system calls.
anonymous = mmap.mmap(-1, 8 * PAGE)
print("readinto", os.preadv(file, [memoryview(anonymous)[PAGE - 3:3 * PAGE]], PAGE), anonymous[PAGE - 3:PAGE + 4])
os.pwritev(file, [memoryview(anonymous)[PAGE - 3:PAGE + 4]], 0)
print("written", os.pread(file, 8, 0))

# Shared anonymous memory between parent and child.
counter = mmap.mmap(-1, PAGE)
pids = []
for n in range(4):
    pid = os.fork()
    if pid == 0:
        for i in range(100):
            counter[n] = i + 1
        os._exit(0)
    pids.append(pid)
for pid in pids:
    os.waitpid(pid, 0)
print("shared", list(counter[:5]))

# A file that grows after it was mapped, and one that shrinks.
memory = mmap.mmap(file, 10 * PAGE)
os.ftruncate(file, 20 * PAGE)
memory.resize(20 * PAGE)
memory[19 * PAGE] = 65
print("grown", os.pread(file, 1, 19 * PAGE), os.fstat(file).st_size // PAGE)
memory.close()

# /dev/shm, between processes.
segment = shared_memory.SharedMemory(create=True, size=100_000)
segment.buf[:4] = b"here"
pid = os.fork()
if pid == 0:
    other = shared_memory.SharedMemory(segment.name)
    other.buf[4:8] = bytes(other.buf[:4])
    os._exit(0)
os.waitpid(pid, 0)
print("shm", bytes(segment.buf[:9]))
segment.close()
segment.unlink()

for arguments in [dict(fileno=-1, length=0), dict(fileno=file, length=4096 * PAGE, offset=100),
                  dict(fileno=999, length=PAGE), dict(fileno=-1, length=1 << 55)]:
    try:
        mmap.mmap(**arguments)
        print("no error")
    except (OSError, ValueError, OverflowError) as error:
        print(type(error).__name__, error)
