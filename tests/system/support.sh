# What the tests of this directory share. `run` starts each test as
#   bash support.sh FILE FUNCTION
# in an empty directory of its own. A command that fails ends the test, as in a script with -e.
# shellcheck shell=bash disable=SC2034 # names that the tests use

set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly python=/usr/bin/python3

read -r -a dbos_options <<<"${DBOS_RUN_ARGS-}"
dbos=("$DBOS_RUN" ${dbos_options[@]+"${dbos_options[@]}"})

# The test ends here. In a subshell, only that ends: write `|| exit`.
fail() {
  echo "$*" >"$DBOS_WHY"
  exit 1
}

skip() {
  echo "$*" >"$DBOS_WHY"
  exit 77
}

need() { # need PROGRAM...
  local program
  for program; do
    command -v "$program" >/dev/null || skip "$program is not installed"
  done
}

# Runs what follows the first argument, a file, and writes there how that ended, which a shell's $?
# does not tell: 'exit N' or 'signal N'.
# shellcheck disable=SC2016 # that is Perl
readonly ending='
  my $file = shift; my $status = system { $ARGV[0] } @ARGV;
  open(my $out, ">", $file) or die;
  printf $out "%s\n", $status == -1 ? "not found" : $status & 127 ? "signal " . ($status & 127) : "exit " . ($status >> 8)'

# both [-e ENDING] [-i INPUT] [-f SED-SCRIPT] COMMAND [ARGUMENT]...
# Runs COMMAND natively and under dbos-run, each in an empty directory of the same name, and compares standard output,
# standard error (both through the sed script) and the ending, which natively must be ENDING
# ('exit 0'). Leaves the native answer in native.out, native.err, native.end.
both() {
  local wanted='exit 0' input=/dev/null script='' side prefix begin
  while [[ $1 = -* ]]; do
    case $1 in
      -e) wanted=$2 ;;
      -i) input=$2 ;;
      -f) script=$2 ;;
      *) fail "both: unknown option $1" ;;
    esac
    shift 2
  done
  for side in native dbos; do
    prefix=()
    [[ $side = native ]] || prefix=("${dbos[@]}")
    begin=$EPOCHREALTIME
    mkdir there
    (cd there && exec perl -e "$ending" "../$side.end" ${prefix[@]+"${prefix[@]}"} "$@") \
      <"$input" >"$side.out" 2>"$side.err" || fail "$1: could not be started"
    printf '%s, %d ms: %.160s\n' "$side" $(((${EPOCHREALTIME/./} - ${begin/./}) / 1000)) "$(printf '%q ' "$@")"
    # What dbos-run warns of when a program leaves the guest, or its first process its children.
    sed -i -e '/^dbos-run: the first process/d' "$side.err"
    [[ ! $script ]] || sed -i -e "$script" "$side.out" "$side.err"
    chmod -R u+rwx there && rm -rf there
  done
  [[ $(<native.end) = "$wanted" ]] || {
    cat native.err
    fail "$1: natively '$(<native.end)', not '$wanted'"
  }
  local what bad=''
  for what in end out err; do
    cmp -s "native.$what" "dbos.$what" || {
      diff -a -u "native.$what" "dbos.$what" | head -n 24 || true
      bad+=" $what"
    }
  done
  [[ ! $bad ]] || fail "$1: differs natively and under dbos-run:$bad"
}

# one ENDING COMMAND...: runs it as it stands (with "${dbos[@]}" in front, say); leaves one.out, one.err.
one() {
  local wanted=$1
  shift
  printf '%s\n' "$(printf '%q ' "$@" | cut -c 1-200)"
  perl -e "$ending" one.end "$@" </dev/null >one.out 2>one.err || fail "$1: could not be started"
  [[ $(<one.end) = "$wanted" ]] || {
    head -n 20 one.out one.err
    fail "$(basename "$1") ${*:2:3}: '$(<one.end)', not '$wanted'"
  }
}

expect() { # expect WHAT WANTED ACTUAL
  [[ $2 = "$3" ]] || fail "$1: expected $(printf %q "${2:0:200}"), got $(printf %q "${3:0:200}")"
}

# Runs COMMAND, a function of ours, while a setting of Linux's has another value: for all that runs there, so it is done
# in the emulated machine alone.
setting() { # setting NAME VALUE COMMAND...
  local file=/proc/sys/$1 before
  [[ -e /run/dbos-vm/supervise ]] || skip "changes a setting of the whole machine's, and this one is not emulated"
  before=$(<"$file")
  # However the test ends. Not by '||', behind which a command that fails would end nothing.
  # shellcheck disable=SC2064 # what there is now
  trap "echo ${before@Q} >$file" EXIT
  echo "$2" >"$file"
  "${@:3}"
  echo "$before" >"$file"
  trap - EXIT
}

# What could be left, but for processes: for those `run` looks. Elsewhere than here, others make files.
traces() {
  ls -A .
  find /tmp /dev/shm /run /var/tmp -maxdepth 1 -name '*dbos*'
  cut -d ' ' -f 2- /proc/net/unix | grep -v ' 03 ' | grep -i dbos
  true
}

