"""dbos-dbg as the tests start it, and a client of its socket that may misbehave."""
import json
import os
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "redis"))

from support import check  # noqa: E402

DBG = os.path.join(os.environ["DBOS_BUILD"], "tools/dbos-dbg")
PATIENCE_S = 60


def dbg(server, *words):
    """What dbos-dbg prints; it must succeed."""
    result = subprocess.run([DBG, "-p", str(server.process.pid), *words], capture_output=True, text=True,
                            timeout=PATIENCE_S)
    check(result.returncode == 0, f"dbos-dbg {words}: {result.returncode} {result.stderr}")
    return result.stdout


def dbg_json(server, *words):
    return json.loads(dbg(server, "--json", *words))


SECRET = "/memfd:dbos-control-"


def links(folder):
    for name in os.listdir(folder):
        try:
            yield os.readlink(os.path.join(folder, name))
        except FileNotFoundError:
            pass


def secret_of(pid):
    """What the control thread wants to hear first (vmm/control/admission.h)."""
    tasks = f"/proc/{pid}/task"
    for task in os.listdir(tasks):
        for target in links(os.path.join(tasks, task, "fd")):
            if target.startswith(SECRET):
                return target.removeprefix(SECRET).removesuffix(" (deleted)")
    raise RuntimeError(f"process {pid} has no control thread")


class Control:
    """A client of the control socket that may misbehave."""

    def __init__(self, server, attach=True):
        self.socket = socket.socket(socket.AF_UNIX)
        # Blocking: with a time limit it fails at once where many wait to be accepted.
        self.socket.connect(f"\0dbos-run/{os.getuid()}/{server.process.pid}")
        self.socket.settimeout(PATIENCE_S)
        self.file = self.socket.makefile("rb")
        self.admitted = attach and self.ask("attach", secret=secret_of(server.process.pid))["ok"]

    def send(self, data):
        self.socket.sendall(data)

    def answer(self):
        line = self.file.readline()
        return json.loads(line) if line else None

    def ask(self, command, **arguments):
        self.send(json.dumps({"command": command, "arguments": arguments}).encode() + b"\n")
        while "ok" not in (answer := self.answer()):
            pass
        return answer
