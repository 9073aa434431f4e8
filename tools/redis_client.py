"""A client of redis-server, for tools/demo-inside and tests/system/redis/."""

import socket


class ReplyError(Exception):
    """An answer that begins with '-'."""


class Client:
    """One connection that speaks RESP 2."""

    # The emulated machine is slow.
    def __init__(self, port, timeout_s=240):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", 1 << 16)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    @staticmethod
    def encode(words):
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            word = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
        return b"".join(parts)

    def send(self, *words):
        self.socket.sendall(self.encode(words))

    def read(self):
        """The next answer, which may be a ReplyError."""
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return ReplyError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind not in (b"$", b"*"):
            raise ConnectionError(f"the server answered what is no RESP: {line[:60]!r}")
        count = int(rest)
        if count < 0:
            return None
        if kind == b"*":
            return [self.read() for _ in range(count)]
        data = self.file.read(count + 2)
        if len(data) != count + 2:
            raise ConnectionError("the server closed the connection within an answer")
        return data[:-2]

    def answer(self):
        """The next one; an error in its place is raised."""
        reply = self.read()
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def __call__(self, *words):
        self.send(*words)
        return self.answer()

    def pipeline(self, commands):
        """Sends all, then reads all; an error in an answer is raised."""
        self.socket.sendall(b"".join(map(self.encode, commands)))
        replies = [self.read() for _ in commands]
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise reply
        return replies

    def info(self, section="all"):
        lines = self("INFO", section).decode().split("\r\n")
        return dict(line.split(":", 1) for line in lines if ":" in line)
