# Programs that end badly get what Linux gives, and what is told from outside to end ends.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # scripts in quotes; names that support.sh and run share

readonly run_code='
import ctypes, mmap, sys
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex(sys.argv[1]))
print("before", flush=True)
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
print("after")'

test_faults_of_the_program() {
  # ud2; xor ecx, ecx / div ecx; and what is no fault. The others are in tests/conformance/fault_deaths.cpp.
  both -e 'signal 4' "$python" -c "$run_code" 0f0b
  both -e 'signal 8' "$python" -c "$run_code" 31c9f7f1
  both "$python" -c "$run_code" 31c0c3
}

# A container's program is that. What it does not handle can't kill it, its own faults can.
test_first_process_of_a_namespace() {
  local namespace=(unshare --pid --fork --mount-proc) code='
import ctypes, os, signal, sys
assert os.getpid() == 1
for name in "QUIT", "ABRT", "TRAP", "SYS", "XCPU", "SEGV", "BUS", "TERM":
    os.kill(1, getattr(signal, "SIG" + name))
print("alive", flush=True)
if sys.argv[1] == "fault": ctypes.string_at(0)
os._exit(7)'
  one 'exit 7' "${namespace[@]}" "$python" -c "$code" lives
  one 'exit 7' "${namespace[@]}" "${dbos[@]}" "$python" -c "$code" lives
  expect 'what it prints' alive "$(<one.out)"
  one 'signal 11' "${namespace[@]}" "$python" -c "$code" fault
  one 'exit 139' "${namespace[@]}" "${dbos[@]}" "$python" -c "$code" fault
  expect 'what it prints' alive "$(<one.out)"
}

# Not natively: QEMU 7.2 reads the stack of an iretq in ring 3 with the rights of ring 0.
test_iretq_with_the_selectors_of_a_signal_frame() {
  # mov rax, rsp; push 0x2b; push rax; pushfq; push 0x33; lea rax, [rip + 3]; push rax; iretq; ret.
  one 'exit 0' "${dbos[@]}" "$python" -c "$run_code" 4889e06a2b509c6a33488d05030000005048cfc3
  expect 'the program' $'before\nafter' "$(<one.out)"
}

# Linux refuses KVM memory for a moment. While the program makes calls the VMM's ioctls are KVM_RUN, and where that
# answers EFAULT two more, which inject the exception.
test_memory_that_is_missing_for_a_moment() {
  need strace
  local error
  for error in ENOMEM EFAULT; do
    one 'exit 0' strace -o calls -e trace=ioctl -e "inject=ioctl:error=$error:when=300..360+4" "${dbos[@]}" dash -c '
i=0; while [ $i -lt 400 ]; do [ -e / ]; i=$((i + 1)); done; echo done'
    expect "with $error" 'done' "$(<one.out)"
    expect "runs that ended with $error" 16 "$(grep -c "KVM_RUN.*$error.*INJECTED" calls)"
  done
}

test_bad_pointers_of_the_program() {
  both -e 'signal 11' "$python" -c 'import ctypes; ctypes.string_at(0)'
  # The guest kernel's half, which no conformance case has.
  both -e 'signal 11' "$python" -c 'import ctypes; ctypes.memset(0xffff800000000000, 1, 1)'
  both -e 'signal 7' "$python" -c 'import mmap, os
f = os.open("f", os.O_RDWR | os.O_CREAT); os.ftruncate(f, 8192); m = mmap.mmap(f, 8192); os.ftruncate(f, 0); m[5000]'
  # A handler of its own tells what it knows.
  both -e 'signal 11' -f 's/0x[0-9a-f]*/ADDRESS/' "$python" -X faulthandler -c 'import ctypes; ctypes.string_at(0)'
  # Linux says EFAULT where it is the call that is given a bad pointer.
  both "$python" -c 'import ctypes; libc = ctypes.CDLL(None, use_errno=True)
for p in (8, 0xffff800000000000, 0x700000000000): print(libc.write(1, ctypes.c_void_p(p), 5), ctypes.get_errno())'
}

