"""Write the notebook of the chapter about wrong labels, without outputs."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

TITLE = """
# 15. Wrong labels

Most features of the long tail are seen once. What if the label beside them is wrong?
"""
PARAMETERS = """
profile = "quick"
seeds = 3
"""
SETUP = """
import matplotlib.pyplot as plt

from memcomp import claims, figures, records, stats
from memcomp.experiments import label_noise
from memcomp.tables import Table
from memcomp.values import check_parameters

check_parameters(globals(), "15_label_noise")
figures.use()
"""
RECORDS = """
grid = label_noise.grid(profile, seeds)
found = records.collect(label_noise.run, grid, profile=profile)
points = records.frame(found)
# One row for each share of wrong labels, one column for each seed.
loss = points.pivot(index="share", columns="seed", values="loss")
"""
TABLE = """
shown = loss.mean(axis=1).to_frame("excess loss").rename_axis("share of wrong labels")
Table(shown, f"Means over {len(loss.columns)} training sets.")
"""
FIGURE = """
fig, ax = plt.subplots()
ax.plot(loss.index, loss, "o-", color=figures.COLORS["tail"], alpha=0.6)
ax.set(xlabel="share of wrong labels", ylabel="excess loss")
plt.show()
"""
LOOK = {
    "figure": {
        "name": "fig-label-noise",
        "caption": "Excess loss of the minimum norm; one line a training set.",
    },
    "image": {"alt": "Lines that rise from near zero, steeply at first, with the share of wrong labels."},
}
CLAIMS = """
chapter = claims.Chapter("15_label_noise", profile, n=len(loss.columns))
chapter.state(\"\"\"
wrong-labels-cost | this book | not stated
    a share of 0.3 of wrong labels costs more than one of 0.01: the larger excess loss over the smaller
\"\"\")
ratio = loss.loc[0.3] / loss.loc[0.01]
dearer = stats.below(loss.loc[0.01] - loss.loc[0.3])
chapter.judge("wrong-labels-cost", ratio.mean(), dearer, spread=ratio.std())
chapter.report()
"""


def code(name, source, *tags, **metadata):
    """Return a cell of code."""
    return new_code_cell(source.strip(), id=name, metadata={"tags": [*tags], **metadata})


cells = [
    new_markdown_cell(TITLE.strip(), id="title"),
    code("parameters", PARAMETERS, "parameters"),
    code("setup", SETUP, "hide-input"),
    code("records", RECORDS),
    code("loss-table", TABLE, "hide-input"),
    code("fig-label-noise", FIGURE, "hide-input", mystnb=LOOK),
    code("claims", CLAIMS, "hide-input"),
]
kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
nbformat.write(notebook, "notebooks/15_label_noise.ipynb")
