"""How far a probe's job came, in words, with what to do."""

from __future__ import annotations

import math

from ensemblerl.cluster.finding import BAD, GOOD, Finding
from ensemblerl.cluster.probing import Probing

WHERE = {
    "account": "account=",
    "partition": "queue=",
    "queue": "queue=",
    "qos": 'options=["--qos=..."]',
    "time": "walltime=",
    "memory": "memory=",
    "cpu": "cores=",
    "processors": "cores=",
    "gres": "gpus=",
    "generic resource": "gpus=",
    "node count": "nodes=",
}
"""Words of a queue that says no -> the argument that it is about."""
LAST = {"node": ("cores=", "memory=", "nodes=", "gpus="), "": ("queue=", "account=", "options=")}
"""The same where it names none of these; Slurm ends with "Requested node configuration is not
available" whatever was too much."""
BUSY = ("Resources", "Priority", "None", "")
"""Why a job waits on a machine that is only busy."""


def submission(probing: Probing, scheduler: str) -> Finding:
    """Whether the queue took it."""
    if probing.id:
        return Finding(GOOD, "submit", f"{scheduler} takes a job ({probing.id})")
    if probing.refused:
        remedy = f"mend {' or '.join(_about(probing.refused.lower()))} as it says"
        return Finding(BAD, "submit", f"{scheduler} refuses the job: {probing.refused}", remedy)
    why = probing.silence or "it knows no such job"
    found = f"{scheduler} gave no answer to the submission: {why}"
    return Finding(BAD, "submit", found, "try again when squeue or qstat answers here")


def _about(refused: str) -> list[str]:
    about = [where for said, where in WHERE.items() if said in refused]
    last = next(where for said, where in LAST.items() if said in refused)
    return list(dict.fromkeys(about or last))


def start(probing: Probing, directory: str) -> Finding:
    """Whether it ran, and how it ended where nothing was heard of it."""
    job, what = probing.seen, "start"
    where = f" on {job.node}" if job.node else ""
    if probing.report is not None:
        return Finding(GOOD, what, f"it ran{where} within {math.ceil(probing.waited)} s")
    silent = f"; the queue does not answer now ({probing.silence})" if probing.silence else ""
    if job.state == "pending":
        found = f"it did not start: the queue says {job.reason or 'nothing of why'}{silent}"
        busy = "the machine is busy: try again with a longer timeout=, or with another queue="
        remedy = busy if job.reason in BUSY else "see what the queue means by that"
        return Finding(BAD, what, found, remedy)
    went = f"ended ({job.reason or job.end})" if job.state == "ended" else "runs"
    found = f"the job {went}{where}, and nothing was heard of the probe in it{silent}"
    if probing.log:
        found += f"; its log ends:\n{probing.log}"
    return Finding(BAD, what, found, _mend(probing.log, job.state, directory))


def _mend(log: str, state: str, directory: str) -> str:
    if "No module named" in log or "ImportError" in log:
        return "give python= of an environment with ensemblerl, or prologue= that loads it"
    if "not found" in log or "No such file" in log:
        return "give python= with an interpreter that nodes have, or mend prologue="
    if log:
        return "mend what the log says; python=, prologue= and options= go into the job"
    if state == "ended":
        return (
            f"it left no log, as where nodes do not see {directory}: give directory= on a "
            "disk that they share"
        )
    return "look into prologue=: what waits there, keeps workers from starting"
