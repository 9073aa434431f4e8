"""A heap that grows and shrinks: large lists, dictionaries, byte strings."""
import gc
import hashlib
import random
import resource

numbers = list(range(1_000_000))
print(sum(numbers), len(numbers))
numbers.reverse()
numbers.sort(key=lambda n: n ^ 0x5555)
print(numbers[0], numbers[-1])
del numbers
gc.collect()

random.seed(7)
table = {}
for n in range(100_000):
    table[random.random()] = str(n)
print(len(table), hashlib.sha256("".join(table.values()).encode()).hexdigest()[:16])

blocks = {}
for n in range(2000):
    key = random.randrange(100)
    blocks[key] = bytearray(random.randrange(1, 1 << 19))
    blocks[key][-1] = key + 1
print(sum(block[-1] for block in blocks.values()), len(blocks))
blocks.clear()

big = bytearray(100 << 20)
for n in range(0, len(big), 4096):
    big[n] = n >> 12 & 0xFF
print(hashlib.sha256(big).hexdigest())
del big
for n in range(20):
    bytearray(30 << 20)[-1] = 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 100_000)
