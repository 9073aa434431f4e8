# --kernel: other guest kernels than the built-in one, and what is none.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # scripts in quotes; names that support.sh and run share

# Copies an image and runs Python on its bytes, b; n is where the note's ABI version is, e where the
# entry point's code is.
damage() { # damage FROM TO STATEMENTS
  "$python" -c 'import struct, sys
b = bytearray(open(sys.argv[1], "rb").read())
n = b.index(b"DBOS\0\0\0\0") + 8
entry, headers = struct.unpack_from("<2Q", b, 24)
code_offset, code_address = struct.unpack_from("<2Q", b, headers + 8)
e = entry - code_address + code_offset
exec(sys.argv[3])
open(sys.argv[2], "wb").write(b)' "$@"
}

test_built_in_kernel_as_a_file() {
  one 'exit 3' "${dbos[@]}" --kernel "$DBOS_BUILD/guest/libdbos.elf" sh -c 'echo $(echo from a child); exit 3'
  expect output 'from a child' "$(<one.out)"
  refused 125 'name the program.*libdbos.elf' "${dbos[@]}" --kernel "$DBOS_BUILD/guest/libdbos.elf"
}

test_bare_runtime() {
  local bare=$DBOS_BUILD/tools/examples/bare.elf
  seq 1 3000 >numbers
  one 'exit 0' "${dbos[@]}" --kernel "$bare" numbers
  cmp one.out numbers || fail 'the file is not what was printed'
  expect 'standard error' $'bare: took 2 page faults\nbare: the second vCPU runs' "$(<one.err)"
  one 'exit 1' "${dbos[@]}" --kernel "$bare" missing
  grep -q "can't read the file" one.err
  one 'exit 1' "${dbos[@]}" --kernel "$bare"
  grep -q 'name one file' one.err
  # Signals are Linux's, also while a vCPU waits in a call.
  mkfifo fifo
  local status=0
  "${dbos[@]}" --kernel "$bare" fifo &
  local program=$!
  exec 7>fifo  # it has opened it, and reads
  kill -TERM $program
  wait $program || status=$?
  exec 7>&-
  expect 'the exit status' 143 "$status"
}

test_rust_runtime() {
  local counter=$DBOS_BUILD/tools/examples/count_lines.elf file
  [[ -e $counter ]] || skip 'count_lines.elf is not built: rustc was missing when the build was set up'
  seq 1 200000 >numbers
  printf 'no newline' >short
  : >empty
  for file in numbers short empty /etc/passwd; do
    one 'exit 0' "${dbos[@]}" --kernel "$counter" "$file"
    expect "lines of $file" "$(wc -l "$file")" "$(<one.out)"
  done
  one 'exit 1' "${dbos[@]}" --kernel "$counter" missing
  grep -q "can't open the file" one.err
}

# tests/unit/loader/kernel_file_test.cpp has the others.
test_images_that_are_none() {
  local bare=$DBOS_BUILD/tools/examples/bare.elf
  refused 125 "boot 'missing'.*No such file" "${dbos[@]}" --kernel missing
  refused 125 'not linked to a fixed address' "${dbos[@]}" --kernel /bin/true
  head -c 3000 "$bare" >image
  refused 125 'truncated' "${dbos[@]}" --kernel image
  damage "$bare" image 'b[n - 8] = 0'
  refused 125 'no DBOS note' "${dbos[@]}" --kernel image
  damage "$bare" image 'b[n] = 99'
  refused 125 'version 99 of the hypercall ABI' "${dbos[@]}" --kernel image
  damage "$bare" image 'struct.pack_into("<Q", b, headers + 16, 0x400000)'
  refused 125 'not in the region of guest kernels' "${dbos[@]}" --kernel image
}

test_images_that_need_more_than_there_is() {
  local bare=$DBOS_BUILD/tools/examples/bare.elf
  damage "$bare" image 'b[n + 8] = 1'
  refused 125 'needs the clock page.*--clock host' "${dbos[@]}" --clock host --kernel image /dev/null
  one 'exit 0' "${dbos[@]}" --clock tsc --kernel image /dev/null
  damage "$bare" image 'b[n + 12] = 0x40'
  refused 125 'features.*0x4000000000' "${dbos[@]}" --kernel image /dev/null
}

# A bug of the image is reported as one of the built-in kernel is. (AMD's KVM resets the registers at a
# triple fault, so the report can't say where.)
test_image_that_crashes() {
  damage "$DBOS_BUILD/tools/examples/bare.elf" image 'b[e:e + 2] = b"\x0f\x0b"' # ud2, with no IDT
  one 'exit 70' "${dbos[@]}" --kernel image /dev/null
  grep -q '^dbos-run: the guest stopped.*vCPU 0' one.err
}