seconds[stack_overflow]=180
test_stack_overflow() {
  (ulimit -S -s 1024 && both -e 'signal 11' bash -c 'f() { f; }; f')
  (ulimit -S -s 4096 && both "$python" -c '
import sys; sys.setrecursionlimit(3000)
def f(n): return n and f(n - 1)
print(f(2500)); import re; print(bool(re.match("(a|b)*", "ab" * 3000)))')
  # In a thread: its stack has a guard page of its own.
  both -e 'signal 11' "$python" -c '
import ctypes, threading
threading.stack_size(65536)
libc = ctypes.CDLL(None)
compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
def deeper(a, b): libc.qsort(array, 2, 4, again); return 0
array, again = (ctypes.c_int * 2)(), compare(deeper)
thread = threading.Thread(target=lambda: libc.qsort(array, 2, 4, again)); thread.start(); thread.join()'
}

# More than there is: refused, or ended; and only that.
seconds[memory_runs_out]=180
test_memory_runs_out() {
  setting vm/overcommit_memory 0 one 'exit 1' "${dbos[@]}" --memory 256M "$python" -c 'bytearray(1 << 32)'
  grep -q MemoryError one.err
  local status=0
  "${dbos[@]}" --memory 128M "$python" -c '
blocks = []
while True: blocks.append(b"x" * (1 << 20))' >out 2>err || status=$?
  case $status in
    1) grep -q MemoryError err ;;
    137) grep -q 'out of guest memory' err ;;
    *) fail "status $status: $(head -c 300 err)" ;;
  esac
  # No system call answers EFAULT for a good pointer: who needs memory in one is killed as well.
  one 'signal 9' "${dbos[@]}" --memory 128M "$python" -c '
import mmap, os
zero = os.open("/dev/zero", os.O_RDONLY)
blocks = []
while True:
    blocks.append(mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    if os.readv(zero, [blocks[-1]]) != 1 << 20: os._exit(3)'
  grep -q 'out of guest memory' one.err
  one 'signal 9' "${dbos[@]}" --memory 128M "$python" -c '
import ctypes, mmap, os
syscall, madvise, getcpu, populate = ctypes.CDLL(None).syscall, 28, 309, 23
pages = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE
at = ctypes.addressof(ctypes.c_char.from_buffer(pages))
for size in (1 << 20, 4096):
    while syscall(madvise, ctypes.c_void_p(at), size, populate) == 0: at += size
syscall(getcpu, ctypes.c_void_p(at + (2 << 20)), None, None)
os._exit(3)'
  grep -q 'out of guest memory' one.err
  # Free memory that is in small pieces is enough to execute a program.
  one 'exit 0' "${dbos[@]}" --memory 128M --no-large-pages "$python" -c '
import ctypes, mmap, os
madvise, populate, discard = ctypes.CDLL(None).madvise, 23, 4
pages = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE
first = at = ctypes.addressof(ctypes.c_char.from_buffer(pages))
while madvise(ctypes.c_void_p(at), ctypes.c_size_t(4096), populate) == 0: at += 4096
for i in range(8): madvise(ctypes.c_void_p(first + (i << 21) + (1 << 20)), ctypes.c_size_t(256 << 10), discard)
os.execv("/bin/echo", ["echo", "executed"])'
  expect output executed "$(<one.out)"
  # A child that takes too much ends alone.
  status=0
  "${dbos[@]}" --memory 192M "$python" -c '
import os
pid = os.fork()
if pid == 0:
    blocks = []
    while True: blocks.append(b"x" * (1 << 20))
how = os.waitpid(pid, 0)[1]
print("child", "killed" if how == 9 else "error" if how == 256 else how, len(bytearray(20 << 20)))' >out 2>err || status=$?
  expect status 0 $status
  grep -Eq '^child (killed|error) 20971520$' out || fail "$(<out)"
  # A limit that the program itself set.
  both -e 'exit 1' -f '/MemoryError/!d' "$python" -c '
import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29)); bytearray(1 << 30)'
}

# Linux asks somebody whether a file may be executed, and gets no answer.
seconds[end_while_a_thread_is_in_execve]=300
test_end_while_a_thread_is_in_execve() {
  local program=("$python" -B "$here/programs/unanswered_execve.py") way status=0
  "${program[@]}" exit >out 2>err || status=$?
  [[ $status != 77 ]] || skip "$(<err)"
  for way in exit fault threads memory; do
    one 'exit 0' "${program[@]}" $way
    mv one.out native.out
    one 'exit 0' "${program[@]}" $way "${dbos[@]}"
    expect "the program's end ($way)" "$(<native.out)" "$(<one.out)"
  done
}

