"""Sockets: TCP, UDP and Unix, with selectors, threads, passed descriptors and large transfers."""
import array
import errno
import hashlib
import os
import selectors
import socket
import struct
import threading

# An echo server with a selector, and clients in threads.
server = socket.create_server(("127.0.0.1", 0))
server.setblocking(False)
selector = selectors.DefaultSelector()
selector.register(server, selectors.EVENT_READ)
address = server.getsockname()
CLIENTS, ROUNDS = 10, 20
failures = []


def client(n):
    with socket.create_connection(address) as connection:
        for k in range(ROUNDS):
            message = struct.pack("!II", n, k) * (1 + k * 50)
            connection.sendall(message)
            got = b""
            while len(got) < len(message):
                got += connection.recv(1 << 16)
            if got != message:
                failures.append((n, k))


threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
for thread in threads:
    thread.start()
gone, pending = 0, {}
while gone < CLIENTS:
    for key, events in selector.select():
        if key.fileobj is server:
            connection, _ = server.accept()
            connection.setblocking(False)
            pending[connection] = b""
            selector.register(connection, selectors.EVENT_READ)
            continue
        connection = key.fileobj
        if events & selectors.EVENT_READ:
            data = connection.recv(3000)
            if not data:
                selector.unregister(connection)
                connection.close()
                gone += 1
                continue
            pending[connection] += data
        if pending[connection]:
            try:
                sent = connection.send(pending[connection])
            except BlockingIOError:
                sent = 0
            pending[connection] = pending[connection][sent:]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if pending[connection] else 0)
        selector.modify(connection, wanted)
for thread in threads:
    thread.join()
print("echo", failures)

# Unix sockets: a large transfer, scattered and gathered.
left, right = socket.socketpair()
payload = bytes(range(256)) * 8000
digest = []


def receive():
    sha = hashlib.sha256()
    buffers = [bytearray(1000), bytearray(1), bytearray(7000)]
    remaining = len(payload)
    while remaining:
        count = right.recvmsg_into(buffers)[0]
        remaining -= count
        for buffer in buffers:
            part = min(count, len(buffer))
            sha.update(buffer[:part])
            count -= part
    digest.append(sha.hexdigest())


thread = threading.Thread(target=receive)
thread.start()
position = 0
while position < len(payload):
    part = payload[position:position + 60_000]
    position += left.sendmsg([part[:10], part[10:5000], part[5000:]])
thread.join()
print("gathered", digest[0] == hashlib.sha256(payload).hexdigest())

# A descriptor passed along.
read_end, write_end = os.pipe()
left.sendmsg([b"here"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [write_end]))])
data, ancillary, flags, _ = right.recvmsg(10, socket.CMSG_SPACE(4))
passed = array.array("i", ancillary[0][2])[0]
os.write(passed, b"passed")
print("descriptor", data, os.read(read_end, 10), ancillary[0][:2], flags)

# Datagrams.
one, two = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
one.bind(("127.0.0.1", 0))
two.bind(("127.0.0.1", 0))
two.sendto(b"datagram", one.getsockname())
data, source = one.recvfrom(100)
print("udp", data, source == two.getsockname())
two.sendto(b"y" * 1000, one.getsockname())
print("truncated", one.recvmsg(10)[0], one.setblocking(False))

# sendfile.
with open("file", "wb") as file:
    file.write(payload)
with open("file", "rb") as file:
    sender = threading.Thread(target=lambda: left.sendfile(file))
    sender.start()
    received = 0
    while received < len(payload):
        received += len(right.recv(1 << 17))
    sender.join()
print("sendfile", received == len(payload))


def error_of(action):
    try:
        return action()
    except OSError as error:
        return errno.errorcode[error.errno] if error.errno in errno.errorcode else str(error)


closed = socket.socket()
closed.bind(("127.0.0.1", 0))
print("errors", error_of(lambda: socket.create_connection(closed.getsockname())),
      error_of(lambda: one.recv(10)), error_of(lambda: socket.socket().listen() or "ok"),
      error_of(lambda: server.getpeername()), error_of(lambda: os.read(999, 1)),
      error_of(lambda: socket.create_server(address)))
left.settimeout(0.1)
try:
    left.recv(1)
except TimeoutError as error:
    print(error)
left.shutdown(socket.SHUT_WR)
print("end", right.recv(10), right.close())
print("names", socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))
for level, option in [(socket.SOL_SOCKET, socket.SO_TYPE), (socket.SOL_SOCKET, socket.SO_REUSEADDR)]:
    print("option", server.getsockopt(level, option))
server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
print("linger", server.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
