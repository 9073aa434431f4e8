# Where there are no more virtual CPUs, or no more frames: what Linux would say, and nothing is lost.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # scripts in quotes; names that support.sh and run share

# All virtual CPUs but those that forks and the helper may have.
readonly crowding='
import errno, os, threading
threading.stack_size(65536)
def crowd(most):
    end, threads = threading.Event(), []
    try:
        while len(threads) < most:
            thread = threading.Thread(target=end.wait)
            thread.start()
            threads.append(thread)
    except RuntimeError:
        pass
    return end, threads
def leave(end, threads):
    end.set()
    for thread in threads: thread.join()
def fork():
    child = os.fork()
    if child == 0: os._exit(0)
    return os.waitpid(child, 0)[1]
for word in "begin", "ready":
    end, threads = crowd(2000)
    assert 1000 <= len(threads) < 1024, len(threads)
    try:
        fork()
        assert False, "fork"
    except OSError as error:
        assert error.errno == errno.EAGAIN, error
    leave(end, threads)
    assert fork() == 0
    end, threads = crowd(100)
    assert len(threads) == 100
    leave(end, threads)
    assert fork() == 0
    del end, threads
    print(word, flush=True)
    input()
'

seconds[no_virtual_cpu_is_left]=240
# A page for every second thread would be too much.
test_no_virtual_cpu_is_left() { leaves_nothing "$crowding" 500; }

test_fork_without_memory() {
  one 'exit 0' "${dbos[@]}" --memory 128M "$DBOS_BUILD/tests/system/memory_limit" fork
  cat one.out
}

# There is a snapshot, and a call of the program's needs memory that only its end can give.
test_call_without_memory() {
  one 'exit 0' "${dbos[@]}" --memory 128M "$DBOS_BUILD/tests/system/memory_limit" call
  grep -q 'a snapshot, is ended: there is no memory left' one.err
}

# Linux gives no thread for what dbos-run does beside the program: the program goes on, and the log says so once.
readonly fork_twice='
import os, time
for turn in range(2):
    child = os.fork()
    if child == 0: os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    for _ in range(100): time.sleep(0.01)
print("done")'

# Threads of the guest are made by clone, as processes are: the second and the fourth are the helper that each fork
# asks for.
seconds[no_thread_for_the_helper]=120
test_no_thread_for_the_helper() {
  need strace
  one 'exit 0' strace -o calls -e trace=clone -e inject=clone:error=EAGAIN:when=2..4+2 "${dbos[@]}" \
    "$python" -c "$fork_twice"
  expect 'the program' 'done' "$(<one.out)"
  expect 'what is said' 'dbos-run: there is no helper, errno 11' "$(<one.err)"
  one 'exit 0' strace -o calls -e trace=clone -e inject=clone:error=EAGAIN:when=1 "${dbos[@]}" --snapshot=ready \
    "$python" -c "$fork_twice"
  expect 'the program with --snapshot=ready' 'done' "$(<one.out)"
  expect 'what is said with --snapshot=ready' 'dbos-run: there is no helper, errno 11' "$(<one.err)"
}

# Threads of dbos-run are made by clone3: at the start those that three virtual CPUs need, and then the steward, which
# it tries each second.
seconds[no_thread_for_the_steward]=120
test_no_thread_for_the_steward() {
  need strace
  one 'exit 0' strace -o calls -e trace=clone3 -e inject=clone3:error=EAGAIN:when=4+ "${dbos[@]}" --no-control \
    "$python" -c "$fork_twice"
  expect 'the program' 'done' "$(<one.out)"
  expect 'what is said' 'dbos-run: there is no steward, errno 11: what killed children held is not released' "$(<one.err)"
}

# Programs read these settings of Linux's, and believe them.
seconds[settings_of_memory_are_the_hosts]=240
test_settings_of_memory_are_the_hosts() {
  setting_of_memory max_map_count 3000 both "$python" -c '
import ctypes, mmap
pages = mmap.mmap(-1, 8000 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
at = ctypes.addressof(ctypes.c_char.from_buffer(pages))
mprotect = ctypes.CDLL(None).mprotect
made = 0
while mprotect(ctypes.c_void_p(at + (2 * made + 1) * 4096), 4096, 1) == 0: made += 1
print(made // 50)'
  setting_of_memory overcommit_memory 1 both "$python" -c '
import mmap
print(len(mmap.mmap(-1, 1 << 42, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)))'
}
