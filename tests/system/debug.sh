# The real gdb (Debian's) at programs under dbos-run.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # gdb's commands in quotes; names of support.sh

readonly debugged=${DBOS_BUILD-build}/tests/system/debugged

gdb_address=$PWD/gdb.socket
is_waiting() { # for gdb: at a path, or a port
  if [[ $gdb_address = /* ]]; then
    test -S "$gdb_address"
  else
    grep -Eisq ": [0-9A-F]+:$(printf %04X "${gdb_address##*:}") 0+:0000 0A " /proc/net/tcp /proc/net/tcp6
  fi
}

# serve PROGRAM [ARGUMENT]...: starts it, waiting for gdb; its streams in serve.in, serve.out, serve.err.
serve() {
  need gdb
  rm -f gdb.socket serve.in
  mkfifo serve.in
  "${dbos[@]}" --gdb "$gdb_address" "$@" <serve.in >serve.out 2>serve.err &
  served=$!
  exec 7>serve.in
  await 30 is_waiting
}

# at_gdb COMMAND...: gdb's answers go to gdb.out.
at_gdb() {
  local command arguments=()
  for command; do arguments+=(-ex "$command"); done
  timeout -k 5 250 gdb -q -nx -batch -ex 'set confirm off' -ex 'set width 0' -ex 'set debuginfod enabled off' \
    -ex "target remote $gdb_address" "${arguments[@]}" >gdb.out 2>&1 </dev/null 7>&- || true
}

says() { # says PATTERN...: lines of gdb.out, in this order
  local pattern line=0 found
  for pattern; do
    found=$(tail -n "+$((line + 1))" gdb.out | grep -nE -m 1 -- "$pattern" | cut -d: -f1) || {
      grep -m 1 -A 3 internal-error gdb.out || true
      cat gdb.out
      fail "gdb did not say '$pattern' (after its line $line)"
    }
    line=$((line + found))
  done
}

ends() { # ends STATUS
  local status=0
  exec 7>&-
  wait "$served" || status=$?
  expect 'status' "$1" "$status"
}

seconds[gdb_break_and_step]=300
test_gdb_break_and_step() {
  serve "$debugged" loop
  at_gdb 'break work' 'continue' 'print number' 'print text' 'backtrace' 'stepi' 'next' 'print counter' \
    'set variable counter = 100' 'finish' 'delete' 'info sharedlibrary' 'print (int)getpid()' 'continue'
  says 'Breakpoint 1, work \(number=1, text=0x[0-9a-f]+ "loop"\)' '\$1 = 1' '\$2 = 0x[0-9a-f]+ "loop"' \
    '#0 .*work' '#1 .*loop' '#2 .*main' '\$3 = 1' 'Value returned is .* = 100' 'libc\.so\.6' " = $served\$" \
    'exited normally'
  ends 0
  expect output 'counter 114' "$(<serve.out)"
  expect 'standard error' '' "$(<serve.err)"
}

seconds[gdb_at_a_port]=300
test_gdb_at_a_port() {
  local host
  for host in '' 127.0.0.1 localhost; do
    gdb_address=$host:$(free_port)
    serve "$debugged" loop
    at_gdb 'break work' 'continue' 'print number' 'delete' 'continue'
    says 'Breakpoint 1, work' '\$1 = 1' 'exited normally'
    ends 0
    expect output 'counter 15' "$(<serve.out)"
  done
}

seconds[gdb_backtrace_is_deep]=300
test_gdb_backtrace_is_deep() {
  serve "$debugged" deep
  at_gdb 'break work' 'continue' 'backtrace' 'up 3' 'print depth' 'kill'
  says '#0 +work \(number=42' '#1 .*deeper \(depth=0\)' '#6 .*deeper \(depth=5\)' '#7 .*main' '\$1 = 2'
  ends 137
}

seconds[gdb_watchpoint]=300
test_gdb_watchpoint() {
  serve "$debugged" loop
  # The emulated machine's debug registers do not work, and gdb is told so; it can watch by stepping.
  at_gdb 'break loop' 'continue' 'watch counter' 'continue' 'continue' 'kill'
  if grep -q 'Could not insert hardware' gdb.out; then
    wait "$served" || true
    echo 'no debug registers: gdb steps'
    serve "$debugged" loop
    at_gdb 'set can-use-hw-watchpoints 0' 'break loop' 'continue' 'watch counter' 'continue' 'continue' 'kill'
  fi
  says 'atchpoint 2: counter' 'Old value = 0' 'New value = 1' 'Old value = 1' 'New value = 3'
  ends 137
}

seconds[gdb_threads]=300
test_gdb_threads() {
  serve "$debugged" threads
  at_gdb 'break work' 'continue' 'info threads' 'print number > 0' 'thread apply all backtrace 1' 'continue' \
    'continue' 'continue'
  says 'hit Breakpoint 1, work \(number=[123], text=0x[0-9a-f]+ "thread"\)' 'Id +Target Id' \
    '\* [234] +Thread' ' = true' 'hit Breakpoint 1' 'hit Breakpoint 1' 'exited normally'
  ends 0
  expect output 'counter 3006' "$(<serve.out)"
}

# The child has its own copy of the memory, without the breakpoints, and runs on by itself.
seconds[gdb_child_is_detached]=300
test_gdb_child_is_detached() {
  serve "$debugged" fork
  at_gdb 'break work' 'continue' 'print text' 'continue' 'print text' 'continue'
  says '"before"' '"after"' 'exited normally'
  ends 0
  expect output $'child 11\ncounter 3 status 3' "$(<serve.out)"
}

# gdb takes its breakpoints out at each stop: a child that is still to come is to lose them, too.
seconds[gdb_child_races]=300
test_gdb_child_races() {
  serve "$debugged" race
  at_gdb 'break work' 'continue' 'print text' 'delete' 'continue'
  says '"parent"' 'exited normally'
  ends 0
  expect output 'status 768' "$(<serve.out)"
}

seconds[gdb_steps_over_vfork]=300
test_gdb_steps_over_vfork() {
  serve "$debugged" vfork
  at_gdb 'break borrowing_child' 'continue' 'stepi 400' 'delete' 'continue'
  says 'Breakpoint 1, borrowing_child' 'exited normally'
  ends 0
  expect output 'status 768' "$(<serve.out)"
}

# A call that a signal has interrupted stays so, whatever gdb does with the registers.
seconds[gdb_registers_of_an_interrupted_call]=300
test_gdb_registers_of_an_interrupted_call() {
  local command
  for command in 'set variable $rbx = $rbx' 'print (int)getpid()'; do
    serve "$debugged" interrupted
    at_gdb 'handle SIGALRM stop print' 'continue' "$command" 'continue'
    says 'received signal SIGALRM' 'exited normally'
    ends 0
    expect output 'result -1 error EINTR signals 1' "$(<serve.out)"
  done
}

seconds[gdb_sends_a_signal]=300
test_gdb_sends_a_signal() {
  serve "$debugged" signal
  at_gdb 'handle SIGUSR1 nostop noprint' 'break with_signal' 'continue' 'next' 'signal SIGUSR1'
  says 'Breakpoint 1, with_signal' 'exited normally'
  ends 0
  expect output 'signals 2' "$(<serve.out)"
}

# Steps end where they should, with signals in between and over the handler's return.
seconds[gdb_steps_with_signals]=300
test_gdb_steps_with_signals() {
  serve "$debugged" ticking
  at_gdb 'handle SIGALRM nostop noprint' 'break on_signal' 'continue' 'delete' 'finish' 'stepi' 'stepi' 'stepi' \
    'print $pc != 0' 'break deeper' 'continue' 'delete' 'stepi 300' 'print $pc != 0' 'continue'
  says 'Breakpoint 1, on_signal' 'signal handler called|__restore_rt' ' = (1|true)' 'Breakpoint 2, deeper' \
    ' = (1|true)' 'exited normally'
  ends 0
}

seconds[gdb_signals]=300
test_gdb_signals() {
  serve "$debugged" signal
  at_gdb 'continue' 'backtrace 3' 'break on_signal' 'continue' 'backtrace' 'continue'
  says 'received signal SIGUSR1' 'raise|kill' 'Breakpoint 1, on_signal' 'signal handler called' 'with_signal' \
    'exited normally'
  ends 0
  expect output 'signals 1' "$(<serve.out)"
  serve "$debugged" signal
  at_gdb 'handle SIGUSR1 nopass' 'continue' 'continue'
  ends 0
  expect output 'signals 0' "$(<serve.out)"
  serve "$debugged" crash
  at_gdb 'continue' 'print address' 'continue'
  says 'received signal SIGSEGV' 'crash \(address=0x10' 'terminated with signal SIGSEGV'
  ends 139
}

seconds[gdb_registers]=300
test_gdb_registers() {
  grep -qw avx2 /proc/cpuinfo || skip 'the processor has no AVX2'
  serve "$debugged" vectors
  at_gdb 'continue' 'print $rdx' 'print $ymm7.v8_int32' 'print $fs_base != 0' 'set variable $rdx = 77' \
    'set variable $ymm7.v8_int32[7] = 99' 'stepi' 'print $rdx' 'print $ymm7.v8_int32[7]' 'print $mxcsr' 'continue'
  says 'received signal SIGTRAP' ' = 4660' '\{1, 2, 3, 4, 5, 6, 7, 8\}' ' = true' ' = 77' ' = 99' \
    'IM DM ZM OM UM PM|8064' 'exited normally'
  ends 0
}

# Ctrl-C finds a program that sleeps in a system call, which is not interrupted.
seconds[gdb_interrupt]=300
test_gdb_interrupt() {
  serve "$debugged" echo
  timeout 250 gdb -q -nx -batch -ex "target remote $PWD/gdb.socket" -ex 'continue' -ex 'backtrace' -ex 'break work' \
    -ex 'continue' -ex 'print number' -ex 'delete' -ex 'continue' >gdb.out 2>&1 </dev/null 7>&- &
  local gdb=$!
  await 60 grep -q ready serve.out
  sleep 1
  pkill -INT -P "$gdb"
  await 60 grep -q 'Breakpoint 1 at' gdb.out
  echo first >&7
  await 60 grep -q first serve.out
  exec 7>&-
  wait "$gdb"
  says 'received signal SIGINT' '#0 .*read' '#1 .*echo' 'Breakpoint 1, work \(number=6' 'exited normally'
  ends 0
  expect output $'ready\nfirst' "$(<serve.out)"
}

# However gdb goes, the program runs on as if it had never been there.
seconds[gdb_is_killed]=300
test_gdb_is_killed() {
  local gdb line
  serve "$debugged" echo
  for line in one two three; do
    timeout 250 gdb -q -nx -batch -ex "target remote $PWD/gdb.socket" -ex 'break work' -ex 'continue' \
      -ex 'shell sleep 100' >gdb.out 2>&1 </dev/null 7>&- &
    gdb=$!
    await 60 grep -q 'Breakpoint 1 at' gdb.out
    sleep 1
    # Once in the middle of waiting, once while the program stands at the breakpoint.
    if [[ $line = two ]]; then
      echo "$line" >&7
      await 60 grep -q 'Breakpoint 1, work' gdb.out
    fi
    kill -KILL -- "-$gdb"  # the group that timeout makes: gdb, and what its shell runs
    wait "$gdb" || true
    [[ $line = two ]] || echo "$line" >&7
    await 60 grep -q "$line" serve.out
  done
  ends 0
}

seconds[gdb_second_one_is_told]=300
test_gdb_second_one_is_told() {
  serve "$debugged" echo
  timeout 250 gdb -q -nx -batch -ex "target remote $PWD/gdb.socket" -ex 'continue' >first.out 2>&1 </dev/null 7>&- &
  local gdb=$!
  await 60 grep -q ready serve.out
  at_gdb 'info registers rip'
  says 'another debugger is attached: gdb at'
  echo line >&7
  await 60 grep -q line serve.out
  exec 7>&-
  wait "$gdb"
  grep -q 'exited normally' first.out
  ends 0
}

# Nothing that comes over the connection disturbs the program.
seconds[gdb_bad_packets]=300
test_gdb_bad_packets() {
  serve "$debugged" echo
  "$python" - "$PWD/gdb.socket" <<'PYTHON'
import os, random, socket, sys
def connect():
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(60); return s
def packet(text): return b"$" + text + b"#%02x" % (sum(text) & 255)
s = connect(); s.sendall(packet(b"?")); assert b"$T" in s.recv(100); s.close()
random.seed(5)
for n in range(20):
    s = connect()
    s.sendall(b"".join(packet(bytes(random.randrange(256) for _ in range(random.randrange(40)))) for _ in range(20))
              .replace(b"k", b"g").replace(b"K", b"g"))
    s.shutdown(socket.SHUT_WR)
    s.close()
s = connect(); s.sendall(b"$m0,ffffffffffffffff#"); s.close()
s = connect(); s.sendall(packet(b"vCont;c") + packet(b"vCont;c") + b"\3\3\3"); s.shutdown(socket.SHUT_WR)
while s.recv(4096): pass
PYTHON
  echo line >&7
  await 60 grep -q line serve.out
  ends 0
}

seconds[gdb_at_redis]=300
test_gdb_at_redis() {
  need redis-server redis-cli
  local port gdb
  port=$(free_port)
  serve /usr/bin/redis-server --port "$port" --save '' --dir "$PWD"
  timeout 200 gdb -q -nx -batch -ex 'set debuginfod enabled off' -ex "target remote $PWD/gdb.socket" -ex 'continue' \
    -ex 'backtrace 1' -ex 'info threads' -ex 'break dbAdd' -ex 'continue' -ex 'x/s *(char**)($rsi + 8)' -ex 'backtrace' \
    -ex 'stepi' -ex 'stepi' -ex 'x/i $pc' -ex 'delete' -ex 'continue' >gdb.out 2>&1 </dev/null 7>&- &
  gdb=$!
  await 100 redis-cli -p "$port" ping
  pkill -INT -P "$gdb"
  await 60 grep -q 'Breakpoint 1 at' gdb.out
  sleep 1
  expect 'answer to SET' OK "$(redis-cli -p "$port" set greeting hello)"
  # gdb dies in the middle; the server does not.
  pkill -KILL -P "$gdb"
  wait "$gdb" || true
  expect 'answer to GET' hello "$(redis-cli -p "$port" get greeting)"
  says 'received signal SIGINT' '#0 .* in ' '\* 1 +Thread' 'Breakpoint 1, .*dbAdd' '"greeting"' '#0 .*dbAdd' \
    '#[1-9].*setCommand' '=> 0x[0-9a-f]+ <dbAdd\+'
  redis-cli -p "$port" shutdown nosave || true
  ends 0
}

# A program that dies says where, if that is wanted, and leaves a core that gdb opens.
seconds[crash_report]=300
test_crash_report() {
  one 'signal 11' "${dbos[@]}" --crash-report --core core "$debugged" crash
  grep -q 'the program died: signal 11 (Segmentation fault)' one.err
  grep -Eq '=> 0x[0-9a-f]+  mov' one.err
  grep -Eq '#0 .* crash\(char const\*\)\+0x[0-9a-f]+ \(debugged.cpp:' one.err
  grep -Eq '#[0-9]+ .*__libc_start' one.err
  grep -q 'r-x .*/debugged' one.err
  [[ $(stat -c %a core) = 600 ]]
  need gdb
  gdb -q -nx -batch -ex 'set debuginfod enabled off' -ex 'bt' -ex 'print address' -ex 'info threads' "$debugged" core \
    >gdb.out 2>&1 </dev/null
  says 'terminated with signal SIGSEGV' '#0 .*crash \(address=0x10' '#1 .*main \(argc=2' '\$1 = 0x10' '\* 1 +Thread'
  # Without being asked, standard error is the program's own.
  one 'signal 11' "${dbos[@]}" "$debugged" crash
  expect 'standard error' '' "$(<one.err)"
  # A death by a signal that the program sends itself, with other threads about.
  one 'signal 6' "${dbos[@]}" --crash-report "$python" -c '
import os, threading, time
for n in range(3): threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
os.abort()'
  grep -Eq '#[0-9]+ .* abort' one.err
  # A death that dumps no core, and a program that ends well, say nothing.
  one 'signal 15' "${dbos[@]}" --crash-report "$python" -c 'import os; os.kill(os.getpid(), 15)'
  expect 'standard error' '' "$(<one.err)"
  one 'exit 3' "${dbos[@]}" --crash-report "$python" -c 'import sys; sys.exit(3)'
  expect 'standard error' '' "$(<one.err)"
  mkdir folder
  one 'signal 6' "${dbos[@]}" --core folder/core "$python" -c 'import os; os.rmdir("folder"); os.abort()'
  grep -q 'no core in /.*/folder/core: No such file' one.err
  # A part of one is not left behind, unless the file is somebody else's.
  one 'signal 11' bash -c 'ulimit -f 4; exec "$@"' - "${dbos[@]}" --core part "$debugged" crash
  grep -q 'no core in /.*/part: writing the core failed: File too large' one.err
  [[ ! -e part ]] || fail "$(stat -c %s part) bytes of a core are left"
  touch mine
  one 'signal 11' bash -c 'ulimit -f 4; exec "$@"' - "${dbos[@]}" --core mine "$debugged" crash
  [[ -e mine ]]
  # What somebody else has put there is not written.
  echo precious >precious
  one 'signal 6' "${dbos[@]}" --core link "$python" -c 'import os; os.symlink("precious", "link"); os.abort()'
  grep -q 'no core in /.*/link: Too many levels of symbolic links' one.err
  ln precious other
  one 'signal 11' "${dbos[@]}" --core other "$debugged" crash
  grep -q 'no core in /.*/other: that file has another name, too' one.err
  expect 'the file' precious "$(<precious)"
}

# Of threads that die together one reports, to the end.
seconds[crash_of_several_threads]=300
test_crash_of_several_threads() {
  local run
  for run in 1 2 3 4 5 6; do
    rm -f core
    one 'signal 11' "${dbos[@]}" --crash-report --core core "$debugged" crashes
    expect 'cores' 1 "$(grep -c '^dbos-run: core: ' one.err)"
    expect 'reports' 1 "$(grep -c 'the program died: signal 11' one.err)"
    "$python" - core <<'PYTHON'
import os, struct, sys
core = open(sys.argv[1], "rb").read()
offset, count = struct.unpack_from("<Q", core, 32)[0], struct.unpack_from("<H", core, 56)[0]
for n in range(count):
    start, size = struct.unpack_from("<8xQ16xQ", core, offset + n * 56)
    assert start + size <= len(core), (n, start, size, len(core))
PYTHON
  done
}

# A slip: the socket's place is a file.
test_gdb_spares_files() {
  echo precious >file
  one 'exit 125' "${dbos[@]}" --gdb gdb.sock true
  grep -Fq "with a '/' in it, as ./gdb.sock; 'gdb.sock'" one.err
  one 'exit 125' "${dbos[@]}" --gdb ./file true
  grep -q "can't listen at --gdb ./file: Address already in use" one.err
  expect 'the file' precious "$(<file)"
}

# A guest kernel that can't go on always says so, with its own part of the call chain and where the program
# called it. The program's names are not looked up: they are in files that damaged memory tells of.
seconds[guest_kernel_report]=300
test_guest_kernel_report() {
  one 'exit 70' "${dbos[@]}" "$debugged" damage
  grep -q 'panic: ' one.err
  grep -Eq 'cr3 [0-9a-f]{16}' one.err
  grep -Eq '#[0-9]+ +0xffffffff8[0-9a-f]+ dbos::' one.err
  grep -Eq '#[0-9]+ +0x0000[0-9a-f]+ [?][?]$' one.err
}
