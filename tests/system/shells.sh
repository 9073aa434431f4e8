# Shells make processes: pipes, subshells, background jobs, traps.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # scripts in quotes; names that support.sh and run share

# What every shell has.
common=$(
  cat <<'SCRIPT'
echo pipes
seq 10 | sed s/1/one/ | sort -r | tail -n 3
seq 5000 | cat | cat | cat | wc -l
echo subshells
(echo a; (echo b; (echo c; exit 4); echo $?); echo d) | cat
x=outer; (x=inner; echo $x); echo $x
(cd /usr && pwd); pwd
echo "$(echo "$(echo "$(echo nested)")")"
echo "$(seq 3000 | sort -n | tail -n 1)"
echo here-documents
cat <<END
$x $(echo inside) $((3 * 7))
END
cat <<'END' | tr a-z A-Z
$x quoted
END
echo background
(sleep 0.2; exit 3) & first=$!
(sleep 0.1; exit 5) & second=$!
wait $first; echo "first $?"
wait $second; echo "second $?"
for i in 1 2 3 4; do (exit $i) & done; wait; echo "all $?"
sleep 30 & kill $!; wait $! 2>/dev/null; echo "killed $?"
echo traps
(trap 'echo on exit' EXIT; echo body)
(trap 'echo got usr1' USR1; kill -USR1 $(sh -c 'echo $PPID'); echo after)
trap 'echo term' TERM; (sleep 0.2; kill -TERM $$) & wait; wait; trap - TERM
trap '' INT; kill -INT $$; echo ignored; trap - INT
echo conditions
true && echo yes || echo no; false && echo yes || echo no
if grep -q root /etc/passwd; then echo found; fi
! true; echo $?
nosuchcommand 2>/dev/null; echo $?
/etc/passwd 2>/dev/null; echo $?
{ sh -c 'kill -9 $$'; } 2>/dev/null; echo $?
echo loops
i=0; while [ $i -lt 200 ]; do i=$((i + 1)); done; echo $i
seq 3 | while read -r n; do echo "n$n"; done
for f in a b; do echo $f >$f; done; cat a b; rm a b
f() { [ "$1" -le 1 ] && echo 1 && return; echo $(($1 * $(f $(($1 - 1))))); }; f 6
echo redirections
{ echo out; echo err >&2; } 2>&1 | sort
{ echo to three >&3; } 3>&1
exec 4>file; echo four >&4; exec 4>&-; cat file; cat <file >>file2; wc -c <file2
umask 077; echo x >private; stat -c %a private
mkfifo pipe; (echo through a fifo >pipe) & cat pipe; wait
exec sh -c 'echo replaced; exit 9'
SCRIPT
)

test_busybox_sh() {
  need busybox
  both -e 'exit 9' busybox sh -c "$common"
  both -e 'exit 2' -f 's/line [0-9]*: //' busybox sh -c 'echo start; if; echo never'
}

test_dash() {
  need dash
  both -e 'exit 9' dash -c "$common"
}

test_bash() {
  both -e 'exit 9' bash -c "set +m; $common"
}

test_bash_on_standard_input() {
  printf '%s\n' "$common" >script
  both -e 'exit 9' -i script bash
  need busybox
  both -e 'exit 9' -i script busybox sh
}

test_bash_of_its_own() {
  both -e 'exit 6' bash -c '
    set +m
    echo process substitution
    diff <(seq 5) <(seq 4); echo $?
    seq 4 | tee >(sort -r >sorted) >/dev/null; while [ ! -s sorted ]; do sleep 0.05; done; cat sorted
    paste <(seq 3) <(seq 4 6) <(echo x)
    echo pipefail
    set -o pipefail; false | true; echo $?; true | true; echo $?; (exit 3) | (exit 4) | true; echo $? "${PIPESTATUS[@]}"; set +o pipefail
    echo coprocess
    coproc bc { while read -r a; do echo $((a * 2)); done; }
    echo 21 >&${bc[1]}; read -r answer <&${bc[0]}; echo $answer; eval "exec ${bc[1]}>&-"; wait; echo $?
    echo arrays
    mapfile -t lines < <(seq 100); echo ${#lines[@]} ${lines[99]}
    declare -A map=([a]=1 [b]=2); echo ${map[a]}${map[b]}
    shopt -s lastpipe; echo last | read -r word; echo $word
    echo here strings
    cat <<<"one string"; tr a-z A-Z <<<abc
    echo traps
    trap "echo debug" ERR; false; trap - ERR
    trap "echo child" CHLD; (exit 1); sleep 0.1; /bin/true; trap - CHLD
    (trap "echo exit of subshell" EXIT)
    wait -n 2>/dev/null; echo $?
    (sleep 0.1; exit 2) & sleep 5 & wait -n; echo "first to end: $?"; kill $!; wait 2>/dev/null
    read -r -t 0.2 line < <(exec sleep 30); echo "read $(($? > 128))"; kill $!
    printf "%s\n" {1..3}{a,b} | tac | head -n 2
    time_format=%R; echo ${#SECONDS}
    echo $BASHPID | grep -c "^$$\$"; (echo $BASHPID | grep -c "^$$\$")
    ulimit -n 100; ulimit -n
    exit 6'
}

test_bash_recursion_and_many_processes() {
  both bash -c 'f() { local n=$1; if ((n > 0)); then f $((n - 1)); else echo bottom; fi; }; f 500
    deep() { if (($1 > 0)); then (deep $(($1 - 1))); else echo "depth reached"; fi; }; deep 12
    for ((i = 0; i < 60; i++)); do (exit $((i % 3))); echo -n $?; done; echo
    for ((i = 0; i < 20; i++)); do (echo $i) & done | sort -n | paste -s -d ,; wait
    s=x; for ((i = 0; i < 18; i++)); do s+=$s; done; (echo ${#s}); s=; echo ${#s}'
}

# A pipe whose reader goes away: SIGPIPE, in a child of the guest's own.
test_broken_pipes() {
  both bash -c 'while :; do echo y; done | head -n 2; echo ${PIPESTATUS[@]}
    (trap "" PIPE; while echo y; do :; done 2>/dev/null; echo "write failed" >&2) | head -n 1
    yes | head -n 1; echo ${PIPESTATUS[0]}'
}
