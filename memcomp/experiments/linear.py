"""Figure 1: the minimum-norm solution on power-law data, with exact losses (section 5.1).

A point is one training set. Its estimate is affine in the label noise, so one factorization serves every
noise level. The chapter computes all its points when it runs; `sweep` spreads them over the cores.
"""

import dataclasses
import math

import numpy as np
from threadpoolctl import threadpool_limits

from memcomp import cluster, records
from memcomp.linear import PowerLaw, composed_loss, factorize, population_loss

#: Above this share of the diagonal of X^+ X, a feature counts as recovered; rounding leaves 1 - 1e-12.
RECOVERED = 1 - 1e-8


@dataclasses.dataclass(frozen=True)
class Config:
    """One training set, with every noise level.

    Attributes
    ----------
    alpha, n, d, s
        Of the power law and its sample, see `memcomp.linear.PowerLaw`. The defaults are the paper's.
    run : int
        Number of the repetition.
    seed : int
        With ``run``, ``n`` and ``alpha`` the seed of the training set and its noise: a point's numbers do not
        depend on which other points are computed, or where.
    gamma : float
        True coefficients are ``i ** -gamma``.
    count : float
        A feature is common if it is expected this many times in the training set.
    sigmas : tuple of float
        Standard deviations of the label noise. The levels share one draw of the noise, scaled.
    penalties : tuple of float
        Ridge penalties whose loss is wanted besides that of the minimum norm.
    """

    alpha: float
    run: int = 0
    seed: int = 0
    n: int = 1000
    d: int = 10_000
    s: float = 5.0
    gamma: float = 0.1
    count: float = 10.0
    sigmas: tuple[float, ...] = (0.0, 0.05, 0.1, 0.25, 0.5)
    penalties: tuple[float, ...] = ()

    def __post_init__(self):
        for name in ("sigmas", "penalties"):
            values = tuple(float(value) for value in getattr(self, name))
            if not all(math.isfinite(value) and value >= 0 for value in values):
                raise ValueError(f"{name} must be finite numbers at least 0, got {values}")
            object.__setattr__(self, name, values)
        if not self.sigmas:
            raise ValueError("sigmas is empty; give at least one noise level, 0 for none")


def grid(alphas=(1, 1.125, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 3), runs=50, **settings):
    """Return the configs of Figure 1: ``runs`` training sets for each exponent.

    Parameters
    ----------
    alphas : sequence of float
    runs : int
    **settings
        Other fields of `Config`.

    Returns
    -------
    list of Config
    """
    return [Config(float(alpha), run, **settings) for alpha in alphas for run in range(runs)]


def work(config):
    """Return a number proportional to the cost of a point, the cube of its smaller Gram matrix's side."""
    p = PowerLaw(config.d, config.s, config.alpha).p
    return min(config.n, -np.expm1(-config.n * p).sum()) ** 3


