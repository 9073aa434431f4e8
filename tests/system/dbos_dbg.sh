# dbos-dbg, its socket and --metrics, against a running redis-server.
# shellcheck shell=bash disable=SC2034,SC2154 # names that support.sh and run share

dbg_test() { # dbg_test PART
  need redis-server redis-cli
  "$python" -B "$here/dbos_dbg/look.py" "$1"
}
debug_test() { # debug_test PART
  need redis-server redis-cli gdb
  "$python" -B "$here/dbos_dbg/debug.py" "$1"
}

seconds[dbos_dbg_looks]=240
test_dbos_dbg_looks() { dbg_test looks; }
seconds[dbos_dbg_page_tables]=240
test_dbos_dbg_page_tables() { dbg_test page_tables; }
seconds[dbos_dbg_trace]=240
test_dbos_dbg_trace() { dbg_test trace; }
seconds[dbos_dbg_trace_filters]=240
test_dbos_dbg_trace_filters() { dbg_test trace_filters; }
seconds[dbos_dbg_hostile_clients]=240
test_dbos_dbg_hostile_clients() { dbg_test hostile; }
test_dbos_dbg_and_a_stranger() { dbg_test stranger; }
seconds[dbos_run_metrics]=240
test_dbos_run_metrics() { dbg_test metrics; }

seconds[dbos_dbg_breaks]=240
test_dbos_dbg_breaks() { debug_test breaks; }
seconds[dbos_dbg_shows_where_it_stands]=300
test_dbos_dbg_shows_where_it_stands() { debug_test stands; }
seconds[dbos_dbg_watches]=240
test_dbos_dbg_watches() { debug_test watches; }
seconds[dbos_dbg_cores]=300
test_dbos_dbg_cores() { debug_test cores; }
seconds[dbos_dbg_aborts]=300
test_dbos_dbg_aborts() { debug_test aborts; }
seconds[dbos_dbg_second_debugger_is_told]=300
test_dbos_dbg_second_debugger_is_told() { debug_test second; }
seconds[dbos_dbg_debugger_vanishes]=300
test_dbos_dbg_debugger_vanishes() { debug_test vanishes; }
seconds[dbos_dbg_gdb]=300
test_dbos_dbg_gdb() { debug_test gdb; }

