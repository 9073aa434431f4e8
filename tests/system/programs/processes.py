"""subprocess: by vfork and posix_spawn, by fork, with pipes, time limits and signals."""
import os
import signal
import subprocess
import sys
import threading

run = subprocess.run
print(run(["echo", "vfork"], capture_output=True, text=True))
print(run(["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True, text=True))
print(run("exit 4", shell=True).returncode)
print(run(["sh", "-c", "kill -9 $$"]).returncode)
print(run(["cat"], input=b"x" * 300_000, stdout=subprocess.PIPE).stdout == b"x" * 300_000)
print(run(["pwd"], cwd="/usr", capture_output=True, text=True).stdout)
print(run(["env"], env={"ONLY": "this"}, capture_output=True, text=True).stdout)

# A function before exec makes it fork.
print(run(["sh", "-c", "umask"], preexec_fn=lambda: os.umask(0o27), capture_output=True, text=True).stdout)
print(run(["sh", "-c", "ps -o pgid= -p $$ | tr -d ' ' | grep -c ^$$"], start_new_session=True,
          capture_output=True, text=True).stdout)

for bad in ["/no/such/program", "/etc/passwd", "/"]:
    try:
        run([bad])
    except OSError as error:
        print(type(error).__name__, error)
try:
    run(["sleep", "30"], timeout=0.3)
except subprocess.TimeoutExpired as error:
    print("expired", error.cmd)

# posix_spawn, with its file actions.
read_end, write_end = os.pipe()
pid = os.posix_spawn("/bin/sh", ["sh", "-c", "echo spawned; exit 6"], os.environ,
                     file_actions=[(os.POSIX_SPAWN_DUP2, write_end, 1), (os.POSIX_SPAWN_CLOSE, read_end)],
                     setsigmask=[signal.SIGUSR1])
os.close(write_end)
print(os.read(read_end, 100), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
os.close(read_end)
pid = os.posix_spawnp("echo", ["echo", "by name"], os.environ)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

print(os.system("exit 7") >> 8)
with os.popen("seq 1000 | tail -n 1") as lines:
    print(lines.read())

# A pipeline.
first = subprocess.Popen(["seq", "20000"], stdout=subprocess.PIPE)
second = subprocess.Popen(["sort", "-r"], stdin=first.stdout, stdout=subprocess.PIPE)
first.stdout.close()
print(len(second.communicate()[0]), first.wait(), second.returncode)

# A conversation.
talk = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
for n in range(20):
    talk.stdin.write(f"line {n}\n")
    assert talk.stdout.readline() == f"line {n}\n"
talk.terminate()
print("terminated", talk.wait())
talk.stdin.close()

# Stopped and continued.
child = subprocess.Popen(["sleep", "30"])
child.send_signal(signal.SIGSTOP)
print("stopped", os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1]))
child.send_signal(signal.SIGCONT)
print("continued", os.WIFCONTINUED(os.waitpid(child.pid, os.WCONTINUED)[1]))
child.kill()
print("killed", child.wait())

# From several threads at a time.
results = []


def several(n):
    for k in range(5):
        results.append(run(["sh", "-c", f"exit {n * 5 + k}"]).returncode)


threads = [threading.Thread(target=several, args=(n,)) for n in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(results))

# The child has none of our descriptors, but those that it is given.
with open("file", "w") as file:
    print(run(["sh", "-c", "ls /proc/self/fd | tr '\\n' ' '"], capture_output=True, text=True).stdout)
    os.set_inheritable(file.fileno(), True)
    run(["sh", "-c", f"echo passed >&{file.fileno()}"], pass_fds=[file.fileno()])
print(open("file").read())

# Python itself.
print(run([sys.executable, "-c", "import sys; print(sys.argv); sys.exit(9)", "an argument"],
          capture_output=True, text=True))
try:
    os.waitpid(-1, 0)
except ChildProcessError as error:
    print(error)
