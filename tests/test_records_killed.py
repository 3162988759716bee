"""Worker processes, clusters and `kill -9`: no finished record is lost, and none is computed twice.

The experiment writes a line to a log when it starts and when it ends, so that the tests count what really
happened. The processes are real, and so are the kills.
"""

import collections
import contextlib
import functools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from memcomp import records

pytestmark = pytest.mark.slow

PYTHON_SCRIPT = """
import functools, sys
import test_records_killed as here
from memcomp import records
root, log, points, wait = sys.argv[1:]
found = records.collect(
    functools.partial(here.logged, log=log), here.grid(int(points), float(wait)), root=root, workers=2
)
print(len(found))
"""


def note(log, event, x):
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{event} {x} {os.getpid()}\n".encode())  # one short appending write is not interleaved
    os.close(handle)


@records.experiment("logged", version=1)
def logged(config, log):
    note(log, "start", config["x"])
    while os.path.exists(log + ".closed"):  # a gate that a test may close
        time.sleep(0.02)
    time.sleep(config["wait"])
    if config.get("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    note(log, "end", config["x"])
    return {"square": config["x"] ** 2}


def grid(points, wait):
    return [{"x": x, "wait": wait} for x in range(points)]


class Log:
    def __init__(self, path):
        self.path = path

    def events(self, event):
        lines = pathlib.Path(self.path).read_text().split("\n")[:-1] if os.path.exists(self.path) else []
        return [(int(x), int(pid)) for name, x, pid in map(str.split, lines) if name == event]

    def count(self, event):
        return collections.Counter(x for x, _ in self.events(event))

    def busy_process(self, but=()):
        """Wait until some worker is in the middle of a point; return its process id."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            for _, pid in set(self.events("start")) - set(self.events("end")):
                if pid not in but and psutil.pid_exists(pid):
                    return pid
            time.sleep(0.01)
        raise AssertionError("no worker came up")


@pytest.fixture
def log(tmp_path):
    return Log(str(tmp_path / "log"))


def stored_points(root):
    return sorted(record["config"]["x"] for record in records.load("logged", root=root))


def start_client(root, log, points, wait):
    return subprocess.Popen(
        [sys.executable, "-c", PYTHON_SCRIPT, root, log.path, str(points), str(wait)],
        cwd=pathlib.Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def wait_for(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_workers_have_one_thread_each_and_write_the_records_themselves(tmp_path, log):
    run = functools.partial(logged, log=log.path)
    found = records.collect(run, grid(4, 0.3), root=tmp_path, workers=2, progress=False)
    assert [record["metrics"]["square"] for record in found] == [0, 1, 4, 9]
    assert {record["provenance"]["threads"] for record in found} == {1}
    processes = {pid for _, pid in log.events("start")}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert not any(psutil.pid_exists(pid) for pid in processes)  # none is left behind


def test_forty_points_survive_two_dead_workers_and_a_dead_client(tmp_path, log):
    """The client of the first run is killed; in the second run a worker is killed twice."""
    root, points, wait = str(tmp_path / "results"), 40, 0.15
    client = start_client(root, log, points, wait)
    wait_for(lambda: len(log.events("end")) >= 8)
    os.kill(client.pid, signal.SIGKILL)
    client.communicate()
    first = {pid for _, pid in log.events("start")}
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in first), seconds=60)  # workers follow it
    ended = log.count("end")
    survived = stored_points(root)  # reads and checks every record
    # A point can have ended in the instant before its record was written, one for each of the two workers.
    assert len(set(ended) - set(survived)) <= 2
    assert 8 - 2 <= len(survived) < points

    outcome = []
    run = functools.partial(logged, log=log.path)

    def second_run():
        outcome.extend(records.collect(run, grid(points, wait), root=root, workers=2, progress=False))

    thread = threading.Thread(target=second_run)
    thread.start()
    for _ in range(2):
        victim = log.busy_process(but=first)
        os.kill(victim, signal.SIGKILL)
        first.add(victim)
    thread.join(timeout=400)

    assert [record["config"]["x"] for record in outcome] == list(range(points))
    assert stored_points(root) == list(range(points))
    starts, ends = log.count("start"), log.count("end")
    assert all(starts[x] == 1 for x in survived)  # what was stored was not computed again
    assert sum(ends.values()) - points <= 2 + 2  # points computed twice: those in the hands of the four dead
    assert sum(starts.values()) - points <= 2 + 2
    leftovers = [p.name for p in pathlib.Path(root, "quick", "logged").iterdir() if p.suffix != ".json"]
    assert all(name.startswith(".") for name in leftovers)


def test_two_clients_on_one_folder_share_the_work(tmp_path, log):
    root, points = str(tmp_path / "results"), 12
    gate = pathlib.Path(log.path + ".closed")
    gate.touch()
    clients = [start_client(root, log, points, 0.1) for _ in range(2)]
    # All four workers are at work, on four different points, before the first one may end.
    wait_for(lambda: len({pid for _, pid in log.events("start")}) == 4)
    gate.unlink()
    assert [client.communicate(timeout=400)[0].strip() for client in clients] == [str(points)] * 2
    assert stored_points(root) == list(range(points))
    assert log.count("start") == collections.Counter(range(points))  # each point once, by one of the two
    assert {p.suffix for p in pathlib.Path(root, "quick", "logged").iterdir()} == {".json"}


def test_a_point_that_kills_its_worker_every_time_is_reported_and_stops_no_other(tmp_path, log):
    points = grid(3, 0.1)
    points[1]["deadly"] = True
    run = functools.partial(logged, log=log.path)
    with pytest.raises(
        records.PointsFailed, match=r'"deadly":true.*its worker process died at every attempt'
    ):
        records.collect(run, points, root=tmp_path, workers=1, progress=False)
    assert stored_points(tmp_path) == [0, 2]
    assert log.count("start")[1] == 3


def test_functions_of_a_notebook_run_in_the_workers(tmp_path):
    import nbclient
    import nbformat

    source = f"""
from memcomp import records
offset = 10

@records.experiment("from_notebook", version=1)
def run(config):
    return {{"y": config["x"] + offset}}

found = records.collect(run, [{{"x": x}} for x in range(3)], root={str(tmp_path)!r}, workers=1)
print([record["metrics"]["y"] for record in found])
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, timeout=400, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    printed = "".join(o["text"] for o in outputs if o["output_type"] == "stream" and o["name"] == "stdout")
    assert printed == "[10, 11, 12]\n"
    bar = "".join(o["text"] for o in outputs if o["output_type"] == "stream" and o["name"] == "stderr")
    assert "3/3" in bar
    assert "distributed" not in bar  # no log lines between the reader and the bar


def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import functools, test_records_killed as here\n"
        "from memcomp import records\n"
        f"run = functools.partial(here.logged, log={str(tmp_path / 'log')!r})\n"
        f"records.collect(run, here.grid(2, 0), root={str(tmp_path)!r})\n"
    )
    path = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parent)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=path, timeout=400)
    assert done.returncode == 1
    assert 'under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]


