"""The arguments of a cluster of batch jobs, site files, and the job scripts made of them."""

import os
import shlex
import signal
import stat
import subprocess
import sys
import time
import tomllib
import warnings
from pathlib import Path

import dask
import pytest

from ensemblerl.cluster import script as script_module
from ensemblerl.cluster import site
from ensemblerl.cluster.script import FIRST, cluster_arguments, job_text
from ensemblerl.cluster.settings import Settings, names
from ensemblerl.cluster.walltime import clock

CLUSTER_ONLY = ("n_workers", "scheduler_options", "shared_temp_directory", "silence_logs")
"""Arguments that dask-jobqueue's cluster keeps from its jobs."""
OWN = """#!/bin/bash
#SBATCH -C haswell
#SBATCH -t 60
set -eu
echo before
{worker}
echo never reached when the worker fails
"""


def jobs(scheduler="slurm", **given):
    return Settings(scheduler, **{"n_jobs": 2, "cores": 4, "memory": "8 GB"} | given)


def text_of(settings, directory, *, slots=4, member_cores=1, processes=1):
    """The script that is submitted, by dask-jobqueue's own class; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from dask_jobqueue.pbs import PBSJob
        from dask_jobqueue.slurm import SLURMJob

        arguments = cluster_arguments(
            settings,
            slots=slots,
            member_cores=member_cores,
            processes=processes,
            directory=directory,
        )
        for name in CLUSTER_ONLY:
            del arguments[name]
        kind = SLURMJob if settings.scheduler == "slurm" else PBSJob
        made = kind("tls://10.0.0.1:8786", name="worker-0", **arguments)
    text = job_text(made.job_script(), settings)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    return text


def directives(text):
    return [line for line in text.splitlines() if line.startswith(("#SBATCH", "#PBS"))]


def worker_line(text):
    (line,) = [line for line in text.splitlines() if "dask_worker" in line]
    return line


def last(option, line):
    words = line.split()
    return words[len(words) - words[::-1].index(option)]


# -- what is refused, and in which words


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scheduler": "lsf"}, "scheduler: wanted one of slurm, pbs; got 'lsf'"),
        ({"n_jobs": 0}, "n_jobs: wanted a whole number >= 1, got 0"),
        (
            {"n_jobs": None},
            "n_jobs: must be given: how many jobs to keep running, such as n_jobs=8",
        ),
        ({"cores": 2.5}, "cores: wanted a whole number >= 1, got 2.5"),
        ({"memory": "8 apples"}, 'memory: wanted bytes, or text such as "2 GB"'),
        ({"memory": 8}, "memory: .* at least 1 MiB, .*got 8"),
        ({"walltime": "soon"}, "walltime: wanted hours, minutes and .*\"02:00:00\".*got 'soon'"),
        ({"walltime": "90"}, "walltime: .*got '90' .minutes to Slurm, seconds to PBS"),
        ({"walltime": "01:75:00"}, "walltime: wanted .*got '01:75:00'"),
        ({"walltime": "1-30:00:00"}, "walltime: wanted .*got '1-30:00:00'"),
        ({"walltime": "90 lightyears"}, "walltime: wanted .*'90 lightyears'"),
        ({"walltime": -5}, "walltime: wanted .*got -5"),
        ({"walltime": True}, "walltime: wanted .*got True"),
        ({"walltime": 59}, "walltime: wanted at least 60 s, got 59 s"),
        ({"queue": "two words"}, "queue: wanted a name without blanks or quotes, got 'two words'"),
        ({"account": ""}, "account: wanted one line of text or None, got ''"),
        ({"nodes": 0}, "nodes: wanted a whole number >= 1, got 0"),
        ({"gpus": -1}, "gpus: wanted a whole number >= 0, got -1"),
        ({"members_per_job": 0}, "members_per_job: wanted a whole number >= 1, got 0"),
        ({"max_runtime": "long"}, "max_runtime: wanted hours"),
        ({"options": ["constraint=x"]}, "options: wanted directives for slurm .*'constraint=x'"),
        ({"options": ["#PBS -l x"]}, "options: wanted directives for slurm .*'#PBS -l x'"),
        ({"options": 5}, "options: wanted a list of texts, got 5"),
        ({"options": ["-t 10"]}, "options: give walltime=... in place of the directive '-t 10'"),
        ({"options": ["--job-name=x"]}, "options: give name=... in place of"),
        ({"options": ["-N2"]}, "options: give nodes=... in place of the directive '-N2'"),
        ({"prologue": [3]}, "prologue: wanted a list of texts of one line each, got 3 in it"),
        ({"prologue": ["a\nb"]}, "prologue: wanted a list of texts of one line each"),
        ({"interface": "ib0; rm"}, "interface: wanted a name without blanks or quotes"),
        ({"host": 10}, "host: wanted one line of text or None, got 10"),
        ({"python": "a\nb"}, "python: wanted one line of text or None"),
        ({"directory": "/tmp/my files"}, "directory: wanted a path of letters.*'/tmp/my files'"),
        ({"directory": "/tmp/100%"}, "directory: wanted a path of letters"),
        ({"directory": "$NO_SUCH_THING/x"}, r"directory: wanted a path of .*NO_SUCH_THING"),
        ({"death_timeout": None}, "death_timeout: wanted seconds > 0, got None"),
        ({"death_timeout": 0}, "death_timeout: wanted seconds > 0 or None, got 0"),
        ({"custom": 7}, "custom: wanted the path or the text of a batch file, got 7"),
        ({"encrypted": "yes"}, "encrypted: wanted True or False, got 'yes'"),
        ({"dashboard": 8787}, 'dashboard: wanted False, True or an address such as ":8787"'),
        ({"name": "my job"}, "name: wanted at most 64 letters.*got 'my job'"),
        ({"name": "1st"}, "name: wanted .* a letter first; got '1st'"),
        ({"retry_limit": -1}, "retry_limit: wanted a whole number >= 0, got -1"),
        # wrong in company
        ({"nodes": 2, "members_per_job": 2}, "members_per_job: wanted 1 or None with nodes=2"),
        ({"nodes": 3}, "cores: wanted a multiple of nodes=3, each gives as many; got 4"),
        ({"nodes": 2, "gpus": 3}, "gpus: wanted a multiple of nodes=2, each gives as many; got 3"),
        (
            {"walltime": "01:00:00", "max_runtime": 3601},
            r"max_runtime: wanted no more than walltime=01:00:00 \(3600 s\).*got 3601 s",
        ),
        ({"custom": OWN, "options": ["-C x"]}, "options: .*your batch file .its lines #SBATCH"),
        ({"custom": OWN, "queue": "q"}, "queue: with custom, queue goes into your batch file"),
        ({"custom": OWN, "account": "a"}, "account: with custom, account goes into your batch"),
        ({"custom": OWN, "prologue": ["x"]}, "prologue: .*lines above {worker}.*got .'x',"),
        # a batch file of one's own
        ({"custom": "#!/bin/sh\necho\n"}, "custom: wanted {worker} once.* it is there 0 times"),
        ({"custom": OWN + "{worker}\n"}, "custom: wanted {worker} once.* it is there 2 times"),
        ({"custom": "#!/bin/sh\nsrun {worker}\n"}, "custom: wanted {worker} on a line of its own"),
        ({"custom": "#!/bin/tcsh\n{worker}\n"}, "custom: wanted a shell script.*'#!/bin/tcsh'"),
        ({"custom": "{worker}\n"}, "custom: wanted a shell script"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_wanted_and_what_came(given, message):
    with pytest.raises(ValueError, match=message):
        jobs(**given)


def test_pbs_has_directives_of_its_own():
    assert jobs("pbs", options=["#PBS -l place=excl", "-m n"]).options == ("-l place=excl", "-m n")
    with pytest.raises(
        ValueError, match=r"options: give name=... in place of the directive '-N x'"
    ):
        jobs("pbs", options=["-N x"])
    with pytest.raises(ValueError, match=r"options: give walltime=..."):
        jobs("pbs", options=["-l mem=1gb,walltime=10:00"])


def test_a_misspelt_argument_is_told_the_near_one():
    with pytest.raises(TypeError, match=r"walltme: no such argument; did you mean walltime?"):
        jobs(walltme="01:00:00")
    with pytest.raises(TypeError, match=r"zzz: no such argument$"):
        jobs(zzz=1)
    with pytest.raises(TypeError, match=r"walltime_s: no such argument; did you mean walltime?"):
        jobs(walltime_s=60)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("partition", "queue"),
        ("time", "walltime"),
        ("mem", "memory"),
        ("project", "account"),
        ("job-extra-directives", "options"),
        ("Walltime", "walltime"),
    ],
)
def test_an_argument_by_the_name_that_others_have_for_it_is_told_ours(given, meant):
    with pytest.raises(TypeError, match=rf"^{given}: no such argument; did you mean {meant}\?"):
        jobs(**{given: "x"})


def test_a_batch_file_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match=r"custom: .*none at '/no/such/job.sh'"):
        jobs(custom="/no/such/job.sh")


# -- what is taken, and what becomes of it


@pytest.mark.parametrize(
    ("given", "seconds", "shown"),
    [
        ("02:00:00", 7200, "02:00:00"),
        ("1-12:00:00", 129600, "36:00:00"),
        ("1-12", 129600, "36:00:00"),
        ("2-03:30", 185400, "51:30:00"),
        ("30:00", 1800, "00:30:00"),
        ("90:30", 5430, "01:30:30"),
        ("100:00:00", 360000, "100:00:00"),
        ("90 min", 5400, "01:30:00"),
        ("1.5 hours", 5400, "01:30:00"),
        ("1d 2h", 93600, "26:00:00"),
        (90, 90, "00:01:30"),
        (90.2, 90.2, "00:01:31"),
    ],
)
def test_walltime_is_read_as_people_and_slurm_write_it(given, seconds, shown):
    found = jobs(walltime=given)
    assert (found.walltime_s, found.walltime) == (pytest.approx(seconds), shown)


def test_no_unit_of_time_is_taken_for_another():
    hour = {jobs(walltime=f"1 {unit}").walltime_s for unit in ("h", "hr", "hrs", "hour", "hours")}
    assert hour == {3600.0}
    assert {jobs(walltime=f"2 {unit}").walltime_s for unit in ("m", "min", "mins")} == {120.0}
    assert {jobs(walltime=f"99 {unit}").walltime_s for unit in ("s", "sec", "seconds")} == {99.0}
    assert clock(59.5) == "00:01:00"


def test_what_is_left_out_comes_from_the_configuration_of_dask():
    with dask.config.set(
        {"jobqueue.slurm": {"cores": 6, "memory": "1 GiB", "walltime": "3:00:00"}}
    ):
        found = Settings("slurm", n_jobs=1)
        assert (found.cores, found.memory, found.walltime_s) == (6, 2**30, 10800.0)
        assert Settings("slurm", n_jobs=1, cores=2, walltime=60).cores == 2
    with dask.config.set({"jobqueue.pbs": {"cores": "many", "memory": "1 GiB"}}):
        said = "jobqueue.pbs.cores of dask's configuration: wanted a whole number >= 1, got 'many'"
        with pytest.raises(ValueError, match=said):
            Settings("pbs", n_jobs=1)
    with (
        dask.config.set({"jobqueue.slurm.walltime": 90}),
        pytest.raises(ValueError, match=r"jobqueue.slurm.walltime of dask's .*minutes to Slurm"),
    ):
        jobs()


def test_what_nobody_says_is_asked_for():
    with dask.config.set({"jobqueue.slurm": {"cores": None, "memory": None}}):
        with pytest.raises(ValueError, match=r"cores: wanted cores=... .*jobqueue.slurm.cores in"):
            Settings("slurm", n_jobs=1)
        with pytest.raises(ValueError, match=r"memory: wanted memory=... of one job"):
            Settings("slurm", n_jobs=1, cores=1)


def test_the_walltime_that_dask_jobqueue_brings_along_is_nobodys_choice(tmp_path):
    import dask_jobqueue

    assert dask_jobqueue
    assert dask.config.get("jobqueue.slurm.walltime") == "00:30:00"
    assert jobs().walltime is None
    assert not [line for line in directives(text_of(jobs(), tmp_path)) if " -t " in line]
    assert not [line for line in directives(text_of(jobs("pbs"), tmp_path)) if "-l wall" in line]
    assert "ENSEMBLERL_WALLTIME" not in text_of(jobs(), tmp_path)


def test_the_same_walltime_in_a_configuration_of_ones_own_is_a_choice(monkeypatch):
    import dask_jobqueue

    assert dask_jobqueue
    monkeypatch.setenv("DASK_JOBQUEUE__SLURM__WALLTIME", "00:30:00")
    assert jobs().walltime_s == 1800.0


def test_members_share_a_job_by_their_cores():
    assert [jobs(cores=8).slots(n) for n in (1, 3, 8)] == [8, 2, 1]
    assert jobs(cores=8, members_per_job=20).slots(1) == 20
    assert jobs(cores=8, nodes=2).slots(1) == 1


def test_a_member_has_room_in_a_job_or_somebody_says_so():
    said = (
        r"a member needs 9 \(cores= of the sim.* a job has 8 \(cores= of the cluster\); .*cores=9"
    )
    for nodes in (1, 2):
        with pytest.raises(ValueError, match=said):
            jobs(cores=8, nodes=nodes).slots(9)
    assert jobs(cores=8, members_per_job=1).slots(9) == 1
    for given in (0, 1.5):
        with pytest.raises(
            ValueError, match=f"member_cores: wanted a whole number >= 1, got {given}"
        ):
            jobs().slots(given)


def test_paths_have_their_variables_filled_in(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert jobs(directory="$SCRATCH/jobs").directory == f"{tmp_path}/jobs"
    assert jobs(directory="~/jobs").directory == f"{tmp_path}/home/jobs"
    (tmp_path / "own.sh").write_text(OWN)
    assert jobs(custom="$SCRATCH/own.sh").custom == OWN


def test_settings_are_made_without_dask_jobqueue_or_distributed():
    code = (
        "import sys; from ensemblerl.cluster.settings import Settings; "
        "import ensemblerl.cluster.site; "
        "Settings('slurm', n_jobs=1, cores=2, memory='1 GB', walltime='90 min'); "
        "print([m for m in ('distributed', 'dask_jobqueue', 'torch') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# -- site files


def written(directory, text):
    path = directory / "my-site.toml"
    path.write_text(text)
    return path


BASE = 'scheduler = "slurm"\nn_jobs = 3\ncores = 2\nmemory = "1 GB"\n'


def test_a_site_file_says_the_same_as_arguments(tmp_path):
    text = BASE + 'walltime = 02:00:00\noptions = ["--constraint=haswell"]\n'
    wanted = Settings(
        "slurm",
        n_jobs=3,
        cores=2,
        memory="1 GB",
        walltime="02:00:00",
        options=["--constraint=haswell"],
    )
    assert site.from_toml(written(tmp_path, text)) == wanted
    assert site.from_toml(written(tmp_path, "[cluster]\n" + text)) == wanted
    assert site.from_toml(written(tmp_path, text), n_jobs=9).n_jobs == 9


def test_paths_in_a_site_file_start_at_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("WHERE", "/opt/x")
    (tmp_path / "own.sh").write_text(OWN)
    more = 'custom = "own.sh"\ndirectory = "jobs"\npython = "$WHERE/bin/python"\n'
    found = site.from_toml(written(tmp_path, BASE + more))
    assert found.custom == OWN
    assert (found.directory, found.python) == (f"{tmp_path}/jobs", "/opt/x/bin/python")
    inside = site.from_toml(written(tmp_path, BASE + f"custom = '''\n{OWN}'''\n"))
    assert inside.custom == OWN


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE + "wall_time = 60", "my-site.toml: wall_time: no such argument; .*mean walltime?"),
        ("[cluster]\n" + BASE + "[other]\nx = 1", r"my-site.toml: .*\[cluster\], found other"),
        (
            "[Cluster]\n" + BASE,
            r"my-site.toml: .*\[cluster\], found \[Cluster\]; did you mean that",
        ),
        (
            "[other]\n" + BASE,
            r"my-site.toml: wanted arguments in a table .cluster., found .other.$",
        ),
        ("cluster = 3", r"my-site.toml: wanted a table \[cluster\], got 3"),
        (BASE + "cores = ", "my-site.toml: this is no valid TOML"),
        (BASE.replace("n_jobs = 3", "n_jobs = 0"), "my-site.toml: n_jobs: wanted a whole number"),
        ("n_jobs = 3", 'my-site.toml: wanted scheduler = "slurm" or "pbs", found none'),
        (BASE + "walltime_s = 60", "my-site.toml: walltime_s: no such argument"),
    ],
)
def test_a_wrong_site_file_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        site.from_toml(written(tmp_path, text))


def test_a_wrong_argument_beside_a_site_file_is_not_blamed_on_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"^n_jobs: wanted"):
        site.from_toml(written(tmp_path, BASE), n_jobs=0)
    with pytest.raises(TypeError, match=r"^walltme: no such argument"):
        site.from_toml(written(tmp_path, BASE), walltme=60)


def test_a_site_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cluster: wanted a TOML file, .*absent.toml"):
        site.from_toml(tmp_path / "absent.toml")


def test_the_example_holds_every_argument_and_can_be_read(tmp_path):
    plain = site.from_toml(written(tmp_path, site.example()))
    assert (plain.scheduler, plain.n_jobs, plain.walltime) == ("slurm", 8, "02:00:00")
    shown = [line.removeprefix("# ") for line in site.example().splitlines()[1:]]
    table = tomllib.loads("\n".join(shown))["cluster"]
    assert set(table) == set(names())
    del table["custom"]  # cannot stand beside the rest
    assert Settings(**table | {"directory": str(tmp_path)}).gpus == 0


# -- job scripts


def test_a_job_on_slurm_asks_for_what_the_settings_say(tmp_path):
    settings = jobs(
        walltime="02:00:00",
        queue="regular",
        account="m123",
        gpus=2,
        options=["#SBATCH --constraint=haswell"],
        prologue=["module load gcc"],
        name="study",
    )
    text = text_of(settings, tmp_path, slots=3)
    assert directives(text) == [
        "#SBATCH -J study",
        f"#SBATCH -e {tmp_path}/logs/study-%J.err",
        f"#SBATCH -o {tmp_path}/logs/study-%J.out",
        "#SBATCH -p regular",
        "#SBATCH -A m123",
        "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --mem=7630M",  # 8e9 bytes, not 8 GiB
        "#SBATCH -t 02:00:00",
        "#SBATCH --gres=gpu:2",
        "#SBATCH --constraint=haswell",
    ]
    assert "export ENSEMBLERL_WALLTIME=7200\n" in text
    # loading modules is a part of the job's time, so the clock is read before; the rest comes after
    order = [text.index(w) for w in ("/proc/uptime", "module load gcc", "ENSEMBLERL_JOB=")]
    assert order == sorted(order)
    line = worker_line(text)
    assert (last("--nthreads", line), last("--memory-limit", line)) == ("3", "0")
    assert (line.count("--nthreads"), line.count("--memory-limit")) == (1, 1)
    assert " --nanny " in line


def test_members_that_need_processes_of_their_own_share_out_the_slots(tmp_path):
    line = worker_line(text_of(jobs(), tmp_path, slots=4, processes=4))
    assert (last("--nworkers", line), last("--nthreads", line)) == ("4", "1")
    assert "--nworkers" not in worker_line(text_of(jobs(), tmp_path))


def test_a_job_over_two_slurm_nodes_has_a_task_a_core(tmp_path):
    text = text_of(jobs(nodes=2, gpus=4, cores=16), tmp_path, slots=1, member_cores=16)
    found = directives(text)
    assert "#SBATCH --nodes=2" in found
    assert "#SBATCH --ntasks-per-node=8" in found
    assert "#SBATCH --mem=3815M" in found
    assert "#SBATCH --gres=gpu:2" in found
    assert not [line for line in found if " -n " in line or "--cpus-per-task" in line]


def test_members_of_several_cores_have_tasks_on_one_node_too(tmp_path):
    found = directives(text_of(jobs(), tmp_path, slots=2, member_cores=2))
    assert "#SBATCH --ntasks-per-node=4" in found
    assert "#SBATCH --nodes=1" in found


def test_memory_by_processor_replaces_memory_by_node(tmp_path):
    found = directives(text_of(jobs(options=["--mem-per-cpu=2G"]), tmp_path))
    assert [line for line in found if "--mem" in line] == ["#SBATCH --mem-per-cpu=2G"]


def test_a_job_on_pbs_asks_for_what_the_settings_say(tmp_path):
    settings = jobs("pbs", walltime="02:00:00", queue="workq", account="m123", gpus=1, name="study")
    text = text_of(settings, tmp_path)
    assert directives(text) == [
        "#PBS -N study",
        "#PBS -q workq",
        "#PBS -A m123",
        "#PBS -l select=1:ncpus=4:ngpus=1:mem=7630mb",
        "#PBS -l walltime=02:00:00",
        f"#PBS -e {tmp_path}/logs/",
        f"#PBS -o {tmp_path}/logs/",
    ]
    assert 'cd "${PBS_O_WORKDIR:-.}"' in text


def test_a_job_over_two_pbs_nodes_has_a_chunk_a_node(tmp_path):
    found = directives(text_of(jobs("pbs", nodes=2, gpus=2), tmp_path, slots=1, member_cores=4))
    assert "#PBS -l select=2:ncpus=2:mpiprocs=2:ngpus=1:mem=3815mb" in found
    assert "#PBS -l place=scatter" in found


def test_a_chunk_of_the_users_own_replaces_ours(tmp_path):
    own = "-l select=1:ncpus=4:model=sky"
    found = directives(text_of(jobs("pbs", options=[own]), tmp_path))
    assert [line for line in found if "select" in line] == [f"#PBS {own}"]


def test_the_configuration_of_dask_fills_in_what_the_settings_leave_open(tmp_path):
    said = {
        "jobqueue.slurm.queue": "night",
        "jobqueue.slurm.job-extra-directives": ["--qos=low"],
        "jobqueue.slurm.job-script-prologue": ["module load theirs"],
        "jobqueue.slurm.worker-extra-args": ["--nthreads", "77", "--resources", "A=1"],
    }
    import dask_jobqueue

    assert dask_jobqueue
    with dask.config.set(said):
        text = text_of(jobs(), tmp_path, slots=2)
        assert {"#SBATCH -p night", "#SBATCH --qos=low"} <= set(directives(text))
        assert "module load theirs" in text
        assert "--resources A=1" in worker_line(text)
        assert last("--nthreads", worker_line(text)) == "2"
        assert worker_line(text).count("--nthreads") == 2  # the user's and ours
        assert worker_line(text).count("--memory-limit") == 1
        own = text_of(jobs(options=["-C x"], prologue=["module load mine"]), tmp_path)
        assert "--qos=low" not in own
        assert "theirs" not in own
        assert "theirs" not in text_of(jobs(custom=OWN), tmp_path)


def test_the_scheduler_of_dask_shows_itself_only_where_asked(tmp_path):
    def options(**given):
        made = cluster_arguments(jobs(**given), slots=1, member_cores=1, directory=tmp_path)
        return made["scheduler_options"]

    assert options() == {
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
        "allowed_failures": 0,
    }
    assert options(dashboard=True)["dashboard"] is True
    assert options(dashboard=True)["dashboard_address"] == "127.0.0.1:0"
    assert options(dashboard=":8787")["dashboard_address"] == ":8787"
    assert options(host="10.1.1.1")["host"] == "10.1.1.1"


def test_a_directory_that_batch_files_cannot_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"directory: wanted a path of letters"):
        cluster_arguments(jobs(), slots=1, member_cores=1, directory=tmp_path / "my files")


def test_an_interpreter_with_a_blank_in_its_path_is_quoted(tmp_path):
    python = tmp_path / "my env" / "python"
    python.parent.mkdir()
    python.touch()
    assert f"'{python}' -m distributed" in text_of(jobs(python=python), tmp_path)
    several = text_of(jobs(python="apptainer exec x.sif python3"), tmp_path)
    assert "apptainer exec x.sif python3 -m distributed" in several


# -- a batch file of one's own


def test_a_batch_file_of_ones_own_stays_as_it_is_around_the_worker(tmp_path):
    text = text_of(jobs(custom=OWN, walltime=3600), tmp_path)
    above, below = OWN.split("{worker}\n")
    assert text.startswith(above)
    assert text.endswith(below)
    assert directives(text) == ["#SBATCH -C haswell", "#SBATCH -t 60"]
    assert "ENSEMBLERL_WALLTIME=3600" in text
    assert text.count("dask_worker") == 1


def test_the_configuration_says_nothing_of_the_walltime_in_a_file_of_ones_own():
    with dask.config.set({"jobqueue.slurm.walltime": "03:00:00"}):
        assert jobs(custom=OWN).walltime_s is None


def test_a_worker_in_a_file_of_ones_own_is_told_its_threads_once(tmp_path):
    line = worker_line(text_of(jobs(custom=OWN), tmp_path, slots=3))
    assert (line.count("--nthreads"), last("--nthreads", line)) == (1, "3")


def test_a_script_that_is_not_ours_is_refused():
    with pytest.raises(ValueError, match=r"script: wanted one made of cluster_arguments"):
        job_text("#!/bin/bash\npython -m distributed.cli.dask_worker\n", jobs(custom=OWN))


# -- what a job script does when it runs

STUB = """#!/bin/sh
case "$*" in
*linger*) echo "linger $* job=$ENSEMBLERL_JOB" >> {log}; {linger}; echo lingered >> {log} ;;
*) echo "worker $ENSEMBLERL_JOB $ENSEMBLERL_WALLTIME $ENSEMBLERL_BEGAN" >> {log}
   {worker} ;;
