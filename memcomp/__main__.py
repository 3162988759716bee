"""The command ``memcomp`` (also ``python -m memcomp``): data · run · sweep."""

import argparse
import os
import shlex
import sys

from memcomp import __version__, paths
from memcomp.records import SHOWN, RecordError

EXIT_FAILED, EXIT_USAGE, EXIT_NOT_PUBLISHED = 1, 2, 3
PUBLISHED = {
    True: "complete",
    False: "readable, but not the published set",
    None: "readable, and not compared with the published set",
}
ROOT_HELP = "folder for both data sets; default $MEMCOMP_DATA, else ./data"


def parser():
    """Return the command line's parser.

    Returns
    -------
    argparse.ArgumentParser
        Its parsed arguments carry the function to call as ``command``.
    """
    top = argparse.ArgumentParser(prog="memcomp", description=__doc__.splitlines()[0])
    top.add_argument("--version", action="version", version=f"memcomp {__version__}")
    commands = top.add_subparsers(required=True, metavar="data | run | sweep")

    data = commands.add_parser("data", help="download MNIST and Omniglot, or say what is there")
    data.add_argument("--root", help=ROOT_HELP)
    data.add_argument(
        "--check",
        action="store_true",
        help="change nothing; status 1 if something is missing, 3 if it is not the published set",
    )
    data.set_defaults(command=_data)

    grid = argparse.ArgumentParser(add_help=False)
    grid.add_argument("chapter", help="a chapter's number or name, or all")
    grid.add_argument(
        "--profile",
        default="quick",
        help="quick (the notebooks' own defaults), paper, or another folder of profiles/",
    )
    grid.add_argument(
        "-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="set a parameter of the notebook; the value is read as YAML",
    )  # fmt: skip

    run = commands.add_parser("run", help="execute chapters with papermill", parents=[grid])
    run.add_argument(
        "--html",
        type=_text,
        metavar="FILE",
        help="write the chapter to this file, too, which can be read alone; one that is there is replaced",
    )
    run.set_defaults(command=_run)

    sweep = commands.add_parser(
        "sweep", help="train the missing points of a chapter's grid with Dask", parents=[grid]
    )
    where = sweep.add_mutually_exclusive_group()
    where.add_argument("--workers", type=_positive, metavar="N", help="worker processes on this machine")
    where.add_argument(
        "--scheduler", type=_text, metavar="ADDRESS", help="use the workers of a running Dask scheduler"
    )
    where.add_argument(
        "--slurm", type=_text, metavar="FILE", help="start workers as Slurm jobs, by the options in FILE"
    )
    sweep.add_argument("--per-gpu", type=_positive, default=1, metavar="N", help="workers that share a GPU")
    sweep.add_argument("--fresh", action="store_true", help="compute every point again")
    sweep.add_argument("--retry-failed", action="store_true", help="also try what failed before")
    sweep.add_argument(
        "--limit", type=_positive, metavar="N", help="only the first N missing points of each grid"
    )
    sweep.add_argument("--dry-run", action="store_true", help="only say what there is to do, and its cost")
    sweep.set_defaults(command=_sweep)
    return top


def _text(text):
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def _positive(text):
    if not text.isdecimal() or not 1 <= len(text) <= 6 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number of at most six digits")
    return int(text)


def _data(arguments):
    from memcomp.data import downloads

    root = arguments.root if arguments.root is not None else os.environ.get("MEMCOMP_DATA") or "data"
    root = paths.typed(root, "--root")
    if root.exists() and not root.is_dir():
        raise ValueError(f"--root is {root}, which is a file; expected a folder")
    states = downloads.check(root) if arguments.check else downloads.fetch(root)
    quoted = shlex.quote(str(root))  # so that the commands shown work from any folder
    for state in states:
        found = PUBLISHED[state.published] if state.complete else "incomplete"
        print(f"{state.name:10} {found}: {state.detail}")
    if all(state.complete for state in states):
        print(f"Chapters find them with `-p data_root {quoted}`, or with `export MEMCOMP_DATA={quoted}`")
        return 0 if all(state.published for state in states) else EXIT_NOT_PUBLISHED
    print(f"`memcomp data --root {quoted}` fetches what is missing")
    return EXIT_FAILED


