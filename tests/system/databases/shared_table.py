"""A table that several processes change at a time; the sum over it stays the same. What argument 1 says."""
import random
import sqlite3
import sys
import time

ACCOUNTS, TRANSFERS = 50, 80
table = sqlite3.connect("shared.db", timeout=120, isolation_level=None)


def total():
    return table.execute("SELECT count(*), sum(balance) FROM accounts").fetchone()


def create():
    assert table.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    table.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER, filler TEXT)")
    table.execute("CREATE TABLE log (who TEXT, n INTEGER)")
    table.executemany("INSERT INTO accounts VALUES (?, 100, ?)", [(n, "x" * 500) for n in range(ACCOUNTS)])


def write(who):
    table.execute("PRAGMA wal_autocheckpoint = 20")
    for n in range(TRANSFERS):
        table.execute("BEGIN IMMEDIATE")
        source, target = random.sample(range(ACCOUNTS), 2)
        table.execute("UPDATE accounts SET balance = balance - 7 WHERE id = ?", (source,))
        table.execute("UPDATE accounts SET balance = balance + 7 WHERE id = ?", (target,))
        table.execute("INSERT INTO log VALUES (?, ?)", (who, n))
        table.execute("COMMIT" if n % 8 else "ROLLBACK")


def watch():
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert total() == (ACCOUNTS, 100 * ACCOUNTS), total()


def hang():
    table.execute("PRAGMA cache_size = 5")
    table.execute("BEGIN IMMEDIATE")
    table.execute("UPDATE accounts SET balance = 0, filler = randomblob(50000)")
    print("in the middle", flush=True)
    time.sleep(1000)


def check():
    assert total() == (ACCOUNTS, 100 * ACCOUNTS), total()
    assert table.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for who, count in table.execute("SELECT who, count(*) FROM log GROUP BY who"):
        assert count == TRANSFERS * 7 // 8, (who, count)


{"create": create, "watch": watch, "hang": hang, "check": check, "write": lambda: write(sys.argv[2])}[sys.argv[1]]()