esac
"""
WAITS = "trap 'echo term >> {log}; sleep {more}; exit 3' TERM; while :; do sleep 0.05; done"


class Script:
    """A job script with stubs for the worker and for what waits for members."""

    def __init__(self, directory, *, worker, linger=":", shell="bash", settings=None):
        self.log = directory / "log"
        stub = directory / "python"
        worker = worker.replace("{log}", str(self.log))
        stub.write_text(STUB.format(log=self.log, worker=worker, linger=linger))
        stub.chmod(0o755)
        text = text_of(jobs(python=str(stub), walltime=600, **settings or {}), directory)
        (directory / "job.sh").write_text(text)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "PBS"))}
        self.process = subprocess.Popen(
            [shell, str(directory / "job.sh")],
            env=environment | {"SLURM_JOB_ID": "123"},
            start_new_session=True,
        )

    def lines(self):
        return self.log.read_text().splitlines() if self.log.exists() else []

    def until(self, word):
        end = time.monotonic() + 30
        while not any(word in line for line in self.lines()):
            assert time.monotonic() < end, self.lines()
            time.sleep(0.05)

    def ended(self):
        try:
            return self.process.wait(60)
        finally:
            subprocess.run(["pkill", "-KILL", "-s", str(self.process.pid)], check=False)


@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize("status", [0, 7])
def test_a_job_waits_for_members_and_ends_as_its_worker_did(tmp_path, shell, status):
    script = Script(tmp_path, worker=f"exit {status}", linger="sleep 0.3", shell=shell)
    assert script.ended() == status
    worker, linger, lingered = script.lines()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    _, token, walltime, began = worker.split()
    job = f"123@{os.uname().nodename}+{began}"  # numbers of jobs are given again
    assert (token, walltime) == (job, "600")
    assert uptime - 60 < float(began) <= uptime
    assert linger == f"linger -m ensemblerl.supervisor.linger job={job}"
    assert lingered == "lingered"


def test_a_job_that_fails_to_wait_still_ends_as_its_worker_did(tmp_path):
    assert Script(tmp_path, worker="exit 0", linger="exit 9").ended() == 0


def test_members_are_waited_for_where_a_users_file_ends_at_the_first_error(tmp_path):
    script = Script(tmp_path, worker="exit 7", settings={"custom": OWN})
    assert script.ended() == 7
    assert script.lines()[-1] == "lingered"


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_a_job_that_alone_is_asked_to_end_takes_its_worker_along(tmp_path, shell, monkeypatch):
    monkeypatch.setattr(script_module, "PATIENCE", 1)
    worker = WAITS.replace("{more}", "0")
    script = Script(tmp_path, worker=worker, shell=shell)
    script.until("worker")
    os.kill(script.process.pid, signal.SIGTERM)
    assert script.ended() == 3
    assert script.lines()[1] == "term"
    assert "linger --until=60" in script.lines()[2].replace("-m ensemblerl.supervisor.", "")


def test_a_worker_that_the_queue_has_told_to_end_is_not_told_twice(tmp_path):
    script = Script(tmp_path, worker=WAITS.replace("{more}", "1"))
    script.until("worker")
    os.killpg(script.process.pid, signal.SIGTERM)
    assert script.ended() == 3
    assert script.lines().count("term") == 1


def test_a_job_asked_to_end_while_it_waits_for_members_waits_a_moment_only(tmp_path):
    # the first wait would take for ever; the second is told how long
    linger = 'case "$*" in *until*) ;; *) sleep 1000 & wait ;; esac'
    script = Script(tmp_path, worker="exit 5", linger=linger)
    script.until("linger")
    os.kill(script.process.pid, signal.SIGTERM)
    assert script.ended() == 5
    assert "--until=60" in script.lines()[-2]


def test_a_worker_of_the_job_connects_encrypted_with_the_threads_asked_for(tmp_path):
    from dask_jobqueue import SLURMCluster
    from distributed import Client, Security

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arguments = cluster_arguments(
            jobs(host="127.0.0.1"),
            slots=3,
            member_cores=1,
            directory=tmp_path,
            security=Security.temporary(),
        )
        cluster = SLURMCluster(**arguments)
    with cluster, Client(cluster) as client:
        keys = list(tmp_path.glob(".dask-jobqueue*"))
        assert keys
        assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
        assert cluster.scheduler.allowed_failures == 0
        assert cluster.scheduler.services["dashboard"].address == "127.0.0.1"
        text = cluster.job_script()
        assert "--protocol tls://" in text
        job = subprocess.Popen(
            ["bash", "-c", text],
            cwd=tmp_path,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            client.wait_for_workers(1, timeout=60)
            (worker,) = client.scheduler_info()["workers"].values()
            assert (worker["nthreads"], worker["memory_limit"]) == (3, 0)
            os.kill(job.pid, signal.SIGTERM)
            _, errors = job.communicate(timeout=60)
        finally:
            subprocess.run(["pkill", "-KILL", "-s", str(job.pid)], check=False)
    assert job.returncode == 0, errors


def test_our_lines_begin_where_the_text_says_and_need_no_quoting(tmp_path):
    text = text_of(jobs(), tmp_path)
    assert text.count(FIRST) == 1
    assert shlex.quote(sys.executable) in text
