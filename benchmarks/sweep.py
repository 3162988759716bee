"""What the batch layer costs over calling the function in a loop.

``python -m benchmarks.sweep [--points N] [--seconds S]``. The points sleep, so the machine may be busy. The
sweep pays once to start its worker and then a little for each point, for its record on the disk above all.
"""

import argparse
import tempfile
import time

from memcomp import cluster, records


@records.experiment("sleep", version=1)
def run(config):
    """Sleep as long as the config says."""
    time.sleep(config["seconds"])
    return {"slept": config["seconds"]}


def measure(points, seconds):
    """Return the seconds of the loop, of starting a cluster, and of the sweep once it has started."""
    grid = [{"number": number, "seconds": seconds} for number in range(points)]
    start = time.perf_counter()
    for config in grid:
        run(config)
    loop = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as root:
        start = time.perf_counter()
        with cluster.connect(workers=1, folder=root) as client:
            client.wait_for_workers(1)
            started = time.perf_counter() - start
            start = time.perf_counter()
            records.collect(run, grid, client, root=root, progress=False)
            swept = time.perf_counter() - start
    return loop, started, swept


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30.0)
    chosen = parser.parse_args()
    loop, started, swept = measure(chosen.points, chosen.seconds)
    print(f"{chosen.points} points of {chosen.seconds:g} s, one after another")
    print(f"  loop                  {loop:8.2f} s")
    print(f"  sweep                 {swept:8.2f} s   {100 * (swept / loop - 1):.1f} % more")
    print(f"  starting the worker   {started:8.2f} s   once, whatever the number of points")


if __name__ == "__main__":
    main()
