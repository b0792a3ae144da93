"""Ports for servers that tests start."""

import random
import socket
from contextlib import suppress

RANGE = range(21000, 32000)
"""Below those that Linux gives to whoever asks for any port, and above those of Ray's workers: what was free stays free."""


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens.

    No process gets one of them by chance, so a server that starts later, or is down for a while, has it still.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(RANGE, 100 * count):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"{count} ports are not free")


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
