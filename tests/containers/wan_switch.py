"""An Ethernet switch in user space, whose every hop may be late or lose frames: a wide-area network
between network namespaces, for kernels without netem.  As root.

  wan_switch.py NETNS...

Each namespace gets a port, the device `wan`.  Commands on stdin, one a line: `delay MS` of each frame,
`loss PERCENT` of frames, `cut NETNS`; each is answered by its line.  Ends with stdin."""

import fcntl
import heapq
import os
import random
import selectors
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES = 65536
QUEUE_FRAMES = 20000  # of a switch that cannot keep up
MULTICAST = 1


def open_port(netns):
    """A device `wan` in the namespace; returns what reads and writes its frames."""
    port = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    name = f"wan{os.getpid() % 10000}_{netns[-3:]}"
    fcntl.ioctl(port, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", name, "netns", netns, "name", "wan"], check=True)
    return port


class Switch:
    def __init__(self, names):
        self._ports = {open_port(name): name for name in names}
        self._seconds = 0.0
        self._loss = 0.0
        self._cut = set()
        self._due = []  # (when, number, port, frame)
        self._number = 0
        self._place = {}  # of an address: the port
        self._draw = random.Random(1)

    def command(self, line):
        word, value = line.split()
        if word == "delay":
            self._seconds = float(value) / 1000
        elif word == "loss":
            self._loss = float(value) / 100
        elif word == "cut":
            self._cut.add(value)
        print(line, flush=True)

    def take(self, port):
        try:
            frame = os.read(port, FRAME_BYTES)
        except (BlockingIOError, OSError):
            return
        self._place[frame[6:12]] = port
        known = None if frame[0] & MULTICAST else self._place.get(frame[:6])
        for to in [known] if known is not None else [p for p in self._ports if p != port]:
            if {self._ports[port], self._ports[to]} & self._cut or to == port:
                continue
            if self._draw.random() >= self._loss and len(self._due) < QUEUE_FRAMES:
                self._number += 1
                heapq.heappush(self._due, (time.monotonic() + self._seconds, self._number, to,
                                           frame))

    def give(self):
        """Sends what is due; returns the seconds until more is, None: nothing waits."""
        while self._due:
            wait = self._due[0][0] - time.monotonic()
            if wait > 0:
                return wait
            _, _, port, frame = heapq.heappop(self._due)
            try:
                os.write(port, frame)
            except OSError:
                pass  # its device is down, or full
        return None

    def run(self):
        with selectors.DefaultSelector() as selector:
            for readable in [sys.stdin.fileno(), *self._ports]:
                selector.register(readable, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(self.give()):
                    if key.fd != sys.stdin.fileno():
                        self.take(key.fd)
                    elif line := sys.stdin.readline().strip():
                        self.command(line)
                    else:
                        return


if __name__ == "__main__":
    switch = Switch(sys.argv[1:])
    print("ready", flush=True)
    switch.run()
