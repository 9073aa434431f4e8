"""Runs memcached under dbos-run with the options given, and clients that check each answer."""
import os
import signal
import socket
import subprocess
import sys
import threading
import time

CLIENTS, ROUNDS = 12, 150


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.file = self.socket.makefile("rb")

    def command(self, line, data=None):
        self.socket.sendall(line.encode() + b"\r\n" + (b"" if data is None else data + b"\r\n"))
        return self.file.readline().rstrip(b"\r\n")

    def get(self, *keys):
        self.socket.sendall(f"get {' '.join(keys)}\r\n".encode())
        values = {}
        while (line := self.file.readline()) != b"END\r\n":
            word, key, _, size = line.split()
            assert word == b"VALUE", line
            values[key.decode()] = self.file.read(int(size))
            assert self.file.read(2) == b"\r\n"
        return values

    def stats(self):
        self.socket.sendall(b"stats\r\n")
        values = {}
        while (line := self.file.readline()) != b"END\r\n":
            _, name, value = line.decode().split(None, 2)
            values[name] = value.strip()
        return values


def value_of(me, k):
    return (f"{me}:{k}:".encode() * (1 + k * 37 % 400))[: 10 + k * 97 % 3000]


def load(port, me, may_be_evicted, errors):
    try:
        client = Client(port)
        for k in range(ROUNDS):
            assert client.command(f"set k{me}:{k} 0 0 {len(value_of(me, k))}", value_of(me, k)) == b"STORED"
            keys = [f"k{me}:{n}" for n in range(max(0, k - 10), k + 1)]
            for key, value in client.get(*keys).items():
                assert value == value_of(me, int(key.split(":")[1])), key
            if not may_be_evicted:
                left = sum(n == k or n % 10 != 0 for n in range(max(0, k - 10), k + 1))
                assert len(client.get(*keys)) == left, (left, len(client.get(*keys)))
            assert client.command("incr shared 1").isdigit()
            if k % 10 == 0:
                assert client.command(f"delete k{me}:{k}") in (b"DELETED", b"NOT_FOUND")
                assert client.get(f"k{me}:{k}") == {}
    except Exception as error:
        errors.append(f"client {me}: {error!r}")


def main():
    options = sys.argv[1:]
    may_be_evicted = options[options.index("-m") + 1] == "2"
    port = free_port()
    dbos = [os.environ["DBOS_RUN"], *os.environ.get("DBOS_RUN_ARGS", "").split()]
    server = subprocess.Popen([*dbos, "memcached", "-p", str(port), "-l", "127.0.0.1", *options])
    try:
        for _ in range(600):
            try:
                client = Client(port)
                break
            except ConnectionError:
                assert server.poll() is None, f"memcached ended with {server.returncode}"
                time.sleep(0.1)
        client.command("set shared 0 0 1", b"0")
        errors = []
        threads = [threading.Thread(target=load, args=(port, n, may_be_evicted, errors)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors
        if not may_be_evicted:
            assert client.get("shared")["shared"].strip() == b"%d" % (CLIENTS * ROUNDS), client.get("shared")
        else:
            big = b"x" * 900
            for k in range(3000):
                assert client.command(f"set e{k} 0 0 900", big) == b"STORED"
        stats = client.stats()
        assert stats["threads"] == options[options.index("-t") + 1], stats["threads"]
        assert int(stats["cmd_set"]) >= CLIENTS * ROUNDS
        assert (int(stats["evictions"]) > 0) == may_be_evicted, stats["evictions"]
        assert int(stats["pid"]) == server.pid, (stats["pid"], server.pid)
        # A value that is too large, and a command that is none.
        assert client.command("set large 0 0 2000000", b"x" * 2_000_000).startswith(b"SERVER_ERROR")
        assert client.command("nonsense") == b"ERROR"
        assert client.command("flush_all") == b"OK"
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0, server.returncode
    finally:
        server.kill()
        server.wait()


main()
