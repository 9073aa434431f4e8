# shellcheck shell=bash
# How the scripts that run tests count them; to be sourced. tools/check reads the line with the counts.

passed=0 failed=0 skipped=0

pass() { # pass NAME
  passed=$((passed + 1))
  echo "PASS $1"
}

fail() { # fail NAME WHY
  failed=$((failed + 1))
  echo "FAIL $1: $2"
}

# Adds another script's counts. Fails where LINE is not the one with them.
take_counts() { # take_counts LINE
  [[ $1 =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]] || return
  passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2])) skipped=$((skipped + BASH_REMATCH[3]))
}

# The last thing that a script does, for its exit status: 0 if none failed.
print_counts() {
  echo "$passed passed, $failed failed, $skipped skipped"
  ((failed == 0))
}
