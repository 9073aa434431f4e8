"""A redis-server, plain or under dbos-run, and a connection to it, for tools/demo-inside."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

START_TIMEOUT_S = 120


class Failure(Exception):
    """What went wrong, as a sentence."""


def say(text):
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)


STARTED = time.monotonic()


class Client:
    """One connection that speaks RESP 2."""

    def __init__(self, port, timeout_s=120):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = self.socket.makefile("rb", buffering=1 << 16)

    @staticmethod
    def encode(*words):
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
        return b"".join(parts)

    def send(self, *words):
        self.socket.sendall(self.encode(*words))

    def receive(self):
        line = self.replies.readline()
        if not line.endswith(b"\r\n"):
            raise Failure("the server closed a connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"-":
            raise Failure(f"the server answered: {rest.decode()}")
        if kind == b"$":
            return None if rest == b"-1" else self.replies.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.receive() for _ in range(int(rest))]
        raise Failure(f"the server answered what is no RESP: {line[:60]!r}")

    def call(self, *words):
        self.send(*words)
        return self.receive()

    def info(self, section):
        lines = self.call("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def close(self):
        self.replies.close()
        self.socket.close()


class Server:
    """A redis-server, plain or under dbos-run."""

    def __init__(self, name, prefix, port, directory, *options):
        self.name, self.port = name, port
        self.log = directory / f"{name.replace(' ', '-')}-{port}.log"
        redis = shutil.which("redis-server") or "/usr/bin/redis-server"
        command = [*prefix, redis, "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                   "--dir", str(directory), "--dbfilename", "dump.rdb", *options]
        begin = time.monotonic()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, start_new_session=True)
        try:
            self.await_answer()
        except Failure as failure:
            self.kill()
            raise Failure(f"{failure}; the end of its log:\n{self.tail()}") from None
        except BaseException:
            self.kill()
            raise
        self.start_s = time.monotonic() - begin

    def alive(self):
        return self.process.poll() is None

    def await_answer(self):
        end = time.monotonic() + START_TIMEOUT_S
        last = "it did not open its port"
        while time.monotonic() < end:
            if not self.alive():
                raise Failure(f"{self.name} ended at once, {self.how_it_ended()}")
            try:
                client = Client(self.port, timeout_s=5)
                client.call("PING")
                owner = int(client.info("server")["process_id"])
                client.close()
                break
            except (OSError, Failure) as error:  # not yet listening, or loading a dump
                last = str(error)
                time.sleep(0.1)
        else:
            raise Failure(f"{self.name} did not answer in {START_TIMEOUT_S} s: {last}")
        # Nothing is written to somebody's database.
        if owner != self.process.pid:
            raise Failure(f"port {self.port} is that of another redis-server, process {owner}; stop it first")

    def how_it_ended(self):
        status = self.process.wait(timeout=10)
        return f"by signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"

    def stop(self):
        """Ends the server as a user would; returns how it ended."""
        try:
            client = Client(self.port)
            client.send("SHUTDOWN", "NOSAVE")
            client.close()
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} did not end within 60 s of SHUTDOWN") from None
        return self.how_it_ended()

    def kill(self):
        """Ends what is left of its session: a child that saves outlives the server."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def where_threads_wait(self):
        """What each thread does, for a server that hangs."""
        lines = []
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").glob("*"):
            try:
                state = (task / "stat").read_text().rpartition(")")[2].split()
                waits = (task / "wchan").read_text() or "-"
                call = (task / "syscall").read_text().split()[0]
                name = (task / "comm").read_text().strip()
            except OSError:
                continue
            lines.append(f"    {task.name} {name}: state {state[0]}, user {state[11]} and system "
                         f"{state[12]} ticks, waits in {waits}, system call {call}")
        return "\n".join(lines)

    def tail(self, lines=25):
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(f"    {line}" for line in text)
