"""Debugging a running redis-server with dbos-dbg, and with gdb by way of it. What argument 1 says."""
import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "redis"))

from client import DBG, PATIENCE_S, Control, dbg, dbg_json  # noqa: E402
from support import DBOS, Server, await_that, check, check_equal, free_port, main  # noqa: E402

DEBUGGED = os.path.join(os.environ["DBOS_BUILD"], "tests/system/debugged")
GDB = ["gdb", "-q", "-nx", "-batch", "-ex", "set confirm off", "-ex", "set remotetimeout 60",
       "-ex", "set debuginfod enabled off"]


class Session:
    """A dbos-dbg that debugs and takes its commands from us."""

    def __init__(self, pid, *words):
        self.process = subprocess.Popen([DBG, "-p", str(pid), "--json", "debug", *words], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def send(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        check(line, "dbos-dbg has ended:", self.process.stderr.read() if not line else "")
        return json.loads(line)

    def __call__(self, line):
        self.send(line)
        return self.answer()

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def end(self):
        self.process.stdin.close()
        check_equal("the session's status", 0, self.process.wait(PATIENCE_S))
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()


def in_background(function, *arguments):
    """A thread, and where its result will be."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*arguments)))
    thread.start()
    return thread, results


@contextlib.contextmanager
def debugged(case):
    """The program of that name, with pipes. One that a failure leaves stopped would not end."""
    with subprocess.Popen([*DBOS, DEBUGGED, case], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        try:
            yield program
        except BaseException:
            program.kill()
            raise


def functions(chain):
    return [re.sub(r"@.*|\(.*", "", frame.get("function", "?")) for frame in chain["frames"]]


def breaks():
    """Break in a function of redis by its name, see its argument, step, see who called it."""
    server = Server()
    session = Session(server.process.pid)
    point = session("break dbAdd")
    check_equal("the breakpoint's number", 1, point["number"])
    session.send("continue")
    thread, results = in_background(server, "SET", "greeting", "hello")
    stop = session.answer()
    check_equal("the stop", ("breakpoint", 1, server.process.pid), (stop["cause"], stop["number"], stop["thread"]))
    check_equal("its function", ("dbAdd", 0), (stop["frame"]["function"], stop["frame"]["offset"]))
    check_equal("its address", point["address"], session("regs")["registers"]["rip"])
    # dbAdd(redisDb *db, robj *key, robj *value): a key is a string object, its text at 8.
    check_equal("the key", ["greeting"], session("x/s *($rsi + 8)")["strings"])
    chain = functions(session("bt")[0])
    check_equal("the innermost function", "dbAdd", chain[0])
    for name in ("setCommand", "call", "processCommand", "aeMain", "main"):
        check(name in chain, f"no {name} in", chain)
    code = session("disas")
    here = [one for one in code["instructions"] if one["address"] == code["current"]]
    check_equal("the instruction", stop["instruction"], here[0]["text"])
    step = session("step")
    check_equal("one instruction further", here[0]["address"] + here[0]["size"], step["frame"]["address"])
    session("delete")
    check_equal("points", [], session("points"))
    session.end()
    thread.join()
    check_equal("SET's answer", ["OK"], results)
    check_equal("the value", b"hello", server("GET", "greeting"))

    # The same without a session, twice.
    def set_keys():
        return [server("SET", f"key{n}", "x") for n in range(40) if waiting.poll() is None]
    with subprocess.Popen([DBG, "-p", str(server.process.pid), "break", "setCommand", "--count", "2"], text=True,
                          stdout=subprocess.PIPE) as waiting:
        check("Breakpoint 1 at" in waiting.stdout.readline(), "no breakpoint")
        thread, results = in_background(set_keys)
        text = waiting.stdout.read()
        thread.join()
    check_equal("stops", 2, len(re.findall(r"Breakpoint 1, thread \d+\n=> 0x[0-9a-f]+ <setCommand> ", text)))
    check_equal("call chains", 2, len(re.findall(r"#\d+ +0x[0-9a-f]+ main\+0x", text)))
    check_equal("answers", {"OK"}, set(results[0]))
    server.shutdown("NOSAVE")


def stands():
    """What a program that waits for requests does, and its core."""
    server = Server()
    server("SET", "key", "in-the-core")
    pid = server.process.pid
    chains = {entry["thread"]: entry for entry in dbg_json(server, "bt", "--all")}
    check("aeMain" in functions(chains[pid]), functions(chains[pid]))
    worker = next(chain for chain in chains.values() if "bioProcessBackgroundJobs" in functions(chain))
    check(worker["frames"][0]["address"] >= 0xffffffff80000000, "the guest kernel's part:", worker["frames"][0])
    check(any(name.startswith("dbos::") for name in functions(worker)), functions(worker))
    names = functions(worker)
    check(names.index("bioProcessBackgroundJobs") > names.index("pthread_cond_wait"), names)
    check_equal("lines marked", 1, dbg(server, "disas").count("=> "))
    registers = dbg_json(server, "regs", "--all")["registers"]
    check(registers["rsp"] < 1 << 47 and re.fullmatch("0x[0-9a-f]{32}", registers["xmm0"]), registers)
    stack = dbg_json(server, "x", "/8xg", "$rsp")
    check_equal("words", 8, len(stack["values"]))
    code = dbg(server, "x", "/3i", "setCommand")
    check("<setCommand>" in code and len(code.splitlines()) == 3, code)
    check_equal("instructions", 3, len(dbg_json(server, "disas", "setCommand", "3")["instructions"]))
    for letter in "duc":
        values = dbg_json(server, "x", f"/4{letter}b", "$rsp")["values"]
        check_equal(f"bytes as {letter}", 4, len(values))
    said = dbg(server, "debug", "-e", "break dbAdd", "-e", "points", "-e", "x/2xg $rsp")
    check("dbAdd" in said and len(said.splitlines()) >= 3, "debug -e:", said)
    step = dbg_json(server, "step", "3")
    check_equal("a step", ("step", pid), (step["cause"], step["thread"]))
    for words, why in (("x", "nosuch"), "no symbol nosuch"), (("x", "0x10"), "no memory at 0x10"), \
            (("break", "0x10"), "no breakpoint can be written there"), (("regs", "--thread", "1"), "no thread 1"), \
            (("x", "/4q", "main"), "a format is"), (("core", "/nowhere/core"), "No such file"), \
            (("core", "/dev/full"), "no regular file"):
        failed = subprocess.run([DBG, "-p", str(pid), *words], capture_output=True, text=True, timeout=PATIENCE_S)
        check_equal(f"status of {words}", 1, failed.returncode)
        check(re.fullmatch(r"dbos-dbg: .*\n", failed.stderr) and why in failed.stderr, words, failed.stderr)
    core = os.path.abspath("core")
    dbg(server, "core", core)
    check_equal("the core's mode", 0o600, os.stat(core).st_mode & 0o777)
    server("SET", "key", "later")
    said = subprocess.run([*GDB, "-ex", "bt", "-ex", "info threads", "/usr/bin/redis-server", core], text=True,
                          capture_output=True, timeout=PATIENCE_S * 2).stdout
    check(re.search(r"#\d+ .* in aeMain \(\)", said), "gdb at the core:", said)
    threads = re.findall(r"Thread 0x[0-9a-f]+ \(LWP \d+\)", said.split("Target Id")[1])
    check_equal("threads in the core", len(chains), len(threads))
    server.shutdown("NOSAVE")


def watches():
    """A variable that is written, seen with the one who did it."""
    with debugged("echo") as program:
        check_equal("the program", "ready\n", program.stdout.readline())
        session = Session(program.pid)
        point = session("watch counter 4")
        print(point)
        session.send("continue")
        program.stdin.write("12345\n")
        program.stdin.flush()
        stop = session.answer()
        check_equal("the stop", ("watchpoint", 0, 6), (stop["cause"], stop["before"], stop["after"]))
        check("work" in stop["frame"]["function"], "who wrote:", stop["frame"])
        check_equal("its source", "debugged.cpp", stop["frame"]["source"].split(":")[0])
        check_equal("the caller", "echo", functions(session("bt")[0])[1])
        session.end()
        check_equal("the echo", "12345\n", program.stdout.readline())
        program.stdin.close()
        check_equal("status", 0, program.wait(PATIENCE_S))


def cores():
    """A core of a program that comes back from host calls meanwhile has all of its memory, but what is not to be."""
    with debugged("heap") as program:
        heap = int(program.stdout.readline(), 16)
        for _ in range(3):
            subprocess.run([DBG, "-p", str(program.pid), "core", "core"], check=True, stdout=subprocess.DEVNULL,
                           timeout=PATIENCE_S)
            with open("core", "rb") as file:
                core = file.read()
            begin = offset_in(core, heap)
            check_equal("bytes of the heap", 64 << 20, core[begin:begin + (64 << 20)].count(7))
            check(b"not to be dumped" not in core, "MADV_DONTDUMP")
            check_equal("threads", 1, len(re.findall(rb"\x05\0\0\0.{4}\x01\0\0\0CORE\0", core, re.S)))
        program.kill()


def offset_in(core, address):
    """Where a core has what lies at an address."""
    at, count = struct.unpack_from("<Q", core, 32)[0], struct.unpack_from("<H", core, 56)[0]
    for n in range(count):
        kind, _, offset, begin, _, size = struct.unpack_from("<IIQQQQ", core, at + n * 56)
        if kind == 1 and begin <= address < begin + size:
            return offset + address - begin
    return check(False, "no segment has", hex(address))


def aborts():
    """A program that gives up stops for its debugger first."""
    with debugged("abort") as program:
        check_equal("the program", "ready\n", program.stdout.readline())
        session = Session(program.pid)
        session("regs")
        session.send("continue")
        program.stdin.close()
        stop = session.answer()
        check_equal("the stop", ("signal", "SIGABRT"), (stop["cause"], stop["signal"]))
        check("give_up" in functions(session("bt")[0]), "no give_up in the chain")
        session.send("continue")
        check_equal("the end", {"event": "end", "signal": signal.SIGABRT}, session.answer())
        session.end()
        check_equal("status", -signal.SIGABRT, program.wait(PATIENCE_S))


def refused(pid, *words):
    result = subprocess.run([DBG, "-p", str(pid), *words], capture_output=True, text=True, timeout=PATIENCE_S,
                            stdin=subprocess.DEVNULL)
    check_equal(f"a second debugger's status ({words})", 1, result.returncode)
    check(re.fullmatch(r"dbos-dbg: another debugger is attached: [^\n]*\n", result.stderr), words, result.stderr)
    return result.stderr


def second():
    """One debugger at a time; another one is told who."""
    server = Server()
    pid = server.process.pid
    session = Session(pid)
    session("regs")
    for words in ("regs",), ("debug",), ("gdb",):
        check(f"dbos-dbg, process {session.process.pid}" in refused(pid, *words), words)
    check_equal("looking is no debugging", pid, dbg_json(server, "ps")[0]["process"])
    session.end()
    check_equal("after it", "PONG", server("PING"))
    dbg(server, "regs")
    server.shutdown("NOSAVE")

    path = os.path.abspath("gdb.socket")
    with subprocess.Popen([*DBOS, "--gdb", path, DEBUGGED, "echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as program:
        await_that(lambda: os.path.exists(path), "gdb's socket")
        with subprocess.Popen([*GDB, "-ex", f"target remote {path}", "-ex", "continue"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as gdb:
            check_equal("the program", "ready\n", program.stdout.readline())
            check(f"gdb at {path}" in refused(program.pid, "regs"), "no name")
            program.stdin.close()
            check_equal("status", 0, program.wait(PATIENCE_S))
            gdb.wait(PATIENCE_S)


def vanishes():
    """However a debugger goes, the program runs on, without its breakpoints."""
    server = Server()
    pid = server.process.pid

    def runs_on(what):
        with server.client(timeout=PATIENCE_S) as client:
            check_equal(what, "OK", client("SET", f"key {what}", "v"))
        check_equal("processes", 1, len(dbg_json(server, "ps")))

    held = Session(pid)
    held("regs")
    held.kill()
    runs_on("killed while the program stood")
    waiting = Session(pid)
    waiting("break setCommand")
    waiting.send("continue")
    await_that(lambda: server("PING") == "PONG", "the program goes on")
    waiting.kill()
    runs_on("killed while the program ran")
    standing = Session(pid)
    standing("break setCommand")
    standing.send("continue")
    thread, results = in_background(server, "SET", "a", "b")
    standing.answer()
    standing.kill()
    thread.join()
    check_equal("the answer", ["OK"], results)
    runs_on("killed at a breakpoint")
    interrupted = Session(pid)
    interrupted("break dbAdd")
    interrupted.send("continue")
    await_that(lambda: server("PING") == "PONG", "the program goes on")
    interrupted.process.send_signal(signal.SIGINT)
    check_equal("Ctrl-C", "interrupt", interrupted.answer()["cause"])
    interrupted.end()
    runs_on("ended with a breakpoint")

    half_closed = Control(server)
    check(half_closed.ask("debug")["ok"], "debug")
    half_closed.send(b'{"command": "threads"}\n')
    half_closed.socket.shutdown(socket.SHUT_WR)
    check(half_closed.answer()["ok"], "an answer to a half-closed socket")
    check_equal("its end", None, half_closed.answer())
    runs_on("half-closed")
    hostile = Control(server)
    check(hostile.ask("debug")["ok"], "debug")
    for command, arguments in (("read", {"address": 2**64 - 1, "length": 65536}),
                               ("read", {"address": 0, "length": 2**64 - 1}),
                               ("break", {"kind": "write", "address": 3, "length": 99}),
                               ("run", {"thread": 99999999999}), ("debug", {"thread": 7}),
                               ("registers", {"thread": "a"}), ("core", {"path": ""})):
        check("ok" in hostile.ask(command, **arguments), command)
    made = os.path.abspath("made-by-dbos-run")  # which opens no file for anybody
    check_equal("a core by its path", "no file came with the request", hostile.ask("core", path=made)["error"])
    check(not os.path.exists(made), "dbos-run has made the file")
    for request in b"x\n", b"{}\n", b'{"command": "debug", "arguments": 7}\n':
        hostile.send(request)
        answer = hostile.answer()
        check("ok" in answer, request, answer)
    hostile.socket.close()
    hostile.file.close()
    runs_on("malformed requests")
    as_gdb = Control(server)
    check(as_gdb.ask("debug")["ok"] and as_gdb.ask("gdb")["ok"], "gdb")
    as_gdb.send(b"$Z0,10,1#xx$vCont;s:ffffffff#00\3\3$m0,ffffffffffffffff#00")
    as_gdb.socket.close()
    as_gdb.file.close()
    runs_on("a gdb that sends nonsense")
    server.shutdown("NOSAVE")


def gdb():
    """gdb itself, at a program that was not started for it."""
    server = Server()
    program = f"{DBG} -p {server.process.pid} gdb"

    def talk(*commands, during=()):
        with subprocess.Popen([*GDB, *(word for one in commands for word in ("-ex", one))], text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            lines, threads = [], []
            for line in process.stdout:
                lines.append(line)
                if "Breakpoint 1 at" in line:
                    threads = [in_background(*one)[0] for one in during]
            for thread in threads:
                thread.join()
        return "".join(lines)
    said = talk(f"target remote | {program}", "break dbAdd", "continue", "x/s *(char**)($rsi + 8)", "backtrace",
                "stepi", "x/i $pc", "delete", "detach", during=[(server, "SET", "greeting", "hello")])
    for wanted in r"Breakpoint 1, .*dbAdd", '"greeting"', r"#[1-9].*setCommand", r"=> 0x[0-9a-f]+ <dbAdd\+", "detached":
        check(re.search(wanted, said), f"gdb did not say '{wanted}':", said)
    check_equal("the value", b"hello", server("GET", "greeting"))

    path = os.path.abspath("socket")
    for address in path, f"127.0.0.1:{free_port()}", f":{free_port()}":
        with subprocess.Popen([*program.split(), address], stderr=subprocess.PIPE, text=True) as bridge:
            check(f"target remote {address}" in (line := bridge.stderr.readline()), "what gdb is to be told:", line)
            check_equal("meanwhile", "PONG", server("PING"))
            said = talk(f"target remote {address}", "info threads", "detach")
            # Nearly always epoll_wait; but ten times a second redis looks at itself.
            check(re.search(r"0x[0-9a-f]+ in [a-zA-Z_]\w*", said), said)
            check_equal("the bridge's status", 0, bridge.wait(PATIENCE_S))
    check(not os.path.exists(path), "the socket is still there")
    check_equal("after gdb", "PONG", server("PING"))
    server.shutdown("NOSAVE")


main({"breaks": breaks, "stands": stands, "watches": watches, "second": second, "vanishes": vanishes,
      "cores": cores, "aborts": aborts, "gdb": gdb}[sys.argv[1]])
