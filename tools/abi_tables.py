"""The tables of hypercall/, as the generators read them: each entry's parts as text."""

import collections
import pathlib
import re
import sys

HYPERCALL = pathlib.Path(__file__).resolve().parent.parent / "hypercall"

# The errno is a refused call's. A service that waits says for what.
Call = collections.namedtuple("Call", "number name placement waits errno arguments note")
Service = collections.namedtuple("Service", "number name arguments result errors waits batch meaning")
Request = collections.namedtuple("Request", "call number name")


def entries(kind, name, pattern):
    path = HYPERCALL / name
    for line in re.sub(r",\n +", ", ", path.read_text()).splitlines():
        if line and not line.startswith("//"):
            match = re.fullmatch(pattern, line) or sys.exit(f"{path}: not an entry: {line}")
            yield kind(*match.groups())


def calls():
    return entries(Call, "syscalls.def",
                   r'DBOS_SYSCALL\((\d+), (\w+), (\w+?)(_wait)?(?:\((\w+)\))?, \((.*)\), "([^"]*)"\)')


def services():
    return entries(Service, "services.def",
                   r'DBOS_SERVICE\((0x\w+), "(\w+)", \w+, "([^"]*)", "([^"]*)", "([^"]*)", "([^"]*)", (\w+), "([^"]*)"\)')


def requests():
    return entries(Request, "syscall_requests.def", r"DBOS_REQUEST\((\w+), (\w+), (\w+), \w+, .*\)")
