"""Threads: locks, conditions, queues, thread-local data, many that start and end."""
import concurrent.futures
import hashlib
import queue
import sys
import threading
import time

sys.setswitchinterval(1e-4)

total = 0
lock = threading.Lock()


def add(times):
    global total
    for _ in range(times):
        with lock:
            total += 1


threads = [threading.Thread(target=add, args=(2000,)) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("added", total)

numbers = queue.Queue(maxsize=16)
squares = queue.Queue()


def square():
    while (number := numbers.get()) is not None:
        squares.put(number * number)


threads = [threading.Thread(target=square) for _ in range(4)]
for thread in threads:
    thread.start()
for number in range(2000):
    numbers.put(number)
for _ in threads:
    numbers.put(None)
for thread in threads:
    thread.join()
print("squares", sum(squares.get() for _ in range(squares.qsize())))

# Outside the interpreter's lock.
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    digests = pool.map(lambda n: hashlib.sha256(bytes([n]) * 300_000).hexdigest()[:8], range(16))
    print("digests", *digests)

for _ in range(60):
    threads = [threading.Thread(target=time.sleep, args=(0,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("threads left", threading.active_count())

local = threading.local()
barrier = threading.Barrier(5)
seen = []


def with_local(value):
    local.value = value
    barrier.wait()
    seen.append(local.value)


threads = [threading.Thread(target=with_local, args=(n,)) for n in range(5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("locals", sorted(seen))

condition = threading.Condition()
turn = 0
order = []


def take_turns(me):
    global turn
    for _ in range(50):
        with condition:
            condition.wait_for(lambda: turn % 3 == me)
            order.append(me)
            turn += 1
            condition.notify_all()


threads = [threading.Thread(target=take_turns, args=(n,)) for n in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("turns", order == [0, 1, 2] * 50)

begin = time.monotonic()
print("event", threading.Event().wait(0.2), 0.15 < time.monotonic() - begin)
print("lock with a timeout", lock.acquire() and lock.acquire(timeout=0.1))
lock.release()

# A thread that deep recursion gives much stack.
threading.stack_size(16 << 20)
sys.setrecursionlimit(20000)


def deep(n):
    return 0 if n == 0 else 1 + deep(n - 1)


result = []
thread = threading.Thread(target=lambda: result.append(deep(8000)))
thread.start()
thread.join()
print("deep", result)

# The process ends though a daemon thread is blocked.
threading.Thread(target=threading.Event().wait, daemon=True).start()
threading.Thread(target=sys.stdin.read, daemon=True).start()
print("end")
