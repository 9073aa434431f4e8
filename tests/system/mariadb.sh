# MariaDB: a thread for each client, InnoDB's buffers and its own threads beside them.
# shellcheck shell=bash disable=SC2034,SC2154 # names that support.sh and run share

start_mariadb() { # start_mariadb [PREFIX...]
  "$@" mariadbd --no-defaults --user=root --datadir="$PWD/data" --socket="$PWD/socket" --skip-networking \
    --skip-grant-tables >>server.out 2>&1 &
  server=$!
  await 180 answers
}
answers() {
  still_runs
  ask 'SELECT 1' >/dev/null 2>&1
}
stop_mariadb() {
  kill -TERM "$server"
  ends_in_order
}
ask() { # ask SQL
  mariadb --no-defaults --socket="$PWD/socket" -N -e "$1"
}

readonly maria_statements='
CREATE DATABASE d; USE d;
CREATE TABLE t (id INT PRIMARY KEY, number INT, text VARCHAR(40)) ENGINE=InnoDB;
INSERT INTO t SELECT seq, seq * 7919 % 20011, CONCAT("row ", seq, " of many") FROM seq_1_to_20000;
CREATE INDEX by_number ON t (number);
UPDATE t SET text = CONCAT(text, "!") WHERE number % 10 = 3;
DELETE FROM t WHERE id % 17 = 0;'
readonly maria_questions='
SELECT COUNT(*), SUM(number), MIN(text), MAX(text) FROM d.t;
SELECT a.id, b.id FROM d.t a JOIN d.t b ON b.number = a.number + 1 WHERE a.id % 997 = 0 ORDER BY 1;
CHECK TABLE d.t;'

# One of several clients that move amounts between rows, in transactions. It ends with the first error, a deadlock
# for example, which undoes the transaction.
move_amounts() {
  local i
  for ((i = 0; i < 40; i++)); do
    echo "START TRANSACTION; UPDATE d.t SET number = number - 1 WHERE id = $(any_row);
      UPDATE d.t SET number = number + 1 WHERE id = $(any_row); COMMIT;"
  done | mariadb --no-defaults --socket="$PWD/socket" >>"client.$1" 2>&1
}
any_row() { # that was not deleted
  echo $((RANDOM % 60 * 17 + 1 + RANDOM % 16))
}

# What it writes, a plain server reads; and what is left when it is killed, a plain server recovers.
seconds[mariadb_serves_and_recovers]=600
test_mariadb_serves_and_recovers() {
  need mariadbd mariadb
  local answer before clients=() i
  mkdir data
  start_mariadb "${dbos[@]}"
  ask "$maria_statements"
  answer=$(ask "$maria_questions")
  stop_mariadb
  start_mariadb
  expect 'answers of a plain server' "$(ask "$maria_questions")" "$answer"
  stop_mariadb
  answer=$(awk 'NR == 1 { print $1, $2 }' <<<"$answer")
  start_mariadb "${dbos[@]}"
  before=$(ask 'CHECKSUM TABLE d.t')
  for i in 1 2 3 4; do
    move_amounts "$i" &
    clients+=($!)
  done
  wait "${clients[0]}" || true
  kill -KILL "$server"
  wait "$server" "${clients[@]}" || true
  start_mariadb
  expect 'sums after recovery' "$answer" "$(ask 'SELECT COUNT(*), SUM(number) FROM d.t' | tr '\t' ' ')"
  [[ $(ask 'CHECKSUM TABLE d.t') != "$before" ]] || fail "no transaction ran: $(tail -n 1 client.1)"
  stop_mariadb
}
