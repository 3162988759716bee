"""`make environment` on machines of all kinds, with the real pip and wheels of a few bytes."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tools import environment

ROOT = Path(__file__).resolve().parents[1]
BACKEND = """
import pathlib, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "memcomp-1-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        wheel.writestr("memcomp.pth", str(pathlib.Path.cwd()))
        info = "memcomp-1.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: memcomp\\nVersion: 1\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def wheel(folder, name, version, code=""):
    """Write a wheel of one module; return the line of a lock that pins it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    code = code or f"VERSION = '{version}'\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(
            f"{info}/RECORD", f"{name}.py,,{len(code)}\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{name}=={version} ; sys_platform != 'none' \\\n    --hash=sha256:{digest}\n"


class Checkout:
    """A folder with a blank, a quote and an umlaut in its name, and what `make environment` reads in it."""

    def __init__(self, folder):
        self.folder, self.wheels = folder / "a reader's häuschen", folder / "wheels"
        (self.folder / "tools").mkdir(parents=True)
        for name in ("Makefile", "tools/venv.sh", "tools/environment.py"):
            shutil.copy(ROOT / name, self.folder / name)
        self.lock = self.folder / "requirements.lock"
        self.lock.write_text(wheel(self.wheels, "alpha", "1.0") + wheel(self.wheels, "beta", "2.0"))
        (self.folder / "pyproject.toml").write_text(PROJECT)
        (self.folder / "backend.py").write_text(BACKEND)
        self.site = self.folder / f".venv/lib/python3.{sys.version_info[1]}/site-packages"

    def command(self, *arguments, path=os.environ["PATH"], **variables):
        keep = {name: os.environ[name] for name in ("HOME", "LANG", "LC_ALL") if name in os.environ}
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": self.wheels.as_uri(), "PIP_CONFIG_FILE": os.devnull}
        # GNU make cannot tell that its folder has a blank in its name, which `-C` would need.
        return {
            "args": ["make", "environment", *arguments],
            "cwd": self.folder,
            "env": {"PATH": path, "PYTHON": sys.executable} | keep | offline | variables,
        }

    def make(self, *arguments, **variables):
        done = subprocess.run(
            **self.command(*arguments, **variables), capture_output=True, text=True, timeout=600
        )
        return done.returncode, done.stdout + done.stderr

    def start(self, *arguments, **variables):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        # A shell lets what it starts in the background ignore interrupts, and so do all processes below.
        heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
        return subprocess.Popen(
            **self.command(*arguments, **variables), **pipes, **heed, start_new_session=True
        )

    def program(self, name, body):
        """Write a program of this name to a folder of programs; return its path."""
        folder = self.folder / "my programs"
        folder.mkdir(exist_ok=True)
        script = folder / name
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        return script

    def lock_another(self):
        """Lock one more package, so that there is something to install."""
        self.lock.write_text(self.lock.read_text() + wheel(self.wheels, "gamma", "1.0"))

    def versions(self):
        code = "import alpha, beta; print(alpha.VERSION, beta.VERSION)"
        done = subprocess.run(
            [self.folder / ".venv/bin/python", "-c", code], stdout=subprocess.PIPE, text=True
        )
        return done.stdout.split()


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a checkout whose environment is complete, and what making it printed."""
    made = Checkout(tmp_path_factory.mktemp("installed"))
    code, said = made.make()
    assert code == 0, said
    return made, said


@pytest.fixture
def complete(installed, tmp_path):
    """Return a checkout whose environment is complete and may be damaged."""
    copy = Checkout(tmp_path)
    shutil.copytree(installed[0].folder / ".venv", copy.folder / ".venv", symlinks=True)
    state = json.loads((copy.folder / ".venv/installed").read_text())
    (copy.folder / ".venv/installed").write_text(json.dumps(state | {"place": str(copy.folder)}))
    return copy


def without_packages(checkout, *arguments, **variables):
    """Make the environment with a pip that cannot install anything."""
    return checkout.make(*arguments, PIP_FIND_LINKS="", **variables)


# --- which Python ----------------------------------------------------------------------------------------


def python_of(checkout, version, name="python-other"):
    """Return a program that says it is this Python, and what it is told to run."""
    major, minor = version.split(".")[:2]
    answers = f"*sys.version_info*) echo {major}.{minor};; --version) echo Python {version};;"
    return checkout.program(name, f'case "$*" in {answers} *) echo "{version} runs $*";; esac')