# Threads and vfork's children come to be and end while the program is stopped.
seconds[dbos_dbg_and_a_program_that_spawns]=300
test_dbos_dbg_and_a_program_that_spawns() {
  local dbg=$DBOS_BUILD/tools/dbos-dbg program i
  "${dbos[@]}" "$python" -c '
import os, subprocess, threading, time
end = time.monotonic() + 200
def spawn():
    while not os.path.exists("stop") and time.monotonic() < end:
        subprocess.run(["true"], check=True)
        thread = threading.Thread(target=time.sleep, args=(0,))
        thread.start()
        thread.join()
threads = [threading.Thread(target=spawn) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("spawned to the end")' >spawning 2>spawning.err &
  program=$!
  await 60 "$dbg" -p "$program" ps >/dev/null
  for i in 1 2 3 4 5; do
    one 'exit 0' "$dbg" -p "$program" core "core.$i"
    [[ $(head -c 4 "core.$i") = $'\x7fELF' ]]
    rm "core.$i"
    one 'exit 0' "$dbg" -p "$program" debug -e 'break _exit' -e 'break malloc' -e 'break free' -e 'break read' -e 'disas'
  done
  touch stop
  wait "$program" || fail "it ended with status $?: $(tail -n 3 spawning.err)"
  expect 'what it prints' 'spawned to the end' "$(<spawning)"
}

# What the program does to its root directory is not the control thread's.
test_dbos_dbg_and_a_jail() {
  mkdir jail
  "${dbos[@]}" "$python" -c 'import os, time; os.chroot("jail"); print("in", flush=True); time.sleep(60)' >jailed &
  await 30 grep -q in jailed
  one 'exit 0' "$DBOS_BUILD/tools/dbos-dbg" -p "$!" ps
  kill "$!"
  grep -q python one.out
}

# Root is not enough where it has no capabilities or can't see the program's process, as in another container; the
# host's root is let in to a container's program. hostile_clients tries without what is asked for.
test_dbos_dbg_lets_in_who_may_trace() {
  local dbg=$DBOS_BUILD/tools/dbos-dbg container
  "${dbos[@]}" sleep 200 &
  await 30 "$dbg" -p "$!" ps
  one 'exit 1' setpriv --bounding-set=-all --inh-caps=-all "$dbg" -p "$!" ps
  grep -q "^dbos-dbg: can't attach: Linux does not let this user look into process" one.err
  one 'exit 1' unshare --pid --fork --mount-proc "$dbg" ps
  grep -q "^dbos-dbg: can't attach: the program runs in another pid namespace" one.err
  kill "$!"
  unshare --user --map-root-user --net --pid --fork --mount-proc --kill-child "${dbos[@]}" sleep 201 &
  container=$!
  look_into_container() { nsenter --net --target "$(pgrep -n -x sleep)" "$dbg" ps; }
  await 60 look_into_container
  kill -KILL "$container"  # it takes no notice of SIGTERM
  is_container_gone() { ! pgrep -f 'sleep 201' >/dev/null; }
  await 30 is_container_gone
}

# A thread that gives up its capabilities opens the memory to nobody, in which the VMM's threads have theirs still.
test_dropped_capabilities_close_the_memory() {
  "${dbos[@]}" "$python" -c 'import ctypes, struct, time
result = ctypes.CDLL(None).capset(struct.pack("Ii", 0x20080522, 0), bytes(24))
print("dropped", result, flush=True)
time.sleep(100)' >dropping &
  await 30 grep -q '^dropped 0$' dropping
  one 'exit 1' setpriv --bounding-set=-all --inh-caps=-all readlink "/proc/$!/exe"
  one 'exit 0' "$DBOS_BUILD/tools/dbos-dbg" -p "$!" ps
  kill "$!"
}

without_kvm+=(dbos_dbg_help dbos_dbg_without_a_program)

test_dbos_dbg_help() {
  local dbg=$DBOS_BUILD/tools/dbos-dbg command
  one 'exit 0' "$dbg" --help
  grep -q '^Usage: dbos-dbg ' one.out
  cp one.out help
  for command in ls ps maps pt snapshots frames exits calls metrics trace regs bt x disas step continue break watch \
    awatch core debug gdb; do
    grep -Eq "^  $command +[A-Zg.]" help || fail "--help does not name $command"
    one 'exit 0' "$dbg" "$command" --help
    grep -Eq "^Usage: dbos-dbg $command( |\$)" one.out || fail "$command --help: $(head -c 200 one.out)"
  done
  one 'exit 0' "$dbg" --help-all
  grep -q -e '--in-guest' one.out
}

test_dbos_dbg_without_a_program() {
  local dbg=$DBOS_BUILD/tools/dbos-dbg
  one 'exit 1' "$dbg" -p no-such-program ps
  grep -Eq '^dbos-dbg: no program' one.err
  one 'exit 2' "$dbg" --no-such-option
  one 'exit 2' "$dbg"
  grep -Fxq "dbos-dbg: name a command; 'dbos-dbg --help' lists them" one.err
  one 'exit 2' "$dbg" no-such-command
  grep -Fxq "dbos-dbg: there is no command 'no-such-command'; 'dbos-dbg --help' lists them" one.err
  # What is wrong is said before there is anything to attach to.
  one 'exit 2' "$dbg" -p '' ps
  one 'exit 2' "$dbg" calls soon
  one 'exit 2' "$dbg" exits -5s
  one 'exit 2' "$dbg" pt nowhere
  one 'exit 2' "$dbg" maps --space there
  one 'exit 2' "$dbg" trace --space there
  one 'exit 2' "$dbg" trace --count 0
  one 'exit 2' "$dbg" trace --seconds nan
  one 'exit 2' "$dbg" break main --count -1
  one 'exit 2' "$dbg" step often
  # Neither 2^64 - 1, nor octal.
  one 'exit 2' "$dbg" bt --thread=-1
  one 'exit 2' "$dbg" trace --process=-1
  one 'exit 2' "$dbg" pt ' -5'
  one 'exit 2' "$dbg" trace --count 09z
  one 'exit 1' "$dbg" -p no-such-program trace --count 09 --seconds 0.5
  one 'exit 2' "$dbg" calls 1441m
  grep -q 'at most a day, 1440m' one.err
  one 'exit 2' "$dbg" gdb localhost
  one 'exit 2' "$dbg" gdb gdb.sock
  grep -Fq "has a '/' in it, as ./gdb.sock" one.err
  one 'exit 0' "$dbg" --json ls
  "$python" -m json.tool one.out >/dev/null
}

test_dbos_dbg_of_a_program_without_control() {
  "${dbos[@]}" --no-control sleep 30 &
  await 30 pgrep -x sleep >/dev/null
  one 'exit 1' "$DBOS_BUILD/tools/dbos-dbg" -p "$!" ps
  grep -q '^dbos-dbg: no program of yours runs under dbos-run here' one.err
  ! grep '@dbos-run/' /proc/net/unix || fail 'there is a socket'
  kill "$!"
}
