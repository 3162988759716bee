"""Copy the picture that README shows out of the chapter that draws it.

``python -m tools.finding`` after the chapter's outputs were stored; a test compares the two.
"""

import base64
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK, FIGURE = "notebooks/08_mnist_sum.ipynb", "fig-digit-loss"
PICTURE = ROOT / "book" / "_static" / "finding.png"


def picture():
    """Return the bytes of the figure as the notebook stores it."""
    for cell in json.loads((ROOT / NOTEBOOK).read_text())["cells"]:
        if cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") == FIGURE:
            for output in cell["outputs"]:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output["data"]["image/png"])
    raise LookupError(f"{NOTEBOOK} stores no picture of a cell with the figure name {FIGURE}")


if __name__ == "__main__":
    PICTURE.write_bytes(picture())
