"""multiprocessing by fork: queues, pipes, pools, locks, shared values."""
import multiprocessing
import os
import sys

context = multiprocessing.get_context("fork")


def square(n):
    return n * n


def produce(queue, first, count):
    for n in range(first, first + count):
        queue.put((n, "x" * (n % 100)))
    queue.put(None)


def answer(connection):
    while (question := connection.recv()) != "end":
        connection.send(question * 2)
    connection.close()


def increase(value, lock, times):
    for _ in range(times):
        with lock:
            value.value += 1


def fail():
    sys.stderr = open(os.devnull, "w")
    raise ValueError("in the child")


if __name__ == "__main__":
    with context.Pool(4) as pool:
        print(sum(pool.map(square, range(2000))))
        print(pool.apply_async(square, (12,)).get())
        print(sorted(pool.imap_unordered(square, range(20), chunksize=3)))
        try:
            pool.apply(divmod, (1, 0))
        except ZeroDivisionError as error:
            print("error", error)
        pool.close()
        pool.join()

    queue = context.Queue()
    children = [context.Process(target=produce, args=(queue, 100 * k, 100)) for k in range(3)]
    for child in children:
        child.start()
    seen, ends = [], 0
    while ends < 3:
        item = queue.get()
        if item is None:
            ends += 1
        else:
            assert len(item[1]) == item[0] % 100
            seen.append(item[0])
    for child in children:
        child.join()
    print(sorted(seen) == list(range(300)), [child.exitcode for child in children])

    here, there = context.Pipe()
    child = context.Process(target=answer, args=(there,))
    child.start()
    for question in [1, "ab", [1, 2], b"x" * 200_000]:
        here.send(question)
        assert here.recv() == question * 2
    here.send("end")
    child.join()
    print("pipe", child.exitcode)

    value, lock = context.Value("i", 0, lock=False), context.Lock()
    children = [context.Process(target=increase, args=(value, lock, 300)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    print("value", value.value)

    event, array = context.Event(), context.Array("d", 5)
    child = context.Process(target=lambda: (event.wait(), array.__setitem__(2, 2.5)))
    child.start()
    event.set()
    child.join()
    print("array", array[:])

    child = context.Process(target=fail)
    child.start()
    child.join()
    print("failed", child.exitcode)
    child = context.Process(target=os.abort)
    child.start()
    child.join()
    print("aborted", child.exitcode)
    child = context.Process(target=context.Event().wait)
    child.start()
    child.terminate()
    child.join()
    print("terminated", child.exitcode, multiprocessing.active_children())
