"""asyncio: streams, subprocesses, timers, signals, an executor, a Unix socket."""
import asyncio
import os
import signal


async def serve(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()


async def ask(port, n):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    for k in range(10):
        writer.write(f"client {n} line {k}\n".encode())
        answers.append(await reader.readline())
    writer.close()
    await writer.wait_closed()
    return answers == [f"CLIENT {n} LINE {k}\n".encode() for k in range(10)]


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(await asyncio.gather(*(ask(port, n) for n in range(8))))
    server.close()

    server = await asyncio.start_unix_server(serve, "socket")
    reader, writer = await asyncio.open_unix_connection("socket")
    writer.write(b"unix\n")
    print(await reader.readline())
    writer.close()
    server.close()

    process = await asyncio.create_subprocess_exec(
        "sh", "-c", "cat; exit 3", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    print((await process.communicate(b"through cat"))[0], process.returncode)

    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, done.set)
    loop.call_later(0.1, os.kill, os.getpid(), signal.SIGUSR1)
    await asyncio.wait_for(done.wait(), 20)
    print("signal")
    try:
        await asyncio.wait_for(asyncio.sleep(30), 0.1)
    except asyncio.TimeoutError:
        print("timeout")
    print(await asyncio.to_thread(sum, range(1000)))


asyncio.run(main())
