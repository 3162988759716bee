"""The benchmark runs, and its ratio holds in one run on this machine, however busy."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_fifty_times_as_fast_as_the_pseudo_inverse():
    command = [sys.executable, "-m", "benchmarks.linear", "--quick", "--rounds", "1"]
    root = Path(__file__).resolve().parents[1]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout
    small = re.search(r"^ +1\.50 +(.*)$", output, re.MULTILINE).group(1).split()
    ours, pinv, _, _, ratio, _, _, difference = small
    assert float(ratio.rstrip("x")) == pytest.approx(float(pinv) / float(ours), rel=0.02)
    assert float(ratio.rstrip("x")) >= 50
    assert float(difference) < 1e-10
    large = output.splitlines()[-1].split()
    assert (int(large[0]), int(large[1])) == (10_000, 100_000)
    assert float(large[-1]) < 1e-9
