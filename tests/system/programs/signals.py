"""Signals: handlers, masks, interrupted and restarted calls, timers, wakeup descriptors."""
import errno
import os
import select
import signal
import socket
import sys
import threading
import time

got = []


def note(number, frame):
    got.append(signal.Signals(number).name)


for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM):
    signal.signal(number, note)

os.kill(os.getpid(), signal.SIGUSR1)
signal.raise_signal(signal.SIGUSR2)
print(got)

# In the middle of a loop that makes no call.
got.clear()
signal.setitimer(signal.ITIMER_REAL, 0.2)
loops = 0
while not got:
    loops += 1
print("loop", got)

# A blocked call is interrupted, and Python starts it again.
got.clear()
signal.setitimer(signal.ITIMER_REAL, 0.2)
begin = time.monotonic()
time.sleep(0.5)
print("sleep", got, time.monotonic() - begin >= 0.5)

read_end, write_end = os.pipe()
got.clear()


def after(seconds, action):
    thread = threading.Thread(target=lambda: (time.sleep(seconds), action()))
    thread.start()
    return thread


def interrupt_and_write():
    os.kill(os.getpid(), signal.SIGUSR1)
    while not got:
        time.sleep(0.01)
    os.write(write_end, b"data")


thread = after(0.2, interrupt_and_write)
print("read", os.read(read_end, 10), got)
thread.join()


# A handler that raises ends the call.
class Alarm(Exception):
    pass


def raises(number, frame):
    raise Alarm


signal.signal(signal.SIGALRM, raises)
for name, action in [
    ("read", lambda: os.read(read_end, 10)),
    ("select", lambda: select.select([read_end], [], [])),
    ("poll", lambda: select.poll().poll()),
    ("epoll", lambda: select.epoll().poll()),
    ("accept", lambda: (s := socket.socket(), s.bind(("127.0.0.1", 0)), s.listen(), s.accept())),
    ("lock", lambda: threading.Event().wait()),
    ("wait", lambda: os.waitpid(os.posix_spawn("/bin/sleep", ["sleep", "1"], {}), 0)),
    ("pause", signal.pause),
    ("sigwait", lambda: signal.sigwaitinfo({signal.SIGUSR2})),
]:
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        action()
        print(name, "was not interrupted")
    except Alarm:
        print(name, "interrupted")

# Masks.
got.clear()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
os.kill(os.getpid(), signal.SIGUSR1)
os.kill(os.getpid(), signal.SIGUSR2)
print("blocked", got, sorted(s.name for s in signal.sigpending()))
print("taken", signal.sigwait({signal.SIGUSR2}).name)
info = signal.sigtimedwait({signal.SIGUSR2}, 0.1)
print("timed", info)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1, signal.SIGUSR2})
print("unblocked", got)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
os.kill(os.getpid(), signal.SIGUSR1)
info = signal.sigwaitinfo({signal.SIGUSR1})
print("info", info.si_signo == signal.SIGUSR1, info.si_pid == os.getpid(), info.si_uid == os.getuid())
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})

# To one thread.
got.clear()
signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
print("to a thread", got)

# Timers that repeat.
count = 0


def tick(number, frame):
    global count
    count += 1


signal.signal(signal.SIGALRM, tick)
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
while count < 10:
    signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0)
print("ticks", count >= 10)

# A hail of signals from another process hits a computation, which stays right.
got.clear()
sender = os.posix_spawn("/bin/sh", ["sh", "-c", f"for i in $(seq 200); do kill -USR1 {os.getpid()}; done"], {})
value = 0.5
for _ in range(200_000):
    value = 3.5 * value * (1.0 - value)
os.waitpid(sender, 0)
print("hail", len(got) > 0, f"{value:.17g}")

# The wakeup descriptor.
ours, theirs = socket.socketpair()
theirs.setblocking(False)
signal.set_wakeup_fd(theirs.fileno())
os.kill(os.getpid(), signal.SIGUSR2)
print("wakeup", ours.recv(10) == bytes([signal.SIGUSR2]))
signal.set_wakeup_fd(-1)

# Ignored, and inherited by a child.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.kill(os.getpid(), signal.SIGTERM)
print("ignored", os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn(
    "/bin/sh", ["sh", "-c", "kill -TERM $$; exit 5"], {}), 0)[1]))
try:
    os.write(os.pipe()[1], b"x")
    ours.close()
    theirs.send(b"x")
except OSError as error:
    print("write", errno.errorcode[error.errno])
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupt")
try:
    signal.signal(signal.SIGKILL, note)
except OSError as error:
    print(error)
sys.stdout.flush()
