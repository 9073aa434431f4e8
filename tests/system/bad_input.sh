# What can't work: one clear sentence, a status that says whose fault it is, and nothing left behind.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # scripts in quotes; names that support.sh and run share

without_kvm+=(program_that_is_none damaged_programs bad_options no_kvm)

test_program_that_is_none() {
  refused 127 'no-such-program.*No such file' "${dbos[@]}" ./no-such-program
  refused 127 "no-such-program' in PATH" "${dbos[@]}" no-such-program
  refused 127 'empty' "${dbos[@]}" ''
  refused 126 'directory' "${dbos[@]}" /etc
  refused 127 'No such file' "${dbos[@]}" /no/such/folder/program
  echo text >file
  refused 126 'permission to execute.*chmod' "${dbos[@]}" ./file
  chmod +x file
  refused 126 'not an ELF file' "${dbos[@]}" ./file
  : >empty && chmod +x empty
  refused 126 "/empty': the file is empty" "${dbos[@]}" ./empty
  mkfifo fifo && chmod +x fifo
  refused 126 'not a regular file' "${dbos[@]}" ./fifo
  refused 126 'not a regular file' "${dbos[@]}" /dev/null
  ln -s loop loop
  refused 126 'symbolic links' "${dbos[@]}" ./loop
  printf '#!/bin/sh -e\necho hello\n' >script && chmod +x script
  refused 126 'script for /bin/sh -e, .*outside the guest; put dbos-run before the database' "${dbos[@]}" ./script
  refused 127 'Not a directory' "${dbos[@]}" ./file/program
}

# What is said of each file of damage.py, behind its path.
readonly -A damages=(
  [class32]='it is a 32-bit program; .* for x86-64'
  [class-9]='its ELF class is neither 32-bit nor 64-bit; the file is damaged'
  [big-endian]='it is a big-endian program; install it for x86-64'
  [elf-version]='its ELF version is unknown; the file is damaged'
  [machine-arm]='it is built for aarch64; .* for x86-64'
  [machine-none]='it is built for ELF machine 47806; .* for x86-64'
  [relocatable]='it is a relocatable object file; link it'
  [core]='it is a core dump; a debugger reads it'
  [type-none]="its ELF type 0 is not a program's"
  [headers-beyond-the-end]='its program headers lie beyond the end of the file; .* install or build it again'
  [headers-at-the-end-of-all]='its program headers lie beyond the end of the file; .* install or build it again'
  [no-headers]='it has no program headers; link it'
  [too-many-headers]='it has 65534 program headers, Linux takes at most 1170; the file is damaged'
  [header-size]='its program headers have a size of 1 bytes instead of 56; the file is damaged'
  [offset-beyond-the-end]='segment [0-9]+ ends beyond the end of the file, which is truncated; .* install it again'
  [offset-wraps]='segment [0-9]+ ends beyond the end of the file, which is truncated; .* install it again'
  [address-in-the-kernel]="segment [0-9]+ at address 0xffff800000000[0-9a-f]{3} with .* ends above the program's address space"
  [address-wraps]="segment [0-9]+ at address 0xfffffffffffff[0-9a-f]{3} with .* ends above the program's address space"
  [address-misaligned]='segment [0-9]+ lies at offset 0x0 of the file and at address 0x7b, which differ within a page'
  [memory-less-than-file]='segment [0-9]+ is larger in the file than in memory'
  [memory-without-end]="segment [0-9]+ .* with 0xffffffffffff0000 bytes ends above the program's address space"
  [memory-of-a-petabyte]="segment [0-9]+ .* with 0x4000000000000 bytes ends above the program's address space"
  [interpreter-beyond-the-end]='the path of its interpreter .* lies beyond the end of the file; .* install or build it again'
  [interpreter-too-long]='the path of its interpreter .* has 1073741824 bytes; the file is damaged'
  [interpreter-not-ended]='the path of its interpreter .* does not end with a NUL; the file is damaged'
  [interpreter-empty]='the path of its interpreter .* is empty; the file is damaged'
  [no-interpreter]="its interpreter '/.*' is missing; install"
  [truncated-1]='it is not an ELF file; '
  [truncated-4]='the file is truncated within its ELF header; install or build it again'
  [truncated-17]='the file is truncated within its ELF header; install or build it again'
  [truncated-63]='the file is truncated within its ELF header; install or build it again'
  [truncated-64]='its program headers lie beyond the end of the file; .* install or build it again'
  [truncated-100]='its program headers lie beyond the end of the file; .* install or build it again'
  [truncated-in-the-headers]='its program headers lie beyond the end of the file; .* install or build it again'
  [truncated-in-the-middle]='segment [0-9]+ ends beyond the end of the file, which is truncated; .* install it again'
)

