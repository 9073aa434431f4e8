"""Commands of every kind: data types, transactions, scripts, messages, blocking, expiry."""
import threading
import time

from support import ReplyError, Server, await_that, check, check_equal, main


def fails(text, action):
    try:
        action()
    except ReplyError as error:
        check(text in str(error), "error:", error)
    else:
        raise AssertionError(f"no error: {text}")


def data_types(c):
    check_equal("SET", "OK", c("SET", "s", "value"))
    check_equal("GET", b"value", c("GET", "s"))
    check_equal("GET of nothing", None, c("GET", "nothing"))
    check_equal("INCRBY", 42, c("INCRBY", "n", 42))
    check_equal("INCRBYFLOAT", b"42.5", c("INCRBYFLOAT", "n", "0.5"))
    check_equal("APPEND", 9, c("APPEND", "s", "more"))
    check_equal("binary", bytes(range(256)), (c("SET", "b", bytes(range(256))), c("GET", "b"))[1])
    c("RPUSH", "l", *range(1000))
    check_equal("LRANGE", [b"998", b"999"], c("LRANGE", "l", -2, -1))
    c("HSET", "h", *(x for n in range(300) for x in (f"f{n}", n)))
    check_equal("HGET", b"299", c("HGET", "h", "f299"))
    c("SADD", "set", *range(500))
    c("SADD", "set2", *range(250, 750))
    check_equal("SINTERCARD", 250, c("SINTERCARD", 2, "set", "set2"))
    c("ZADD", "z", *(x for n in range(500) for x in (n * 1.5, f"m{n}")))
    check_equal("ZRANGEBYSCORE", [b"m2", b"m3"], c("ZRANGEBYSCORE", "z", 3, "(6"))
    c("XADD", "x", "1-1", "field", "value")
    check_equal("XRANGE", [[b"1-1", [b"field", b"value"]]], c("XRANGE", "x", "-", "+"))
    check_equal("PFCOUNT", True, abs((c("PFADD", "hll", *range(1000)), c("PFCOUNT", "hll"))[1] - 1000) < 50)
    c("SETBIT", "bits", 100_000, 1)
    check_equal("BITCOUNT", 1, c("BITCOUNT", "bits"))
    c("GEOADD", "geo", 13.361389, 38.115556, "a", 15.087269, 37.502669, "b")
    check_equal("GEODIST", b"166274.1516", c("GEODIST", "geo", "a", "b"))
    check_equal("SORT", [b"9", b"8"], (c("RPUSH", "so", 3, 9, 8), c("SORT", "so", "DESC", "LIMIT", 0, 2))[1])
    dump = c("DUMP", "z")
    c("RESTORE", "z2", 0, dump)
    check_equal("RESTORE", 500, c("ZCARD", "z2"))
    fails("WRONGTYPE", lambda: c("LPUSH", "s", 1))
    fails("unknown command", lambda: c("NOSUCH"))