def test_missing_python_is_named(checkout):
    code, said = checkout.make("PYTHON=no-such-python")
    assert code != 0
    assert "needs Python 3.11 to 3.14" in said
    assert "none was found as no-such-python" in said
    assert not (checkout.folder / ".venv").exists()


@pytest.mark.parametrize("version", ["2.7.18", "3.9.1", "3.15.0", "4.0.1"])
def test_another_python_is_refused_in_one_sentence_that_says_what_to_install(version, checkout):
    other = python_of(checkout, version)
    code, said = checkout.make(f"PYTHON={other}")
    assert code != 0
    (sentence,) = [line for line in said.splitlines() if "memcomp needs" in line]
    assert f"{other} is Python {version}" in sentence
    assert "install Python 3.13" in sentence
    assert "make PYTHON=/path/to/python3.13" in sentence


def test_python_by_a_path_with_a_blank_or_from_the_home_folder(checkout):
    other = python_of(checkout, "3.12.1")
    assert " " in str(other)
    runs = (0, "3.12.1 runs -I tools/environment.py\n")
    assert checkout.make(f"PYTHON={other}") == runs
    home = str(other.parents[1])
    assert checkout.make(f"PYTHON=~/{other.parent.name}/{other.name}", HOME=home) == runs


def test_a_tested_python_is_preferred_to_a_newer_one(checkout):
    folder = python_of(checkout, "3.14.0", "python3").parent
    for minor in (11, 12):
        python_of(checkout, "2.7.1", f"python3.{minor}")  # which cannot be used
    path = f"{folder}:/usr/bin:/bin"
    python_of(checkout, "3.13.0", "python3.13")
    assert checkout.make(PYTHON="", path=path) == (0, "3.13.0 runs -I tools/environment.py\n")
    python_of(checkout, "3.15.0", "python3.13")
    assert checkout.make(PYTHON="", path=path) == (0, "3.14.0 runs -I tools/environment.py\n")


def test_python_3_14_is_said_to_be_untested(monkeypatch, capsys, tmp_path):
    def stop():
        raise environment.Failed("stopped")

    monkeypatch.setattr(environment, "TESTED", ())
    monkeypatch.setattr(environment, "make", stop)
    monkeypatch.setattr(environment, "ENVIRONMENT", tmp_path)
    monkeypatch.setattr(environment, "PYTHON", tmp_path / "no-python")
    monkeypatch.setattr(environment, "STATE", tmp_path / "no-state")
    assert environment.main() == 1
    said = capsys.readouterr().err
    assert ", which memcomp was not tested with\nNothing was built: stopped" in said


def test_the_versions_of_python_are_told_alike():
    project = (ROOT / "pyproject.toml").read_text()
    assert 'requires-python = ">=3.11,<3.15"' in project
    script = (ROOT / "tools/venv.sh").read_text()
    assert " | ".join(f"{major}.{minor}" for major, minor in environment.TESTED) in script
    assert "Python 3.11 to 3.13" in (ROOT / "README.md").read_text()


# --- one make --------------------------------------------------------------------------------------------


def test_an_environment_is_made_in_a_few_lines_and_not_again(installed):
    checkout, said = installed
    assert checkout.versions() == ["1.0", "2.0"]
    assert len(said.splitlines()) == 3, said
    assert "Processing " in (checkout.folder / ".venv/install.log").read_text()
    assert checkout.make() == (0, "")
    os.utime(checkout.folder / "pyproject.toml")  # as a change of branches does
    assert checkout.make() == (0, "")


def test_a_read_only_checkout_with_a_complete_environment_is_left_alone(installed):
    checkout, _ = installed
    checkout.lock.chmod(0o444)
    assert checkout.make() == (0, "")


def test_a_changed_lock_is_installed(complete):
    complete.lock.write_text(wheel(complete.wheels, "alpha", "1.1") + wheel(complete.wheels, "beta", "2.0"))
    code, said = complete.make()
    assert code == 0, said
    assert "Making .venv" not in said
    assert complete.versions() == ["1.1", "2.0"]


def test_what_pip_says_is_shown_and_kept_when_it_fails(complete):
    complete.lock_another()
    code, said = without_packages(complete)
    assert code != 0
    assert "No matching distribution found for gamma==1.0" in said
    assert said.splitlines()[-2].startswith("Nothing was built: pip could not install the packages")
    assert "No matching distribution" in (complete.folder / ".venv/install.log").read_text()
    assert complete.make()[0] == 0


