"""Settings that every test needs."""

import os

# Before Matplotlib is imported anywhere: tests draw into memory, not onto a display.
os.environ["MPLBACKEND"] = "Agg"
