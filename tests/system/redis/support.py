"""What the tests of redis share: a client, and servers that run natively or under dbos-run."""
import os
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../tools"))

from redis_client import Client, ReplyError  # noqa: E402

DATA_MB = int(os.environ.get("DBOS_DATA_MB", "64"))
DBOS = [os.environ["DBOS_RUN"], *os.environ.get("DBOS_RUN_ARGS", "").split()]
# The emulated machine is slow, and everything here ends sooner than that if it ends at all.
PATIENCE_S = 240


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_that(condition, what, seconds=PATIENCE_S):
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s: {what}")
        time.sleep(0.05)
    return result


def check(condition, *what):
    if not condition:
        raise AssertionError(" ".join(map(str, what)))


def check_equal(what, wanted, got):
    check(wanted == got, f"{what}: expected {str(wanted)[:300]}, got {str(got)[:300]}")


class Server:
    """A redis-server; its output goes to NAME.log. Plain, or under dbos-run."""

    all = []

    def __init__(self, *options, plain=False, directory=None, name=None, wait=True, dbos_options=()):
        Server.all.append(self)
        self.plain = plain
        self.name = name or f"{'plain' if plain else 'dbos'}{len(Server.all)}"
        self.directory = os.path.abspath(directory or self.name)
        os.makedirs(self.directory, exist_ok=True)
        self.port = free_port()
        self.log_path = os.path.abspath(self.name + ".log")
        command = [] if plain else [*DBOS, *dbos_options]
        command += ["redis-server", "--port", str(self.port), "--dir", self.directory, "--save", "",
                    "--enable-debug-command", "yes", *map(str, options)]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        print(f"{self.name}: {' '.join(command)}", flush=True)
        if wait:
            self.await_ready()

    def await_ready(self):
        """Until it has loaded its data and answers."""
        def ready():
            check(self.process.poll() is None, f"{self.name} ended with {self.process.returncode}")
            try:
                with self.client() as client:
                    return client("PING") == "PONG"
            except (ConnectionError, ReplyError):
                return False
        await_that(ready, f"{self.name} answers")

    def client(self, timeout=PATIENCE_S):
        return Client(self.port, timeout)

    def __call__(self, *words):
        with self.client() as client:
            return client(*words)

    def cli(self, *words):
        return subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True,
                              timeout=PATIENCE_S, check=True).stdout.rstrip("\n")

    def info(self, section="all"):
        with self.client() as client:
            return client.info(section)

    def metrics(self):
        """What --metrics would serve, as dbos-dbg prints it: {name: number}."""
        dbg = os.path.join(os.environ["DBOS_BUILD"], "tools/dbos-dbg")
        text = subprocess.run([dbg, "-p", str(self.process.pid), "metrics"], capture_output=True, text=True,
                              check=True, timeout=PATIENCE_S).stdout
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in text.splitlines()
                                                          if line[:1] not in ("", "#"))}

    def digest(self):
        digest = self("DEBUG", "DIGEST")
        check(digest != "0" * 40, "a digest of no data")
        return digest

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def populate(self, megabytes, value_bytes=1000, prefix="key"):
        keys = megabytes * 1000 * 1000 // value_bytes
        begin = time.monotonic()
        self("DEBUG", "POPULATE", keys, prefix, value_bytes)
        print(f"{self.name}: {keys} keys of {value_bytes} bytes in {time.monotonic() - begin:.1f} s", flush=True)
        return keys

    def background_save(self):
        """BGSAVE, and its end; INFO persistence."""
        before = self.info("persistence")
        check("Background saving started" in self("BGSAVE"), "BGSAVE")
        return self.await_save(before)

    def await_save(self, before=None):
        info = {}

        def ended():
            info.update(self.info("persistence"))
            return info["rdb_bgsave_in_progress"] == "0"
        await_that(ended, "the end of BGSAVE")
        check_equal("rdb_last_bgsave_status", "ok", info["rdb_last_bgsave_status"])
        if before:
            check_equal("saves", int(before["rdb_saves"]) + 1, int(info["rdb_saves"]))
        return info

    def wait(self, seconds=PATIENCE_S):
        return self.process.wait(seconds)

    def shutdown(self, *how):
        """SHUTDOWN; the process must end with 0."""
        with self.client() as client:
            client.send("SHUTDOWN", *how)
            try:
                reply = client.read()
                raise AssertionError(f"SHUTDOWN answered {reply}")
            except ConnectionError:
                pass
        check_equal(f"{self.name}: exit status after SHUTDOWN", 0, self.wait())

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def same_data(*servers):
    digests = {server.name: server.digest() for server in servers}
    check(len(set(digests.values())) == 1, "digests differ:", digests)