def test_a_package_that_is_not_the_locked_one_is_refused(complete):
    complete.lock_another()
    wheel(complete.wheels, "gamma", "1.0", "VERSION = 'changed'\n")
    code, said = complete.make()
    assert code != 0
    assert "DO NOT MATCH THE HASHES" in said


def test_full_disk_is_reported_before_anything_is_made(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(environment, "ENVIRONMENT", tmp_path / ".venv")
    usage = shutil.disk_usage("/")._replace(free=2**30)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(environment.Failed, match=r"too little disk space.*1 GiB are free"):
        environment.check_machine(None)


def test_an_intel_mac_is_refused(monkeypatch):
    monkeypatch.setattr(environment.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(environment.platform, "machine", lambda: "x86_64")
    with pytest.raises(environment.Failed, match="Intel Macs"):
        environment.check_machine(None)


def test_a_python_that_cannot_make_environments_is_named(checkout):
    other = checkout.program(
        "python3.11",
        'case "$*" in *venv*--clear*) echo ensurepip is not available; exit 1;; esac\n'
        f'exec "{sys.executable}" "$@"',
    )
    program = (checkout.folder / "tools/environment.py").read_text()
    changed = program.replace("[sys.executable,", f"[{str(other)!r},")
    (checkout.folder / "tools/environment.py").write_text(changed)
    code, said = checkout.make()
    assert code != 0
    assert "could not make a virtual environment" in said
    assert "python3-venv" in said
    assert "ensurepip is not available" in said
    assert "Traceback" not in said


def test_a_checkout_that_cannot_be_written_is_a_sentence(checkout, monkeypatch, capsys):
    monkeypatch.setattr(environment, "LOCK", checkout.lock)
    monkeypatch.setattr(environment, "STATE", checkout.folder / "none")

    def refuse(*_):
        raise OSError(30, "Read-only file system", str(checkout.lock))

    monkeypatch.setattr(environment, "alone", refuse)
    assert environment.main() == 1
    assert capsys.readouterr().err == f"Nothing was built: {checkout.lock}: Read-only file system\n"


@pytest.mark.slow
def test_an_environment_behind_a_link_is_made_there(checkout):
    place = checkout.folder.parent / "another disk"
    (checkout.folder / ".venv").symlink_to(place)
    code, said = checkout.make(CDPATH=str(checkout.wheels))
    assert code == 0, said
    assert (place / "bin/python").exists()
    assert (checkout.folder / ".venv").is_symlink()
    assert checkout.make() == (0, "")
    # A second checkout that shares the environment uses it as it is, and finds its own code in it.
    other = Checkout(checkout.folder.parent / "second")
    shutil.copy(checkout.lock, other.lock)
    (other.folder / ".venv").symlink_to(place)
    assert other.make() == (0, "")
    code = "import backend; print(backend.__file__)"
    done = subprocess.run([other.folder / ".venv/bin/python", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str(other.folder / "backend.py")


def test_a_file_in_place_of_the_environment_is_named(checkout):
    (checkout.folder / ".venv").write_text("")
    code, said = checkout.make()
    assert code != 0
    assert "Nothing was built: .venv is a file and no folder; move it away" in said


def test_packages_of_other_pythons_are_not_seen(complete):
    complete.lock_another()
    (complete.wheels / "pip.py").write_text("1 / 0")
    code, said = complete.make(PYTHONPATH=str(complete.wheels), PYTHONHOME="/no/such/folder", PIP_USER="1")
    assert code == 0, said


def test_another_cdpath_leads_nowhere_else(checkout):
    (checkout.wheels / "tools").mkdir()
    assert "can't open file" not in checkout.make("PYTHON=no-such-python", CDPATH=str(checkout.wheels))[1]
    said = checkout.make(
        "PYTHON=" + str(checkout.program("py", "pwd >&2; echo 3.12")), CDPATH=str(checkout.wheels)
    )[1]
    assert str(checkout.folder) in said


# --- interruptions ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_environment_without_pip_is_made_anew(checkout):
    """What is left when `python -m venv` is killed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout.folder / ".venv"], check=True)
    code, said = checkout.make()
    assert code == 0, said
    assert checkout.versions() == ["1.0", "2.0"]


@pytest.mark.slow
def test_an_environment_with_half_a_pip_is_made_anew(complete):
    (complete.folder / ".venv/installed").unlink()
    next(complete.site.glob("pip/_internal/resolution/resolvelib/resolver.py")).unlink()
    code, said = complete.make()
    assert code == 0, said
    assert "Making .venv" in said


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["alpha.py", "alpha-1.0.dist-info/RECORD"])
def test_half_a_package_is_installed_again(lost, complete):
    """What is left when pip is killed while it unpacks: pip itself takes such a package for installed."""
    (complete.folder / ".venv/installed").unlink()
    (complete.site / lost).unlink()
    (complete.site / "~lpha").mkdir()
    code, said = complete.make()
    assert code == 0, said
    assert "Making .venv" not in said
    assert complete.versions() == ["1.0", "2.0"]
    assert not list(complete.site.glob("~*"))


def test_a_file_cut_by_a_power_failure_is_noticed(complete):
    (complete.folder / ".venv/installed").write_text("")
    (complete.site / "beta.py").write_text("")
    code, said = complete.make()
    assert code == 0, said
    assert complete.versions() == ["1.0", "2.0"], said


@pytest.mark.slow
def test_a_python_that_went_away_is_replaced(complete):
    python = complete.folder / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/no/such/python")
    code, said = complete.make()
    assert code == 0, said
    assert complete.versions() == ["1.0", "2.0"]


@pytest.mark.slow
def test_the_environment_of_a_moved_checkout_is_made_anew(complete):
    complete.folder = complete.folder.rename(complete.folder.with_name("moved"))
    code, said = complete.make()
    assert code == 0, said
    assert "This folder was moved" in said
    assert str(complete.folder) in (complete.folder / ".venv/bin/pip").read_text()


def test_an_umlaut_in_the_path_and_the_locale_c_go_together(installed):
    """Python below 3.13 does not start where a path of its packages has a letter that is not ASCII."""
    checkout, _ = installed
    code = "import backend; print(ascii(backend.__file__))"
    command = [checkout.folder / ".venv/bin/python", "-I", "-c", code]
    done = subprocess.run(command, env={"LC_ALL": "C"}, capture_output=True, text=True)
    assert done.stdout.strip() == ascii(str(checkout.folder / "backend.py")), done.stderr


def slow_pip(checkout, seconds=30):
    """Let pip sleep before it installs, so that a test can come between."""
    program = (checkout.folder / "tools/environment.py").read_text()
    sleep = f'["/bin/sh", "-c", \'touch pip-runs; sleep {seconds}; exec "$0" "$@"\', *command]'
    changed = program.replace("[*command, *arguments]", f"[*{sleep}, *arguments]")
    assert changed != program
    (checkout.folder / "tools/environment.py").write_text(changed)
    return program


def wait_for(path):
    deadline = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_make_that_was_ended_is_followed_by_one_that_completes(number, complete):
    complete.lock_another()
    program = slow_pip(complete)
    process = complete.start()
    wait_for(complete.folder / "pip-runs")
    os.killpg(process.pid, number)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Traceback" not in said
    if number == signal.SIGINT:
        assert "Interrupted; the same command goes on from here." in said
    (complete.folder / "tools/environment.py").write_text(program)
    code, said = complete.make()
    assert code == 0, said
    assert "Making .venv" not in said
    assert complete.versions() == ["1.0", "2.0"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_a_destructor_ends_it_without_a_traceback(number):
    program = f"""
import os
from tools import environment

class Missing:
    def __bool__(self):
        return False

    def __del__(self):
        os.kill(os.getpid(), {int(number)})

environment.complete = Missing
environment.install = lambda lock: print("went on")
environment.main()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    told = "\nInterrupted; the same command goes on from here.\n" if number == signal.SIGINT else ""
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", told)


@pytest.mark.slow
def test_two_makes_at_once_install_once(complete):
    complete.lock_another()
    slow_pip(complete, seconds=2)
    first = complete.start()
    wait_for(complete.folder / "pip-runs")
    code, said = complete.make("-j", "4")
    assert code == 0
    assert said == "Another make is installing in this checkout; waiting for it to end\n"
    assert first.wait(timeout=300) == 0
    first.stdout.close()


# --- PyTorch from another index ----------------------------------------------------------------------------


@pytest.fixture
def index(complete):
    """Let the lock hold PyTorch with CUDA; return the address and the folder of an index of others."""
    torch = "import nvidia_cuda"
    lines = [
        wheel(complete.wheels, "alpha", "1.0"),
        wheel(complete.wheels, "beta", "2.0"),
        wheel(complete.wheels, "torch", "2.15.0", torch),
        wheel(complete.wheels, "torchvision", "0.29.2"),
        wheel(complete.wheels, "triton", "3.9.0"),
        wheel(complete.wheels, "nvidia_cuda", "13").replace("nvidia_cuda", "nvidia-cuda", 1),
    ]
    complete.lock.write_text("".join(lines))
    folder = complete.wheels.parent / "index"
    for name, version in (("torch", "2.15.0"), ("torchvision", "0.29.2")):
        (folder / name).mkdir(parents=True)
        wheel(folder / name, name, f"{version}+cpu")
        path = next((folder / name).glob("*.whl"))
        (folder / name / "index.html").write_text(f'<a href="{path.name}">{path.name}</a>')
    return folder.as_uri(), folder


@pytest.mark.slow
def test_pytorch_from_another_index_leaves_cuda_out_and_keeps_to_it(complete, index):
    address, _ = index
    code, said = complete.make(f"TORCH_INDEX={address}", PIP_NO_INDEX="")
    assert code == 0, said
    assert "about 0.6 GiB to download" in said
    names = {path.name.split("-")[0] for path in complete.site.glob("*.dist-info")}
    assert names >= {"alpha", "beta", "torch", "torchvision"}
    assert not names & {"triton", "nvidia_cuda"}
    assert (complete.site / "torch-2.15.0+cpu.dist-info").is_dir()
    complete.lock_another()
    code, said = complete.make(PIP_NO_INDEX="")
    assert code == 0, said
    assert (complete.site / "gamma.py").exists()
    assert not (complete.site / "triton.py").exists()


@pytest.mark.slow
def test_another_index_replaces_a_complete_environment(complete, index):
    assert complete.make()[0] == 0
    assert (complete.site / "torch-2.15.0.dist-info").is_dir()
    code, said = complete.make(f"TORCH_INDEX={index[0]}", PIP_NO_INDEX="")
    assert code == 0, said
    assert (complete.site / "torch-2.15.0+cpu.dist-info").is_dir()
    assert not (complete.site / "nvidia_cuda.py").exists()


@pytest.mark.slow
def test_an_index_without_the_locked_pytorch_or_with_one_that_does_not_run_is_refused(complete, index):
    address, folder = index
    wheel(folder / "torch", "torch", "2.15.0+cpu", "import nvidia_cuda")
    code, said = complete.make(f"TORCH_INDEX={address}", PIP_NO_INDEX="")
    assert code != 0
    assert "does not run: ModuleNotFoundError: No module named 'nvidia_cuda'" in said
    (folder / "torchvision/index.html").write_text("")
    next(complete.wheels.glob("torchvision-*.whl")).unlink()
    shutil.rmtree(next(complete.site.glob("torchvision-*.dist-info")))
    code, said = complete.make(f"TORCH_INDEX={address}", PIP_NO_INDEX="")
    assert code != 0
    assert "No matching distribution found for torchvision==0.29.2" in said


# --- the line of progress ----------------------------------------------------------------------------------


def test_progress_says_what_pip_is_doing():
    told = "Collecting numpy==2.4.6\n  Downloading numpy-2.4.6-cp311-cp311-manylinux.whl.metadata (6 kB)\n"
    assert environment.doing(told) == "looking up: 1 packages so far"
    told += "Downloading numpy-2.4.6-cp311-cp311-manylinux.whl (16.8 MB)\n"
    assert environment.doing(told) == "downloading: 1 packages so far, now numpy-2.4.6 (16.8 MB)"
    told += "Installing collected packages: numpy\n"
    assert environment.doing(told) == "unpacking the packages, a minute or two"


def test_a_long_installation_says_so_on_one_line_of_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(environment, "LOG", tmp_path / "log")
    (tmp_path / "log").write_text("Collecting numpy\n")
    monkeypatch.setattr(environment.sys.stderr, "isatty", lambda: True)
    environment.follow(subprocess.Popen(["sleep", "2.5"]), 0)
    said = capsys.readouterr().err
    assert said.count("looking up: 1 packages so far") == 2
    assert "\n" not in said
    assert said.endswith("\r\x1b[K")


def test_what_is_installed_is_told(installed):
    checkout, _ = installed
    told = json.loads((checkout.folder / ".venv/installed").read_text())
    assert told["place"] == str(checkout.folder)
    assert told["python"] == list(sys.version_info[:2])
