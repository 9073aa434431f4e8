# Debian's redis-server, as it is, under dbos-run; clients and peers are ordinary processes.
# shellcheck shell=bash disable=SC2034,SC2154 # names that support.sh and run share

redis_test() { # redis_test FILE [PART]
  need redis-server redis-cli redis-benchmark redis-check-rdb
  "$python" -B "$here/redis/$1.py" "${@:2}"
}

test_redis_first_save() { redis_test save simple; }
seconds[redis_commands]=300
test_redis_commands() { redis_test commands; }
seconds[redis_fifty_clients]=300
test_redis_fifty_clients() { redis_test load fifty_clients; }
seconds[redis_io_threads]=300
test_redis_io_threads() { redis_test load io_threads; }
seconds[redis_much_data]=600
test_redis_much_data() { redis_test load much_data; }
seconds[redis_save_under_writes]=900
test_redis_save_under_writes() { redis_test save under_writes; }
seconds[redis_copy_on_write_figures]=300
test_redis_copy_on_write_figures() { redis_test save copy_figures; }
seconds[redis_append_only_file]=300
test_redis_append_only_file() { redis_test save append_only; }
seconds[redis_restart]=240
test_redis_restart() { redis_test save restart; }
test_redis_save_on_schedule() { redis_test save on_schedule; }
seconds[redis_saving_child_is_killed]=240
test_redis_saving_child_is_killed() { redis_test save child_killed; }
seconds[redis_disk_is_full]=240
test_redis_disk_is_full() { # what it mounts vanishes with it
  need redis-server redis-check-rdb
  unshare --mount "$python" -B "$here/redis/save.py" disk_full
}
test_redis_crash_report() { redis_test save crash; }
test_redis_daemonize() { redis_test save daemon; }
seconds[redis_plain_replica_of_ours]=300
test_redis_plain_replica_of_ours() { redis_test replicate as_master; }
seconds[redis_our_replica_of_plain]=300
test_redis_our_replica_of_plain() { redis_test replicate as_replica; }
seconds[redis_our_replica_of_ours]=300
test_redis_our_replica_of_ours() { redis_test replicate both_ours; }
