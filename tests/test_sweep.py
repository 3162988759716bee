"""`memcomp sweep`: nothing finished is lost, nothing is computed twice without need, failures are told."""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from dask.distributed import Client

from memcomp import chapters, cluster, experiments, records, sweep
from memcomp.__main__ import main

# An experiment whose points write down when they start and end.
TOY = """
import dataclasses, os, pathlib, time
from memcomp import records

HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Config:
    number: int
    seconds: float
    epochs: int = 1


def grid(points=6, seconds=0.2):
    return [Config(number, seconds) for number in range(points)]


def work(config):
    return config.epochs


@records.experiment("toy", version=1)
def run(config, bad=""):
    ledger = os.open(HERE / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, f"start {config.number} {os.getpid()}\\n".encode())
    print("hello from point", config.number)
    time.sleep(config.seconds)
    if bad == "raise" and config.number == 1:
        raise ValueError("out of luck")
    if bad == "die" and config.number == 1:
        os._exit(1)
    os.write(ledger, f"end {config.number} {os.getpid()}\\n".encode())
    os.close(ledger)
    return {"loss": float("nan") if bad == "nan" and config.number == 1 else config.number}
"""

# memcomp's command line, with that experiment for its only chapter.
DRIVER = """
import importlib.util, os, pathlib, sys
import cloudpickle
from memcomp import chapters, cluster, experiments

HERE = pathlib.Path(__file__).parent


def install():
    name = "memcomp.experiments.toy"
    spec = importlib.util.spec_from_file_location(name, HERE / "toy.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cloudpickle.register_pickle_by_value(module)
    experiments.CHAPTERS.clear()
    experiments.CHAPTERS["01_toy"] = ("toy",)
    chapters.project = lambda: HERE


if __name__ == "__main__":
    from memcomp.__main__ import main

    install()
    cluster.PATIENCE_SECONDS = int(os.environ.get("MEMCOMP_TEST_PATIENCE", 60))
    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """Start two workers for all tests of this file; return the address of their scheduler."""
    with cluster.connect(workers=2, folder=tmp_path_factory.mktemp("runs")) as client:
        yield client.scheduler.address


class Project:
    """A small checkout with the toy experiment in it."""

    def __init__(self, folder, capsys, scheduler):
        self.folder, self.capsys, self.scheduler = folder, capsys, scheduler
        (folder / "notebooks").mkdir()
        (folder / "profiles").mkdir()
        source = "points = 6\nseconds = 0.2\nbad = ''"
        cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        notebook = nbformat.v4.new_notebook(cells=[cell], metadata=kernel)
        nbformat.write(notebook, folder / "notebooks/01_toy.ipynb")
        (folder / "toy.py").write_text(TOY)
        (folder / "driver.py").write_text(DRIVER)

    def start(self, *arguments, environment=None, **more):
        """Start a sweep in a process of its own, with workers of its own."""
        return subprocess.Popen(
            [sys.executable, "driver.py", "sweep", "toy", *arguments],
            cwd=self.folder,
            env=os.environ | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def sweep(self, *arguments):
        """Run a sweep in this process, on the workers of this file."""
        code = main(["sweep", "toy", "--scheduler", self.scheduler, *arguments])
        out, err = self.capsys.readouterr()
        return code, out, err

    def ledger(self, what):
        path = self.folder / "ledger"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [tuple(map(int, line.split()[1:])) for line in lines if line.startswith(what)]

    def under_way(self):
        """Return the processes of the points that have started and not ended."""
        ended = set(self.ledger("end"))
        return [one[1] for one in self.ledger("start") if one not in ended]

    def wait_for_ends(self, count, process):
        deadline = time.monotonic() + 120
        while len(self.ledger("end")) < count:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the sweep makes no progress"
            time.sleep(0.02)

    def records(self):
        return records.load("toy", "quick")


@pytest.fixture
def project(tmp_path, monkeypatch, capsys, scheduler):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMCOMP_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(experiments, "CHAPTERS", {})
    monkeypatch.setattr(chapters, "project", chapters.project)  # so that it is put back afterwards
    monkeypatch.setitem(sys.modules, "memcomp.experiments.toy", None)
    made = Project(tmp_path, capsys, scheduler)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "driver", raising=False)
    __import__("driver").install()
    return made


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def once(numbers):
    return dict.fromkeys(range(numbers), 1)


def test_a_sweep_computes_every_point_once_and_the_next_one_none(project):
    code, out, err = project.sweep()
    assert code == 0, err
    assert "6 points, 0 were stored, 6 computed, 0 failed" in out
    assert "http://127.0.0.1:" in out
    assert sorted(record["metrics"]["loss"] for record in project.records()) == list(range(6))
    code, out, _ = project.sweep()
    assert "6 points, 6 were stored, 0 computed, 0 failed" in out
    assert Counter(number for number, _ in project.ledger("start")) == once(6)
    assert len({pid for _, pid in project.ledger("start")}) == 2


@pytest.mark.slow
def test_nothing_is_written_outside_the_project(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    folders = {name: str(elsewhere) for name in ("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    with project.start("--workers", "1", "-p", "points", "2", environment=folders) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert len(project.records()) == 2
    assert not list(elsewhere.iterdir())


def test_what_a_point_prints_is_in_its_own_log(project):
    project.sweep("-p", "points", "2")
    logs = sorted(path.read_text() for path in (project.folder / "runs/sweep/quick/toy").glob("*.log"))
    assert logs == ["hello from point 0\n", "hello from point 1\n"]


@pytest.mark.slow
def test_killed_workers_and_a_killed_client_lose_nothing(project):
    """Forty points, a worker killed twice, the client killed once: forty good records."""
    points = ("-p", "points", "40")
    with project.start("--workers", "2", *points) as process:
        for ends in (4, 8):
            project.wait_for_ends(ends, process)
            while not (busy := [pid for pid in project.under_way() if running(pid)]):
                time.sleep(0.02)
            os.kill(busy[-1], signal.SIGKILL)
        project.wait_for_ends(14, process)
        workers = {pid for _, pid in project.ledger("start")}
        process.kill()
    deadline = time.monotonic() + 60
    while any(map(running, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(running, workers)), "workers outlive their client"
    kept = len(project.records())
    assert kept >= 12
    code, out, err = project.sweep(*points)
    assert code == 0, err
    assert f"40 points, {kept} were stored, {40 - kept} computed, 0 failed" in out
    assert sorted(record["metrics"]["loss"] for record in project.records()) == list(range(40))
    # Each kill costs at most the points that were under way: one for a worker, two for the client.
    assert len(project.ledger("start")) - 40 <= 4
    leftovers = [path for path in project.folder.rglob(".*") if path.is_file()]
    assert not leftovers


INTERRUPTED = "memcomp: interrupted; finished points are stored, and the same command goes on"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_sweep_ends_at_once_with_one_sentence(project, number):
    """Its points would take an hour, and Ctrl-C on a terminal reaches its workers, too."""
    with project.start("--workers", "2", "-p", "seconds", "3600", start_new_session=True) as process:
        while len(busy := project.under_way()) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        started = time.monotonic()
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - started < 20  # half a second on a machine with nothing else to do
    assert process.returncode == 128 + number
    assert err.strip().split("\n")[-1] == INTERRUPTED
    assert "Traceback" not in err
    wait_until(lambda: not any(map(running, busy)))
    assert not project.records()
    assert not list(project.folder.rglob("*.tmp"))


HOLDS_A_SEMAPHORE = """
import multiprocessing, os, signal
from multiprocessing.resource_tracker import _resource_tracker
from memcomp import cluster
with cluster.ending_at_once("interrupted"):
    lock = multiprocessing.get_context("spawn").Lock()
    if {first}:
        os.kill(_resource_tracker._pid, signal.SIGHUP)
        os.waitpid(_resource_tracker._pid, 0)
    else:
        multiprocessing.util._finalizer_registry.clear()  # as if a worker had held it, and was killed
    os.kill(os.getpid(), signal.SIGHUP)
