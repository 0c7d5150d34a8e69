"""The network addresses of this machine, and a listener that says which of them nodes reach."""

from __future__ import annotations

import json
import secrets
import socket
import socketserver
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

from ensemblerl.cluster.finding import BAD, GOOD, Finding

LARGEST = 2**20
"""Bytes of a report at most."""
PATIENCE = 10.0
"""Seconds for which the listener waits for a word of somebody who has connected."""


class Interface(NamedTuple):
    """A network interface and an IPv4 address of it."""

    name: str
    address: str

    @property
    def loopback(self) -> bool:
        """Whether it leads to this machine only."""
        return self.address.startswith("127.")

    def __str__(self) -> str:
        return f"{self.name} {self.address}"


def interfaces() -> list[Interface]:
    """All IPv4 addresses of this machine, those that lead nowhere else last."""
    import psutil

    found = [
        Interface(name, address.address)
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family == socket.AF_INET
    ]
    return sorted(found, key=lambda interface: interface.loopback)


class Listener:
    """Answers who knows the key, on every address of this machine, and takes one report.

    Another machine may have the same private address as this one: only who answers with the
    listener's word is this listener.

    Attributes
    ----------
    key : to be said by who connects
    word : what he is answered
    port : to connect to
    report : what was told last; None before that
    """

    def __init__(self) -> None:
        self.key, self.word = secrets.token_hex(16), secrets.token_hex(16)
        self.report: dict[str, Any] | None = None
        self._server = _Server(("", 0), _Talk)
        self._server.listener = self
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Self:
        name = "ensemblerl-listener"
        threading.Thread(target=self._server.serve_forever, daemon=True, name=name).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    listener: Listener

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who breaks off, or talks nonsense, is no business of the user's terminal."""


class _Talk(socketserver.StreamRequestHandler):
    server: _Server
    timeout = PATIENCE

    def handle(self) -> None:
        """Key, word; then perhaps a report."""
        listener = self.server.listener
        said = self.rfile.readline(256).strip()
        if not secrets.compare_digest(said, listener.key.encode()):
            return
        self.wfile.write(f"{listener.word}\n".encode())
        told = self.rfile.readline(LARGEST)
        if told.strip():
            listener.report = json.loads(told)
            self.wfile.write(b"taken\n")


def network(
    report: dict[str, Any], here: Sequence[Interface], used: str, word: str, interface: str
) -> Iterator[Finding]:
    """Which addresses of this machine a node reaches.

    Parameters
    ----------
    here : the addresses
    used : the one of the Dask scheduler
    word : with which our listener answers
    interface : that workers are told to use, or ""
    """
    heard, node = report["heard"], report["node"]
    works = [i for i in here if heard.get(i.address, {}).get("word") == word]
    name = next((str(i) for i in here if i.address == used), used)
    if heard.get(used, {}).get("word") == word:
        own = heard[used].get("own", "")
        found = f"{node} reaches {name}, which is used" + (f" (from {own})" if own else "")
        yield Finding(GOOD, "network", found)
    else:
        why = heard.get(used, {}).get("error") or "somebody else answers"
        found = f"nodes cannot reach {name}, which would be used ({why})"
        yield Finding(BAD, "network", *_other_way(found, works, report["interfaces"]))
    if interface and interface not in report["interfaces"]:
        has = ", ".join(report["interfaces"])
        found = f"{node} has no interface {interface}: its workers would not start; it has {has}"
        yield Finding(BAD, "interface", found, f"give host={used!r} in place of interface=")


def _other_way(found: str, works: list[Interface], there: list[str]) -> tuple[str, str]:
    if not works:
        remedy = (
            "nodes need a way to this machine: start the campaign on a node that they reach, "
            "or give host= with the address that they know it by"
        )
        return f"{found}, nor any other address of this machine", remedy
    # interface= is for workers as well: they need one of that name
    both = [i for i in works if i.name in there]
    best = both[0] if both else works[0]
    remedy = f"give interface={best.name!r}" if both else f"give host={best.address!r}"
    return f"{found}; {best} works", remedy
