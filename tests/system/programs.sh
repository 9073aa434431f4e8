# Programs as everyone has them: the same output and ending as natively.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # scripts in quotes; names that support.sh and run share

test_true_and_false() {
  both /bin/true
  both -e 'exit 1' /bin/false
  both -e 'exit 37' sh -c 'exit 37'
  both -e 'exit 255' sh -c 'exit 255'
}

test_death_by_signal_is_passed_on() {
  local signal
  for signal in HUP:1 INT:2 QUIT:3 ABRT:6 KILL:9 SEGV:11 PIPE:13 ALRM:14 TERM:15 USR1:10; do
    both -e "signal ${signal#*:}" sh -c "kill -${signal%:*} \$\$; echo lives"
  done
}

test_arguments_and_environment() {
  both printf '<%s>' '' 'two words' $'new\nline' $'end\n' --help -x -- 'äöü' $'\xff\x01'
  both sh -c 'echo "$0" "$#" "$@"' name a '' c
  both env -i A=1 'B=two words' C= env
  both sh -c 'pwd; umask; ulimit -a; id; tty; hostname'
  # Some 100 kB of arguments.
  # shellcheck disable=SC2046 # many words
  both sh -c 'echo $# $(echo "$*" | cksum)' $(seq 20000)
}

test_names_of_the_process() {
  both sh -c 'readlink /proc/self/exe; cat /proc/$$/comm'
  both readlink /proc/self/exe
  both cat /proc/self/comm
  both sed -n '/^Name\|^Uid\|^Sig[BIC]/p' /proc/self/status
  both bash -c 'exec -a another sh -c "echo \$0"'
}

# The VMM's descriptors are none of the program's business.
test_descriptors_are_the_programs_own() {
  both ls /proc/self/fd
  both bash -c 'exec 3</dev/null 4>&1; ls /proc/self/fd; echo four >&4'
  both "$python" -c 'import os; print([os.dup(1) for i in range(4)]); os.closerange(3, 1 << 16); os.system("echo still here")'
}

test_standard_streams_may_be_closed() {
  both sh -c '"$@" <&-' - ls /proc/self/fd
  local side prefix
  for side in native dbos; do
    prefix=()
    [[ $side = native ]] || prefix=("${dbos[@]}")
    { ${prefix[@]+"${prefix[@]}"} cat <&- 2>err.$side || echo "status $?" >>err.$side; } >out.$side
    { ${prefix[@]+"${prefix[@]}"} /bin/echo text >&- 2>>err.$side || echo "status $?" >>err.$side; }
    { ${prefix[@]+"${prefix[@]}"} /bin/echo text 2>&- || echo "status $?"; } >>out.$side
    { ${prefix[@]+"${prefix[@]}"} sh -c 'ls -l /proc/self/fd | grep -c .' <&- >>out.$side 2>&- || true; }
  done
  diff -u out.native out.dbos
  diff -u err.native err.dbos
}

# Who reads standard error to its end waits for the program's processes that have it, and no others.
test_standard_error_ends_with_the_program() {
  local side prefix code='
import os, time
if os.fork(): os._exit(0)
os.setsid()
for descriptor in range(3): os.close(descriptor)
end = time.time() + 60
while not os.path.exists("end") and time.time() < end: time.sleep(0.05)
open("ended", "w")'
  for side in native dbos; do
    prefix=()
    [[ $side = native ]] || prefix=("${dbos[@]}" --stats)
    rm -f end ended
    { ${prefix[@]+"${prefix[@]}"} "$python" -c "$code"; } 2>&1 | cat >out
    [[ ! -e ended ]] || fail "$side: standard error ended with the background process"
    touch end
    await 30 test -e ended
  done
}

readonly refused_call='
import ctypes, os, signal, time
def refused(): ctypes.CDLL(None).syscall(29, 0, 1, 0o600)  # shmget'

test_log_without_a_reader() {
  local signal
  for signal in DFL IGN; do
    one 'exit 0' bash -c '"$@" 2> >(true)' - "${dbos[@]}" "$python" -c "$refused_call
signal.signal(signal.SIGPIPE, signal.SIG_$signal)
time.sleep(1); refused(); print('alive')"
    expect 'standard output' alive "$(<one.out)"
  done
}

# The descriptor 2 is another file by then.
test_log_is_not_written_to_the_programs_files() {
  local code="$refused_call
files = [os.open(name, os.O_RDWR | os.O_CREAT, 0o600) for name in ('0', '1', '2', '3')]
refused()
if os.fork() == 0: refused(); os._exit(0)
os.wait()
open('sizes', 'w').write(str([files[0], [os.fstat(file).st_size for file in files]]))"
  one 'exit 0' bash -c '"$@" <&- >&- 2>&-' - "${dbos[@]}" --log-level debug "$python" -c "$code"
  expect sizes '[0, [0, 0, 0, 0]]' "$(<sizes)"
  one 'exit 0' "${dbos[@]}" --log-level error "$python" -c "$refused_call
if os.fork() == 0:
    file = os.open('file', os.O_RDWR | os.O_CREAT, 0o600); os.dup2(file, 2); refused(); os._exit(0)
os.wait(); print(os.stat('file').st_size)"
  expect 'what is in the file' 0 "$(<one.out)"
}

