# Runtimes that compile while they run, and collect garbage by moving objects or by faults.
# shellcheck shell=bash disable=SC2034,SC2154 # names that support.sh and run share

# The usual collector, and one that maps its heap three times.
seconds[java_threads_and_collectors]=600
test_java_threads_and_collectors() {
  need java javac
  javac -d . "$here/programs/Threads.java"
  local collector
  for collector in G1 Z; do
    # A machine without NUMA nodes: ZGC asks.
    both -f '/^dbos-run: system call .* (get_mempolicy)/d' "$(readlink -f "$(command -v java)")" "-XX:+Use${collector}GC" -Xmx256m -cp "$PWD" Threads
  done
}

seconds[luajit_compiles]=240
test_luajit_compiles() {
  need luajit
  both luajit -e '
local ffi = require("ffi")
ffi.cdef("int getppid(void); double sqrt(double);")
local sum = 0
for i = 1, 3e6 do sum = sum + ffi.C.sqrt(i) % 7 end
print(string.format("%.6f", sum), ffi.C.getppid() > 0)
local rows = {}
for i = 1, 2e5 do rows[i] = {i, tostring(i)} end
rows = nil
collectgarbage()
print(collectgarbage("count") < 20000)'
}