# SIGNAL ends a program that is in the guest, and says "ready" before it does DOING.
ended_by() { # ended_by SIGNAL DOING
  local pid status=0
  : >out
  # A background job of a script ignores INT and QUIT; perl undoes it, and python takes INT for itself.
  perl -e '$SIG{INT} = $SIG{QUIT} = "DEFAULT"; exec @ARGV' "${dbos[@]}" "$python" -c "
import signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
print('ready', flush=True)
$2" >out 2>err &
  pid=$!
  await 30 grep -q ready out
  kill "-$1" $pid
  wait $pid || status=$?
  expect "status after SIG$1" $((128 + $(kill -l "$1"))) "$status"
  expect 'standard error' '' "$(<err)"
}

test_signals_from_outside() {
  local signal
  for signal in TERM INT HUP QUIT KILL USR1; do ended_by $signal 'signal.pause()'; done
  for signal in TERM KILL; do ended_by $signal 'while True: pass'; done
}

stopped() { # stopped PROGRAM: all its threads
  ! cut -d ')' -f 2 /proc/"$1"/task/*/stat | grep -qv '^ T'
}

test_stop_and_continue() {
  local pid lines
  "${dbos[@]}" "$python" -c 'import time
while True: print("x", flush=True); time.sleep(0.05)' >out &
  pid=$!
  await 30 test -s out
  kill -STOP $pid
  await 30 stopped $pid
  lines=$(wc -l <out)
  sleep 0.5
  expect 'lines while stopped' "$lines" "$(wc -l <out)"
  kill -CONT $pid
  await 30 bash -c "[ \$(wc -l <out) -gt $((lines + 3)) ]"
  kill $pid
  wait $pid || true
}

# A child in ring 0 does not outlive its machine; programs that it started do, as natively.
test_killed_with_children() {
  local pid
  "${dbos[@]}" "$python" -c '
import ctypes, os, signal, time
def read_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    os.read(ctypes.CDLL(None).signalfd(-1, b"\xff" * 128, 0), 128)
for n in range(5):
    if os.fork() == 0:
        if n == 2: os.fork()
        os.write(1, b"child\n")
        while n == 1: pass
        if n == 3: signal.sigwait(range(1, 65))
        if n == 4: read_signals()
        time.sleep(1000)
time.sleep(1000)' >out &
  pid=$!
  await 30 bash -c '[ $(wc -l <out) = 6 ]'
  kill -KILL $pid
  wait $pid || true
  await 10 bash -c '! pgrep -f "[t]ime.sleep.1000" >/dev/null'
}

# A child that crashes or is killed ends alone.
test_child_ends_alone() {
  both "$python" -c '
import ctypes, os, signal, sys, time
def child(action):
    pid = os.fork()
    if pid == 0:
        action(); os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
data = list(range(100000))
for n in range(3):
    print(child(lambda: ctypes.string_at(0)), child(lambda: ctypes.CFUNCTYPE(None)(8)()), child(os.abort),
          child(lambda: os.kill(os.getpid(), 9)), child(lambda: sys.exit(4)), sum(data), flush=True)
def overflow():
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    libc = ctypes.CDLL(None); array = (ctypes.c_int * 2)()
    again = compare(lambda a, b: libc.qsort(array, 2, 4, again) or 0); libc.qsort(array, 2, 4, again)
sys.setrecursionlimit(1 << 30)
print(child(overflow))
pid = os.fork()
if pid == 0:
    while True: data[5] += 1
time.sleep(0.3); os.kill(pid, 9); print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), data[5])'
  expect 'turns with all five ends' 3 "$(grep -c '^-11 -11 -6 -9 4 ' native.out)"
}

# While Linux writes a core of a child, what its threads held is held; so there is nothing of the guest's memory in it.
test_core_of_linux_is_small() {
  setting kernel/core_pattern core one 'exit 0' bash -c 'ulimit -c unlimited && exec "$@"' - "${dbos[@]}" \
    "$python" -c '
import mmap, os
data = bytearray(b"x") * (256 << 20)
shared = mmap.mmap(-1, 64 << 20)
shared[::4096] = b"x" * (len(shared) // 4096)
child = os.fork()
if child == 0: os.abort()
status = os.waitpid(child, 0)[1]
print(os.WTERMSIG(status), os.WCOREDUMP(status))'
  expect 'the end of the child' '6 True' "$(<one.out)"
  local size
  size=$(du -cB1 core* | tail -n 1 | cut -f 1) # without its holes: tables that nobody has used
  echo "bytes of the core: $size"
  ((size > 0 && size < 64 << 20)) || fail "the core has $size bytes"
}

test_killed_while_redis_saves() {
  need redis-server
  "$python" -B "$here/redis/save.py" killed_while_saving
}
