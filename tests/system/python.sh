# Python programs of the directory programs: the same output and ending as natively.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # scripts in quotes; names that support.sh and run share

python_program() { # python_program NAME [ENDING]
  both -e "${2:-exit 0}" "$python" -B "$here/programs/$1.py"
}

test_python_threads() { python_program threads; }
test_python_subprocess() { python_program processes; }
test_python_fork() { python_program forks; }
test_python_signals() { python_program signals; }
test_python_signal_ends_it() { python_program signal_end 'signal 15'; }
test_python_mmap() { python_program mappings; }
seconds[python_multiprocessing]=240
test_python_multiprocessing() { python_program workers; }
test_python_sockets() { python_program sockets; }
test_python_asyncio() { python_program event_loop; }
test_python_ctypes() { python_program foreign; }
test_python_memory() { python_program memory; }
test_python_time() { python_program clocks; }
test_python_exception() { both -e 'exit 1' "$python" -c 'raise ValueError("as it should")'; }

test_python_exec() {
  both -e 'exit 5' "$python" -c '
import os, threading
threading.Thread(target=lambda: threading.Event().wait(), daemon=True).start()
os.environ["KEPT"] = "yes"
os.execv("/bin/sh", ["sh", "-c", "echo $KEPT; exit 5"])'
}