test_damaged_programs() {
  "$python" -B "$here/programs/damage.py" /bin/true damaged
  local name
  for name in "${!damages[@]}"; do
    refused 126 "/damaged/$name': ${damages[$name]}" "${dbos[@]}" "damaged/$name"
  done
  local -a files=(damaged/*)
  expect 'the files that are tried' "${#files[@]}" "${#damages[@]}"
}

test_bad_options() {
  refused 125 "unknown option '--nonsense'" "${dbos[@]}" --nonsense /bin/true
  refused 125 "unknown option '-q'" "${dbos[@]}" -q /bin/true
  refused 125 'program' "${dbos[@]}"
  refused 125 'program' "${dbos[@]}" --
  refused 125 '--memory' "${dbos[@]}" --memory
  local size
  for size in '' abc 12Q -5 1.5.5G 0 99999999999999999999 200% 5%%; do
    refused 125 "--memory" "${dbos[@]}" --memory "$size" /bin/true
  done
  refused 125 '--prefault' "${dbos[@]}" --memory 64M --prefault 128M /bin/true
  refused 125 '--env' "${dbos[@]}" --env NAME /bin/true
  refused 125 '--env' "${dbos[@]}" --env =VALUE /bin/true
  refused 125 '--clock' "${dbos[@]}" --clock sundial /bin/true
  refused 125 '--log-level' "${dbos[@]}" --log-level loud /bin/true
  refused 125 '--stats' "${dbos[@]}" --stats=/no/such/folder/file /bin/true
  refused 125 '--metrics is given an empty value' "${dbos[@]}" --metrics '' /bin/true
  refused 125 '--stats is given an empty value' "${dbos[@]}" --stats= /bin/true
  refused 125 'HOST that is no IP address' "${dbos[@]}" --metrics localhost:9100 /bin/true
}

test_core_file_that_cannot_be() {
  refused 125 '--core /no/such/folder/file: No such file' "${dbos[@]}" --core /no/such/folder/file /bin/true
  refused 125 '--core /tmp: it is no regular file' "${dbos[@]}" --core /tmp /bin/true
}

test_good_options() {
  one 'exit 0' "${dbos[@]}" --help
  grep -q '^Usage: dbos-run' one.out
  one 'exit 0' "${dbos[@]}" --version
  grep -Eqx 'dbos-run [0-9.]+' one.out
  one 'exit 0' "${dbos[@]}" --env 'A=1 2' --env B= -- sh -c 'echo "$A$B."'
  expect output '1 2.' "$(<one.out)"
  # What follows the program is the program's.
  one 'exit 0' "${dbos[@]}" echo --memory --help --
  expect output '--memory --help --' "$(<one.out)"
  head -c 1000000 /dev/zero | tr '\0' x >counters  # more than there will be
  one 'exit 0' "${dbos[@]}" --stats=counters sh -c 'echo hello'
  "$python" -m json.tool counters >/dev/null
  one 'exit 3' "${dbos[@]}" --stats sh -c 'exit 3'
  "$python" -m json.tool one.err >/dev/null
  one 'exit 0' "${dbos[@]}" --trace echo traced
  expect output traced "$(<one.out)"
  grep -Eq 'write\(1' one.err
  local options
  for options in --no-large-pages '--clock host' '--clock tsc' '--memory 50%' '--prefault 32M' '--log-level error'; do
    # shellcheck disable=SC2086 # two words
    one 'exit 0' "${dbos[@]}" $options sh -c 'echo $(echo with $(date +%Y | cut -c 1-2))'
    expect "with $options" 'with 20' "$(<one.out)"
  done
  local huge='
import mmap, re
memory = mmap.mmap(-1, 8 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, 8 << 20, 4096): memory[at] = 1
print(sum(map(int, re.findall("AnonHugePages: *([0-9]+)", open("/proc/self/smaps").read()))) > 0)'
  one 'exit 0' "${dbos[@]}" "$python" -c "$huge"
  expect 'large pages' True "$(<one.out)"
  one 'exit 0' "${dbos[@]}" --no-large-pages "$python" -c "$huge"
  expect 'large pages with --no-large-pages' False "$(<one.out)"
}

refusing() { # refusing NUMBER ERRNO COMMAND...: under a seccomp profile
  "$python" -B "$here/programs/refuse_call.py" "$@"
}

readonly process_vm_readv=310 futex_waitv=449

# Without it all processes would look dead, or alive.
test_process_vm_readv_is_refused() {
  local error
  for error in 1 38; do
    refused 125 'process_vm_readv.*--cap-add SYS_PTRACE' refusing "$process_vm_readv" "$error" "${dbos[@]}" /bin/true
  done
}

# Who watches for killed children does not burn a processor then, and what they held is released.
test_futex_waitv_is_refused() {
  refusing "$futex_waitv" 38 "${dbos[@]}" --log-level info "$python" -c '
import os, resource, signal, time
for _ in range(3):
    child = os.fork()
    if child == 0: time.sleep(100)
    time.sleep(0.3)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
before = used()
time.sleep(3)
print(f"{used() - before:.2f} s of a processor")
assert used() - before < 1.5' 2>one.err || fail "$(tail -n 3 one.err)"
  expect 'lines about it' 1 "$(grep -c 'futex_waitv is refused (errno 38)' one.err)"
}

# A signal that is pending for dbos-run interrupts the making of the machine.
test_interrupted_start() {
  need strace
  # What the check finds is of no interest: under strace each exit takes long.
  check_with() { strace -o calls -e "$1" "${dbos[@]}" --ring-check >one.out 2>one.err || true; }
  check_with trace=ioctl
  local first
  first=$(grep -n KVM_CREATE_VM calls | head -n 1 | cut -d : -f 1)
  check_with "inject=ioctl:error=EINTR:when=$first..$((first + 4))"
  expect 'attempts' 6 "$(grep -c KVM_CREATE_VM calls)"
  grep -q '^ring 0 instruction: ' one.out || fail "it did not start: $(<one.err)"
  one 'exit 125' strace -o calls -e "inject=ioctl:error=ENOMEM:when=$first" "${dbos[@]}" --ring-check
  grep -q "KVM can't make a virtual machine: .*memory" one.err
  one 'exit 125' strace -o calls -e "inject=ioctl:error=EBUSY:when=$first" "${dbos[@]}" --ring-check
  grep -q "KVM can't make a virtual machine: another hypervisor" one.err
}

# Each reason why there is no /dev/kvm has a remedy of its own.
test_refused_device() {
  need strace
  refused() { # refused ERROR LINE
    one 'exit 125' strace -o calls -P /dev/kvm -e "inject=openat:error=$1" "${dbos[@]}" --ring-check
    grep -Fq "dbos-run: $2" one.err || fail "$1: $(<one.err)"
  }
  refused ENOENT 'there is no /dev/kvm: load the kvm_intel or kvm_amd module, let the container'
  refused EACCES 'no right to open /dev/kvm: become a member of its group'
  refused EPERM 'the cgroup forbids /dev/kvm: allow the container'
  refused EMFILE "can't open /dev/kvm: Too many open files"
}

# What is printed and lost is no success.
test_output_that_is_lost() {
  full() { # full COMMAND...: with a standard output on a full disk
    one 'exit 125' bash -c 'exec "$@" >/dev/full' - "$@"
    [[ $(wc -l <one.err) = 1 ]] && grep -q 'No space left' one.err || fail "${*: -1}: $(<one.err)"
  }
  full "${dbos[@]}" --version
  full "${dbos[@]}" --help
  full "${dbos[@]}" --ring-check
  local status
  for status in 0 3; do
    one "exit $((status == 0 ? 125 : status))" "${dbos[@]}" --stats=/dev/full sh -c "exit $status"
    grep -Fxq "dbos-run: the counters of --stats can't be written: No space left on device" one.err
  done
  one 'exit 1' bash -c 'exec "$@" >/dev/full' - "$DBOS_BUILD/tools/dbos-dbg" --version
  grep -q '^dbos-dbg: .*No space left' one.err
  one 'exit 1' bash -c 'exec "$@" >/dev/full' - "$DBOS_BUILD/tools/dbos-dbg" ls
  one 'exit 2' bash -c 'exec "$@" >/dev/full' - "$DBOS_BUILD/tools/dbos-bench" --list
  one 'exit 2' bash -c 'exec "$@" >/dev/full' - "$DBOS_BUILD/tools/dbos-bench-native" --help
  one 'exit 2' bash -c 'exec "$@" >&-' - "$DBOS_BUILD/tools/dbos-bench" --help
}

# What dbos-run itself has to say, and at which level.
test_log_levels() {
  one 'exit 0' "${dbos[@]}" /bin/true
  expect 'without a level' '' "$(<one.err)"
  one 'exit 0' "${dbos[@]}" --log-level info /bin/true
  grep -Eq '^dbos-run: the machine has at most [0-9.]+ GiB of memory and [0-9]+ virtual CPUs$' one.err
  grep -Eq '^dbos-run: ring 0: [0-9.]+ ns an instruction' one.err
  grep -Eq '^dbos-run: /.*true is loaded with its interpreter /' one.err
  ! grep -q 'ends with status' one.err || fail 'debug at the level info'
  one 'exit 3' "${dbos[@]}" --log-level debug "$python" -c 'import os
if os.fork() == 0: os._exit(4)
os.wait(); os._exit(3)'
  grep -Eq '^dbos-run: process [0-9]+ made process [0-9]+$' one.err
  grep -Eq '^dbos-run: process [0-9]+ ends with status 4$' one.err
  grep -Eq '^dbos-run: process [0-9]+ ends with status 3$' one.err
}

seconds[log_levels_of_the_guest_kernel]=180
test_log_levels_of_the_guest_kernel() {
  # What it refuses is a warning.
  local refused=("$python" -c 'import ctypes; ctypes.CDLL(None).syscall(999)')
  one 'exit 0' "${dbos[@]}" "${refused[@]}"
  expect 'a warning' 'dbos-run: system call 999 is not supported: errno 38' "$(<one.err)"
  one 'exit 0' "${dbos[@]}" --log-level error "${refused[@]}"
  expect 'a warning at the level error' '' "$(<one.err)"
  # What it can't go on with is an error.
  one 'signal 9' "${dbos[@]}" --log-level error --memory 128M "$python" -c 'import mmap
for block in [mmap.mmap(-1, 100 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(2)]:
    for at in range(0, 100 << 20, 4096): block[at] = 1'
  grep -Exq 'dbos-run: out of guest memory \(--memory\): process [0-9]+ is killed' one.err
}

# A program that leaves the guest, or whose first process leaves its children, is warned of.
test_leaving_is_told() {
  one 'exit 0' "${dbos[@]}" "$python" -c 'import os; os.execv("/bin/echo", ["echo", "outside"])'
  expect output outside "$(<one.out)"
  grep -Eq '^dbos-run: the first process, [0-9]+ executes /bin/echo and leaves the guest' one.err
  one 'exit 0' "${dbos[@]}" --log-level error "$python" -c 'import os; os.execv("/bin/echo", ["echo"])'
  expect 'at the level error' '' "$(<one.err)"
  # What execvp() tries in vain is no execution, nor is a child's one worth a warning.
  one 'exit 0' "${dbos[@]}" "$python" -c 'import os
try: os.execv("/no/such/program", ["x"])
except FileNotFoundError: pass
if os.fork() == 0: os.execv("/bin/true", ["true"])
os.wait(); os._exit(0)'
  expect 'in vain, or by a child' '' "$(<one.err)"
  one 'exit 0' "${dbos[@]}" --log-level info "$python" -c 'import os
if os.fork() == 0: os.execv("/bin/true", ["true"])
os.wait(); os._exit(0)'
  grep -Eq '^dbos-run: process [0-9]+ executes /bin/true and leaves the guest' one.err
  # In the background.
  mkfifo go
  one 'exit 0' "${dbos[@]}" "$python" -c 'import os
if os.fork() == 0:
    open("go").read()
    open("done", "w").close()
    os._exit(0)
os._exit(0)'
  grep -Eq '^dbos-run: the first process ended and process [0-9]+ goes on: --metrics and dbos-dbg' one.err
  : >go
  await 10 test -e 'done'
}

test_no_kvm() {
  with_dev true true 2>/dev/null || skip "needs root and a mount namespace"
  local option
  # What the last run has written is not lost.
  echo old >counters
  refused 125 'no /dev/kvm' with_dev true "${dbos[@]}" --stats=counters /bin/true
  expect 'the counters of the last run' old "$(<counters)"
  for option in /bin/true --ring-check; do
    refused 125 'no /dev/kvm.*dbos-vm' with_dev true "${dbos[@]}" $option
    refused 125 '/dev/kvm' with_dev 'mknod /dev/kvm c 10 231' "${dbos[@]}" $option
    refused 125 '/dev/kvm' with_dev 'mknod -m 666 /dev/kvm c 1 3' "${dbos[@]}" $option
    refused 125 '/dev/kvm' with_dev 'mkdir /dev/kvm' "${dbos[@]}" $option
    refused 125 'right to open /dev/kvm.*group' with_dev 'mknod -m 600 /dev/kvm c 10 232' \
      setpriv --reuid 65534 --regid 65534 --clear-groups "${dbos[@]}" $option
  done
}

# The kernel is asked for each capability, and each that it has not, or too little of, is named.
test_missing_capabilities() {
  need strace
  strace -o calls -e trace=ioctl "${dbos[@]}" --ring-check >one.out 2>one.err || true
  local first names pattern
  first=$(grep -n KVM_CHECK_EXTENSION calls | head -n 1 | cut -d : -f 1)
  mapfile -t names < <(sed -n '/KVM_CREATE_VM/q; s/.*KVM_CHECK_EXTENSION, \([A-Z_]*\)).*/\1/p' calls)
  ((${#names[@]} >= 5)) || fail "only ${#names[@]} capabilities are asked for"
  lacking() { # lacking WHEN VALUE PATTERN
    refused 125 "this kernel's KVM lacks $3: a newer kernel is needed" \
      strace -o /dev/null -e "inject=ioctl:retval=$2:when=$1" "${dbos[@]}" /bin/true
  }
  pattern=$(printf ', %s \\([^()]+\\)' "${names[@]}")
  lacking "$first..$((first + ${#names[@]} - 1))" 0 "${pattern#, }"
  lacking "$((first + 1))" 0 "${names[1]} \\([^()]+\\)"
  # Some are numbers.
  lacking "$(grep -n KVM_CAP_NR_MEMSLOTS calls | head -n 1 | cut -d : -f 1)" 32 'KVM_CAP_NR_MEMSLOTS \([^()]+\)'
}

test_another_user_with_the_right() {
  with_dev true true 2>/dev/null || skip "needs root and a mount namespace"
  with_dev 'mknod -m 660 /dev/kvm c 10 232; chgrp 65533 /dev/kvm' setpriv --reuid 65534 --regid 65534 --groups 65533 \
    "${dbos[@]}" sh -c 'id -u; id -G; (echo from a child) | cat' >out
  expect output $'65534\n65534 65533\nfrom a child' "$(<out)"
}

test_too_little_memory() {
  refused 125 'memory' "${dbos[@]}" --memory 1M /bin/true
  refused 125 'memory' "${dbos[@]}" --memory 4K /bin/true
  # Not enough address space for the VMM itself.
  refused 125 'memory|address' bash -c 'ulimit -v 200000; exec "$@"' - "${dbos[@]}" /bin/true
  one 'exit 0' "${dbos[@]}" --memory 64G /bin/true
  grep -Eq '^dbos-run: --memory is 65536 MiB, and this machine or its cgroup has [0-9]+: ' one.err
  # Enough for this one.
  one 'exit 0' "${dbos[@]}" --memory 64M sh -c '(echo $(echo enough))'
}

# What the VMM needs does not count against the program's limits.
test_small_limits() {
  refused 125 'Too many open files; raise ulimit -n' bash -c 'ulimit -n 12; exec "$@"' - "${dbos[@]}" /bin/true
  local limit
  for limit in '-n 16' '-n 64' '-u 4096' '-s 256' '-c 0' '-f 0' '-l 0' '-q 0' '-i 0'; do
    # shellcheck disable=SC2086 # two words
    one 'exit 0' bash -c '(ulimit $1; shift; exec "$@") | cat' - "$limit" "${dbos[@]}" sh -c 'echo $(echo run) with limits'
    expect "with ulimit $limit" 'run with limits' "$(<one.out)"
  done
  both bash -c 'ulimit -n 16; exec 3</dev/null; for n in 4 5 6 7 8 9 10 11 12 13 14 15 16; do eval "exec $n<&0" || break; done; ulimit -n'
}