@records.experiment("linear", version=1, config=Config)
def run(config):
    r"""Draw one training set, solve it at every noise level, and measure the solution exactly.

    Parameters
    ----------
    config : Config

    Returns
    -------
    dict
        Structure of the training set, numbers: ``k`` (common features), ``rank``, ``seen`` and ``seen_tail``
        (features that occur), ``singletons``, ``recovered`` and ``recovered_tail`` (exact without noise),
        ``rows_0``, ``rows_1``, ``rows_2`` (rows with no, one, two or more tail features), ``lone`` (recovered
        singletons) and ``lone_variance`` (sum of their variances per unit of label noise).

        Parts of the mean loss over the noise, :math:`L_D = \text{bias} + \sigma^2 V`, numbers: ``bias`` with
        its share ``missing`` on unseen features, and ``noise_factor``, which is
        :math:`V = \operatorname{tr}(\Sigma X^+ X^{+\prime})`. Also ``price_of_nothing``, the ``price``
        (below) of predicting 0. ``parts``, four lists of four: for the mean square error of the common and of
        the seen tail features, for :math:`L_D` and for the price, what features that do not occur add, what
        the others add without noise, and what they add per unit of label noise, first as it is and then as
        it would be if each were alone in its samples.

        Measured with the noise as drawn, one number for each of ``sigmas``: ``loss`` :math:`L_D`; ``price``,
        by which one forced tail feature raises it, a mean over the seen ones, so that t of them give
        ``loss + t * price``; ``train_mse``; root mean square and mean absolute error of the coefficients of
        the common features (``common_rms``, ``common_abs``) and of the seen tail features (``tail_rms``,
        ``tail_abs``). ``ridge_loss``: one list like ``loss`` for each of ``penalties``.

    Raises
    ------
    ValueError
        If the training set holds no common or no tail feature.
    """
    law = PowerLaw(config.d, config.s, config.alpha)
    k = law.threshold(config.n, config.count)
    key = (config.run, config.n, round(config.alpha * 1_000_000))
    rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))
    X = law.sample(config.n, rng)
    noise = rng.standard_normal(config.n)
    beta = np.arange(1, config.d + 1) ** -config.gamma
    times = np.bincount(X.indices, minlength=config.d)
    seen, tail = times > 0, np.flatnonzero(times[k:]) + k
    if k == 0 or tail.size == 0:
        raise ValueError(f"{config} gives {k} common features and {tail.size} tail features: need both")

    sigmas = np.array(config.sigmas)
    with threadpool_limits(1):  # the same bits wherever the point is computed
        solver = factorize(X)
        targets = np.column_stack([X @ beta, noise])

        def errors(penalty):
            clean, noisy = solver.solve(targets, penalty).T
            return (clean - beta)[:, None] + noisy[:, None] * sigmas

        error = errors(0.0)
        loss = population_loss(error, law.p)
        recovered = solver.recovery > RECOVERED
        lone = recovered & (times == 1)
        bias, alone = (
            (solver.solve(X @ beta) - beta) ** 2,
            np.divide(1, times, where=seen, out=np.zeros(config.d)),
        )
        place = np.zeros((2, config.d))
        place[0, :k], place[1, tail] = 1 / k, 1 / tail.size
        weights = [*place, law.p, (1 - law.p) * place[1]]
        per_row = np.bincount(X.nonzero()[0][X.indices >= k], minlength=config.n)
        measured = {
            "k": k,
            "rank": solver.rank,
            "seen": seen.sum(),
            "seen_tail": tail.size,
            "singletons": np.sum(times == 1),
            "recovered": recovered.sum(),
            "recovered_tail": recovered[k:].sum(),
            "rows_0": np.sum(per_row == 0),
            "rows_1": np.sum(per_row == 1),
            "rows_2": np.sum(per_row >= 2),
            "lone": lone.sum(),
            "lone_variance": solver.noise_variance[lone].sum(),
            "bias": law.p @ bias,
            "missing": law.p[~seen] @ beta[~seen] ** 2,
            "noise_factor": law.p @ solver.noise_variance,
            "parts": np.array(weights)
            @ np.transpose([bias * ~seen, bias * seen, solver.noise_variance, alone]),
            "price_of_nothing": composed_loss(beta, law.p, tail, 1) - population_loss(beta, law.p),
            "loss": loss,
            "price": composed_loss(error, law.p, tail, 1) - loss,
            "train_mse": np.mean((X @ error - noise[:, None] * sigmas) ** 2, axis=0),
            "common_rms": np.sqrt(np.mean(error[:k] ** 2, axis=0)),
            "common_abs": np.abs(error[:k]).mean(axis=0),
            "tail_rms": np.sqrt(np.mean(error[tail] ** 2, axis=0)),
            "tail_abs": np.abs(error[tail]).mean(axis=0),
            "ridge_loss": [population_loss(errors(penalty), law.p).tolist() for penalty in config.penalties],
        }
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in measured.items()}


def sweep(points, runs, *, workers=None, **settings):
    """Measure ``runs`` training sets at each of several points, on all cores.

    Parameters
    ----------
    points : sequence of dict
        Fields of `Config` that tell the points apart, such as ``{"alpha": 1.5}``.
    runs : int
        Training sets per point.
    workers : int, optional
        Processes, by default one per available core; 1 computes in this process. The numbers do not depend
        on it.
    **settings
        Fields of `Config` that the points share.

    Returns
    -------
    dict of str to numpy.ndarray
        Each metric of `run`, shape (points, runs) or (points, runs, sigmas); "ridge_loss" has shape
        (points, runs, penalties, sigmas).

    Raises
    ------
    ValueError
        If there is no point or no run.

    Examples
    --------
    >>> found = sweep([{"alpha": 1.5}, {"alpha": 3.0}], runs=2, n=200, d=1000, workers=1)
    >>> found["rank"].shape, found["loss"].shape
    ((2, 2), (2, 2, 5))
    """
    configs = [Config(**point, run=number, **settings) for point in points for number in range(runs)]
    if not configs:
        raise ValueError(f"nothing to measure: {len(points)} points with {runs} runs each")
    # The costly points first, so that no worker starts one when the others have ended.
    order = sorted(range(len(configs)), key=lambda i: -work(configs[i]))
    if workers == 1:
        done = [run(configs[i]) for i in order]
    else:
        done = cluster.in_order(run, [configs[i] for i in order], workers, records.runs_folder())
    found = [metrics for _, metrics in sorted(zip(order, done), key=lambda pair: pair[0])]
    return {
        name: np.array([metrics[name] for metrics in found]).reshape(
            len(points), runs, *np.shape(found[0][name])
        )
        for name in found[0]
    }
