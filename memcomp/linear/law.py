"""Data of the linear model: sparse sign vectors under a power law."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse

from memcomp.linear._validate import check_count


@dataclass(frozen=True)
class PowerLaw:
    r"""Sparse sign vectors whose feature frequencies follow a truncated power law.

    Coordinate :math:`i` of :math:`x \in \{0, \pm 1\}^d` is nonzero with probability

    .. math:: p_i = \min\{1, s\, i^{-\alpha} / Z_\alpha\}, \qquad Z_\alpha = \sum_{i \le d} i^{-\alpha},

    independently of the others, and then has a fair random sign (section 2, eq. 2).

    Parameters
    ----------
    d : int
        Number of features.
    s : float
        Mean number of nonzeros of a row before the truncation at 1.
    alpha : float
        Decay of the frequencies, at least 0.

    Examples
    --------
    >>> law = PowerLaw(d=10_000, s=5, alpha=2.0)
    >>> law.p[:3].round(3)
    array([1.   , 0.76 , 0.338])
    >>> law.threshold(n=1000)
    17
    >>> law.sample(1000, np.random.default_rng(0)).shape
    (1000, 10000)
    """

    d: int
    s: float
    alpha: float

    def __post_init__(self):
        check_count("d", self.d)
        for name, low, strict in (("s", 0, True), ("alpha", 0, False)):
            value = getattr(self, name)
            try:
                ok = np.isfinite(value) and (value > low if strict else value >= low)
            except TypeError:
                ok = False
            if not ok or isinstance(value, bool | np.bool_):
                raise ValueError(
                    f"{name} must be a finite number {'above' if strict else 'at least'} {low}, got {value!r}"
                )

    @cached_property
    def p(self) -> np.ndarray:
        """Frequency of every feature, shape (d,), not increasing; read-only."""
        decay = np.arange(1, self.d + 1, dtype=float) ** -float(self.alpha)
        p = np.minimum(1.0, self.s * (decay / decay.sum()))
        p.setflags(write=False)
        return p

    def threshold(self, n: int, count: float = 10) -> int:
        """Return k, the number of common features: those with ``n * p_i >= count`` (section 5.1).

        Parameters
        ----------
        n : int
            Number of training rows.
        count : float
            Expected number of appearances that makes a feature common.
        """
        check_count("n", n)
        if not np.isfinite(count) or count <= 0:
            raise ValueError(f"count must be a finite number above 0, got {count!r}")
        return int(np.count_nonzero(n * self.p >= count))

    def sample(self, n: int, rng: np.random.Generator) -> scipy.sparse.csr_array:
        """Draw n independent rows.

        The number of times feature i appears is Binomial(n, p_i) and, given the number, its rows are
        drawn without replacement. Time and memory are O(nonzeros + n + d).

        Parameters
        ----------
        n : int
            Number of rows.
        rng : numpy.random.Generator
            The only source of randomness.

        Returns
        -------
        scipy.sparse.csr_array
            Shape (n, d), float64 entries -1.0 and 1.0, sorted indices.

        Raises
        ------
        ValueError
            If n is not a positive integer, or n * d does not fit in 63 bits.
        TypeError
            If rng is not a numpy Generator.
        """
        check_count("n", n)
        if not isinstance(rng, np.random.Generator):
            raise TypeError(
                f"rng must be a numpy.random.Generator such as numpy.random.default_rng(0), got {rng!r}"
            )
        n = int(n)
        if n * self.d >= 2**63:
            raise ValueError(f"n * d must be below 2**63, got n={n}, d={self.d}")
        # One integer, feature * n + row, stands for each nonzero. Frequent features toss one coin a row.
        heavy = int(np.count_nonzero(self.p > 0.25))
        keys = [i * n + np.flatnonzero(rng.random(n) < self.p[i]) for i in range(heavy)]
        counts = rng.binomial(n, self.p[heavy:])
        feature = np.flatnonzero(counts)
        counts = counts[feature]
        feature += heavy
        # The others draw rows with replacement, drop repeats and draw as many again: the first m distinct
        # values of such a sequence are a uniform m-subset. A feature with p <= 1/4 is done in a few rounds.
        drawn, missing = np.empty(0, dtype=np.int64), counts
        while feature.size:
            fresh = np.repeat(feature * n, missing) + rng.integers(n, size=missing.sum())
            # np.unique hashes integers, which takes a hundred times as long as sorting them here.
            drawn = np.sort(np.concatenate([drawn, fresh]))
            drawn = drawn[np.append(True, drawn[1:] != drawn[:-1])]
            found = np.diff(np.searchsorted(drawn, np.append(feature * n, (feature[-1] + 1) * n)))
            done = found == counts
            finished = np.repeat(done, found)
            keys.append(drawn[finished])
            drawn, feature, counts = drawn[~finished], feature[~done], counts[~done]
            missing = counts - found[~done]
        keys = np.sort(np.concatenate(keys)) if keys else np.empty(0, dtype=np.int64)
        indptr = np.searchsorted(keys, np.arange(self.d + 1, dtype=np.int64) * n)
        signs = 2.0 * rng.integers(0, 2, size=keys.size, dtype=np.int8) - 1.0
        keys %= n
        return scipy.sparse.csc_array((signs, keys, indptr), shape=(n, self.d)).tocsr()
