# Where there are no more virtual CPUs, or no more frames: what Linux would say, and nothing is lost.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # scripts in quotes; names that support.sh and run share

# All virtual CPUs but those that forks and the helper may have.
readonly crowding='
import ctypes, errno, os
libc = ctypes.CDLL(None)
attributes, end = ctypes.create_string_buffer(64), ctypes.create_string_buffer(32)
libc.pthread_attr_init(attributes)
libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(65536))
libc.sem_init(end, 0, 0)
def crowd(most):
    threads = []
    thread = ctypes.c_ulong()
    while len(threads) < most and libc.pthread_create(ctypes.byref(thread), attributes, libc.sem_wait, end) == 0:
        threads.append(thread.value)
    return threads
def leave(threads):
    for thread in threads: libc.sem_post(end)
    for thread in threads: libc.pthread_join(ctypes.c_ulong(thread), None)
def fork():
    child = os.fork()
    if child == 0: os._exit(0)
    return os.waitpid(child, 0)[1]
for word in "begin", "ready":
    threads = crowd(2000)
    assert 1000 <= len(threads) < 1024, len(threads)
    try:
        fork()
        assert False, "fork"
    except OSError as error:
        assert error.errno == errno.EAGAIN, error
    leave(threads)
    assert fork() == 0
    threads = crowd(100)
    assert len(threads) == 100
    leave(threads)
    assert fork() == 0
    del threads
    print(word, flush=True)
    input()
'

seconds[no_virtual_cpu_is_left]=240
# A page for every second thread would be too much.
test_no_virtual_cpu_is_left() {
  leaves_nothing "$crowding" 500
  expect "what is said" "dbos-run: all 1024 virtual CPUs are in use, of which each thread and fork takes one: another one gets EAGAIN" \
    "$(<errors)"
}

test_fork_without_memory() {
  one 'exit 0' "${dbos[@]}" --memory 128M "$DBOS_BUILD/tests/system/memory_limit" fork
  cat one.out
}

# There is a snapshot, and a call of the program's needs memory that only its end can give.
test_call_without_memory() {
  one 'exit 0' "${dbos[@]}" --memory 128M "$DBOS_BUILD/tests/system/memory_limit" call
  grep -q 'a snapshot, is ended: there is no memory left' one.err
}

# More forks than there are records of processes, which go back when all are taken; some of the children live on, and
# fork themselves before and after.
readonly fork_often='
i=0
while [ $i -lt 1040 ]; do
  if [ $((i % 200)) = 0 ]; then
    ( (:); read -r line <go$i; (:); exit 7 ) &
    kept="$kept $!"
  else
    (:)
  fi
  i=$((i + 1))
done
for i in 0 200 400 600 800 1000; do echo >go$i; done
for child in $kept; do wait $child; echo $?; done'

seconds[more_forks_than_records]=120
test_more_forks_than_records() {
  mkfifo go0 go200 go400 go600 go800 go1000
  one 'exit 0' "${dbos[@]}" dash -c "$fork_often"
  expect 'the children' $'7\n7\n7\n7\n7\n7' "$(<one.out)"
}

# More memory at once than there is: ENOMEM, as Linux's heuristic has it, and one line says why.
test_mapping_of_more_than_memory() {
  setting vm/overcommit_memory 0 one 'exit 0' "${dbos[@]}" --memory 64M "$python" -c '
import errno, mmap
for turn in range(2):
    try: print(mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except OSError as error: print(errno.errorcode[error.errno])'
  expect 'the program' $'ENOMEM\nENOMEM' "$(<one.out)"
  expect 'what is said' 'dbos-run: mapping 1073741824 bytes is more than --memory allows: ENOMEM' "$(<one.err)"
}

# Where Linux counts what it commits, there may be less than --memory.
test_memory_that_linux_does_not_commit() {
  setting vm/overcommit_memory 2 one 'exit 0' "${dbos[@]}" --memory 100% /bin/true
  grep -Eq '^dbos-run: --memory is [0-9]+ MiB, but vm.overcommit_memory is 2 and Linux commits only [0-9]+ MiB' one.err ||
    fail "$(<one.err)"
  grep -Eq '^dbos-run: --memory is [0-9]+ MiB, and this machine or its cgroup has [0-9]+: ' one.err || fail "$(<one.err)"
}

# Databases size themselves by the memory that they are told of.
test_memory_that_the_program_is_told_of() {
  one 'exit 0' "${dbos[@]}" --memory 64M "$python" -c '
import os, re
pages = os.sysconf("SC_PHYS_PAGES")
lines = dict(re.findall(r"^(\w+): +(\d+) kB$", open("/proc/meminfo").read(), re.M))
free = [os.sysconf("SC_AVPHYS_PAGES") * 4, int(lines["MemFree"]), int(lines["MemAvailable"])]
print(pages * 4, lines["MemTotal"], [0 < each < 65536 for each in free])'
  expect 'the memory' '65536 65536 [True, True, True]' "$(<one.out)"
}

# As many mappings of a file as Linux allows: when they are gone, there is room for as many again, and for threads,
# however often one could not be made meanwhile.
readonly map_all='
import errno, mmap, threading
file = open("pages", "w+b")
file.truncate(1 << 24)
def map_all():
    maps = []
    try:
        while True: maps.append(mmap.mmap(file.fileno(), 4096, offset=8192 * len(maps)))
    except OSError as error:
        assert error.errno == errno.ENOMEM, error
    count = len(maps)
    for attempt in range(20):
        try: threading.Thread(target=str).start()
        except RuntimeError: pass
    for each in maps[::2] + maps[1::2]: each.close()
    return count
counts = [map_all() for turn in range(4)]
print(counts[0] > 100, [count > counts[0] - 50 for count in counts])
begun = []
threads = [threading.Thread(target=begun.append, args=(turn,)) for turn in range(40)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(begun), "threads")'

test_no_mapping_is_left() { setting vm/max_map_count 900 both "$python" -c "$map_all"; }

# More holes between mappings than dbos-run can note: a large one is noted in place of a small one, and used again.
readonly make_holes='
import mmap, sys, urllib.request
def used():
    page = urllib.request.urlopen("http://127.0.0.1:" + sys.argv[1] + "/metrics").read().decode()
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith("dbos_window_bytes "))
maps = [mmap.mmap(-1, 4096) for each in range(16800)]
large = mmap.mmap(-1, 64 << 20)
for each in maps[::2]: each.close()
before = used()
large.close()
closed = used()
large = mmap.mmap(-1, 64 << 20)
print(before - closed > 60 << 20, used() - before < 1 << 20)'

