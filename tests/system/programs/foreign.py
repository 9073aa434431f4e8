"""ctypes: C functions, callbacks from C into Python, code in memory of our own."""
import ctypes
import mmap

libc = ctypes.CDLL(None, use_errno=True)
Compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))

numbers = (ctypes.c_int * 500)(*[(n * 7919) % 1009 for n in range(500)])
calls = 0


@Compare
def compare(a, b):
    global calls
    calls += 1
    return a[0] - b[0]


libc.qsort(numbers, len(numbers), ctypes.sizeof(ctypes.c_int), compare)
print("sorted", list(numbers) == sorted(numbers), calls > 500)

buffer = ctypes.create_string_buffer(100)
libc.snprintf(buffer, 100, b"%d %s %.3f", 42, b"text", ctypes.c_double(2.5))
print(buffer.value)
print(libc.open(b"/no/such/file", 0), ctypes.get_errno())

# Machine code: lea eax, [rdi + rsi]; ret.
code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("8d0437c3"))
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
add = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(address)
print("code", add(40, 2))
# Changed: lea eax, [rdi + rsi + 1]; ret.
code.seek(0)
code.write(bytes.fromhex("8d443701c3"))
print("changed", add(40, 2))

libc.sysconf.restype = ctypes.c_long
print("page size", libc.sysconf(30))
allocate = libc.malloc
allocate.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
blocks = [allocate(size) for size in (1, 1000, 200_000, 50_000_000)]
print("malloc", all(blocks))
for block in blocks:
    libc.free(block)
libc.getauxval.restype = ctypes.c_ulong
print("auxv", libc.getauxval(6), libc.getauxval(17), libc.getauxval(33) != 0, libc.getauxval(25) != 0)