@contextlib.contextmanager
def cluster(workers):
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as local,
        Client(local) as client,
    ):
        yield client


def test_a_dask_cluster_computes_the_same_and_its_killed_worker_loses_nothing(tmp_path, log):
    run = functools.partial(logged, log=log.path)
    points = [*grid(12, 0.2), {"x": -1, "wait": "long"}, {"x": 3, "wait": 0.2}]
    failure = []

    def collect(client):
        try:
            records.collect(run, points, client, root=tmp_path, progress=False)
        except records.PointsFailed as error:
            failure.append(error)

    with cluster(2) as client:
        thread = threading.Thread(target=collect, args=(client,))
        thread.start()
        wait_for(lambda: len(log.events("end")) >= 3)
        victim = log.busy_process()
        os.kill(victim, signal.SIGKILL)
        thread.join(timeout=400)
        assert client.run(os.getpid)  # the client and its cluster are still ours to use
        assert stored_points(tmp_path) == list(range(12))
        assert [config["x"] for config, _, _ in failure[0].failures] == [-1]
        assert "TypeError" in str(failure[0])
        starts = log.count("start")
        assert sum(starts[x] for x in range(12)) - 12 <= 1  # only the point in the victim's hands
        good = [config for config in points if config["x"] >= 0]
        again = records.collect(run, good, client, root=tmp_path, progress=False)
        assert log.count("start") == starts
        assert [r["config"]["x"] for r in again] == [*range(12), 3]
    with pytest.raises(ValueError, match="workers or client, not both"):
        records.collect(run, good, client, root=tmp_path, workers=2)


@contextlib.contextmanager
def dask_process(*command):
    here = str(pathlib.Path(__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *command],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": here},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_a_dead_scheduler_is_told_and_costs_no_finished_record(tmp_path, log):
    from dask.distributed import Client

    where, points = str(tmp_path / "scheduler.json"), 20
    run = functools.partial(logged, log=log.path)
    with (
        dask_process(
            "scheduler", "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", where
        ) as scheduler,
        dask_process(
            "worker", "--scheduler-file", where, "--nthreads", "1", "--local-directory", str(tmp_path)
        ),
        Client(scheduler_file=where, timeout=60) as client,
    ):

        def kill():
            wait_for(lambda: len(log.events("end")) >= 4)
            scheduler.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        with pytest.raises(ConnectionError, match=r"lost the Dask scheduler .* Finished points are stored"):
            records.collect(run, grid(points, 0.3), client, root=tmp_path, progress=False)
        thread.join()
    done = stored_points(tmp_path)
    assert 3 <= len(done) < points
    records.collect(run, grid(len(done) + 2, 0.3), root=tmp_path, workers=0, progress=False)
    assert all(log.count("start")[x] == 1 for x in done)