def child_pids(pid):
    """Processes whose parent is this one, or a thread of it."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] not in "ZX":
                found.append(int(entry))
    return found


class PairWriters:
    """Clients that set pairs of keys to the same value, always both in one transaction."""

    def __init__(self, port, clients=10, pairs=200):
        self.stop_requested = threading.Event()
        self.counts = [0] * clients
        self.errors = []
        self.pairs = pairs
        self.threads = [threading.Thread(target=self.write, args=(port, n), daemon=True) for n in range(clients)]
        for thread in self.threads:
            thread.start()

    def write(self, port, me):
        try:
            with Client(port) as client:
                while not self.stop_requested.is_set():
                    count = self.counts[me]
                    pair = count * 7 % self.pairs
                    value = b"%d:%d:" % (me, count) + b"v" * (count % 50 * 20)
                    # The transaction, and a write to a key that the snapshot shares with main.
                    client.pipeline([
                        ("MULTI",), ("SET", f"pair:{me}:{pair}:a", value), ("SET", f"key:{(count * 131 + me) % 5000}", value),
                        ("SET", f"pair:{me}:{pair}:b", value), ("EXEC",)])
                    self.counts[me] += 1
        except Exception as error:  # pylint: disable=broad-except
            if not self.stop_requested.is_set():
                self.errors.append(repr(error))

    def stop(self):
        self.stop_requested.set()
        for thread in self.threads:
            thread.join(PATIENCE_S)
        check(not self.errors, "writers:", self.errors)

    def count(self):
        return sum(self.counts)

    def await_writes(self, more):
        goal = self.count() + more
        await_that(lambda: self.count() >= goal or self.errors, f"{more} more transactions")
        check(not self.errors, "writers:", self.errors)


def check_pairs(server, at_least=1):
    """Every pair is there with both keys, and they are equal."""
    with server.client() as client:
        keys, cursor = set(), b"0"
        while True:
            cursor, found = client("SCAN", cursor, "MATCH", "pair:*", "COUNT", 1000)
            keys.update(found)
            if cursor == b"0":
                break
        stems = sorted({key[:-2] for key in keys})
        torn = []
        for begin in range(0, len(stems), 500):
            part = stems[begin:begin + 500]
            values = client("MGET", *(stem + end for stem in part for end in (b":a", b":b")))
            for n, stem in enumerate(part):
                first, second = values[2 * n:2 * n + 2]
                if first is None or first != second:
                    torn.append((stem, (first or b"none")[:20], (second or b"none")[:20]))
    check(not torn, f"{len(torn)} of {len(stems)} pairs are torn:", torn[:3])
    check(len(stems) >= at_least, f"only {len(stems)} pairs")
    print(f"{server.name}: {len(stems)} pairs are whole", flush=True)


def check_rdb(path):
    result = subprocess.run(["redis-check-rdb", path], capture_output=True, text=True)
    check(result.returncode == 0 and "RDB looks OK" in result.stdout, "redis-check-rdb:", result.stdout[-1500:])


def main(test):
    """Runs the test; ends all servers, and shows the ends of their logs if it failed."""
    try:
        test()
        for server in Server.all:
            check("=== REDIS BUG REPORT START" not in server.log() or getattr(server, "may_crash", False),
                  f"{server.name} crashed")
            for line in server.log().splitlines():
                may_be_said = line.startswith(getattr(server, "may_say", "-"))
                check(not line.startswith("dbos-run: ") or may_be_said, f"{server.name} said:", line)
    except BaseException as error:  # pylint: disable=broad-except
        for server in Server.all:
            state = server.process.poll()
            print(f"--- {server.name}: {'runs' if state is None else f'ended with {state}'}; its log ends:")
            print("\n".join(server.log().splitlines()[-12:]))
        print(f"--- {type(error).__name__}: {error}", flush=True)
        if not isinstance(error, (AssertionError, TimeoutError)):
            import traceback
            traceback.print_exc()
        with open(os.environ.get("DBOS_WHY", "/dev/stderr"), "w", encoding="utf-8") as why:
            why.write(f"{type(error).__name__}: {error}"[:300].replace("\n", " ") + "\n")
        # Before the servers, which would otherwise report lost connections.
        for server in Server.all:
            server.kill()
        os._exit(1)
    for server in Server.all:
        server.kill()


def on_signal(_number, _frame):
    raise TimeoutError("no end in time")


# The runner's time limit arrives as SIGTERM: show where everything stood.
signal.signal(signal.SIGTERM, on_signal)
sys.stdout.reconfigure(line_buffering=True)
