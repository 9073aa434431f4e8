# include/dbos/dbos.h: the same programs on plain Linux and under dbos-run.
# shellcheck shell=bash disable=SC2034,SC2154 # names that support.sh and run share

# Times and counts differ; the rows, the verdict and the ending must not.
test_snapshot_example() {
  local row
  both -f 's/[0-9][0-9.]*/N/g; s/  */ /g; /^the live table/d' "$DBOS_BUILD/tools/examples/htap" 16 2 1
  for row in 'a snapshot' 'a forked child'; do
    grep -q "^$row N N N N N N\$" dbos.out || fail "there is no row '$row'"
  done
  expect 'the last line' 'every scan of a snapshot was consistent' "$(tail -n 1 dbos.out)"
  both -e 'exit 2' "$DBOS_BUILD/tools/examples/htap" many
  both -e 'exit 2' "$DBOS_BUILD/tools/examples/htap" 1 1 1 1
}

seconds[snapshot_api]=180
test_snapshot_api() {
  both -f 's/[0-9][0-9]* assertions/N assertions/' "$DBOS_BUILD/tests/unit/snapshot_api/snapshot_api_test"
}
