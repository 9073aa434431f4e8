"""Makes copies of a program (argument 1) that no loader should take, in a directory (argument 2)."""
import os
import struct
import sys

source, directory = sys.argv[1:]
with open(source, "rb") as file:
    good = file.read()
os.mkdir(directory)
HEADER = 64
program_headers, count = struct.unpack_from("<Q", good, 32)[0], struct.unpack_from("<H", good, 56)[0]
PT_LOAD, PT_INTERP = 1, 3


def headers(kind):
    for n in range(count):
        at = program_headers + 56 * n
        if struct.unpack_from("<I", good, at)[0] == kind:
            yield at


def save(name, data):
    path = os.path.join(directory, name)
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, 0o755)


def patched(name, *patches):
    data = bytearray(good)
    for layout, at, value in patches:
        struct.pack_into(layout, data, at, value)
    save(name, data)


load, interpreter = next(headers(PT_LOAD)), next(headers(PT_INTERP))
last_load = list(headers(PT_LOAD))[-1]
# Addresses that lie in their page as the segment does in its page of the file.
in_page = struct.unpack_from("<Q", good, last_load + 8)[0] % 4096
path_at, path_size = struct.unpack_from("<Q", good, interpreter + 8)[0], struct.unpack_from("<Q", good, interpreter + 32)[0]
# Within a program header: offset 8, address 16, size in the file 32, in memory 40, alignment 48.
patched("class32", ("<B", 4, 1))
patched("class-9", ("<B", 4, 9))
patched("big-endian", ("<B", 5, 2))
patched("elf-version", ("<B", 6, 7))
patched("machine-arm", ("<H", 18, 183))
patched("machine-none", ("<H", 18, 0xBABE))
patched("relocatable", ("<H", 16, 1))
patched("core", ("<H", 16, 4))
patched("type-none", ("<H", 16, 0))
patched("headers-beyond-the-end", ("<Q", 32, len(good) + 1000))
patched("headers-at-the-end-of-all", ("<Q", 32, 0xFFFFFFFFFFFFFFF0))
patched("no-headers", ("<H", 56, 0))
patched("too-many-headers", ("<H", 56, 0xFFFE))
patched("header-size", ("<H", 54, 1))
patched("offset-beyond-the-end", ("<Q", last_load + 8, 1 << 40))
patched("offset-wraps", ("<Q", last_load + 8, 0xFFFFFFFFFFFFF000))
patched("address-in-the-kernel", ("<Q", last_load + 16, 0xFFFF800000000000 + in_page))
patched("address-wraps", ("<Q", last_load + 16, 0xFFFFFFFFFFFFF000 + in_page))
patched("memory-less-than-file", ("<Q", last_load + 40, 0))
patched("memory-without-end", ("<Q", last_load + 40, 0xFFFFFFFFFFFF0000))
patched("memory-of-a-petabyte", ("<Q", last_load + 40, 1 << 50))
patched("interpreter-beyond-the-end", ("<Q", interpreter + 8, len(good)))
patched("interpreter-too-long", ("<Q", interpreter + 32, 1 << 30))
patched("interpreter-not-ended", ("<B", path_at + path_size - 1, 0x41))
patched("interpreter-empty", ("<B", path_at, 0))
patched("no-interpreter", ("<B", path_at + path_size - 2, 0x58))
patched("address-misaligned", ("<Q", load + 16, 123))
for size in (1, 4, 17, 63, 64, 100):
    save(f"truncated-{size}", good[:size])
save("truncated-in-the-headers", good[:program_headers + 56 * count - 1])
save("truncated-in-the-middle", good[:len(good) // 2])