seconds[large_holes_are_used_again]=240
test_large_holes_are_used_again() {
  local port
  port=$(free_port)
  one 'exit 0' "${dbos[@]}" --metrics "$port" "$python" -c "$make_holes" "$port"
  expect 'the window' 'True True' "$(<one.out)"
}

# What is executed leaves the memory of dbos-run to the others. `cat` sees Linux's own list.
readonly execute_often='
import os, subprocess
def mapped():
    lines = subprocess.run(["cat", f"/proc/{os.getpid()}/maps"], capture_output=True, text=True).stdout.splitlines()
    return sum(int(end, 16) - int(begin, 16) for begin, end in (line.split()[0].split("-") for line in lines))
def execute(count):
    for turn in range(count): subprocess.run(["true"], check=True)
execute(60)  # virtual CPUs are used again from the 49th on
before = mapped()
execute(30)
print("grown", mapped() - before >= 30 * 4096)'

test_executed_programs_leave_no_memory() {
  one 'exit 0' "${dbos[@]}" "$python" -c "$execute_often"
  expect 'the memory of dbos-run' 'grown False' "$(<one.out)"
}

readonly no_thread='Resource temporarily unavailable' remedy='raise ulimit -u, or pids.max of the cgroup'
readonly no_helper="dbos-run: there is no helper, $no_thread: large pages are not put together again after a save"

# Linux gives no thread for what dbos-run does beside the program: the program goes on, and the log says so once.
readonly fork_twice='
import os, time
for turn in range(2):
    child = os.fork()
    if child == 0: os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    for _ in range(30): time.sleep(0.04)
print("done")'

# Threads of the guest are made by clone, as processes are: the second and the fourth are the helper that each fork
# asks for.
seconds[no_thread_for_the_helper]=120
test_no_thread_for_the_helper() {
  need strace
  one 'exit 0' strace -o calls -e trace=clone -e inject=clone:error=EAGAIN:when=2..4+2 "${dbos[@]}" \
    "$python" -c "$fork_twice"
  expect 'the program' 'done' "$(<one.out)"
  expect 'what is said' "$no_helper; $remedy" "$(<one.err)"
  one 'exit 0' strace -o calls -e trace=clone -e inject=clone:error=EAGAIN:when=1 "${dbos[@]}" --snapshot=ready \
    "$python" -c "$fork_twice"
  expect 'the program with --snapshot=ready' 'done' "$(<one.out)"
  expect 'what is said with --snapshot=ready' "$no_helper, and no page tables are made ready for one; $remedy" \
    "$(<one.err)"
}

# Threads of dbos-run are made by clone3: at the start those that three virtual CPUs need, and then the steward, which
# it tries each second.
seconds[no_thread_for_the_steward]=120
test_no_thread_for_the_steward() {
  need strace
  one 'exit 0' strace -o calls -e trace=clone3 -e inject=clone3:error=EAGAIN:when=4+ "${dbos[@]}" --no-control \
    "$python" -c "$fork_twice"
  expect 'the program' 'done' "$(<one.out)"
  expect 'what is said' \
    "dbos-run: there is no steward, $no_thread: what killed children held is not released; $remedy" "$(<one.err)"
}

# Programs read these settings of Linux's, and believe them.
seconds[settings_of_memory_are_the_hosts]=240
test_settings_of_memory_are_the_hosts() {
  setting vm/max_map_count 3000 both "$python" -c '
import ctypes, mmap
pages = mmap.mmap(-1, 8000 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
at = ctypes.addressof(ctypes.c_char.from_buffer(pages))
mprotect = ctypes.CDLL(None).mprotect
made = 0
while mprotect(ctypes.c_void_p(at + (2 * made + 1) * 4096), 4096, 1) == 0: made += 1
print(made // 50)'
  setting vm/overcommit_memory 1 both "$python" -c '
import mmap
print(len(mmap.mmap(-1, 1 << 42, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)))'
}
