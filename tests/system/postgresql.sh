# PostgreSQL: a process for each client, which all share memory, System V's among it.
# shellcheck shell=bash disable=SC2034,SC2154 # names that support.sh and run share

# It refuses to run as root. Its files, socket and answers are in this directory.
prepare_postgresql() {
  bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | tail -n 1)
  [[ -x $bin/postgres && -x $bin/pgbench ]] || skip 'postgresql is not installed'
  with_dev true true 2>/dev/null || skip 'needs root and a mount namespace'
  mkdir data
  chown 65534:65534 data
  chmod 755 .
  as_nobody "$bin/initdb" -D "$PWD/data" -A trust -U test -N >initdb.out 2>&1 || fail "$(tail -n 3 initdb.out)"
  echo "listen_addresses = ''
unix_socket_directories = '$PWD/data'
shared_memory_type = sysv
max_parallel_workers = 2
fsync = off" >>data/postgresql.conf
}

# With a /dev of its own, which has a /dev/kvm for everybody.
as_nobody() { # as_nobody COMMAND...
  with_dev 'mknod -m 666 /dev/kvm c 10 232; chmod 1777 /dev/shm' \
    setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/ "$@"
}

# Sets `server` to what is to be waited for. Its first process is in postmaster.pid.
start_postgresql() { # start_postgresql [PREFIX...]
  as_nobody "$@" "$bin/postgres" -D "$PWD/data" >>server.out 2>&1 &
  server=$!
  await 180 answers
}
answers() {
  still_runs
  "$bin/pg_isready" -q -h "$PWD/data"
}
signal_postgresql() { # signal_postgresql NAME
  kill "-$1" "$(head -n 1 data/postmaster.pid)"
}
stop_postgresql() {
  signal_postgresql INT
  ends_in_order
}
ask() { # ask SQL
  "$bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "$PWD/data" -U test -c "$1" postgres
}
contents() {
  "$bin/pg_dump" -h "$PWD/data" -U test postgres | grep -v restrict | sha256sum
}

readonly pg_statements="
CREATE TABLE t (id int PRIMARY KEY, number int, text text);
INSERT INTO t SELECT i, i * 7919 % 20011, 'row ' || i || ' of many' FROM generate_series(1, 20000) AS i;
CREATE INDEX by_number ON t (number);
UPDATE t SET text = text || '!' WHERE number % 10 = 3;
DELETE FROM t WHERE id % 17 = 0;
VACUUM ANALYZE t;"
readonly pg_questions="
SELECT count(*), sum(number), min(text), max(text) FROM t;
SELECT a.id, b.id FROM t a JOIN t b ON b.number = a.number + 1 WHERE a.id % 997 = 0 ORDER BY 1;
SET force_parallel_mode = on;
SELECT count(*) FROM t WHERE text LIKE '%9%';"

# What it writes, a plain server reads, and the other way round.
seconds[postgresql_serves_and_stops]=900
test_postgresql_serves_and_stops() {
  prepare_postgresql
  local statement before answer
  start_postgresql "${dbos[@]}"
  while read -r statement; do
    [[ ! $statement ]] || ask "$statement"
  done <<<"$pg_statements"
  answer=$(ask "$pg_questions")
  before=$(contents)
  stop_postgresql
  start_postgresql
  expect 'answers of a plain server' "$(ask "$pg_questions")" "$answer"
  expect 'contents in a plain server' "$(contents)" "$before"
  ask 'UPDATE t SET number = -number WHERE id < 100'
  before=$(contents)
  stop_postgresql
  start_postgresql "${dbos[@]}"
  expect 'contents in ours' "$before" "$(contents)"
  stop_postgresql
}

# Money moves between accounts in transactions of several clients; a backend is killed, after which the server
# makes its shared memory anew, and then the machine.
seconds[postgresql_killed_under_load]=900
test_postgresql_killed_under_load() {
  prepare_postgresql
  local load done_before sums='SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)
    AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches)'
  start_postgresql "${dbos[@]}"
  "$bin/pgbench" -q -i -h "$PWD/data" -U test postgres
  "$bin/pgbench" -n -h "$PWD/data" -U test -c 4 -t 25 postgres
  expect 'transactions' 100 "$(ask 'SELECT count(*) FROM pgbench_history')"
  expect 'sums agree' t "$(ask "$sums")"
  "$bin/pgbench" -n -h "$PWD/data" -U test -c 4 -T 600 postgres >load.out 2>&1 &
  load=$!
  await 60 has_more_than 110
  kill -KILL "$(ask "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench' LIMIT 1")"
  wait $load || true
  await 60 answers
  expect 'sums agree after a backend was killed' t "$(ask "$sums")"
  done_before=$(ask 'SELECT count(*) FROM pgbench_history')
  "$bin/pgbench" -n -h "$PWD/data" -U test -c 4 -T 600 postgres >load.out 2>&1 &
  load=$!
  await 60 has_more_than $((done_before + 40))
  signal_postgresql KILL
  wait "$server" || true
  wait $load || true
  await 30 has_ended dbos-run
  start_postgresql
  expect 'sums agree after recovery' t "$(ask "$sums")"
  has_more_than $((done_before + 40)) || fail 'transactions are lost'
  stop_postgresql
}
has_ended() { # has_ended PROGRAM
  ! pgrep -x "$1" >/dev/null
}
has_more_than() { # has_more_than COUNT
  (($(ask 'SELECT count(*) FROM pgbench_history') > $1))
}
