"""Looking into a running redis-server with dbos-dbg, its socket and --metrics. What argument 1 says."""
import http.client
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "redis"))

from client import DBG, PATIENCE_S, Control, dbg, dbg_json  # noqa: E402
from support import Server, await_that, check, check_equal, child_pids, free_port, main  # noqa: E402


def looks():
    server = Server()
    check(str(server.process.pid) in dbg(server, "ls"), "ls")

    def threads():
        return dbg_json(server, "ps")[0]["threads"]

    def state_of(name):
        return {thread["name"]: thread["state"] for thread in threads()}[name]

    # Ten times a second redis does something.
    await_that(lambda: state_of("redis-server") == "epoll_wait", "the main thread waits for events")
    check_equal("a worker's state", "park", state_of("bio_close_file"))
    names = {mapping["name"] for mapping in dbg_json(server, "maps")["mappings"]}
    check("[stack]" in names, "no stack in", names)
    check(any("libc" in name for name in names), "no libc in", names)

    check_equal("the mappings by process", dbg_json(server, "maps"),
                dbg_json(server, "maps", "--space", str(server.process.pid)))
    counted = {entry["name"] for entry in dbg_json(server, "calls", "1s")["calls"]}
    check("epoll_wait" in counted, "no epoll_wait in a second:", counted)

    frames = dbg_json(server, "frames")
    used = frames["pages"] + frames["tables"] + frames["kernel"] + frames["free"]
    check_equal("frames", frames["total"], used)
    resident = int(re.search(r"\d+", server("INFO", "memory").decode().split("used_memory_rss:")[1])[0])
    # The program's files, which redis counts too, are in the window.
    check(0.5 * resident < frames["pages"] * 4096 < 1.5 * resident, "pages", frames, "resident", resident)

    def count(call):
        counts = {entry["name"]: entry for entry in dbg_json(server, "calls")["calls"]}
        return counts.get(call, {"count": 0})["count"]
    before = count("read")
    for n in range(20):
        server("SET", f"key{n}", "x")
    check(count("read") >= before + 20, "reads:", before, count("read"))
    exits = {entry["name"]: entry for entry in dbg_json(server, "exits", "500ms")["exits"]}
    system_calls = exits["system_call"]
    # An exit counts when it begins, and is timed when it ends.
    timed = system_calls["latency"]["timed"]
    check(abs(system_calls["count"] - timed) <= len(threads()), "exits:", system_calls["count"], "timed:", timed)
    check_equal("timed by their buckets", timed, sum(system_calls["latency"]["buckets"]))
    for command in ("ls", "ps", "maps", "frames", "snapshots", "exits", "calls", "metrics"):
        check("\033" not in dbg(server, command), f"colours in {command}")

    def by_name():
        return subprocess.run([DBG, "-p", "redis-server", "--json", "ps"], capture_output=True, text=True,
                              timeout=PATIENCE_S)
    found = by_name()
    check_equal("by its name", 0, found.returncode)
    check_equal("its process", server.process.pid, json.loads(found.stdout)[0]["process"])
    second = Server()
    refused = by_name()
    check_equal("by the name of two", (1, ""), (refused.returncode, refused.stdout))
    check(re.search(f"several programs .*{server.process.pid} redis-server.*choose with -p PROCESS", refused.stderr),
          refused.stderr)
    second.shutdown("NOSAVE")
    server.shutdown("NOSAVE")


def walk(server, address, space=None):
    words = ["pt", hex(address)] + ([] if space is None else ["--space", str(space)])
    return dbg_json(server, *words)


def address_of(server, key):
    return int(re.search(r"Value at:(0x[0-9a-f]+)", server("DEBUG", "OBJECT", key))[1], 16)


