# What fork() makes of its options, and what the counters say of it.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # scripts in quotes; names that support.sh and run share

# Forks of a process with 32 MiB, COUNT times, PAUSE seconds apart; each child must see what was.
readonly forking='
import os, sys, time
count, pause = int(sys.argv[1]), float(sys.argv[2])
data = bytearray(32 << 20)
for turn in range(count):
    for page in range(0, len(data), 4096):
        data[page] = turn
    time.sleep(pause)
    child = os.fork()
    if child == 0:
        time.sleep(pause / 4)
        os._exit(0 if all(data[page] == turn for page in range(0, len(data), 4096)) else 1)
    data[::4096] = bytes([turn + 100]) * (len(data) // 4096)
    assert os.waitpid(child, 0)[1] == 0, "the child of turn %d saw a change" % turn
'

test_snapshots_that_share_tables() {
  one 'exit 0' "${dbos[@]}" --snapshot=shared --stats=counters "$python" -c "$forking" 5 0
  expect 'shared tables' 5 "$(exits_of counters '["snapshots"]["shared"]')"
  expect 'ready copies' 0 "$(exits_of counters '["snapshots"]["ready"]')"
}

# The helper has time for a copy between two forks; should it be late, the fork shares tables.
seconds[snapshots_of_ready_tables]=240
test_snapshots_of_ready_tables() {
  one 'exit 0' "${dbos[@]}" --snapshot=ready --ready-copies 1 --stats=counters "$python" -c "$forking" 10 0.4
  some_were_ready counters
  expect 'all of them' 10 $((ready + shared))
}

test_python_fork_with_ready_tables() {
  dbos+=(--snapshot=ready --stats="$PWD/counters")
  both "$python" -B "$here/programs/forks.py"
  some_were_ready counters
}

# main writes MIB again while a child that saw it before waits; prints how the child ended.
readonly rewriting='
import os, sys, time
size = int(sys.argv[1]) << 20
data = bytearray(size)
data[::4096] = b"a" * (size // 4096)
read_end, write_end = os.pipe()
child = os.fork()
if child == 0:
    os.close(write_end)
    os.read(read_end, 1)
    os._exit(0 if data[::4096] == b"a" * (size // 4096) else 1)
os.close(read_end)
for page in range(0, size, 4096):
    data[page] = 98
os.close(write_end)
status = os.waitpid(child, 0)[1]
print("child", os.waitstatus_to_exitcode(status), "main", data.count(b"b") == size // 4096)
'

test_cow_limit_ends_a_snapshot() {
  one 'exit 0' "${dbos[@]}" --cow-limit 8M --cow-policy kill-snapshot --stats=counters "$python" -c "$rewriting" 48
  expect 'the child, and main' 'child -9 main True' "$(<one.out)"
  grep -Eq 'process [0-9]+, a snapshot, is ended: .*--cow-limit.* kept [0-9]+ MiB' one.err
  expect 'snapshots ended' "{'limit': 1, 'memory': 0}" "$(exits_of counters '["snapshots_ended"]')"
}

test_cow_limit_slows_main_down() {
  one 'exit 0' "${dbos[@]}" --cow-limit 16M --stats=counters "$python" -c "$rewriting" 17
  expect 'the child, and main' 'child 0 main True' "$(<one.out)"
  expect 'standard error' '' "$(<one.err)"
  local limited
  limited=$(exits_of counters '["events"]["copies_limited"]')
  echo "copies beyond the limit: $limited"
  ((limited > 50 && limited < 2000)) || fail "$limited copies beyond the limit"
  local delayed_ns
  delayed_ns=$(exits_of counters '["events"]["copies_delayed_ns"]')
  ((delayed_ns >= limited * 1000000)) || fail "$limited copies were delayed for $delayed_ns ns"
}

# Children are killed before they have run an instruction, or soon after, or while they make threads, or while they
# start programs and release what those held; or crash.
readonly killing='
import ctypes, os, random, signal, threading, time
data = bytearray(16 << 20)
def write_on():
    while True: data[::4096] = bytes(len(data) // 4096)
def make_threads():
    while True: threading.Thread(target=time.sleep, args=(0.001,)).start()
def spawn():
    while True: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
def crash(by_abort):
    own = bytearray(b"o") * (8 << 20)
    data[::4096] = bytes(len(data) // 4096)
    os.abort() if by_abort else ctypes.string_at(0)
def kill(turn):
    kind = turn % 5
    child = os.fork()
    if child == 0: make_threads() if kind == 0 else spawn() if kind == 4 else write_on()
    if kind == 0 or kind == 4: time.sleep(random.random() * 0.05)
    if kind == 1: os.sched_yield()
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0) == (child, signal.SIGKILL)
def let_crash(turn):
    child = os.fork()
    if child == 0: crash(turn % 2 == 1)
    assert os.waitpid(child, 0) == (child, signal.SIGABRT if turn % 2 == 1 else signal.SIGSEGV)
for word, turns in ("begin", 8), ("ready", 300):
    for turn in range(turns):
        data[::4096] = bytes([turn % 256]) * (len(data) // 4096)
        let_crash(turn) if turn % 5 == 3 else kill(turn)
    print(word, flush=True)
    input()
'

# Each makes more virtual CPUs than there were, and leaves while its threads sleep.
readonly leaving='
import os, threading, time
data = bytearray(16 << 20)
for word, turns in ("begin", 2), ("ready", 40):
    for turn in range(turns):
        data[::4096] = bytes([turn]) * (len(data) // 4096)
        child = os.fork()
        if child == 0:
            for i in range(12): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            os._exit(0)
        assert os.waitpid(child, 0) == (child, 0)
    print(word, flush=True)
    input()
'

seconds[children_killed_at_once]=240
test_children_killed_at_once() { leaves_nothing "$killing"; }

seconds[children_of_many_threads]=240
test_children_of_many_threads() { leaves_nothing "$leaving"; }

# Each ends after its threads have: the virtual CPUs that it made serve the next one.
readonly joining='
import os, threading
for turn in range(20):
    child = os.fork()
    if child == 0:
        together = threading.Barrier(40)
        threads = [threading.Thread(target=together.wait) for i in range(39)]
        for thread in threads: thread.start()
        together.wait()
        for thread in threads: thread.join()
        os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
print("ready")
'

seconds[virtual_cpus_of_children_come_back]=240
test_virtual_cpus_of_children_come_back() {
  one 'exit 0' "${dbos[@]}" --stats=counters "$python" -c "$joining"
  expect 'the children' 'ready' "$(<one.out)"
  local vcpus
  vcpus=$("$python" -c 'import json; print(json.load(open("counters"))["vcpus"])')
  echo "virtual CPUs: $vcpus"
  ((vcpus < 200)) || fail "$vcpus virtual CPUs for 40 threads at a time"
}

# The first process leaves what its child does to the child, which is main then: memory of those that are killed
# comes back, and one that keeps too much is ended before it.
readonly orphaning='
import os, signal
if os.fork(): os._exit(0)
data = bytearray(16 << 20)
for turn in range(20):
    data[::4096] = bytes([turn]) * (len(data) // 4096)
    child = os.fork()
    while child == 0: data[::4096] = bytes(len(data) // 4096)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0) == (child, signal.SIGKILL)
more = bytearray(b"m") * (64 << 20)
print("ready", more.count(b"m") == len(more), data.count(19))
child = os.fork()
if child == 0: signal.pause()
more[::4096] = b"n" * (len(more) // 4096)
print(os.waitpid(child, 0) == (child, signal.SIGKILL), more.count(b"n"), flush=True)
'

test_children_of_an_orphan_are_killed() {
  one 'exit 0' "${dbos[@]}" --memory 128M "$python" -c "$orphaning"
  await 120 grep -q True.1 one.out
  expect 'the orphan' $'ready True 4096\nTrue 16384' "$(<one.out)"
}

# There is room for the memory once and a half.
test_main_outlives_its_snapshot() {
  one 'exit 0' "${dbos[@]}" --memory 160M "$python" -c "$rewriting" 96
  expect 'the child, and main' 'child -9 main True' "$(<one.out)"
  grep -q 'a snapshot, is ended: there is no memory left' one.err
}

# Sets `sent` to how many interrupts flushed other threads' TLBs. Without large pages there is no helper, which
# sends some of its own.
count_shootdowns() { # count_shootdowns blocked|running COUNT
  one 'exit 0' "${dbos[@]}" --snapshot=shared --no-large-pages --stats=counters \
    "$DBOS_BUILD/tests/system/idle_threads" "$@"
  sent=$(exits_of counters '["events"]["shootdowns"]')
  echo "with $2 threads, $1: $sent interrupts"
}

# 1000 pages are copied after a fork: one thread that runs hears of each, those that sleep of none.
test_threads_that_sleep_are_not_interrupted() {
  local sent
  count_shootdowns running 1
  ((sent >= 1000)) || fail "$sent interrupts of a thread that runs"
  count_shootdowns blocked 8
  ((sent < 8)) || fail "$sent interrupts of threads that sleep"
}

# Prints the large pages of 32 MiB: at first, when one page in each was written after a fork, and when the
# child has ended, as soon as there are as many as at first.
readonly splitting='
import ctypes, mmap, os, time
size, large = 32 << 20, 2 << 20
data = mmap.mmap(-1, size + large, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(data))
begin = -address % large
def large_pages():
    found = False
    for line in open("/proc/self/smaps"):
        word = line.split()[0]
        if "-" in word: found = int(word.split("-")[0], 16) <= address + begin < int(word.split("-")[1], 16)
        if found and word == "AnonHugePages:": return int(line.split()[1]) // 2048
for page in range(begin, begin + size, 4096): data[page] = 1
first = large_pages()
read_end, write_end = os.pipe()
child = os.fork()
if child == 0:
    os.close(write_end)
    os.read(read_end, 1)
    os._exit(0 if all(data[page] == 1 for page in range(begin, begin + size, 4096)) else 1)
for page in range(begin, begin + size, large): data[page] = 2
print(first >= 16, first - large_pages())
os.close(write_end)
print(os.waitpid(child, 0)[1])
while large_pages() < first: time.sleep(0.01)
print(all(data[page] == 1 + ((page - begin) % large == 0) for page in range(begin, begin + size, 4096)))
'

# Nobody touches the memory meanwhile: only the helper can have done it.
test_large_pages_come_back_after_a_snapshot() {
  one 'exit 0' "${dbos[@]}" "$python" -c "$splitting"
  expect 'split, and whole again' $'True 16\n0\nTrue' "$(<one.out)"
}
