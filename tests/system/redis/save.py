"""Saving by fork(): BGSAVE under writes, the append-only file, shutdown and restart. What argument 1 says."""
import glob
import json
import os
import signal
import subprocess
import sys
import time

from support import (DATA_MB, DBOS, PATIENCE_S, PairWriters, ReplyError, Server, await_that, check, check_equal,
                     check_pairs, check_rdb, child_pids, main, same_data)

# What a save takes at least whose copies are compared: the child is to look at them after the writes.
SAVE_S = 15


def simple():
    """The first thing to work: a key, BGSAVE, the file."""
    server = Server()
    check_equal("PING", "PONG", server("PING"))
    server("SET", "key", "value")
    server.background_save()
    check_rdb(f"{server.directory}/dump.rdb")
    check_equal("GET", b"value", server("GET", "key"))
    plain = Server(plain=True, directory=server.directory)
    check_equal("GET from a plain redis", b"value", plain("GET", "key"))
    same_data(server, plain)
    server.shutdown("NOSAVE")


def under_writes():
    """Ten clients write pairs in transactions while BGSAVE runs: no pair in the dump is torn."""
    server = Server()
    server.populate(DATA_MB)
    for n in range(3):
        writers = PairWriters(server.port)
        writers.await_writes(300)
        during = 0
        begin = time.monotonic()
        check("Background saving started" in server("BGSAVE"), "BGSAVE")
        took = time.monotonic() - begin
        before = writers.count()
        while server.info("persistence")["rdb_bgsave_in_progress"] == "1":
            during = writers.count() - before
            time.sleep(0.05)
        info = server.await_save()
        writers.stop()
        stats = server.info("stats")
        print(f"save {n}: BGSAVE answered in {took * 1000:.0f} ms, fork {stats['latest_fork_usec']} us, "
              f"{during} transactions, {int(info['rdb_last_cow_size']) >> 10} KiB copied")
        check(during > 0, "no transaction during the save")
        check(int(info["rdb_last_cow_size"]) > 0, "rdb_last_cow_size is 0 though there were writes")
        check(int(info["rdb_last_cow_size"]) < DATA_MB * 1_000_000, "rdb_last_cow_size", info["rdb_last_cow_size"])
        check_pairs(server, 100)
        path = f"{server.directory}/dump.rdb"
        check_rdb(path)
        os.makedirs(f"copy{n}")
        os.rename(path, f"copy{n}/dump.rdb")
        plain = Server(plain=True, directory=f"copy{n}")
        check_pairs(plain, 100)
        check(plain("DBSIZE") >= DATA_MB * 1000, "DBSIZE", plain("DBSIZE"))
        plain.shutdown("NOSAVE")
    # Without writes the dump is exactly what the server has.
    server.background_save()
    plain = Server(plain=True, directory=server.directory)
    same_data(server, plain)
    if "--snapshot=ready" in DBOS:
        count = server.metrics()['dbos_snapshot_tables_total{from="ready"}']
        print(f"{count:.0f} of 4 saves were handed a ready copy")
        check(count > 0, "no save was handed a ready copy")
    server.shutdown("NOSAVE")


def snapshots_of(server):
    """What dbos-dbg says of the server's snapshots."""
    dbg = os.path.join(os.environ["DBOS_BUILD"], "tools/dbos-dbg")
    command = [dbg, "-p", str(server.process.pid), "--json", "snapshots"]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S).stdout
    return json.loads(answer)["snapshots"]


