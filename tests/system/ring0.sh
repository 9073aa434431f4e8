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
