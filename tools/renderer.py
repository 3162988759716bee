"""Render pages with Jupyter Book, as a child of `tools.book`: it ends when its parent does.

    python -m tools.renderer SOURCE OUTPUT

Its standard input is a pipe that the parent holds open.
"""

import os
import sys
import threading
from pathlib import Path

from tools.running import alone_with


def end_with_parent():
    """End this process at once when the other end of its standard input is closed."""

    def watch():
        while os.read(0, 1024):  # not sys.stdin, whose lock would stand in the way of a normal end
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(source, output):
    """Render a folder of sources; every warning is an error."""
    end_with_parent()
    # Held by whoever writes, whatever becomes of its parent.
    with alone_with(Path(output).with_suffix(".lock")):
        from jupyter_book.cli.main import main as jupyter_book

        jupyter_book(["build", source, "--path-output", output, "-W", "-n", "--keep-going"])


if __name__ == "__main__":
    main(*sys.argv[1:])