def copies_reported(server, keys, command, in_progress, last):
    """Writes to all keys while the command's child saves. What INFO says meanwhile, and at the end in the field `last`,
    is what the guest kernel keeps for the child, to 10 %."""
    check("ackground" in server(command), command)
    await_that(lambda: snapshots_of(server), "the snapshot")
    with server.client() as client:
        for first in range(0, keys, 500):
            client.pipeline([("SETRANGE", f"key:{n}", 0, command) for n in range(first, first + 500)])
    written = time.monotonic()
    kept = 0
    current = None
    while snapshots := snapshots_of(server):
        kept = 4096 * snapshots[0]["retired_pages"]
        info = server.info("persistence")
        # The child looks at every 1024th key, but not if less than a hundred times has passed of what its last look
        # took, and tells the same again meanwhile. Before the first look both are 0.
        size, age = int(info["current_cow_size"]), int(info["current_cow_size_age"])
        if (size > 0 or age > 0) and age + 1 < time.monotonic() - written:
            current = size
    await_that(lambda: server.info("persistence")[in_progress] == "0", f"the end of {command}")
    reported = int(server.info("persistence")[last])
    while_saving = "nothing since the writes" if current is None else f"{current >> 10} KiB"
    print(f"{command}: redis reports {reported >> 10} KiB, {while_saving} while it saved, "
          f"the guest kernel kept {kept >> 10} KiB")
    check(kept > DATA_MB // 6 * 1_000_000, "too little was copied to compare", kept)
    figures = {last: reported}
    if current is not None:
        figures["current_cow_size"] = current
    for what, number in figures.items():
        check(abs(number - kept) < kept / 10, what, number, "the guest kernel kept", kept)


def copy_figures():
    """What redis reports as copied on write."""
    server = Server()
    keys = server.populate(DATA_MB // 4)
    server("CONFIG", "SET", "rdb-key-save-delay", SAVE_S * 1_000_000 // keys)
    copies_reported(server, keys, "BGSAVE", "rdb_bgsave_in_progress", "rdb_last_cow_size")
    check_equal("rdb_last_bgsave_status", "ok", server.info("persistence")["rdb_last_bgsave_status"])
    copies_reported(server, keys, "BGREWRITEAOF", "aof_rewrite_in_progress", "aof_last_cow_size")
    check_equal("aof_last_bgrewrite_status", "ok", server.info("persistence")["aof_last_bgrewrite_status"])
    server.shutdown("NOSAVE")


def append_only():
    """BGREWRITEAOF under writes; a plain redis reads the files, and so do we."""
    options = ("--appendonly", "yes", "--appendfsync", "everysec")
    server = Server(*options)
    server.populate(max(DATA_MB // 8, 4))
    for _ in range(2):
        writers = PairWriters(server.port, clients=5)
        writers.await_writes(100)
        answer = server("BGREWRITEAOF")
        check("rewriting started" in answer or "rewriting scheduled" in answer, "BGREWRITEAOF:", answer)
        writers.await_writes(100)
        await_that(lambda: server.info("persistence")["aof_rewrite_in_progress"] == "0"
                   and server.info("persistence")["aof_rewrite_scheduled"] == "0", "the end of BGREWRITEAOF")
        check_equal("aof_last_bgrewrite_status", "ok", server.info("persistence")["aof_last_bgrewrite_status"])
        writers.await_writes(50)
        writers.stop()
    check("rewrite" in server.log().lower(), "no rewrite in the log")
    check(int(server.info("persistence")["aof_rewrites"]) >= 2, "aof_rewrites")
    check_pairs(server, 100)
    before = server.digest()
    server.shutdown()
    check(glob.glob(f"{server.directory}/appendonlydir/*.base.rdb"), "no base file")
    plain = Server(*options, plain=True, directory=server.directory)
    check_equal("digest in a plain redis", before, plain.digest())
    plain("SET", "from plain", "1")
    after = plain.digest()
    plain.shutdown()
    again = Server(*options, directory=server.directory)
    check_equal("digest after the restart", after, again.digest())
    # Each write on disk before its answer: what was answered survives kill -9.
    again("CONFIG", "SET", "appendfsync", "always")
    with again.client() as c:
        for n in range(50):
            c("SET", f"durable{n}", n)
    again.process.kill()
    check_equal("killed", -signal.SIGKILL, again.wait())
    last = Server(*options, directory=server.directory)
    check_equal("after kill -9", b"49", last("GET", "durable49"))
    last.shutdown()


def restart():
    """SHUTDOWN and SIGTERM save; the data is there after a restart, ours or plain."""
    server = Server("--save", "3600 1")
    server.populate(max(DATA_MB // 8, 4))
    server("HSET", "hash", "a", 1, "b", 2)
    digest = server.digest()
    server.shutdown()
    check("Redis is now ready to exit" in server.log(), "its log says nothing of the end")

    second = Server("--save", "3600 1", directory=server.directory)
    check_equal("digest after SHUTDOWN", digest, second.digest())
    second("SET", "more", 1)
    digest = second.digest()
    second.process.send_signal(signal.SIGTERM)
    check_equal("exit status after SIGTERM", 0, second.wait())
    check("Received SIGTERM" in second.log(), "its log does not name SIGTERM")

    plain = Server(plain=True, directory=server.directory)
    check_equal("digest in a plain redis", digest, plain.digest())
    plain.shutdown("NOSAVE")

    third = Server("--save", "3600 1", directory=server.directory)
    check_equal("digest after SIGTERM", digest, third.digest())
    check_equal("SAVE", "OK", third("SAVE"))
    third.process.send_signal(signal.SIGINT)
    check_equal("exit status after SIGINT", 0, third.wait())


def on_schedule():
    """A save that the server begins by itself."""
    server = Server("--save", "1 10")
    with server.client() as c:
        for n in range(20):
            c("SET", f"k{n}", n)
        await_that(lambda: int(c.info("persistence")["rdb_saves"]) >= 1, "a save")
        check_equal("LASTSAVE", True, abs(c("LASTSAVE") - time.time()) < 60)
    server.shutdown("NOSAVE")


def saving_child(server):
    """The process that saves, once it is there; main was told to save slowly."""
    return await_that(lambda: child_pids(server.process.pid), "a child that saves")


def child_killed():
    """The child of a BGSAVE is killed: main says so, goes on, and saves the next time."""
    server = Server()
    server.populate(max(DATA_MB // 8, 4))
    digest = server.digest()
    path = f"{server.directory}/dump.rdb"
    # Twice: the second one finds what the first one's end left.
    for n in range(2):
        server("CONFIG", "SET", "rdb-key-save-delay", 1000)
        server("BGSAVE")
        for pid in saving_child(server):
            os.kill(pid, signal.SIGKILL)
        await_that(lambda: server.info("persistence")["rdb_bgsave_in_progress"] == "0", "the end of the save")
        check_equal("rdb_last_bgsave_status", "err", server.info("persistence")["rdb_last_bgsave_status"])
        check("terminated by signal 9" in server.log(), "its log does not name the signal")
        check(not os.path.exists(path), "a dump though the child was killed")
        check_equal("children", [], child_pids(server.process.pid))
        server("SET", "after", n)
        server("CONFIG", "SET", "rdb-key-save-delay", 0)
    server("DEL", "after")
    check_equal("digest", digest, server.digest())
    server.background_save()
    check_rdb(path)
    # Ended from within: redis kills its child to save at once.
    server("CONFIG", "SET", "rdb-key-save-delay", 1000)
    server("BGSAVE")
    saving_child(server)
    server("FLUSHALL")
    await_that(lambda: server.info("persistence")["rdb_bgsave_in_progress"] == "0", "FLUSHALL ends the child")
    server("SET", "key", "value")
    server("CONFIG", "SET", "rdb-key-save-delay", 60_000_000)  # for one key
    server("BGSAVE")
    saving_child(server)
    server("CONFIG", "SET", "rdb-key-save-delay", 0)  # of what SHUTDOWN saves; the child has its own
    server.shutdown("SAVE")
    check_equal("files", ["dump.rdb"], sorted(os.listdir(server.directory)))
    plain = Server(plain=True, directory=server.directory)
    check_equal("the last state was saved", b"value", plain("GET", "key"))


def small_disk(name, kib):
    os.makedirs(name)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "small", name], check=True)
    return name


def enlarge(disk):
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)


def disk_full():
    """A disk that is full fails a save, or writes to the append-only file; with room both work again."""
    disk = small_disk("for_rdb", 2048)
    server = Server("--rdbcompression", "no", directory=disk)
    server.populate(4)
    digest = server.digest()
    for _ in range(2):
        server("BGSAVE")
        await_that(lambda: server.info("persistence")["rdb_bgsave_in_progress"] == "0", "the end of the save")
        check_equal("rdb_last_bgsave_status", "err", server.info("persistence")["rdb_last_bgsave_status"])
        check_equal("files", [], os.listdir(disk))
        check_equal("children", [], child_pids(server.process.pid))
        check_equal("digest", digest, server.digest())
    check("No space left on device" in server.log(), "its log does not name ENOSPC")
    enlarge(disk)
    server.background_save()
    check_rdb(f"{disk}/dump.rdb")
    server.shutdown("NOSAVE")

    disk = small_disk("for_aof", 2048)
    options = ("--appendonly", "yes", "--appendfsync", "everysec")
    server = Server(*options, directory=disk)
    server("SET", "small", "value")
    written = 0
    try:
        while written < 100:
            server("SET", f"large:{written}", "v" * 100_000)
            written += 1
        raise AssertionError("no write was refused")
    except ReplyError as error:
        check("MISCONF" in str(error) and "No space left on device" in str(error), "the refused write:", error)
    check_equal("aof_last_write_status", "err", server.info("persistence")["aof_last_write_status"])
    check_equal("GET", b"value", server("GET", "small"))
    enlarge(disk)
    await_that(lambda: server.info("persistence")["aof_last_write_status"] == "ok", "writes go on", 30)
    server("SET", "after", "value")
    digest = server.digest()
    server.shutdown()
    plain = Server(*options, plain=True, directory=disk)
    check_equal("digest in a plain redis", digest, plain.digest())
    plain.shutdown()


def killed_while_saving():
    """kill -9 of main during a BGSAVE: no process, socket or file of ours is left."""
    def files():
        places = ("/tmp", "/dev/shm", "/run", "/var/tmp", os.getcwd())
        return sorted((place, name) for place in places for name in os.listdir(place)
                      if "dbos" in name or place == places[-1])

    def sockets():
        with open("/proc/net/unix", encoding="utf-8") as lines:
            return [line for line in lines if "dbos" in line]

    sockets_before = sockets()
    server = Server(wait=False)
    files_before = files()
    server.await_ready()
    server.populate(8)
    server("CONFIG", "SET", "rdb-key-save-delay", 1000)
    server("BGSAVE")
    children = saving_child(server)
    server.process.kill()
    check_equal("ending", -signal.SIGKILL, server.wait())
    await_that(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children), "the child ends", 10)
    check_equal("files", files_before, files())
    check_equal("sockets", sockets_before, sockets())
    # The file that redis itself was writing.
    check(all(name.startswith("temp-") for name in os.listdir(server.directory)), os.listdir(server.directory))
    try:
        server.client(1)
        raise AssertionError("the port is still open")
    except ConnectionRefusedError:
        pass


def crash():
    """A crash of the program: redis writes its report from a signal handler and dies of the signal."""
    server = Server()
    server.may_crash = True
    server("SET", "key", "value")
    with server.client() as c:
        c.send("DEBUG", "SEGFAULT")
        try:
            c.read()
        except ConnectionError:
            pass
    check_equal("ending", -signal.SIGSEGV, server.wait())
    log = server.log()
    for text in ("crashed by signal: 11", "STACK TRACE", "INFO OUTPUT", "Backtrace:", "REDIS BUG REPORT END"):
        check(text in log, f"no '{text}' in its report")


def daemon():
    """--daemonize: the command ends, the server goes on."""
    server = Server("--daemonize", "yes", "--pidfile", "redis.pid", "--logfile", "daemon.log", wait=False)
    server.may_say = "dbos-run: the first process ended and process"
    check_equal("exit status of the command", 0, server.wait(60))
    server.process = type("Daemon", (), {"poll": lambda _: None, "returncode": None})()
    server.await_ready()
    with open(f"{server.directory}/redis.pid", encoding="utf-8") as file:
        pid = int(file.read())
    check_equal("its own process id", str(pid), server.info("server")["process_id"])
    server.process.kill = server.process.wait = lambda: None
    server("SET", "key", "value")
    server.background_save()
    with server.client() as c:
        c.send("SHUTDOWN", "NOSAVE")
    await_that(lambda: not os.path.exists(f"/proc/{pid}"), "the daemon's end")


main(globals()[sys.argv[1]])
