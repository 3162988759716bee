"""`memcomp sweep --slurm` on a throw-away Slurm of one node, on the loopback address.

Runs as root where Debian's slurm-wlm and munge are installed, and skips with a reason elsewhere.
"""

import os
import shutil
import subprocess
import threading
import time

import dask
import pytest
import yaml
from test_sweep import project, scheduler  # noqa: F401

from memcomp import cluster
from memcomp.__main__ import main

NEEDED = ("sbatch", "slurmctld", "slurmd", "munged", "mungekey")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, NEEDED)), reason=f"needs Slurm: one of {', '.join(NEEDED)} is not installed"
    ),
    pytest.mark.skipif(os.getuid() != 0, reason="a throw-away Slurm has to be started as root"),
]

CONFIGURATION = """
ClusterName=memcomp
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=small Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def slurm(tmp_path_factory, monkeypatch):
    """Start a controller and a node; stop both by their process ids."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("munge", "spool", "state"):
        (folder / name).mkdir()
    (folder / "munge").chmod(0o755)
    for parent in (folder, *folder.parents[:3]):  # munged wants its socket reachable
        parent.chmod(parent.stat().st_mode | 0o011)
    host = subprocess.run(["hostname", "-s"], capture_output=True, text=True, check=True).stdout.strip()
    configuration = CONFIGURATION.format(
        folder=folder, host=host, controller=26817, daemon=26818, cpus=os.cpu_count()
    )
    (folder / "slurm.conf").write_text(configuration)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    munge = folder / "munge"
    try:
        subprocess.run(["mungekey", "--create", f"--keyfile={munge}/key"], check=True)
        files = [f"--{what}={munge}/{name}" for what, name in
                 (("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"), ("log-file", "log"),
                  ("seed-file", "seed"))]  # fmt: skip
        subprocess.run(["munged", *files], check=True)
        subprocess.run(["slurmctld", "-c"], check=True)
        subprocess.run(["slurmd", "-N", host], check=True)
        deadline = time.monotonic() + 60
        while "idle" not in _out("sinfo", "-h", "-o", "%T"):
            assert time.monotonic() < deadline, (folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.5)
        yield folder
    finally:
        for name in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
            if (folder / name).exists():
                os.kill(int((folder / name).read_text()), 15)


def _out(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


def _no_jobs_are_left():
    deadline = time.monotonic() + 120
    while (left := _out("squeue", "-h").strip()) and time.monotonic() < deadline:
        time.sleep(1)
    return not left


OPTIONS = {
    "jobs": 2,
    "queue": "small",
    "cores": 1,
    "processes": 1,
    "memory": "1GB",
    "walltime": "00:10:00",
    "interface": "lo",
}


def test_a_sweep_runs_as_slurm_jobs_that_end_with_it(slurm, project):  # noqa: F811
    (project.folder / "slurm.yaml").write_text(yaml.safe_dump(OPTIONS))
    code = main(["sweep", "toy", "--slurm", "slurm.yaml", "-p", "points", "8", "-p", "seconds", "1.0"])
    out, err = project.capsys.readouterr()
    assert code == 0, err
    assert "8 points, 0 were stored, 8 computed, 0 failed" in out
    assert len(project.records()) == 8
    assert list((project.folder / "runs/slurm").glob("*.out")), "the jobs left no log"
    assert _no_jobs_are_left()


def test_jobs_that_end_too_early_are_followed_by_others(slurm, project, monkeypatch):  # noqa: F811
    """Both jobs are cancelled at work, as when their time is up; the sweep goes on by itself."""
    (project.folder / "slurm.yaml").write_text(yaml.safe_dump(OPTIONS))
    monkeypatch.setattr(cluster, "RESUBMIT_SECONDS", 1)
    cancelled = []

    def cancel():
        deadline = time.monotonic() + 120
        while len(project.ledger("end")) < 4 and time.monotonic() < deadline:
            time.sleep(0.1)
        cancelled.extend(_out("squeue", "-h", "-o", "%i").split())
        subprocess.run(["scancel", *cancelled], check=True)

    thread = threading.Thread(target=cancel)
    thread.start()
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}):
        code = main(["sweep", "toy", "--slurm", "slurm.yaml", "-p", "points", "12", "-p", "seconds", "1.0"])
    thread.join()
    out, err = project.capsys.readouterr()
    assert code == 0, err
    assert len(cancelled) == 2
    assert "12 points, 0 were stored, 12 computed, 0 failed" in out
    assert len(project.records()) == 12
    assert len(project.ledger("start")) - 12 <= 2, "a cancelled job costs the point that it was computing"
    assert _no_jobs_are_left()


def test_an_option_that_slurm_clusters_do_not_know_is_refused(slurm, project):  # noqa: F811
    (project.folder / "slurm.yaml").write_text("jobs: 1\ncores: 1\nmemory: 1GB\nqueu: small\n")
    assert main(["sweep", "toy", "--slurm", "slurm.yaml"]) == 2
    assert "no option 'queu', did you mean 'queue'?" in project.capsys.readouterr().err