def _run(arguments):
    from memcomp import chapters, report, sweep

    count, failed = 0, []
    found = chapters.find(arguments.chapter)
    target = report.check_target(arguments.html, found) if arguments.html else None
    for chapter in found:  # what a grid refuses is told before the first chapter starts
        sweep.grids(chapter, arguments.profile, arguments.parameters)
    runs = os.path.relpath(chapters.project() / "runs")
    print(f"progress is told in the newest log under {runs}", flush=True)
    for outcome in chapters.run(found, arguments.profile, arguments.parameters):
        count, error = count + 1, outcome.error
        if error is None:
            grids = sweep.grids(outcome.chapter, arguments.profile, arguments.parameters)
            lacking = [f"{len(grid.missing())} of {grid.experiment}" for grid in grids if grid.missing()]
            if lacking:
                error = f"records are missing afterwards: {', '.join(lacking)}"
        print(f"{outcome.chapter:26}{'failed' if error else 'done':8}{outcome.seconds:7.0f} s", flush=True)
        if error:
            failed.append(f"{outcome.chapter}: {error}\n  log: {os.path.relpath(outcome.log)}")
        elif target:
            told = "replaced" if target.exists() else "written"
            report.write(outcome.notebook, target, _without_folders(arguments))
            print(f"{arguments.html} {told}")
    for line in failed:
        print(line, file=sys.stderr)
    print(f"{count - len(failed)} of {count} chapters done; see {os.path.relpath(outcome.log.parent)}")
    return EXIT_FAILED if failed else 0


def _without_folders(arguments):
    """Return the command of a run as a page tells it: of a path only the last part."""
    words = ["memcomp", "run", arguments.chapter]
    words += ["--profile", arguments.profile] * (arguments.profile != "quick")
    for name, value in arguments.parameters:
        words += ["-p", name, value.rstrip("/").rpartition("/")[2]]
    return shlex.join(words)


def _sweep(arguments):
    from memcomp import chapters, cluster, records, sweep

    found = [
        grid
        for chapter in chapters.find(arguments.chapter)
        for grid in sweep.grids(chapter, arguments.profile, arguments.parameters)
    ]
    if not found:
        print(f"{arguments.chapter} trains nothing; `memcomp run {arguments.chapter}` executes it")
        return 0
    if arguments.limit:
        found = [grid.first(arguments.limit, arguments.fresh) for grid in found]
    if arguments.dry_run:
        workers = cluster.default_workers(arguments.workers, arguments.per_gpu)
        for grid in found:
            seconds, source = sweep.estimate(grid)
            missing = len(grid.missing())
            cost = "hours unknown here"
            if seconds is not None:
                cost = f"about {seconds / workers / 3600:.2f} h on {workers} workers of this device"
            print(
                f"{grid.experiment}: {len(grid.configs)} points, {len(grid.configs) - missing} stored, "
                f"{missing} missing; {cost} ({source})"
            )
        return 0
    here = not (arguments.scheduler or arguments.slurm)
    for grid in found:
        if here and (arguments.fresh or grid.missing()) and grid.lacks_gpu():
            raise ValueError(
                f"the points of {grid.experiment} ask for {sweep.NO_GPU}. Use the workers of a machine that "
                "has one (--scheduler, --slurm), or train on the CPU: -p device cpu"
            )
    failed = []
    where = arguments.workers, arguments.scheduler, arguments.slurm
    runs = chapters.project() / "runs"
    records.make_writable(runs, "use a checkout of your own")
    for grid in found:
        if arguments.fresh or grid.missing():
            records.make_writable(grid.folder())
    with (
        cluster.ending_at_once("interrupted; finished points are stored, and the same command goes on"),
        cluster.connect(*where, per_gpu=arguments.per_gpu, folder=runs) as client,
    ):
        print(f"dashboard: {client.dashboard_link}", flush=True)
        for grid in found:
            stored, computed, lost = sweep.sweep(grid, client, arguments.fresh, arguments.retry_failed)
            done = f"{stored} were stored, {computed} computed, {len(lost)} failed"
            print(f"{grid.experiment}: {len(grid.configs)} points, {done}", flush=True)
            failed += lost
    for one in failed[:SHOWN]:
        print(f"failed: {one['config']}\n  {one['error']}", file=sys.stderr)
    if len(failed) > SHOWN:
        print(f"and {len(failed) - SHOWN} more, listed in runs/sweep", file=sys.stderr)
    if failed:
        print(f"logs are in {runs / 'sweep'}; `--retry-failed` tries these points again", file=sys.stderr)
    return EXIT_FAILED if failed else 0


def main(arguments=None):
    """Run the command line.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the process.

    Returns
    -------
    int
        Exit status: 0 if all went well, 1 if something failed, 2 for a wrong command line, 3 if ``memcomp
        data`` finds data that can be read and are not known to be the published ones.
    """
    chosen = parser().parse_args(arguments)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    sys.stdout.reconfigure(errors="backslashreplace")  # as of stderr: file names need not be of any alphabet
    try:
        paths.settle_variables()
        code = chosen.command(chosen)
        sys.stdout.flush()  # here, where it is told if nobody reads it
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest as it ends
        print("memcomp: whatever read the output has ended", file=sys.stderr)
        return EXIT_FAILED
    except (ValueError, FileNotFoundError) as error:
        print(f"memcomp: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (OSError, RuntimeError, RecordError) as error:
        print(f"memcomp: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("memcomp: interrupted; what was finished is kept", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
