"""Time: it moves forward, at the right speed, and agrees with what another process says."""
import os
import resource
import subprocess
import threading
import time

last = {clock: 0.0 for clock in (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME,
                                 time.CLOCK_MONOTONIC_RAW, time.CLOCK_PROCESS_CPUTIME_ID)}
back = 0
for _ in range(3000):
    for clock in last:
        now = time.clock_gettime(clock)
        back += now < last[clock]
        last[clock] = now
print("backwards", back)

stop = []
worst = [0.0]


def watch():
    latest = time.monotonic()
    while not stop:
        now = time.monotonic()
        worst[0] = min(worst[0], now - latest)
        latest = now


threads = [threading.Thread(target=watch) for _ in range(3)]
for thread in threads:
    thread.start()
time.sleep(0.5)
stop.append(1)
for thread in threads:
    thread.join()
print("in threads", worst[0])

# What Linux says lies between two readings, but for the accuracy of both clocks.
before = time.time()
theirs = float(subprocess.run(["date", "+%s.%N"], capture_output=True, text=True).stdout)
print("agrees", before - 0.1 <= theirs <= time.time() + 0.1)
before = time.clock_gettime(time.CLOCK_BOOTTIME)
uptime = float(open("/proc/uptime").read().split()[0])
print("uptime", before - 0.1 <= uptime <= time.clock_gettime(time.CLOCK_BOOTTIME) + 0.1)
begin, begin_real = time.monotonic(), time.time()
time.sleep(1)
print("second", 1 <= time.monotonic() - begin, 0.99 <= time.time() - begin_real)
begin = time.process_time()
while time.process_time() - begin < 0.3:
    pass
usage = resource.getrusage(resource.RUSAGE_SELF)
print("processor time", usage.ru_utime + usage.ru_stime >= 0.3, sum(os.times()[:2]) >= 0.3)
print("resolution", time.clock_getres(time.CLOCK_MONOTONIC), time.get_clock_info("monotonic").adjustable)
print(time.strftime("%Y", time.gmtime()) >= "2024", time.tzname)