test_input_is_the_programs() {
  seq 30000 >input
  both -i input cat
  both -i input sh -c 'read -r a; read -r b; echo "$a $b"; head -c 5; exec wc -l'
  # A pipe, and its end.
  seq 100000 | "${dbos[@]}" md5sum >one
  seq 100000 | md5sum | diff - one
  set +o pipefail
  "${dbos[@]}" yes | head -n 100000 | tail -n 1 >one
  expect 'yes | head' y "$(<one)"
}

# All of /usr/share takes minutes in an emulated machine, where each name is a request to the host:
#   tools/dbos-vm run --timeout 1800 -- env DBOS_LISTED=/usr/share tests/system/run --only long_listing build
seconds[long_listing]=900
test_long_listing() {
  local listed=${DBOS_LISTED:-/usr/share/doc}
  ls -lR "$listed" >wanted
  "${dbos[@]}" ls -lR "$listed" >got
  cmp wanted got
  [[ $(wc -l <got) -gt 1000 ]] || fail "$listed has only $(wc -l <got) lines"
}

test_static_busybox() {
  need busybox
  both busybox echo static
  both busybox ls -l /etc
  both busybox sha256sum /bin/bash /usr/bin/python3
  both -e 'exit 3' busybox sh -c 'exit 3'
  both busybox awk 'BEGIN { for (i = 0; i < 20000; i++) s += i * i; printf "%d\n", s }'
  both busybox find /etc/default
  both busybox sed -n 's/root/ROOT/p' /etc/passwd
}

test_sort_and_hash() {
  seq 1 150000 | sed 's/\([0-9]\)\([0-9]*\)/\2\1 \1/' >input
  both -i input sort -k 2,2 -k 1n
  both -i input sort -S 1M --parallel=2 -n
  both -i input sha256sum
  both -i input uniq -c -f 1
  both -i input awk '{ n[$2]++ } END { for (i = 1; i < 10; i++) print i, n[i] }'
  both -i input grep -c 77
}

test_tar_and_compression() {
  both sh -c 'cd /usr/lib/python3.*/ && tar --sort=name --mtime=@0 -cf - asyncio email json 2>&1 | sha256sum'
  seq 60000 >input
  both -i input gzip -n
  both -i input sh -c 'gzip -c | gzip -dc | cksum'
  both -i input xz -T 2 -0
  # What dbos-run packs, plain tar reads, and the other way round.
  mkdir tree && cp -r /etc/default /etc/skel tree
  "${dbos[@]}" tar -czf packed.tar.gz tree
  mkdir plain && tar -C plain -xzf packed.tar.gz && diff -r tree plain/tree
  mkdir ours && "${dbos[@]}" tar -C ours -xzf packed.tar.gz && diff -r tree ours/tree
}

test_find_and_xargs() {
  # find and xargs start a process for each group.
  both sh -c 'find /usr/share/doc -maxdepth 2 -name copyright | sort | head -n 60 | xargs -n 20 cksum'
  both sh -c 'find /etc -maxdepth 1 -type f -exec basename {} \; 2>/dev/null | sort | head -n 20'
  both sh -c 'seq 8 | xargs -P 4 -n 1 sh -c "exit 0"; echo $?'
  both -e 'exit 123' sh -c 'seq 3 | xargs -n 1 sh -c "exit 1"'
}

test_files_are_changed_alike() {
  both sh -c 'mkdir -p a/b && echo one >a/b/f && ln a/b/f g && ln -s a/b s && cp -a a c && mv g c/h &&
    chmod 640 c/h && touch -d @1000000000 c/h && stat -c "%n %s %a %h %Y" c/h a/b/f && ls -R && cat s/f &&
    rm -r a && ls s; truncate -s 1M t && fallocate -l 64K u && stat -c "%s %b" u && dd if=/dev/zero of=t bs=4k seek=3 count=2 conv=notrunc status=none && cksum t'
}

test_perl() {
  need perl
  both -e 'exit 7' perl -e '
    use strict; use IO::Handle; use Socket; use POSIX ":sys_wait_h";
    my %n; $n{$_ % 97}++ for 1 .. 50000; print join(",", map { "$_=$n{$_}" } sort { $a <=> $b } keys %n), "\n";
    print `echo from a shell`, $? >> 8, "\n";
    my @all;
    for my $k (1 .. 4) {
      pipe(my $r, my $w); my $pid = fork();
      if (!$pid) { close $r; print $w "child $k ", $k ** 10, "\n"; close $w; exit $k }
      close $w; my $line = <$r>; waitpid($pid, 0); push @all, $line . ($? >> 8);
    }
    print join("\n", @all), "\n";
    socketpair(my $x, my $y, AF_UNIX, SOCK_STREAM, PF_UNSPEC); syswrite $x, "through"; sysread $y, my $b, 100; print "$b\n";
    local $SIG{ALRM} = sub { print "alarm\n"; die "out" }; alarm 1; eval { sleep 20 }; print $@ =~ /^out/ ? "woken\n" : "slept\n";
    $SIG{CHLD} = sub { 1 while waitpid(-1, WNOHANG) > 0 }; system("exit 5"); print STDERR "done\n"; exit 7'
}

# Compilers are many processes, pipes and much memory.
test_compiler() {
  need gcc
  printf '%s\n' '#include <stdio.h>' 'int main(void) { printf("%d\n", __LINE__); return 0; }' >program.c
  "${dbos[@]}" gcc -O1 -o program program.c
  expect 'what it compiled' 2 "$(./program)"
  expect 'under dbos-run' 2 "$("${dbos[@]}" ./program)"
}
