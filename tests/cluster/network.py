"""A network of a node's own, on one machine: a namespace with a way there, and one that fails."""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Network(NamedTuple):
    """A node's network: ``inside`` leads there, ``outside`` is an interface that does not."""

    name: str
    inside: str
    inside_address: str
    outside: str
    outside_address: str

    def command(self, *words: str) -> str:
        """A command that runs on the node."""
        return " ".join(["ip", "netns", "exec", self.name, *words])


def ip(*words: str, check: bool = True) -> None:
    """Run ip; OSError with its words where it fails."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def new_network() -> Iterator[Network]:
    """A network namespace that this machine reaches through one of two new interfaces.

    Both ends of the way have one name, as ``ib0`` on a login node and on its nodes. The addresses
    are of the range for tests of networks (RFC 2544); nothing leaves this machine. It takes root.
    """
    token = uuid.uuid4().hex[:6]
    x, y = 1 + int(token[:2], 16) % 250, 1 + int(token[2:4], 16) % 250
    made = Network(f"erl-{token}", f"in{token}", f"198.18.{x}.1", f"out{token}", f"198.19.{y}.1")
    away = f"aw{token}"
    try:
        ip("netns", "add", made.name)
        ip("link", "add", made.inside, "type", "veth", "peer", "name", away)
        ip("link", "set", away, "netns", made.name)
        ip("-n", made.name, "link", "set", away, "name", made.inside)
        ip("-n", made.name, "addr", "add", f"198.18.{x}.2/24", "dev", made.inside)
        ip("link", "add", made.outside, "type", "veth", "peer", "name", f"no{token}")
        ip("addr", "add", f"{made.inside_address}/24", "dev", made.inside)
        ip("addr", "add", f"{made.outside_address}/24", "dev", made.outside)
        for device in (made.inside, made.outside):
            ip("link", "set", device, "up")
        for device in (made.inside, "lo"):
            ip("-n", made.name, "link", "set", device, "up")
        yield made
    finally:
        for device in (made.inside, made.outside):
            ip("link", "del", device, check=False)
        ip("netns", "del", made.name, check=False)
