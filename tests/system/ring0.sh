# The program runs in ring 0.
# shellcheck shell=bash disable=SC2034,SC2154 # names that support.sh and run share

test_program_runs_in_ring_0() {
  local program=$DBOS_BUILD/tests/conformance/ring0_proof
  [[ -x $program ]] || skip "$program is not built"
  expect natively 'CPL 3' "$("$program")"
  expect 'under dbos-run' $'CPL 0\nCR3 readable' "$("${dbos[@]}" "$program")"
}

test_ring_check() {
  one 'exit 0' "${dbos[@]}" --ring-check
  grep -Eqx 'ring 0 instruction: [0-9.]+ ns \(runs natively\)' one.out
  grep -Eqx 'hypercall and back: [0-9]+ ns' one.out
  grep -Eqx 'extended state \(XCR0\): 0x[0-9a-f]+' one.out
  grep -Eqx 'vCPUs: at most [0-9]+' one.out
  expect 'standard error' '' "$(<one.err)"
}

# Mappings of the guest's memory for which Linux is asked for large pages.
asked_for() { # asked_for OPTION...
  "${dbos[@]}" "$@" "$python" -c 'import time; open("touched", "w").close(); time.sleep(60)' &
  local program=$!
  await 30 test -e touched
  grep -Ec '^VmFlags:.* hg( |$)' "/proc/$program/smaps" || true
  kill "$program"
  wait "$program" || true
  rm touched
}

test_large_pages_of_the_host_are_asked_for() {
  # The run is redirected, or its background process would keep the pipe open.
  asked_for >with
  asked_for --no-large-pages >without
  (($(<with) > 0)) || fail 'no mapping asks for large pages'
  expect 'with --no-large-pages' 0 "$(<without)"
}

# What a program gives up for itself (redis's disable-thp) is not taken from the whole machine.
test_large_pages_of_the_host_stay() {
  [[ $(</sys/kernel/mm/transparent_hugepage/enabled) != *'[never]'* ]] || skip 'this Linux has large pages turned off'
  "${dbos[@]}" "$python" -c '
import ctypes, time
prctl = ctypes.CDLL(None).prctl
assert (prctl(41, 1, 0, 0, 0), prctl(42, 0, 0, 0, 0)) == (0, 1)
data = bytearray(64 << 20)
data[::4096] = bytes([1]) * (len(data) // 4096)
open("touched", "w").close()
time.sleep(60)' &
  local program=$! large
  await 30 test -e touched
  large=$(sed -n 's/^AnonHugePages: *\([0-9]*\) kB/\1/p' "/proc/$program/smaps_rollup")
  kill "$program"
  wait "$program" || true
  echo "$large kB of the host's large pages"
  ((large >= 32768)) || fail "$large kB of the host's large pages"
}
