# What bash completes of the commands' options.
# shellcheck shell=bash disable=SC2034,SC2154 # names that support.sh and run share, and bash's

readonly completions=$here/../../tools/completion

# complete_words COMMAND WORD...: the last word, split as bash splits it; the answers, sorted, on one line.
complete_words() {
  local command=$1
  # shellcheck source=/dev/null
  . "$completions/$command"
  _command_offset() { COMPREPLY=("the command from word $1 on"); }
  COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
  "_${command//-/_}"
  printf '%s\n' ${COMPREPLY[@]+"${COMPREPLY[@]}"} | sort | tr '\n' ' '
}

without_kvm+=(completion_of_values completion_finds_the_program)

test_completion_of_values() {
  expect 'a value' 'kill-snapshot throttle ' "$(complete_words dbos-run --cow-policy '')"
  expect 'a begun value' 'throttle ' "$(complete_words dbos-run --cow-policy t)"
  expect 'a value behind =' 'ready shared ' "$(complete_words dbos-run --snapshot =)"
  expect 'a begun value behind =' 'ready ' "$(complete_words dbos-run --snapshot = r)"
  expect 'a number' ' ' "$(complete_words dbos-run --cow-limit '')"
  touch there
  expect 'a file' 'there ' "$(complete_words dbos-run --stats = the)"
  expect 'a level' 'debug ' "$(complete_words dbos-run --memory = 4G --log-level d)"
  mkdir folder
  expect 'a directory' 'folder ' "$(complete_words dbos-vm run --share = f)"
}

test_completion_finds_the_program() {
  local options
  for options in '--snapshot ready' '--snapshot = ready' '--cow-policy throttle' '--cow-policy = throttle' \
    '--cow-limit = 25%' '--stats' '--stats = file' '--trace'; do
    # shellcheck disable=SC2086 # several words
    expect "behind $options" "the command from word $(($(wc -w <<<"$options") + 1)) on " \
      "$(complete_words dbos-run $options redis-server '')"
  done
  expect 'behind --' 'the command from word 3 on ' "$(complete_words dbos-run --trace -- redis-server)"
  expect 'of dbos-dbg' '--help --json --program --space ' \
    "$(complete_words dbos-dbg --program = trace maps -- | tr ' ' '\n' | sort | tr '\n' ' ' | sed 's/^ //')"
}
