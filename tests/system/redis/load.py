"""redis-benchmark with 50 clients and with io threads; DATA_MB megabytes of data. What argument 1 says."""
import hashlib
import subprocess
import sys

from support import DATA_MB, Server, check, check_equal, main


def benchmark(server, *options):
    result = subprocess.run(["redis-benchmark", "-p", str(server.port), "-q", *options], capture_output=True, text=True)
    check_equal(f"redis-benchmark {options}: status", 0, result.returncode)
    check("rror" not in result.stdout + result.stderr, result.stdout, result.stderr)
    for line in result.stdout.replace("\r", "\n").splitlines():
        if "requests per second" in line:
            print(line)


def fifty_clients():
    server = Server()
    with server.client() as c:
        benchmark(server, "-c", "50", "-n", "4000", "-r", "1000", "-t", "ping_mbulk,set,get,incr,lpush,hset,zadd,lrange_100,mset")
        check(c("DBSIZE") >= 900, "DBSIZE")
        benchmark(server, "-c", "50", "-n", "20000", "-P", "16", "-d", "100", "-r", "100000", "-t", "set,get")
        c("SET", "counter", 0)
        benchmark(server, "-c", "50", "-n", "5000", "-P", "4", "INCR", "counter")
        check_equal("counter", b"5000", c("GET", "counter"))
        check_equal("clients are gone", "1", c.info("clients")["connected_clients"])
    server.shutdown("NOSAVE")


def io_threads():
    server = Server("--io-threads", 2, "--io-threads-do-reads", "yes")
    with server.client() as c:
        c("SET", "counter", 0)
        benchmark(server, "-c", "50", "-n", "2000", "-P", "4", "INCR", "counter")
        check_equal("counter", b"2000", c("GET", "counter"))
        benchmark(server, "-c", "50", "-n", "2000", "-P", "8", "-d", "3000", "-r", "1000", "-t", "set,get")
        check(int(c.info("stats")["io_threaded_reads_processed"]) > 0, "no read by an io thread")
        check(int(c.info("stats")["io_threaded_writes_processed"]) > 0, "no write by an io thread")
        for n in range(0, 1000, 50):
            value = c("GET", f"key:{n:012}")
            check(value is None or len(value) == 3000, "a value of", len(value or b""), "bytes")
    server.background_save()
    server.shutdown("NOSAVE")


def much_data():
    server = Server()
    keys = server.populate(DATA_MB)
    with server.client() as c:
        check_equal("DBSIZE", keys, c("DBSIZE"))
        for n in range(0, keys, keys // 500):
            value = c("GET", f"key:{n}")
            check(value.startswith(b"value:%d" % n) and len(value) == 1000, f"key:{n} is", value[:30])
        memory = c.info("memory")
        check(int(memory["used_memory"]) > DATA_MB * 1_000_000, "used_memory", memory["used_memory"])
        check(DATA_MB * 1_000_000 < int(memory["used_memory_rss"]) < DATA_MB * 2_500_000 + 200_000_000,
              "used_memory_rss", memory["used_memory_rss"])
        # Overwritten through the protocol, and read again.
        sha = hashlib.sha256()
        for begin in range(0, min(keys, 20_000), 500):
            values = [hashlib.sha256(b"%d" % n).digest() * (n % 40) for n in range(begin, begin + 500)]
            sha.update(b"".join(values))
            c.pipeline([("SET", f"key:{n}", value) for n, value in enumerate(values, begin)])
        again = hashlib.sha256()
        for begin in range(0, min(keys, 20_000), 500):
            again.update(b"".join(c("MGET", *(f"key:{n}" for n in range(begin, begin + 500)))))
        check_equal("contents", sha.hexdigest(), again.hexdigest())
        c("FLUSHALL", "SYNC")
        check_equal("DBSIZE", 0, c("DBSIZE"))
    server.shutdown("NOSAVE")


main({"fifty_clients": fifty_clients, "io_threads": io_threads, "much_data": much_data}[sys.argv[1]])
