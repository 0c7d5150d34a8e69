"""Rows of the table of faults about sites: their limits, networks, clocks, strangers."""

from __future__ import annotations

import socket
import ssl
import sys
import time
from typing import Any

import numpy as np
import slurm_install
from fault_log import some_long
from fault_rig import Found, Rig
from fault_tools import shim, wait_for
from fault_traces import ended_as
from network import new_network

import ensemblerl as erl


def partition_down(rig: Rig) -> Found:
    """The partition is down: it waits and says so; then it is up again."""
    rig.slurm.scontrol("update", "partitionname=main", "state=down")
    cluster = rig.cluster()
    handle = rig.launch(cluster)
    wait_for(lambda: "PartitionDown" in handle.campaign.executor.note, "the sentence", 60)
    said = handle.campaign.executor.note
    assert not rig.events(), "members run"
    rig.slurm.scontrol("update", "partitionname=main", "state=up")
    began = time.monotonic()
    wait_for(lambda: handle.done or len(rig.workers(cluster)) == 3, "workers", 120)
    rig.recovery = time.monotonic() - began
    return rig.finish(handle, remarks=f"it said: {said}")


def wrong_certificate(rig: Rig) -> Found:
    """A connection without the certificate is refused, by scheduler and workers."""
    from distributed import Client, Security

    cluster = rig.cluster()
    handle = rig.launch(cluster)
    rig.after(handle, 5)
    scheduler = cluster._pool.cluster.scheduler_address
    ours, theirs = cluster._pool.cluster.security, Security.temporary()
    for address in (scheduler, min(rig.workers(cluster))):
        assert address.startswith("tls://"), address
        for _ in range(2):  # before and after: who refuses everybody has refused nobody
            assert greeted(address, context(ours)), f"{address} does not speak to its own"
            for stranger in (context(theirs), context(None), None):
                assert not greeted(address, stranger), f"{address} let a stranger in"
    Client(scheduler, security=ours, timeout=20, set_as_default=False).close()
    paths = [*rig.store.glob("jobs/keys-*"), *rig.store.glob("jobs/keys-*/*")]
    assert len(paths) > 3, "there are no keys to look at"
    assert not [path for path in paths if path.stat().st_mode & 0o077], "others may read the keys"
    assert rig.going(handle), "the campaign was over before the strangers came"
    rig.recovery = 0.0
    return rig.finish(
        handle, remarks="another certificate, none, no TLS: refused, where the right one was taken"
    )


def context(security: Any) -> ssl.SSLContext:
    """Of a client with these keys, or with none, who lets the other side be whoever it is."""
    if security is None:
        found = ssl.create_default_context()
    else:
        found = security.get_connection_args("client")["ssl_context"]
    found.check_hostname, found.verify_mode = False, ssl.CERT_NONE
    return found


def greeted(address: str, given: ssl.SSLContext | None) -> bool:
    """Whether Dask says its first words to a client with these keys (None: without TLS).

    Only a refusal counts as one: silence is an error (TimeoutError).
    """
    host, port = address.removeprefix("tls://").rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=20) as plain:
            if given is None:
                plain.sendall(b"\0" * 64)
                return bool(plain.recv(1))
            with given.wrap_socket(plain) as secret:
                return bool(secret.recv(1))
    except (ssl.SSLError, ConnectionError) as error:
        print(f"{address} refused: {error}")
        return False


def queue_limit(rig: Rig) -> Found:
    """The queue takes two jobs of a user at most: the campaign keeps those."""
    refused = rig.directory / "refused"
    script = (
        f'n=$(squeue -h --me 2>/dev/null | wc -l)\n[ "$n" -ge 2 ] && {{ echo >> {refused}; echo '
        '"sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; echo "sbatch: error: Batch job '
        'submission failed: Job violates accounting/QOS policy" >&2; exit 1; }\nexec {real} "$@"\n'
    )
    with shim(rig.directory / "shim", "sbatch", script):
        cluster = rig.cluster()
        began = time.monotonic()
        handle = rig.launch(cluster)
        wait_for(lambda: handle.done or "QOSMax" in handle.campaign.executor.note, "sentence", 60)
        said = handle.campaign.executor.note
        wait_for(lambda: handle.done or len(rig.workers(cluster)) == 2, "two workers", 60)
        rig.recovery = time.monotonic() - began
        kept = {job.id for job in rig.slurm.squeue() if job.state == "RUNNING"}
        found = rig.finish(handle)
    assert len(kept) == 2, kept
    assert rig.jobs_used() == 2, rig.jobs_used()
    n = len(refused.read_text().splitlines())
    return found._replace(remarks=f"two jobs kept, {n} refused; it said: {said}")


def interfaces(rig: Rig) -> Found:
    """The first interface cannot be reached from nodes: preflight names the one that works."""
    with new_network() as network:
        python = network.command(sys.executable)
        first = rig.cluster(python=python, host=network.outside_address).preflight()
        told = next(finding for finding in first.findings if finding.what == "network")
        assert not first.ok
        assert told.remedy == f"give interface={network.inside!r}", str(first)
        rig.recovery = 0.0
        handle = rig.launch(rig.cluster(python=python, interface=network.inside))
        return rig.finish(handle, remarks="as it said, all members ran through that one")


def wrong_clock(rig: Rig) -> Found:
    """The clock of a node is an hour ahead."""
    line = (
        f'[ "$SLURMD_NODENAME" != n1 ] || export LD_PRELOAD={slurm_install.faketime()} '
        "FAKETIME=+3600 DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_FAKE_MONOTONIC=1"
    )
    cluster = rig.cluster(prologue=[line], cores=4, n_jobs=3)
    handle = rig.launch(cluster, 100, rig.program(some_long(4)))
    rig.after(handle, 30)
    with rig.fault(handle, cluster):
        job = rig.job_in_use()
        rig.cancel(job)
        ended_as(rig.slurm, job, "CANCELLED")
    found = rig.finish(handle)
    starts = erl.open(rig.store)["start_time"].values
    ahead = int((starts > np.datetime64(round(time.time()) + 1800, "s")).sum())
    assert ahead > 0, "no member ran on the node whose clock is wrong"
    return found._replace(remarks=f"{ahead} members ran on it")
