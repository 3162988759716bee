r"""The linear model: power-law data, the minimum-norm solution, and its exact losses.

Everything here follows section 2 of the paper. Data are sparse sign vectors, the estimator is the limit of
gradient descent from zero, :math:`\hat\beta = X^+ y`, and every loss is an exact sum over features.
"""

from memcomp.linear.law import PowerLaw
from memcomp.linear.losses import composed_loss, leave_one_out, population_loss
from memcomp.linear.solvers import Factorization, factorize, min_norm, ridge

__all__ = [
    "Factorization",
    "PowerLaw",
    "composed_loss",
    "factorize",
    "leave_one_out",
    "min_norm",
    "population_loss",
    "ridge",
]
