"""Runs the Python session that a page of the guide shows."""

import subprocess
import sys

CODE = """
import doctest, pathlib, re, sys
page = pathlib.Path(sys.argv[1]).read_text()
blocks = re.findall(r"^```pycon\\n(.*?)^```$", page, flags=re.M | re.S)
test = doctest.DocTestParser().get_doctest("\\n".join(blocks), {}, sys.argv[1], None, 0)
runner = doctest.DocTestRunner()
runner.run(test)
print(runner.summarize().attempted, runner.summarize().failed)
import memcomp; print(memcomp.__file__)
"""


def run(page, folder, env, timeout):
    """Run a page's session in a folder, in a process of its own.

    Returns
    -------
    attempted : int
        Examples.
    where : str
        File of the package that they used.
    """
    done = subprocess.run(
        [sys.executable, "-c", CODE, page],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    counts, where = done.stdout.strip().splitlines()[-2:]
    attempted, failed = map(int, counts.split())
    assert failed == 0, done.stdout
    return attempted, where