def large_values(c):
    for size in (16 << 10, 1 << 20, 20 << 20):
        value = bytes([size >> 12 & 0xFF, 1, 2, 3]) * (size // 4)
        c("SET", "large", value)
        check(c("GET", "large") == value, f"a value of {size} bytes")
        check_equal("STRLEN", size, c("STRLEN", "large"))
    c("UNLINK", "large")
    # Many answers at a time.
    replies = c.pipeline([("SET", f"p{n}", "x" * (n % 200)) for n in range(3000)])
    check(replies == ["OK"] * 3000, "pipeline")
    check_equal("MGET", 3000, len(c("MGET", *(f"p{n}" for n in range(3000)))))


def transactions(c, other):
    check_equal("MULTI", ["OK", "QUEUED", "QUEUED", [1, 2]],
                c.pipeline([("MULTI",), ("INCR", "t"), ("INCR", "t"), ("EXEC",)]))
    c("WATCH", "t")
    other("SET", "t", 100)
    check_equal("a watched key that changed", None, c.pipeline([("MULTI",), ("INCR", "t"), ("EXEC",)])[-1])
    check_equal("DISCARD", "OK", c.pipeline([("MULTI",), ("INCR", "t"), ("DISCARD",)])[-1])
    check_equal("after them", b"100", c("GET", "t"))


def scripts(c):
    check_equal("EVAL", [b"k", 3], c("EVAL", "redis.call('SET', KEYS[1], ARGV[1]); return {KEYS[1], 1 + 2}", 1, "k", "v"))
    total = c("EVAL", "local s = 0; for i = 1, 100000 do s = s + i % 7 end; return s", 0)
    check_equal("a loop", sum(n % 7 for n in range(1, 100_001)), total)
    sha = c("SCRIPT", "LOAD", "return cjson.encode({a = {1, 2}, b = ARGV[1]})")
    check(b'"b":"x"' in c("EVALSHA", sha, 0, "x"), "cjson")
    check_equal("many calls", 2000, c("EVAL", "for i = 1, 2000 do redis.call('SADD', 'luaset', i) end return redis.call('SCARD', 'luaset')", 0))
    fails("WRONGTYPE", lambda: c("EVAL", "return redis.call('LPUSH', 's', 1)", 0))
    fails("user_script", lambda: c("EVAL", "return nothing.here", 0))
    c("FUNCTION", "LOAD", "#!lua name=mine\nredis.register_function('twice', function(k, a) return a[1] * 2 end)")
    check_equal("FCALL", 42, c("FCALL", "twice", 0, 21))


def script_that_hangs(server, c):
    c("CONFIG", "SET", "busy-reply-threshold", 100)
    with server.client() as victim:
        victim.send("EVAL", "while true do end", 0)
        def busy():
            try:
                c("PING")
            except ReplyError as error:
                return "BUSY" in str(error)
            return False
        await_that(busy, "BUSY")
        check_equal("SCRIPT KILL", "OK", c("SCRIPT", "KILL"))
        check(isinstance(victim.read(), ReplyError), "the script was killed")
    check_equal("afterwards", "PONG", c("PING"))


def messages(server, c):
    with server.client() as one, server.client() as two:
        check_equal("SUBSCRIBE", [b"subscribe", b"news", 1], one("SUBSCRIBE", "news"))
        check_equal("PSUBSCRIBE", [b"psubscribe", b"n*", 1], two("PSUBSCRIBE", "n*"))
        for n in range(200):
            check_equal("PUBLISH", 2, c("PUBLISH", "news", f"message {n}"))
        for n in range(200):
            check_equal("message", [b"message", b"news", b"message %d" % n], one.read())
            check_equal("pmessage", [b"pmessage", b"n*", b"news", b"message %d" % n], two.read())
        c("CONFIG", "SET", "notify-keyspace-events", "KEA")
        one("SUBSCRIBE", "__keyevent@0__:expired")
        c("SET", "short", 1, "PX", 50)
        check_equal("expired", b"short", one.read()[2])


def blocking(server, c):
    def later(action):
        threading.Thread(target=lambda: (time.sleep(0.2), action())).start()

    with server.client() as waiting:
        waiting.send("BLPOP", "queue", 0)
        later(lambda: server("RPUSH", "queue", "job"))
        check_equal("BLPOP", [b"queue", b"job"], waiting.read())
        begin = time.monotonic()
        check_equal("BLPOP's time-out", None, waiting("BLPOP", "queue", 0.3))
        check(time.monotonic() - begin >= 0.3, "BLPOP ended early")
        waiting.send("BLMOVE", "queue", "other", "LEFT", "RIGHT", 0)
        later(lambda: server("RPUSH", "queue", "moved"))
        check_equal("BLMOVE", b"moved", waiting.read())
        waiting.send("XREAD", "BLOCK", 0, "STREAMS", "stream", "$")
        await_that(lambda: c.info("clients")["blocked_clients"] == "1", "XREAD blocks")
        c("XADD", "stream", "5-5", "a", "b")
        check_equal("XREAD", [[b"stream", [[b"5-5", [b"a", b"b"]]]]], waiting.read())
        waiting.send("BZPOPMIN", "zset", 0)
        later(lambda: server("ZADD", "zset", 1, "member"))
        check_equal("BZPOPMIN", [b"zset", b"member", b"1"], waiting.read())
        check_equal("WAIT", 0, waiting("WAIT", 1, 100))


def expiry(c):
    c.pipeline([("SET", f"e{n}", n, "PX", 100 + n % 50) for n in range(500)])
    check(0 < c("PTTL", "e1") <= 101 or c("GET", "e1") is None, "PTTL")
    await_that(lambda: c("EVAL", "local n = 0; for i = 0, 499 do n = n + redis.call('EXISTS', 'e' .. i) end return n", 0) == 0,
               "all keys expire", 30)
    check(int(c.info("stats")["expired_keys"]) >= 500, "expired_keys")
    seconds, microseconds = map(int, c("TIME"))
    check(abs(seconds + microseconds / 1e6 - time.time()) < 10, "TIME")


def server_commands(server, c):
    info = c.info()
    check_equal("tcp_port", str(server.port), info["tcp_port"])
    check("7.0" in info["redis_version"], info["redis_version"])
    check(int(info["used_memory"]) < int(info["used_memory_rss"]) * 4, "used_memory_rss", info["used_memory_rss"])
    check(int(info["total_system_memory"]) > 100 << 20, "total_system_memory")
    check(float(info["used_cpu_user"]) + float(info["used_cpu_sys"]) > 0, "used_cpu_user")
    check_equal("process_id is the host's", True, int(info["process_id"]) == server.process.pid)
    check_equal("CONFIG GET", [b"maxmemory", b"0"], c("CONFIG", "GET", "maxmemory"))
    c("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    check(c("CLIENT", "LIST").count(b"addr=") >= 2, "CLIENT LIST")
    check(c("MEMORY", "USAGE", "l") > 1000, "MEMORY USAGE")
    c("MEMORY", "PURGE")
    check(b"Allocated" in c("MEMORY", "MALLOC-STATS") or b"jemalloc" in c("MEMORY", "MALLOC-STATS"), "MALLOC-STATS")
    check(b"latency" in c("LATENCY", "DOCTOR"), "LATENCY DOCTOR")
    c("DEBUG", "SLEEP", 0.1)
    with server.client() as victim:
        number = victim("CLIENT", "ID")
        check_equal("CLIENT KILL", 1, c("CLIENT", "KILL", "ID", number))
        try:
            victim("PING")
            raise AssertionError("a killed client is answered")
        except ConnectionError:
            pass
    before = server.digest()
    c("DEBUG", "RELOAD")
    check_equal("DEBUG RELOAD", before, server.digest())
    c("FLUSHALL", "ASYNC")
    check_equal("DBSIZE", 0, c("DBSIZE"))


def eviction(c):
    c("CONFIG", "SET", "maxmemory", 8_000_000)
    for begin in range(0, 20_000, 1000):
        c.pipeline([("SET", f"ev{n}", "x" * 800) for n in range(begin, begin + 1000)])
    check(int(c.info("stats")["evicted_keys"]) > 1000, "evicted_keys")
    check(int(c.info("memory")["used_memory"]) < 10_000_000, "used_memory")
    c("CONFIG", "SET", "maxmemory", 0)


def test():
    server = Server("--unixsocket", "socket")
    check_equal("redis-cli", "PONG", server.cli("PING"))
    check_equal("redis-cli on a Unix socket", "PONG", server.cli("-s", f"{server.directory}/socket", "PING"))
    with server.client() as c, server.client() as other:
        for part in (data_types, large_values, scripts, expiry):
            part(c)
            print(part.__name__)
        transactions(c, other)
        for part in (messages, blocking, script_that_hangs, server_commands):
            part(server, c)
            print(part.__name__)
        eviction(c)
    server.shutdown("NOSAVE")


main(test)
