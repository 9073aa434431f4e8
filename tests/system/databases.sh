# sqlite3 and memcached. Redis has a file of its own.
# shellcheck shell=bash disable=SC2034,SC2154 # names that support.sh and run share

readonly table="
PRAGMA journal_mode = WAL;
PRAGMA wal_autocheckpoint = 200;
CREATE TABLE t (id INTEGER PRIMARY KEY, number INTEGER, text TEXT, data BLOB);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
  INSERT INTO t SELECT i, i * 7919 % 100003, printf('row %d of many', i), zeroblob(i % 60) FROM n;
COMMIT;
CREATE INDEX by_number ON t (number);
CREATE INDEX by_text ON t (text, number);
UPDATE t SET text = text || '!' WHERE number % 10 = 3;
DELETE FROM t WHERE id % 17 = 0;
BEGIN; DELETE FROM t; ROLLBACK;
SAVEPOINT s; UPDATE t SET number = 0; ROLLBACK TO s; RELEASE s;
SELECT count(*), sum(number), min(text), max(text), sum(length(data)) FROM t;
SELECT a.id, b.id FROM t a JOIN t b ON b.number = a.number + 1 WHERE a.id % 9973 = 0 ORDER BY 1;
SELECT text, group_concat(id) FROM (SELECT substr(text, 1, 6) AS text, id FROM t WHERE id < 500) GROUP BY text ORDER BY text LIMIT 5;
PRAGMA wal_checkpoint(TRUNCATE);
PRAGMA integrity_check;
"

seconds[sqlite_builds_a_table]=300
test_sqlite_builds_a_table() {
  need sqlite3
  echo "$table" >table.sql
  sqlite3 native.db <table.sql >native.out
  "${dbos[@]}" sqlite3 ours.db <table.sql >ours.out
  diff native.out ours.out
  tail -n 1 ours.out | grep -qx ok
  # What it wrote, read by a plain sqlite3; the same bytes as in the other one.
  expect integrity ok "$(sqlite3 ours.db 'PRAGMA integrity_check')"
  expect contents "$(sqlite3 native.db .dump | sha256sum)" "$(sqlite3 ours.db .dump | sha256sum)"
  # Vacuumed by us; mapped into memory instead of read.
  "${dbos[@]}" sqlite3 ours.db 'PRAGMA mmap_size = 268435456; VACUUM; PRAGMA integrity_check' | grep -qx ok
  expect 'contents after VACUUM' "$(sqlite3 native.db .dump | sha256sum)" "$(sqlite3 ours.db .dump | sha256sum)"
  expect 'read by us, mapped' "$(sqlite3 native.db .dump | sha256sum)" \
    "$("${dbos[@]}" sqlite3 ours.db 'PRAGMA mmap_size = 268435456' .dump | sed 1d | sha256sum)"
}

# The WAL's index is memory that both processes map.
seconds[sqlite_shared_with_a_plain_process]=240
test_sqlite_shared_with_a_plain_process() {
  "$python" -c 'import sqlite3' || skip "python3 has no sqlite3"
  local ours theirs
  "$python" "$here/databases/shared_table.py" create
  "${dbos[@]}" "$python" "$here/databases/shared_table.py" write ours &
  ours=$!
  "$python" "$here/databases/shared_table.py" write theirs &
  theirs=$!
  "${dbos[@]}" "$python" "$here/databases/shared_table.py" watch
  "$python" "$here/databases/shared_table.py" watch
  wait $ours
  wait $theirs
  "$python" "$here/databases/shared_table.py" check
  "${dbos[@]}" "$python" "$here/databases/shared_table.py" check
}

# Killed in the middle of a transaction: the next one rolls it back.
test_sqlite_killed_in_a_transaction() {
  "$python" -c 'import sqlite3' || skip "python3 has no sqlite3"
  local pid
  "$python" "$here/databases/shared_table.py" create
  "${dbos[@]}" "$python" "$here/databases/shared_table.py" hang >out &
  pid=$!
  await 60 grep -q 'in the middle' out
  kill -KILL $pid
  wait $pid || true
  "${dbos[@]}" "$python" "$here/databases/shared_table.py" check
}

seconds[memcached_under_load]=240
test_memcached_under_load() {
  need memcached
  "$python" "$here/databases/memcached_load.py" -t 4 -m 64 -u root
}

# A little memory: it evicts. Another user: it drops its rights.
seconds[memcached_that_evicts]=240
test_memcached_that_evicts() {
  need memcached
  "$python" "$here/databases/memcached_load.py" -t 2 -m 2 -u nobody
}
