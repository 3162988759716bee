"""Experiments: for each a config, ``run(config)`` and ``grid(…)``, one module each.

A module has

- ``run(config, …)``, an experiment of :mod:`memcomp.records`: one trained network, or one table's row. What
  does not belong to the point (``device``, ``data_root``) comes as further arguments;
- ``grid(…)``, the list of configs that a chapter shows, from the chapter's own parameters;
- ``work(config)``, a number proportional to the cost of a point, for estimates of the time left.
"""

CHAPTERS = {
    "07_gaussian": ("gaussian",),
    "08_mnist_sum": ("mnist_sum",),
    "09_omniglot": ("omniglot",),
    "10_memorization_scores": ("subsets",),
    "11_when_memorization_hurts": ("harm",),
    "12_where_composition_breaks": ("limits",),
    "13_your_network": ("your_network",),
    "14_ladder": ("ladder",),
}
"""The experiments that each chapter collects, by the name of its notebook."""
