"""The files that a private Slurm reads: slurm.conf, gres.conf, task prolog and epilog."""

import os
import pwd
import random
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PARTITIONS = ("main", "other")
# below the range from which Linux hands out ports to anybody who asks for "any port"
PORTS = range(20000, 32000)


def free_ports(n: int) -> list[int]:
    """`n` different ports that nobody listens on, drawn at random: neighbours draw others."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == n:
            return found
    raise RuntimeError(f"no {n} free ports in {PORTS}")


def listening() -> str:
    """The setting that keeps every port on the loopback interface, where Slurm can do that.

    Slurm can only bind to what the host's name resolves to, and that works for 127.0.0.1 alone
    (with 127.0.1.1 srun waits for ever). Elsewhere the daemons listen on every interface, and
    anybody who reaches their ports can run jobs as the user, as authentication is off: fine on a
    machine for tests, not on a shared network.
    """
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""
    return "NoInAddrAny,NoCtldInAddrAny" if address == "127.0.0.1" else ""


def general(directory: Path, cluster: str, port: int) -> dict[str, str]:
    """slurm.conf without nodes and partitions: no database, quick to notice, short waits."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    return {
        "ClusterName": cluster,
        "SlurmctldHost": f"{socket.gethostname()}(127.0.0.1)",
        "CommunicationParameters": listening(),
        "SlurmctldPort": str(port),
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/none",
        "CredType": "cred/none",
        # a requeued job waits for its old credential to expire before it starts again
        # (120 s by itself, 5 is the least)
        "AuthInfo": "cred_expire=5",
        "StateSaveLocation": f"{directory}/state",
        "SlurmdSpoolDir": f"{directory}/spool/%n",
        "SlurmctldPidFile": f"{directory}/slurmctld.pid",
        "SlurmdPidFile": f"{directory}/%n.pid",
        "SlurmctldLogFile": f"{directory}/log/slurmctld.log",
        "SlurmdLogFile": f"{directory}/log/%n.log",
        "JobCompType": "jobcomp/filetxt",
        "JobCompLoc": f"{directory}/log/jobcomp.txt",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "TaskProlog": f"{directory}/task_prolog.sh",
        "SlurmdParameters": "config_overrides",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "DefMemPerCPU": "500",
        "GresTypes": "gpu",
        "MpiDefault": "none",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "sched_interval=2,bf_interval=2,sched_min_interval=100000",
        "JobRequeue": "1",
        "KillWait": "3",
        "MinJobAge": "300",
        # the two decide how soon a killed slurmd is noticed: about 18 s, and 28 s with 10 and 10
        "MessageTimeout": "5",
        "SlurmdTimeout": "10",
        "ResumeTimeout": "30",
        # a killed slurmd's node is taken back when it returns; one set down by hand stays down
        "ReturnToService": "1",
    }


class Shape(NamedTuple):
    """What a Slurm is to look like; `memory` in MB, `settings` replace lines of `general`."""

    nodes: Sequence[str]
    cpus: int
    memory: int
    epilog: bool
    settings: Mapping[str, object]


def slurm_conf(directory: Path, cluster: str, shape: Shape) -> str:
    """The text of slurm.conf."""
    port, *node_ports = free_ports(1 + len(shape.nodes))
    epilog = {"Epilog": f"{directory}/epilog.sh"} if shape.epilog else {}
    lines = {
        **general(directory, cluster, port),
        **epilog,
        **{k: str(v) for k, v in shape.settings.items()},
    }
    text = [f"{name}={value}" for name, value in lines.items() if value]
    for node, node_port in zip(shape.nodes, node_ports, strict=True):
        text.append(
            f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 "
            f"Port={node_port} CPUs={shape.cpus} RealMemory={shape.memory} Gres=gpu:2"
        )
    for partition in PARTITIONS:
        default = "YES" if partition == PARTITIONS[0] else "NO"
        text.append(
            f"PartitionName={partition} Nodes={','.join(shape.nodes)} Default={default} "
            "DefaultTime=60 MaxTime=UNLIMITED State=UP"
        )
    return "\n".join(text) + "\n"


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def write_files(directory: Path, cluster: str, shape: Shape) -> None:
    """Write everything that the daemons need into `directory`."""
    conf = directory / "slurm.conf"
    for folder in ("state", "log", "dev", *(f"spool/{node}" for node in shape.nodes)):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    # Slurm asks for device files and sets CUDA_VISIBLE_DEVICES from the numbers in their names
    for number in range(2):
        device = directory / "dev" / f"nvidia{number}"
        device.unlink(missing_ok=True)
        device.symlink_to("/dev/null")
    devices = f"NodeName={','.join(shape.nodes)} Name=gpu File={directory}/dev/nvidia[0-1]"
    (directory / "gres.conf").write_text(f"AutoDetect=off\n{devices}\n")
    mark = f"{conf}:$SLURM_JOB_ID:$SLURMD_NODENAME"
    _script(directory / "task_prolog.sh", f'echo "export PRIVATE_SLURM={mark}"')
    if shape.epilog:
        helper = Path(__file__).with_name("slurm_processes.py")
        command = shlex.join([sys.executable, "-I", "-S", str(helper), str(conf)])
        _script(directory / "epilog.sh", f'exec {command} "$SLURM_JOB_ID" "$SLURMD_NODENAME"')
    conf.write_text(slurm_conf(directory, cluster, shape))