def page_tables():
    """A page that main writes to after a fork is main's own; the snapshot's stays as it was."""
    server = Server("--rdb-key-save-delay", "500000")  # longer than all that follows takes
    server.populate(2)
    server("SET", "counter", 1_000_000)
    counter = address_of(server, "counter")  # a number that INCR changes in place
    check(walk(server, counter)["writable"], "main's page before the fork")
    check_equal("snapshots", [], dbg_json(server, "snapshots")["snapshots"])
    check("Background saving started" in server("BGSAVE"), "BGSAVE")
    child = await_that(lambda: child_pids(server.process.pid), "the saving child")[0]
    snapshot = dbg_json(server, "snapshots")["snapshots"][0]
    check_equal("the snapshot's process", child, snapshot["process"])
    check_equal("its state", "live", snapshot["state"])
    processes = [process["process"] for process in dbg_json(server, "ps")]
    check_equal("ps", sorted([server.process.pid, child]), sorted(processes))

    untouched = [address_of(server, f"key:{n}") for n in range(100, 1900, 100)]
    shared = sum(walk(server, at)["physical"] == walk(server, at, child)["physical"] for at in untouched)
    check(shared > len(untouched) // 2, f"only {shared} of {len(untouched)} pages are shared")

    before = walk(server, counter, child)
    server("INCR", "counter")
    main_walk, snapshot_walk = walk(server, counter), walk(server, counter, child)
    check(main_walk["physical"] != snapshot_walk["physical"], "main and snapshot share a page that was written")
    check_equal("the snapshot's page", before["physical"], snapshot_walk["physical"])
    check(main_walk["writable"], "main may not write its own page")
    check(main_walk["steps"][0]["entry_address"] != snapshot_walk["steps"][0]["entry_address"], "one root for both")
    check_equal("steps", [4, 3, 2, 1], [step["level"] for step in main_walk["steps"]])
    check("present" in dbg(server, "pt", hex(counter)), "flags in words")
    snapshot = dbg_json(server, "snapshots")["snapshots"][0]
    check(snapshot["parent_copied_pages"] >= 1, "copied by the parent:", snapshot)
    check(snapshot["retired_pages"] >= 1, "held for the snapshot:", snapshot)
    os.kill(child, 9)
    await_that(lambda: not dbg_json(server, "snapshots")["snapshots"], "the snapshot's end")
    server.shutdown("NOSAVE")


def trace():
    """A SET from the read of the request to the write of the answer."""
    server = Server()
    client = server.client()
    client("PING")
    with subprocess.Popen([DBG, "-p", str(server.process.pid), "--json", "trace", "read", "write", "getpid"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        def set_until_seen():
            while not seen.is_set():
                client("SET", "traced-key", "v")
                seen.wait(0.2)
        seen = threading.Event()
        setter = threading.Thread(target=set_until_seen)
        setter.start()
        events = []
        while not seen.is_set():
            event = json.loads(tracer.stdout.readline())
            if event["event"] == "call":
                events.append(event)
            asked = [n for n, event in enumerate(events) if "traced-key" in event["text"]]
            answered = [event for event in events[asked[0]:] if event["name"] == "write"] if asked else []
            if answered:
                seen.set()
        setter.join()
        refused = subprocess.run([DBG, "-p", str(server.process.pid), "trace", "--count", "1"], timeout=PATIENCE_S,
                                 capture_output=True, text=True)
        check_equal("a second tracer's status", 1, refused.returncode)
        check("traces this program already" in refused.stderr, "a second tracer:", refused.stderr)
        tracer.send_signal(2)
        _, errors = tracer.communicate(timeout=PATIENCE_S)
        check(re.search(r"\d+ calls, 0 lost", errors), "the tracer's end:", errors)
    request, reply = events[asked[0]], answered[0]
    check_equal("the request", "read", request["name"])
    check(r"*3\r\n$3\r\nSET" in request["arguments"][1], "the request's data:", request)
    check_equal("the answer", r'"+OK\r\n"', reply["arguments"][1])
    check_equal("its result", 5, reply["result"])
    check(reply["time_ns"] >= request["time_ns"], "the answer before the request")
    check_equal("one descriptor", request["arguments"][0], reply["arguments"][0])

    # Less than a timer counts is not for ever.
    ended = subprocess.run([DBG, "-p", str(server.process.pid), "trace", "--seconds", "1e-7"], timeout=PATIENCE_S,
                           capture_output=True, text=True)
    check_equal("the status of a very short trace", 0, ended.returncode)

    # Under load what does not fit is lost, and each one is counted: the client does not read.
    traced = ("read", "write", "epoll_wait")

    def made():
        counts = {entry["name"]: entry["count"] for entry in dbg_json(server, "calls")["calls"]}
        return sum(counts.get(name, 0) for name in traced)
    control = Control(server)
    before = made()
    check(control.ask("trace", calls=traced)["ok"], "trace")
    begin = made()
    while (end := made()) < begin + 8000:
        for n in range(500):
            client("SET", f"k{n}", "v" * 100)
    control.send(b'{"command": "trace_stop"}\n')
    lost = seen = 0
    while "ok" not in (event := control.answer()):
        lost += event["count"] if event["event"] == "lost" else 0
        seen += event["event"] == "call"
    after = made()
    print(f"{seen} calls seen, {lost} lost, {end - begin} to {after - before} made")
    check(seen > 100, "calls seen:", seen)
    check(lost > 100, "calls lost:", lost)
    # A call is counted when it begins, and traced when it ends: a few are on their way.
    check(end - begin - 8 <= seen + lost <= after - before, "seen:", seen, "lost:", lost, before, begin, end, after)
    client.close()
    server.shutdown("NOSAVE")


def traced(server, *words, count=12):
    """The calls that dbos-dbg trace shows of the server while it logs a line again and again."""
    has_ended = threading.Event()

    def log_lines():
        with server.client() as client:
            while not has_ended.is_set():
                client("DEBUG", "LOG", "a line")
                has_ended.wait(0.02)
    logging = threading.Thread(target=log_lines)
    logging.start()
    try:
        lines = dbg(server, "--json", "trace", "--count", str(count), "--seconds", "50", *words).splitlines()
    finally:
        has_ended.set()
        logging.join()
    events = [event for event in map(json.loads, lines) if event["event"] == "call"]
    check_equal(f"calls of trace {words}", count, len(events))
    return events


def trace_filters():
    """Calls of one process, thread or address space; and those that the guest kernel does itself."""
    server = Server("--rdb-key-save-delay", "100000")  # the child sleeps most of the time, for minutes in all
    server.populate(4)
    check("Background saving started" in server("BGSAVE"), "BGSAVE")
    parent, child = server.process.pid, await_that(lambda: child_pids(server.process.pid), "the saving child")[0]

    def seen(field, *words):
        return {event[field] for event in traced(server, *words)}
    check_equal("the processes of all calls", {parent, child}, {event["process"] for event in traced(server, count=100)})
    for process in parent, child:
        check_equal("--process", {process}, seen("process", "--process", str(process)))
        check_equal("--thread", {process}, seen("thread", "--thread", str(process)))
        roots = seen("space", "--process", str(process))
        check_equal("the address spaces of a process", 1, len(roots))
        check_equal("--space with a process", roots, seen("space", "--space", str(process)))
        check_equal("--space with a root", {process}, seen("process", "--space", hex(*roots)))
    # Every few keys it writes to the dump.
    check_equal("the child's calls", {"clock_nanosleep"}, seen("name", "--space", str(child)) - {"write"})
    # Each line of the log has the number of the process, which the guest kernel knows itself.
    own = "--process", str(parent)
    names = {event["name"] for event in traced(server, *own, count=100)}
    check("write" in names and "getpid" not in names, "without --in-guest:", names)
    check("getpid" in {event["name"] for event in traced(server, *own, "--in-guest", count=100)}, "with --in-guest")
    check_equal("a call that is named", {"getpid"}, seen("name", *own, "getpid"))
    os.kill(child, 9)
    server.shutdown("NOSAVE")


def hostile():
    """Whatever a client does, redis answers, and so does the socket."""
    server = Server()
    descriptors = sorted(os.listdir(f"/proc/{server.process.pid}/fd"))
    requests = [b"\n", b"x\n", b"{}\n", b"[[[[\n", b'{"command": 7}\n', b'{"command": "no"}\n',
                b'{"command": "pt"}\n', b'{"command": "pt", "arguments": {"address": -1}}\n',
                b'{"command": "pt", "arguments": {"address": 18446744073709551615}}\n',
                b'{"command": "maps", "arguments": {"space": 99999}}\n', b'{"command": "maps", "arguments": 1}\n',
                b'{"command": "trace", "arguments": {"calls": ["no_such_call"]}}\n', b"\xff\xfe\n"]
    for first in ({"command": "debug"}, {"command": "attach", "arguments": {"secret": ""}},
                  {"command": "attach", "arguments": {"secret": "0" * 32}}, {"command": "metrics"}):
        unknown = Control(server, attach=False)
        unknown.send(json.dumps(first).encode() + b"\n" + b'{"command": "hello"}\n')
        check_equal(f"{first}", "this user may not look into the program", unknown.answer()["error"])
        check_equal("its end", None, unknown.answer())
    control = Control(server)
    for request in requests:
        control.send(request)
        answer = control.answer()
        check(answer["ok"] or answer["error"], request, answer)
    check(control.ask("hello")["ok"], "hello after malformed requests")

    half_closed = Control(server)
    half_closed.send(b'{"command": "hello"}\n')
    half_closed.socket.shutdown(socket.SHUT_WR)
    check(half_closed.answer()["ok"], "an answer to a half-closed socket")
    check_equal("its end", None, half_closed.answer())

    too_long = Control(server)
    try:
        too_long.send(b"x" * 200_000)
        check(not too_long.answer()["ok"], "a line that is too long")
    except (BrokenPipeError, ConnectionResetError):
        pass

    control.file.close()
    control.socket.close()
    deaf = [Control(server) for _ in range(4)]
    for client in deaf:  # asks for much and reads nothing
        client.socket.settimeout(1)
        try:
            for _ in range(200):
                client.send(b'{"command": "metrics"}\n' * 20)
        except TimeoutError:
            pass
    killed = subprocess.Popen([DBG, "-p", str(server.process.pid), "trace"], stdout=subprocess.PIPE)
    killed.stdout.readline()
    killed.kill()
    killed.communicate()
    for n in range(20):
        check_equal("SET meanwhile", "OK", server("SET", f"k{n}", "v"))
    for client in deaf:
        client.socket.close()
        client.file.close()

    # More than are served: the next one is told so, or hung up on.
    many = [Control(server) for _ in range(15)]
    check_equal("connected", [True] * 15, [client.ask("hello")["ok"] for client in many])
    many.append(Control(server))
    many.append(Control(server, attach=False))
    check_equal("one too many", False, many[-1].answer()["ok"])
    for client in many:
        client.file.close()
        client.socket.close()
    await_that(lambda: Control(server).admitted, "the socket answers again")
    await_that(lambda: sorted(os.listdir(f"/proc/{server.process.pid}/fd")) == descriptors,
               "the program's descriptors are what they were")
    # Killed, it leaves no socket.
    name = f"@dbos-run/{os.getuid()}/{server.process.pid}"
    server.kill()
    with open("/proc/net/unix", encoding="utf-8") as sockets:
        check(name not in {line.split()[-1] for line in sockets}, f"{name} is still there")


def metrics():
    port = free_port()
    server = Server(dbos_options=("--metrics", str(port)))

    def fetch(path="/metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as answer:
            check(answer.headers["Content-Type"].startswith("text/plain; version=0.0.4"), answer.headers)
            lines = answer.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}
    before = fetch()
    for n in range(20):
        server("SET", f"key{n}", "x")
    server.background_save()
    after = fetch()
    for name in ('dbos_system_calls_total{call="read"}', 'dbos_exits_total{kind="system_call"}'):
        check(after[name] >= before[name] + 20, name, before[name], after[name])
    check(1 < after["dbos_vcpus_busy"] <= after["dbos_vcpus"], "virtual CPUs:", after["dbos_vcpus_busy"])
    check(after["dbos_window_bytes"] > 0, "the window:", after["dbos_window_bytes"])
    check_equal("snapshots taken", before["dbos_snapshots_taken_total"] + 1, after["dbos_snapshots_taken_total"])
    check(after['dbos_faults_total{kind="copied"}'] > 0, "copied pages")
    # Everything is timed, but for calls that had not returned.
    calls = after['dbos_system_calls_total{call="read"}']
    timed = after['dbos_system_call_duration_seconds_count{call="read"}']
    check(calls - 1 <= timed <= calls, "reads:", calls, "timed:", timed)
    try:
        fetch("/")
        check(False, "a page at /")
    except urllib.error.HTTPError as error:
        check_equal("the status of /", 404, error.code)
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]

    def is_served():
        try:
            return fetch()
        except (OSError, http.client.HTTPException):
            return None
    await_that(is_served, "clients that ask nothing keep nobody out")
    for client in silent:
        client.close()
    refused = subprocess.run([*os.environ["DBOS_RUN"].split(), "--metrics", str(port), "true"], timeout=PATIENCE_S,
                             capture_output=True, text=True)
    check_equal("the status of a port that is taken", 125, refused.returncode)
    check("can't serve --metrics" in refused.stderr, refused.stderr)
    server.shutdown("NOSAVE")


NOBODY = 65534


def serve_as_nobody(ready, protocol):
    """Answers dbos-dbg maps with a mapping whose name tells what rights the client has."""
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    # As its control thread, with a secret.
    with open("/proc/thread-self/comm", "w", encoding="utf-8") as name:
        name.write("dbos-control")
    os.memfd_create("dbos-control-" + "0" * 32)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0dbos-run/{NOBODY}/{os.getpid()}")
        listener.listen()
        os.write(ready, b"x")
        while True:
            client, _ = listener.accept()
            file = client.makefile("rb")
            line = file.readline()
            if not line:
                continue  # it only wanted to know who listens
            client.sendall(json.dumps({"ok": True, "id": json.loads(line)["id"], "result": True}).encode() + b"\n")
            line = file.readline()
            peer, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            with open(f"/proc/{peer}/status") as status:
                rights = " ".join(re.search("Uid:(.*)", status.read())[1].split())
            mapping = {"begin": 0, "end": 4096, "protection": "r--p", "offset": 0, "name": f"\033[2J users {rights}"}
            result = {"protocol": protocol, "version": "0.9", "mappings": [mapping]}
            answer = {"ok": True, "id": json.loads(line)["id"], "result": result}
            client.sendall(json.dumps(answer).encode() + b"\n")


def look_at_nobody(protocol):
    """What dbos-dbg maps comes to, with a server of another user that speaks this protocol."""
    is_ready, ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        serve_as_nobody(ready, protocol)
    try:
        os.read(is_ready, 1)
        return subprocess.run([DBG, "-p", str(pid), "maps"], capture_output=True, text=True, timeout=PATIENCE_S)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def stranger():
    """Root looks at what another user's process says with that user's rights, and prints what can be printed."""
    said = look_at_nobody(1)
    check_equal("status", (0, ""), (said.returncode, said.stderr))
    check_equal("what root prints", f"?[2J users {NOBODY} {NOBODY} {NOBODY} {NOBODY}",
                said.stdout.rstrip().split(" ", 3)[3])
    other = look_at_nobody(2)
    check_equal("status with another protocol", (1, ""), (other.returncode, other.stdout))
    check("runs under dbos-run 0.9, which speaks protocol 2" in other.stderr, other.stderr)


main({"looks": looks, "stranger": stranger, "page_tables": page_tables, "trace": trace, "trace_filters": trace_filters,
      "hostile": hostile, "metrics": metrics}[sys.argv[1]])