# refused STATUS PATTERN COMMAND...: ends with STATUS, says nothing on standard output, and one line that
# matches the extended regular expression on standard error.
refused() {
  local status=0 wanted=$1 pattern=$2 before
  shift 2
  touch refused.out refused.err refused.more
  before=$(traces)
  "$@" </dev/null >refused.out 2>refused.err || status=$?
  printf '%s: %s\n' "$status" "$(<refused.err)"
  [[ $status = "$wanted" ]] || fail "${*: -2}: status $status, not $wanted: $(head -c 150 refused.err)"
  [[ ! -s refused.out ]] || fail "${*: -2}: wrote on standard output: $(head -c 100 refused.out)"
  [[ $(wc -l <refused.err) = 1 && $(tail -c 1 refused.err | od -An -c) = *'\n' ]] ||
    fail "${*: -2}: not one line: $(head -c 300 refused.err)"
  grep -Eq "^dbos-run: .*($pattern)" refused.err || fail "${*: -2}: no '$pattern' in: $(<refused.err)"
  [[ $(traces) = "$before" ]] || fail "${*: -2}: left: $(diff <(echo "$before") <(traces) | tr '\n' ' ')"
}

await() { # await SECONDS COMMAND...: until it succeeds
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < end)) || fail "waited too long for: $*"
    sleep 0.1
  done
}

# Of a server in the background: `server` is its process, and server.out has what it prints.
still_runs() {
  kill -0 "$server" 2>/dev/null || fail "the server ended: $(tail -n 3 server.out)"
}
ends_in_order() {
  wait "$server" || fail "the server ended with status $?: $(tail -n 3 server.out)"
}

# Of a program that runs in the guest, as dbos-dbg counts: its pages, the tables of all address spaces, what the guest
# kernel has for itself, and the pages and tables that are kept for snapshots only.
frames_of() { # frames_of PROGRAM: 'PAGES TABLES KERNEL KEPT'
  "$DBOS_BUILD/tools/dbos-dbg" -p "$1" --json frames | "$python" -c '
import json, sys
frames = json.load(sys.stdin)
print(frames["pages"], frames["tables"], frames["kernel"], frames["retired_pages"] + frames["retired_tables"])'
}

nothing_kept() { # nothing_kept PROGRAM: for snapshots
  [[ $(frames_of "$1") = *' 0' ]]
}

one_process() { # one_process PROGRAM: runs in the guest
  [[ $("$DBOS_BUILD/tools/dbos-dbg" -p "$1" --json ps | "$python" -c '
import json, sys; print(len({thread["process"] for thread in json.load(sys.stdin)}))') = 1 ]]
}

snapshots_of() { # snapshots_of PROGRAM: how many there are
  "$DBOS_BUILD/tools/dbos-dbg" -p "$1" --json snapshots | "$python" -c '
import json, sys; print(len(json.load(sys.stdin)["snapshots"]))'
}

# So many pages, or up to MORE more or less, and no snapshots. Tables and the kernel's own frames: some more, since
# mappings lie elsewhere each time, and threads and processes once needed heap.
has_memory() { # has_memory PROGRAM MORE PAGES TABLES KERNEL
  local frames change
  read -ra frames < <(frames_of "$1")
  change=$((frames[0] - $3))
  echo "pages ${frames[0]}, at the beginning $3; tables ${frames[1]}, $4; kernel ${frames[2]}, $5; kept ${frames[3]}"
  ((${change#-} <= $2 && frames[1] <= $4 + 40 && frames[2] <= $5 + 8)) && [[ $(snapshots_of "$1") = 0 ]]
}

# The program prints 'begin' when it has made some children, and so all that it keeps for itself; and 'ready' when
# the others are gone too: then it has the pages that it had before, but for what it needs itself, and no snapshot.
leaves_nothing() { # leaves_nothing PROGRAM [PAGES]
  mkfifo input output
  "${dbos[@]}" "$python" -c "$1" <input >output 2>errors &
  local program=$! line answer first=()
  exec 7>input 8<output
  for line in begin ready; do
    read -r answer <&8 || fail "$(tail -n 3 errors)"
    expect 'the answer' "$line" "$answer"
    await 30 nothing_kept "$program"
    await 30 one_process "$program"
    [[ $line = ready ]] || read -ra first < <(frames_of "$program")
    await 30 has_memory "$program" "${2:-0}" "${first[@]:0:3}"
    echo >&7
  done
  wait "$program"
}

exits_of() { # exits_of FILE INDEX: of the counters that --stats wrote
  "$python" -c "import json; print(json.load(open('$1'))['exits']$2)"
}

# Sets `ready` and `shared` to how many snapshots came to be in either way.
count_snapshots() { # count_snapshots FILE, which --stats wrote
  ready=$(exits_of "$1" '["snapshots"]["ready"]') shared=$(exits_of "$1" '["snapshots"]["shared"]')
  echo "snapshots: ready $ready, shared $shared"
}

some_were_ready() { # some_were_ready FILE
  count_snapshots "$1"
  ((ready > 0)) || fail 'no snapshot was handed a ready copy'
}

# Under another /dev, which only the command sees.
with_dev() { # with_dev SCRIPT COMMAND...
  unshare --mount sh -c "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 &&
    mkdir /dev/shm && { $1; } && shift && exec \"\$@\"" - '' "${@:2}"
}

free_port() {
  "$python" -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

explain() { # explain STATUS LINE COMMAND
  [[ -s $DBOS_WHY ]] || echo "line $2 failed with status $1: ${3:0:100}" >"$DBOS_WHY"
}

# The time limit arrives as SIGTERM: what was there until then?
show_unfinished() {
  tail -n 8 native.out native.err dbos.out dbos.err one.out one.err 2>/dev/null
  exit 124
}

if [[ ${BASH_SOURCE[0]} = "$0" ]]; then
  declare -A seconds=()
  # shellcheck disable=SC1090 # the file with the test
  . "$1"
  set -E -o errexit
  trap show_unfinished TERM
  trap 'explain "$?" "$LINENO" "$BASH_COMMAND"' ERR
  "$2"
fi
