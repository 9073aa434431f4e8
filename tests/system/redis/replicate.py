"""Replication with a plain redis, in both directions. What argument 1 says."""
import sys

from support import DATA_MB, PairWriters, Server, await_that, check, check_equal, check_pairs, main, same_data

SIZE_MB = max(DATA_MB // 8, 4)


def await_link(replica):
    await_that(lambda: replica.info("replication")["master_link_status"] == "up"
               and replica.info("replication")["master_sync_in_progress"] == "0", f"{replica.name} is in sync")


def await_offset(master, replica):
    await_that(lambda: master.info("replication")["master_repl_offset"]
               == replica.info("replication")["slave_repl_offset"], "the replica has caught up")


def sync(master, replica):
    """A full synchronization under writes, then all that follows."""
    writers = PairWriters(master.port, clients=5)
    writers.await_writes(50)
    replica("REPLICAOF", "127.0.0.1", master.port)
    await_link(replica)
    writers.await_writes(100)
    writers.stop()
    await_offset(master, replica)
    same_data(master, replica)
    check_pairs(replica, 50)
    check_equal("connected_slaves", "1", master.info("replication")["connected_slaves"])
    check(int(master.info("stats")["sync_full"]) >= 1, "sync_full")
    # WAIT is for the writes of its own connection.
    with master.client() as client:
        client("SET", "waited", 1)
        check_equal("WAIT", 1, client("WAIT", 1, 0))
    check_equal("what was waited for", b"1", replica("GET", "waited"))


def synchronizations(master):
    """How many were full, and how many partial."""
    stats = master.info("stats")
    return int(stats["sync_full"]), int(stats["sync_partial_ok"])


def as_master():
    for diskless in ("no", "yes"):
        master = Server("--repl-diskless-sync", diskless, "--repl-diskless-sync-delay", 0)
        master.populate(SIZE_MB)
        replica = Server(plain=True)
        sync(master, replica)
        replica.shutdown("NOSAVE")
        master.shutdown("NOSAVE")


def as_replica():
    for load in ("disabled", "swapdb"):
        master = Server("--repl-diskless-sync-delay", 0, plain=True)
        master.populate(SIZE_MB)
        replica = Server("--repl-diskless-load", load)
        sync(master, replica)
        # A short break: only what is missing is sent.
        before = synchronizations(master)
        check_equal("connections to the master that are cut", 1, replica("CLIENT", "KILL", "TYPE", "master"))
        master("SET", "during the break", 1)
        await_that(lambda: synchronizations(master) != before, "the replica is back")
        await_link(replica)
        await_offset(master, replica)
        same_data(master, replica)
        check_equal("what was written during the break", b"1", replica("GET", "during the break"))
        full, partial = before
        check_equal("full and partial synchronizations", (full, partial + 1), synchronizations(master))
        # The replica takes over.
        replica("REPLICAOF", "NO", "ONE")
        replica("SET", "mine", 1)
        replica.background_save()
        replica.shutdown("NOSAVE")
        master.shutdown("NOSAVE")


def both_ours():
    master, replica = Server("--repl-diskless-sync-delay", 0), Server()
    master.populate(SIZE_MB)
    sync(master, replica)
    # SHUTDOWN of a master waits for its replicas.
    master.shutdown("NOSAVE")
    await_that(lambda: replica.info("replication")["master_link_status"] == "down", "the master is gone")
    replica.shutdown("NOSAVE")


main(globals()[sys.argv[1]])
