# Random transactions with snapshots every second, see programs/stress.cpp. DBOS_STRESS_S says how long
# each strategy is tried (default 40 s, at least 31); the hour, in two runs of one machine:
#   tools/dbos-vm run --timeout 4500 -- env DBOS_STRESS_S=1800 tests/system/run --only stress build
# shellcheck shell=bash disable=SC2034,SC2154 # names that support.sh and run share

readonly stress_s=${DBOS_STRESS_S:-40}

stress() { # stress STRATEGY
  local line last='' alive=0 frames first=() quiet=0 status=0
  mkfifo input output
  "${dbos[@]}" --snapshot="$1" --stats=counters "$DBOS_BUILD/tests/system/stress" "$stress_s" \
    <input >output 2>errors &
  local program=$!
  exec 7>input 8<output
  while read -r line <&8; do
    echo "$line"
    last=$line
    [[ $line = quiet* ]] || continue
    quiet=$((quiet + 1))
    await 30 nothing_kept "$program"
    read -ra frames < <(frames_of "$program")
    echo "pages ${frames[0]}, tables ${frames[1]}, kernel ${frames[2]}"
    [[ $line =~ ([0-9]+)\ alive ]] && alive=${BASH_REMATCH[1]}
    ((${#first[@]})) || first=("${frames[@]}")
    expect 'pages without a snapshot' "${first[0]}" "${frames[0]}"
    # Where its mappings lie, and so how many tables they need, differs each time.
    ((frames[1] <= first[1] + 40)) || fail "${frames[1]} tables, at first ${first[1]}"
    # Heap for the threads and address spaces of so many processes, which may come to be more once.
    ((frames[2] <= first[2] + 8)) || fail "${frames[2]} frames of the kernel's own, at first ${first[2]}"
    echo >&7
  done
  wait "$program" || status=$?
  cat errors
  expect 'the exit status' 0 "$status"
  expect 'standard error' '' "$(<errors)"
  expect 'the last line' 'no torn view' "$last"
  # The program sees to it.
  expect 'the most snapshots alive at once' 4 "$alive"
  ((quiet > 1)) || fail 'pages were not counted twice'
  count_snapshots counters
}

seconds[stress_shared]=$((stress_s * 2 + 120))
test_stress_shared() {
  stress shared
  expect 'ready copies' 0 "$ready"
}

seconds[stress_ready]=$((stress_s * 2 + 120))
test_stress_ready() {
  stress ready
  some_were_ready counters
}