"""


@pytest.mark.parametrize("first", [True, False], ids=["tracker ends first", "lock is left"])
def test_nothing_is_said_of_semaphores_after_the_sentence(first):
    """The end of a terminal also ends the process in which Python keeps count of semaphores."""
    code = HOLDS_A_SEMAPHORE.format(first=first)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (128 + signal.SIGHUP, "\nmemcomp: interrupted\n")


@pytest.mark.slow
def test_a_sweep_interrupted_while_its_workers_start_ends_with_one_sentence(project):
    with project.start("--workers", "2") as process:
        wait_until(lambda: len(psutil.Process(process.pid).children()) >= 2)
        children = [child.pid for child in psutil.Process(process.pid).children()]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, INTERRUPTED)
    wait_until(lambda: not any(map(running, children)))


@pytest.mark.slow
def test_a_sweep_under_nohup_outlives_its_terminal(project):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with project.start("--workers", "1", "-p", "points", "3", preexec_fn=ignore) as process:
        project.wait_for_ends(1, process)
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert len(project.records()) == 3


def test_workers_of_this_machine_are_not_given_up_for_their_silence(scheduler):
    """After Ctrl-Z, or in a laptop that was closed, none was heard of for longer than Dask waits."""
    with Client(scheduler) as client:
        assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.worker_ttl) is None


def slurm(folder, jobs):
    """Put a Slurm in the way of which no job ever starts; it writes down what it is asked for."""
    commands = folder / "bin"
    commands.mkdir()
    for name, answer in (("sbatch", "echo Submitted batch job $$"), ("scancel", ":")):
        (commands / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {folder}/asked\n{answer}\n')
        (commands / name).chmod(0o755)
    options = f"jobs: {jobs}\nqueue: small\ncores: 1\nmemory: 1GB\nwalltime: '00:10:00'\ninterface: lo\n"
    (folder / "slurm.yaml").write_text(options)
    return {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.slow
def test_jobs_that_do_not_start_are_told_of_and_cancelled_by_an_interruption(project):
    """The driver has little patience; this test has much."""
    environment = slurm(project.folder, 2) | {"MEMCOMP_TEST_PATIENCE": "0"}
    with project.start("--slurm", "slurm.yaml", environment=environment) as process:
        told = ""
        while "waiting for" not in told:
            told = process.stderr.readline()
            assert told or process.poll() is None
        assert "no worker has come to compute toy, 6 points in all; `squeue --me` says" in told
        assert "runs/slurm" in told
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().split("\n")[-1] == INTERRUPTED
    asked = (project.folder / "asked").read_text().split("\n")
    assert len([line for line in asked if line.startswith("sbatch")]) == 2
    assert len([line for line in asked if line.startswith("scancel")][-1].split()) == 3


@pytest.mark.slow
def test_a_job_that_slurm_does_not_take_ends_the_sweep_with_its_reason(project, monkeypatch):
    environment = slurm(project.folder, 2)
    monkeypatch.setenv("PATH", environment["PATH"])
    refusal = "#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n"
    (project.folder / "bin/sbatch").write_text(refusal)
    assert main(["sweep", "toy", "--slurm", "slurm.yaml"]) == 1
    err = project.capsys.readouterr().err
    assert "slurm.yaml: Slurm takes no such job: sbatch: error: invalid partition" in err
    assert "Traceback" not in err
    monkeypatch.setenv("PATH", str(project.folder / "nowhere"))
    assert main(["sweep", "toy", "--slurm", "slurm.yaml"]) == 2
    assert "no command sbatch here" in project.capsys.readouterr().err


@pytest.mark.slow
def test_a_scheduler_without_workers_is_told_of(project, monkeypatch):
    """The first notice brings the worker that was missing."""
    from dask.distributed import LocalCluster

    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address="127.0.0.1:0") as lonely:
        told = []

        def write(text, file):
            told.append(text)
            lonely.scale(1)

        monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0)
        monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.2)
        monkeypatch.setattr(cluster.tqdm, "write", write)
        code, _, err = project.sweep("--scheduler", lonely.scheduler_address, "-p", "points", "2")
    assert code == 0, err
    assert f"`dask worker {lonely.scheduler_address}` starts one" in told[0]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("raise", "out of luck"),
        ("nan", "only finite numbers"),
        pytest.param("die", "died at every", marks=pytest.mark.slow),
    ],
)
def test_a_failing_point_is_told_by_its_config_and_does_not_stop_the_others(project, bad, reason):
    code, out, err = project.sweep("-p", "bad", bad)
    assert code == 1
    assert "6 points, 0 were stored, 5 computed, 1 failed" in out
    assert "'number': 1" in err
    assert reason in err
    assert len(project.records()) == 5


def test_what_failed_is_left_out_until_it_is_asked_for(project):
    project.sweep("-p", "bad", "raise")
    starts = len(project.ledger("start"))
    code, out, err = project.sweep()
    assert code == 1
    assert "6 points, 5 were stored, 0 computed, 1 failed" in out
    assert "out of luck" in err
    assert len(project.ledger("start")) == starts
    code, out, err = project.sweep("--retry-failed")
    assert code == 0, err
    assert "6 points, 5 were stored, 1 computed, 0 failed" in out
    assert json.loads((project.folder / "runs/sweep/quick/toy/failed.json").read_text()) == []


@pytest.mark.parametrize("folder", ["runs", "results"])
def test_folders_that_take_nothing_are_told_before_a_worker_starts(project, folder, monkeypatch):
    (project.folder / folder).write_text("a file where a folder belongs")
    monkeypatch.setattr(cluster, "connect", None)
    code, _, err = project.sweep()
    assert code == 1
    assert f"nothing can be stored in {project.folder / folder}" in err


@pytest.mark.parametrize("content", ["", "[", '{"a": 1}', "[1]", "null", '[{"key": "x"}]', "[" * 100_000])
def test_a_spoilt_list_of_failures_is_named(project, content):
    listed = project.folder / "runs/sweep/quick/toy/failed.json"
    listed.parent.mkdir(parents=True)
    listed.write_text(content)
    code, _, err = project.sweep()
    assert (code, project.ledger("start")) == (2, [])
    assert "failed.json is not a list of failed points; delete it" in err
    code, _, err = project.sweep("--retry-failed", "-p", "points", "1")
    assert code == 0, err


@pytest.mark.slow
def test_two_sweeps_on_one_folder_share_the_work(project):
    points = ("-p", "points", "16", "-p", "seconds", "0.5")
    with project.start("--workers", "1", *points) as other:
        project.wait_for_ends(1, other)
        code, _, err = project.sweep(*points)
        assert code == 0, err
        _, err = other.communicate(timeout=120)
        assert other.returncode == 0, err
    assert len(project.records()) == 16
    assert Counter(number for number, _ in project.ledger("start")) == once(16)
    assert len({pid for _, pid in project.ledger("start")}) == 3


def test_a_limit_takes_the_first_missing_points(project):
    code, out, err = project.sweep("--limit", "2")
    assert (code, len(project.ledger("end"))) == (0, 2), err
    assert "2 points, 0 were stored, 2 computed" in out
    project.sweep("--limit", "2")
    assert sorted(number for number, _ in project.ledger("end")) == [0, 1, 2, 3]
    project.sweep("--limit", "1", "--fresh")
    assert sorted(number for number, _ in project.ledger("end")) == [0, 0, 1, 2, 3]
    assert "2 points, 0 stored, 2 missing" in project.sweep("--limit", "9", "--dry-run")[1]


def test_fresh_computes_again_what_is_stored(project):
    project.sweep("-p", "points", "3")
    code, out, err = project.sweep("-p", "points", "3", "--fresh")
    assert code == 0, err
    assert "3 points, 0 were stored, 3 computed" in out
    assert Counter(number for number, _ in project.ledger("start")) == dict.fromkeys(range(3), 2)


def test_a_damaged_record_stops_the_sweep_by_name(project):
    project.sweep("-p", "points", "2")
    path = next((project.folder / "results/quick/toy").glob("*.json"))
    path.write_text(path.read_text()[:100])
    code, _, err = project.sweep("-p", "points", "2")
    assert code == 1
    assert f"damaged record results/quick/toy/{path.name}" in err


def test_dry_run_counts_estimates_and_computes_nothing(project):
    project.sweep("-p", "points", "4")
    starts = len(project.ledger("start"))
    code, out, err = project.sweep("-p", "points", "36004", "--dry-run")
    assert code == 0, err
    assert "36004 points, 4 stored, 36000 missing" in out
    # 36,000 points of 0.2 s are two hours of one worker.
    hours, workers = float(out.split("about ")[1].split()[0]), cluster.default_workers()
    assert 1.9 < hours * workers < 2.4
    assert f"on {workers} workers" in out
    assert "the fastest of 4 records of this device" in out
    assert len(project.ledger("start")) == starts


def test_dry_run_on_a_new_device_measures_a_short_run(project):
    code, out, err = project.sweep("--dry-run")
    assert code == 0, err
    assert "one and two epochs of the first point" in out
    assert not (project.folder / "results").exists()


def test_an_estimate_tells_fixed_costs_from_epochs(project, monkeypatch):
    """Libraries take 20 s once, a point 3 s and 0.5 s an epoch: 4 points of 11 epochs take 34 s."""
    (grid,) = sweep.grids("01_toy", given={"points": "4"})
    ran, clock = [], [0.0]
    monkeypatch.setattr(sweep, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    @records.experiment("toy", version=1)
    def run(config):
        clock[0] += 3 + 0.5 * config.epochs + (0 if ran else 20)
        ran.append(config.epochs)

    configs = {key: dataclasses.replace(one, epochs=11) for key, one in grid.configs.items()}
    seconds, _ = sweep.estimate(dataclasses.replace(grid, run=functools.partial(run), configs=configs))
    assert seconds == pytest.approx(4 * (3 + 11 * 0.5))
    assert sum(ran) == 4


def test_an_estimate_for_points_without_epochs_measures_the_first(project, monkeypatch):
    """Libraries take 20 s once, a point 3 s for each unit of work: 1 + 2 + 3 units take 18 s."""
    (grid,) = sweep.grids("01_toy", given={"points": "3"})
    ran, clock = [], [0.0]
    monkeypatch.setattr(sweep, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    @dataclasses.dataclass(frozen=True)
    class Config:
        number: int

    @records.experiment("toy", version=1)
    def run(config):
        clock[0] += 3 * (config.number + 1) + (0 if ran else 20)
        ran.append(config.number)

    configs = {key: Config(number) for number, key in enumerate(grid.configs)}
    changes = {"run": functools.partial(run), "configs": configs, "work": lambda config: config.number + 1}
    assert sweep.estimate(dataclasses.replace(grid, **changes)) == (18, "the first point")
    assert ran == [0, 0]


def test_points_for_a_gpu_are_refused_where_there_is_none(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MEMCOMP_RESULTS", str(tmp_path))
    monkeypatch.setattr(cluster, "gpus", lambda: 0)
    assert main(["sweep", "08", "--profile", "paper"]) == 2
    assert "-p device cpu" in capsys.readouterr().err
    assert main(["sweep", "08", "--profile", "paper", "--dry-run"]) == 0
    assert "0 stored, 8000 missing; hours unknown here (device: cuda" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_each_worker_sees_only_its_own_gpu(monkeypatch, tmp_path):
    """No GPU is needed for this: a worker is told by a variable which one is its own."""
    monkeypatch.setattr(cluster, "gpus", lambda: 2)
    assert cluster.default_workers() == 2
    assert cluster.default_workers(per_gpu=3) == 6
    assert cluster.default_workers(workers=5, per_gpu=3) == 5
    for allowed, seen in ((None, {"0": 2, "1": 2}), ("5,GPU-7f", {"5": 1, "GPU-7f": 1})):
        if allowed is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
        with cluster.connect(per_gpu=max(seen.values()), folder=tmp_path) as client:
            client.wait_for_workers(sum(seen.values()))
            found = client.run(lambda: __import__("os").environ["CUDA_VISIBLE_DEVICES"])
            threads = client.nthreads()
        assert Counter(found.values()) == seen
        assert set(threads.values()) == {1}


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_an_error(project):
    code, _, err = project.sweep("--scheduler", "tcp://127.0.0.1:9")
    assert code == 1
    assert "tcp://127.0.0.1:9" in err


def test_a_slurm_file_without_jobs_is_refused_with_an_example(project):
    (project.folder / "slurm.yaml").write_text("queue: gpu\n")
    code = main(["sweep", "toy", "--slurm", "slurm.yaml"])
    assert code == 2
    message = project.capsys.readouterr().err
    assert "jobs: N" in message
    assert "profiles/slurm.example.yaml" in message


@pytest.fixture(scope="module")
def quick_grids():
    return {chapter: sweep.grids(chapter) for chapter in experiments.CHAPTERS}


@pytest.mark.parametrize("chapter", sorted(experiments.CHAPTERS))
def test_quick_records_of_every_chapter_are_complete_and_no_other_lies_there(chapter, quick_grids):
    every = [grid for grids in quick_grids.values() for grid in grids]
    for grid in quick_grids[chapter]:
        assert not grid.missing()
        if chapter != "13_your_network":  # where readers keep what their own networks did
            stored = {path.stem for path in grid.folder().glob("*.json")}
            # Two chapters may show points of one experiment.
            assert stored == {key for one in every if one.folder() == grid.folder() for key in one.configs}


def test_every_chapter_of_experiments_has_a_notebook_and_a_paper_profile():
    for chapter in experiments.CHAPTERS:
        assert chapter in chapters.notebooks()
        assert chapters.parameters(chapter, "paper")["profile"] == "paper"
        assert all(grid.profile == "paper" for grid in sweep.grids(chapter, "paper"))
