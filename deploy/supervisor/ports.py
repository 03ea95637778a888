"""Free TCP ports of this machine."""

import random
import socket

# Below the range that the kernel takes outgoing ports from (32768 and up): a client that retries a
# loopback port of that range while its server is down may be given that very port, connect to
# itself, and keep the server from coming back.
FIRST, LAST = 20000, 32000


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def choose(count, preferred=()):
    """`count` different free ports, the preferred ones where they are free."""
    chosen = [port for port in preferred if is_free(port)][:count]
    candidates = random.sample(range(FIRST, LAST), LAST - FIRST)
    for port in candidates:
        if len(chosen) == count:
            return chosen
        if port not in chosen and is_free(port):
            chosen.append(port)
    raise OSError(f"no {count} free ports from {FIRST} to {LAST}")
