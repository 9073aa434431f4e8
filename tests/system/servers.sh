# Servers besides redis that keep data, in other ways: Go's runtime, a memory-mapped tree, several processes.
# shellcheck shell=bash disable=SC2034,SC2154 # names that support.sh and run share

# ---- etcd: Go's threads and signals ----

# Another port each time: this host may have an etcd of its own.
start_etcd() { # start_etcd [PREFIX...]
  local url
  url=http://127.0.0.1:$(free_port)
  export ETCDCTL_ENDPOINTS=$url
  "$@" etcd --data-dir data --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "http://127.0.0.1:$(free_port)" >>server.out 2>&1 &
  server=$!
  await 120 etcd_answers
}
etcd_answers() {
  still_runs
  etcdctl endpoint health >health.out 2>&1
}
# It ends by the signal that it was sent.
stop_etcd() {
  local status=0
  kill -TERM "$server"
  wait "$server" || status=$?
  expect 'the end of etcd' 143 "$status"
}

# What it has confirmed is there after it was killed, for a plain etcd too.
seconds[etcd_serves_and_recovers]=600
test_etcd_serves_and_recovers() {
  need etcd etcdctl
  local contents i
  start_etcd "${dbos[@]}"
  for ((i = 0; i < 20; i++)); do etcdctl put "key$i" "value$((i * 7919))" >>put.out; done
  expect 'keys that are confirmed' 20 "$(grep -c OK put.out)"
  contents=$(etcdctl get --prefix key)
  etcdctl snapshot save saved.db >save.out 2>&1
  etcdctl snapshot status saved.db >status.out 2>&1
  kill -KILL "$server"
  wait "$server" || true
  start_etcd
  expect 'what a plain etcd finds' "$contents" "$(etcdctl get --prefix key)"
  etcdctl put key20 plain >>put.out
  stop_etcd
  start_etcd "${dbos[@]}"
  expect 'what a plain etcd has written' plain "$(etcdctl get --print-value-only key20)"
  stop_etcd
}

# ---- OpenLDAP: LMDB, a file that is mapped and shared ----

start_slapd() { # start_slapd [PREFIX...]
  directory_url=ldap://127.0.0.1:$(free_port)
  "$@" slapd -d 0 -f slapd.conf -h "$directory_url" >>server.out 2>&1 &
  server=$!
  await 60 slapd_answers
}
slapd_answers() {
  still_runs
  ldapsearch -x -LLL -H "$directory_url" -b '' -s base >health.out 2>&1
}
stop_slapd() {
  kill -INT "$server"
  ends_in_order
}
entries() {
  echo 'dn: dc=x
objectClass: dcObject
objectClass: organization
o: x
dc: x
'
  local i
  for ((i = 0; i < 200; i++)); do
    printf 'dn: cn=person%d,dc=x\nobjectClass: person\ncn: person%d\nsn: name%d\n\n' $i $i $((i * 7919))
  done
}
found() {
  ldapsearch -x -LLL -o ldif-wrap=no -H "$directory_url" -b dc=x '(sn=name*)' sn | sort
}

seconds[slapd_serves_and_recovers]=300
test_slapd_serves_and_recovers() {
  need slapd ldapadd ldapsearch
  local contents
  mkdir data
  echo "include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix dc=x
rootdn cn=root,dc=x
rootpw secret
directory $PWD/data
maxsize 104857600" >slapd.conf
  start_slapd "${dbos[@]}"
  entries | ldapadd -x -H "$directory_url" -D cn=root,dc=x -w secret >add.out
  contents=$(found)
  expect 'entries that are found' 200 "$(grep -c ^sn: <<<"$contents")"
  kill -KILL "$server"
  wait "$server" || true
  start_slapd
  expect 'what a plain slapd finds' "$contents" "$(found)"
  stop_slapd
  start_slapd "${dbos[@]}"
  expect 'what it finds itself' "$contents" "$(found)"
  stop_slapd
}

# ---- nginx: worker processes ----

page() { curl -s -m 20 "http://127.0.0.1:$page_port/"; }
nginx_answers() {
  still_runs
  [[ $(page) = "$1" ]]
}
workers() { "$DBOS_BUILD/tools/dbos-dbg" -p "$server" --json ps | "$python" -c '
import json, sys; print(*sorted({t["process"] for t in json.load(sys.stdin)})[1:])'; }
has_other_workers() { # has_other_workers THAN
  local now
  now=$(workers)
  [[ $(wc -w <<<"$now") = 2 && $now != "$1" ]]
}

# Its workers share memory and the listening socket; new ones take over when it reads its configuration again, and
# when one is killed.
seconds[nginx_changes_its_workers]=300
test_nginx_changes_its_workers() {
  need nginx curl
  local before i
  mkdir www
  echo first >www/index.html
  chmod 755 . www
  page_port=$(free_port)
  echo "daemon off; pid $PWD/pid; error_log $PWD/errors; worker_processes 2; user root;
events { worker_connections 64; }
http { access_log off; server { listen 127.0.0.1:$page_port; root $PWD/www; } }" >conf
  "${dbos[@]}" nginx -c "$PWD/conf" >server.out 2>&1 &
  server=$!
  await 60 nginx_answers first
  await 30 has_other_workers ''
  for ((i = 0; i < 50; i++)); do expect "page $i" first "$(page)"; done
  before=$(workers)
  kill -HUP "$server"
  await 30 has_other_workers "$before"
  echo second >www/index.html
  await 30 nginx_answers second
  before=$(workers)
  kill -KILL "${before%% *}"
  await 30 has_other_workers "$before"
  await 30 nginx_answers second
  kill -QUIT "$server"
  ends_in_order
}
