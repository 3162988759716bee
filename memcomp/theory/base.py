"""What a check is, and the sampling that all checks share."""

import functools
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Check:
    """A predicted number, the measured one, and how the two should relate.

    Parameters
    ----------
    source : str
        The statement, for example ``"Lemma A.1 (2)"``.
    quantity : str
        What is compared, in a few words.
    predicted : float
        Value of the formula.
    measured : float
        Value of the simulation, or of an exact computation that does not use the formula.
    error : float
        Monte Carlo standard error of `measured`; 0 when it is exact.
    relation : {"=", "≤", "≥"}
        How `measured` should relate to `predicted`.
    tolerance : float
        Error allowed besides the Monte Carlo error, for limit forms and for rounding: relative, or absolute
        where 0 is predicted.
    trivial : float, optional
        For a bound: what stands on its other side without any memorizing, for example the loss of predicting
        0. Where that keeps the bound too, the bound says nothing.

    Examples
    --------
    >>> check = Check("Lemma C.1", "no tail feature", predicted=0.70, measured=0.72, relation="≥")
    >>> check.holds, round(check.ratio, 2)
    (True, 1.03)
    """

    source: str
    quantity: str
    predicted: float
    measured: float
    error: float = 0.0
    relation: str = "="
    tolerance: float = 0.0
    trivial: float | None = None

    def __post_init__(self):
        if self.relation not in ("=", "≤", "≥"):
            raise ValueError(f"{self.source}: relation must be '=', '≤' or '≥'; got {self.relation!r}")
        if self.trivial is not None and self.relation == "=":
            raise ValueError(f"{self.source}, {self.quantity}: only a bound can be trivial, not an equality")
        names = ("predicted", "measured", "error", "tolerance", "trivial")
        for name in names if self.trivial is not None else names[:-1]:
            value = float(getattr(self, name))
            if not np.isfinite(value):
                raise ValueError(
                    f"{self.source}, {self.quantity}: {name} is {value}; expected a finite number"
                )
            object.__setattr__(self, name, value)

    @property
    def ratio(self):
        """float: measured divided by predicted; infinite where only the prediction is 0."""
        if self.predicted == 0:
            return 1.0 if self.measured == 0 else np.inf
        return self.measured / self.predicted

    @property
    def slack(self):
        """float: factor between a bound and the truth, at least 1 if it holds; 1 for an equality."""
        if self.relation == "=":
            return 1.0
        if self.relation == "≥":
            return self.ratio
        return 1 / self.ratio if self.ratio > 0 else np.inf

    @property
    def resolution(self):
        """float: the smallest relative error in an equality's formula that this check is sure to see."""
        return self.room / (abs(self.predicted) or 1.0)

    @property
    def room(self):
        """float: by how much the measured value may miss the predicted one."""
        return 4 * self.error + self.tolerance * (abs(self.predicted) or 1.0)

    @property
    def holds(self):
        """bool: whether the measured value relates to the predicted one as it should."""
        difference = self.measured - self.predicted
        if self.relation == "=":
            return abs(difference) <= self.room
        return difference <= self.room if self.relation == "≤" else difference >= -self.room

    @property
    def vacuous(self):
        """bool: whether this is a bound that holds without any memorizing."""
        return self.trivial is not None and replace(self, measured=self.trivial, error=0.0).holds


def checks_of(source):
    """Make a list of `Check` of the rows that a function yields.

    Parameters
    ----------
    source : str
        The statement.

    Returns
    -------
    callable
        Decorator of a generator function. A row is (quantity, relation, predicted, measured) and, optionally,
        the tolerance and the trivial value. What is measured is a number that is exact, a number with its
        standard error, or an array of samples, whose mean is taken. A quantity may begin with the number of
        an item of the statement, "(2) …".
    """

    def decorate(function):
        @functools.wraps(function)
        def checks(*arguments, **options):
            return [_make(source, *row) for row in function(*arguments, **options)]

        return checks

    return decorate


def _make(source, quantity, relation, predicted, measured, tolerance=0.0, trivial=None):
    if quantity.startswith("("):
        item, quantity = quantity.split(" ", 1)
        source = f"{source} {item}"
    if isinstance(measured, list | np.ndarray):
        measured = _mean(measured)
    value, error = measured if isinstance(measured, tuple) else (measured, 0.0)
    return Check(source, quantity, predicted, value, error, relation, tolerance, trivial)


def _mean(samples):
    samples = np.asarray(samples, dtype=float)
    return samples.mean(), samples.std(ddof=1) / np.sqrt(samples.size)


def ratio_of_means(upper, lower):
    """Return the ratio of two means and its standard error.

    Parameters
    ----------
    upper, lower : ndarray of shape (draws,)
        Paired: one of each a data set.

    Returns
    -------
    tuple of float
    """
    upper, lower = np.asarray(upper, dtype=float), np.asarray(lower, dtype=float)
    ratio = upper.mean() / lower.mean()
    return ratio, np.std(upper - ratio * lower, ddof=1) / lower.mean() / np.sqrt(upper.size)


def measure_sets(measure, sets):
    """Return one array for each number that is measured in a data set.

    Parameters
    ----------
    measure : callable
        Takes a data set to a tuple of numbers, or to None, and then it is left out.
    sets : iterable of scipy.sparse.csr_array

    Returns
    -------
    list of ndarray
    """
    found = [numbers for numbers in map(measure, sets) if numbers is not None]
    return [np.array(values, dtype=float) for values in zip(*found)]


def exponent_of(sizes, values):
    """Return the exponent of a power through two points.

    Parameters
    ----------
    sizes, values : sequence of two floats

    Returns
    -------
    float

    Examples
    --------
    >>> print(round(exponent_of((10, 1000), (2.0, 20.0)), 6))
    0.5
    """
    return np.log(values[1] / values[0]) / np.log(sizes[1] / sizes[0])


def growth_of(measure, law, sizes, draws, rng):
    """Measure a number in data sets of two sizes.

    Parameters
    ----------
    measure : callable
        Takes a data set to a number.
    law : memcomp.linear.PowerLaw
    sizes, draws : sequence of two ints
        Samples of a data set, and data sets.
    rng : numpy.random.Generator

    Returns
    -------
    samples : list of two lists of float
        The number in each data set.
    exponent : tuple of float
        Exponent of its mean, with its standard error.
    """
    samples = [[measure(X) for X in data_sets(law, n, repeats, rng)] for n, repeats in zip(sizes, draws)]
    (low, low_error), (high, high_error) = map(_mean, samples)
    error = np.hypot(low_error / low, high_error / high) / np.log(sizes[1] / sizes[0])
    return samples, (exponent_of(sizes, (low, high)), error)


def data_sets(law, n, draws, rng):
    """Yield independent data sets, sampled together in one matrix because that is faster.

    Parameters
    ----------
    law : memcomp.linear.PowerLaw
    n : int
        Samples in each.
    draws : int
        Number of data sets.
    rng : numpy.random.Generator

    Yields
    ------
    scipy.sparse.csr_array of shape (n, d)
    """
    together = max(1, 200_000 // n)
    for start in range(0, draws, together):
        count = min(together, draws - start)
        X = law.sample(n * count, rng)
        for i in range(count):
            yield X[i * n : (i + 1) * n]
