"""A redis-server, plain or under dbos-run, for tools/demo-inside."""

import os
import pathlib
import shutil
import signal
import subprocess
import time

from redis_client import Client, ReplyError

START_TIMEOUT_S = 120


class Failure(Exception):
    """What went wrong, as a sentence."""


def say(text):
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)


STARTED = time.monotonic()


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
                client("PING")
                owner = int(client.info("server")["process_id"])
                client.close()
                break
            except (OSError, ReplyError) as error:  # not yet listening, or loading a dump
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
