"""A TCP proxy that does to connections what networks and dying peers do.

  fault_proxy.py HOST:PORT

Listens on a port of 127.0.0.1, which is the first line that it prints, and passes on what comes to
HOST:PORT.  Each line of standard input is a command, answered by "ok" or "error: ..." once it has
taken effect; DIR is up (from those who connect), down or both:

  pass                       from now on as if there was no proxy, for connections that are sound
  delay DIR SECONDS          each byte arrives so much later
  throttle DIR BYTES         so many bytes a second; 0: nothing is read, the sender's buffers fill
  cut rst | cut fin          all connections end now, both sides
  vanish up | vanish down    the peer on that side is gone without a word: its connections are cut,
                             the other side's stay open and silent for good
  blackhole                  every byte of present and new connections is swallowed; the present
                             ones stay silent for good, as a stream with a hole is no use
  connections                answers "ok N", how many are open to those who connect
"""

import asyncio
import collections
import os
import socket
import struct
import sys

CHUNK_BYTES = 65536
TICK_SECONDS = 0.01
BUFFERED_BYTES = 4 << 20  # in one direction of a connection, while they are delayed
DIRECTIONS = ("up", "down")


class Faults:
    """What is done to every connection now; `changed` is replaced when that changes."""

    def __init__(self):
        self.delay = dict.fromkeys(DIRECTIONS, 0.0)
        self.bytes_per_second = dict.fromkeys(DIRECTIONS)  # None: no limit
        self.swallow = False


class Connection:
    """Two sockets and a pump for each direction."""

    def __init__(self, faults, client, server):
        self._faults = faults
        self._ends = {"up": client, "down": server}  # (reader, writer), named as what comes from it
        self.silent = False

    async def run(self):
        await asyncio.gather(self._pump("up", "down"), self._pump("down", "up"))

    def close(self, end, reset):
        writer = self._ends[end][1]
        if writer.is_closing():
            return
        if reset:
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            writer.close()

    def is_open(self, end):
        return not self._ends[end][1].is_closing()

    async def _pump(self, direction, to):
        """What one end says arrives at the other; an end that stops talking is hung up on."""
        reader, writer = self._ends[direction][0], self._ends[to][1]
        waiting = collections.deque()  # (when it is due, bytes)
        sender = asyncio.ensure_future(self._send(direction, waiting, writer))
        try:
            while data := await self._read(direction, reader):
                if self.silent or self._faults.swallow:
                    self.silent = True
                    continue
                now = asyncio.get_running_loop().time()
                waiting.append((now + self._faults.delay[direction], data))
                while sum(len(chunk) for _, chunk in waiting) > BUFFERED_BYTES:
                    await asyncio.sleep(TICK_SECONDS)
        except OSError:
            pass
        if self.silent:
            self.close(direction, False)
        else:
            waiting.append((0, None))
            await sender
        sender.cancel()

    async def _read(self, direction, reader):
        while (limit := self._faults.bytes_per_second[direction]) is not None:
            if limit > 0:
                await asyncio.sleep(TICK_SECONDS)
                return await reader.read(max(1, int(limit * TICK_SECONDS)))
            await asyncio.sleep(TICK_SECONDS)
        return await reader.read(CHUNK_BYTES)

    async def _send(self, direction, waiting, writer):
        loop = asyncio.get_running_loop()
        while True:
            while not waiting or waiting[0][0] > loop.time():
                await asyncio.sleep(min(TICK_SECONDS, waiting[0][0] - loop.time())
                                    if waiting else TICK_SECONDS / 5)
            data = waiting.popleft()[1]
            if self.silent:
                continue
            if data is None:
                writer.close()
                return
            try:
                writer.write(data)
                await writer.drain()
            except OSError:
                return


class Proxy:
    def __init__(self, host, port):
        self._target = host, port
        self._faults = Faults()
        self._connections = []

    async def listen(self):
        """Returns the port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return server.sockets[0].getsockname()[1]

    async def _accept(self, reader, writer):
        if self._faults.swallow:
            while await reader.read(CHUNK_BYTES):
                pass
            writer.close()
            return
        try:
            server = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection(self._faults, (reader, writer), server)
        self._connections.append(connection)
        await connection.run()

    def command(self, words):
        name, *arguments = words
        getattr(self, f"_on_{name}")(*arguments)
        self._connections = [c for c in self._connections if c.is_open("up") or c.is_open("down")]
        if name == "connections":
            return f"ok {sum(c.is_open('up') for c in self._connections)}"
        return "ok"

    def _on_pass(self):
        self._faults.__init__()

    def _on_delay(self, direction, seconds):
        for name in DIRECTIONS if direction == "both" else (direction,):
            self._faults.delay[name] = float(seconds)

    def _on_throttle(self, direction, bytes_per_second):
        for name in DIRECTIONS if direction == "both" else (direction,):
            self._faults.bytes_per_second[name] = int(bytes_per_second)

    def _on_cut(self, how):
        for connection in self._connections:
            for end in DIRECTIONS:
                connection.close(end, how == "rst")

    def _on_vanish(self, end):
        for connection in self._connections:
            connection.silent = True
            connection.close(end, True)

    def _on_blackhole(self):
        self._faults.swallow = True
        for connection in self._connections:
            connection.silent = True

    def _on_connections(self):
        pass


async def serve(target):
    host, port = target.rsplit(":", 1)
    proxy = Proxy(host, int(port))
    print(await proxy.listen(), flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), os.fdopen(0, "rb"))
    while line := await commands.readline():
        try:
            print(proxy.command(line.decode().split()), flush=True)
        except Exception as error:  # pylint: disable=broad-except
            print(f"error: {error!r}", flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
