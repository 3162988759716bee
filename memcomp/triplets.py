"""Triplets as indices into a pool of images: long-tailed training sets and composed test sets.

A data set of M triplets is an integer array of shape (M, 3) into a pool and M targets; no image is copied.
Sources: section 5.2 and appendices D, D.1 and D.2 of the paper.
"""

import numpy as np

from memcomp import lookup
from memcomp.values import check_number, check_whole, indices, real_array

WEIGHTED = (1.0, 2.0, 3.0)  # appendix D.2.1; its coefficients are not readable in the text we have

TARGETS = {
    "sum": lambda labels: labels.sum(-1),
    "weighted": lambda labels: labels @ np.array(WEIGHTED),
    "max": lambda labels: labels.max(-1),
    "product": lambda labels: labels.prod(-1),
    "parity": lambda labels: labels.sum(-1) % 2,
}
"""What can be asked about the labels of a triplet, by name: functions of labels (…, 3).

:meta hide-value:
"""


def zipf_counts(total, labels=10, exponent=2.0):
    """Count the images of each label under Zipf's law (appendix D).

    Label r gets ``floor(c / (r + 1)**exponent)`` images, with the largest integer c at which the counts do
    not exceed ``total``; what is then still missing goes to label 0. At 120,000 images this is the paper's
    table.

    Parameters
    ----------
    total : int
        Number of images.
    labels : int
        Number of labels.
    exponent : float
        Zipf exponent; 2 reproduces the table of appendix D.2.

    Returns
    -------
    ndarray, int64, shape (labels,)
        Counts that add up to ``total``.

    Examples
    --------
    >>> zipf_counts(120_000).tolist()
    [77435, 19358, 8603, 4839, 3097, 2150, 1580, 1209, 955, 774]
    """
    check_whole(1, total=total, labels=labels)
    check_number(0, exponent=exponent)
    if total < labels:
        raise ValueError(f"total is {total}, but {labels} labels need at least one image each")
    powers = np.arange(1, labels + 1) ** float(exponent)
    low, high = 0, total  # the sum of the floors grows with c, so bisection finds the largest admissible one
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if np.floor(middle / powers).sum() <= total else (low, middle)
    counts = np.floor(low / powers).astype(np.int64)
    counts[0] += total - counts.sum()
    if counts.min() < 1:
        raise ValueError(f"Zipf's law leaves label {counts.argmin()} without an image at a total of {total}")
    return counts


def draw(labels, counts, rng):
    """Draw images with exactly the given counts and group them into triplets at random.

    An image is repeated only where its label has fewer images than needed, and then all images of the label
    are used equally often, to within one.

    Parameters
    ----------
    labels : ndarray, int, shape (N,)
        Labels of the pool.
    counts : sequence of int
        Wanted number of images of label 0, 1, …; the sum must be divisible by three.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, int64, shape (sum(counts) / 3, 3)
        Indices into the pool, in an order that says nothing about the labels.

    Examples
    --------
    >>> labels = np.repeat([0, 1], [5, 10])
    >>> triplets = draw(labels, [9, 3], np.random.default_rng(0))
    >>> triplets.shape, np.bincount(labels[triplets].ravel()).tolist()
    ((4, 3), [9, 3])
    """
    if sum(counts) % 3:
        raise ValueError(f"the counts add up to {sum(counts)}, which is not divisible by three")
    return rng.permutation(choose(labels, counts, rng)).reshape(-1, 3)


def choose(labels, counts, rng):
    """Choose images with exactly the given counts, sorted by label.

    Parameters
    ----------
    labels, counts, rng
        As in :func:`draw`; the counts may have any sum.

    Returns
    -------
    ndarray, int64, shape (sum(counts),)
        Indices into the pool; an image is repeated only where it must be.

    Raises
    ------
    ValueError
        If the pool lacks a label that is wanted.
    """
    labels, chosen = real_array("labels", labels), []
    for label, count in enumerate(counts):
        check_whole(0, **{f"the count of label {label}": count})
        own = np.flatnonzero(labels == label)
        if len(own) == 0 and count:
            raise ValueError(f"the pool has no image of label {label}, of which {count} are wanted")
        rounds = [rng.permutation(own) for _ in range(-(-count // max(len(own), 1)))]
        chosen.append(np.concatenate([np.empty(0, np.int64), *rounds])[:count])
    return np.concatenate(chosen)


def scatter(images, singles, rng):
    """Group images into triplets at random, with each of some special images in a triplet of its own.

    Parameters
    ----------
    images : ndarray, int, shape (N,)
        Indices into a pool.
    singles : ndarray, int, shape (S,)
        Indices of which no two may meet in a triplet; N + S must be divisible by three.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, int64, shape ((N + S) / 3, 3)
        Order and positions say nothing about which images are special.

    Raises
    ------
    ValueError
        If the number of images is not divisible by three, or there are more singles than triplets.

    Examples
    --------
    >>> rows = scatter(np.zeros(7, int), np.array([1, 2]), np.random.default_rng(0))
    >>> rows.shape, (rows > 0).sum(axis=1).max()
    ((3, 3), np.int64(1))
    """
    images, singles = indices("images", images), indices("singles", singles)
    size, rest = divmod(len(images) + len(singles), 3)
    if rest:
        raise ValueError(f"{len(images)} + {len(singles)} images cannot be grouped by three")
    if len(singles) > size:
        raise ValueError(f"{len(singles)} images cannot each have one of {size} triplets of their own")
    rows = np.full((size, 3), -1, np.int64)
    rows[rng.choice(size, len(singles), replace=False), rng.integers(3, size=len(singles))] = singles
    rows[rows < 0] = rng.permutation(images)
    return rows


def long_tailed(labels, size, rng, *, rare=None, exponent=2.0):
    """Draw a long-tailed training set: Zipf counts, optionally with the count of the last label set.

    Parameters
    ----------
    labels : ndarray, int, shape (N,)
        Labels of the pool, 0 to L − 1.
    size : int
        Number of triplets.
    rng : numpy.random.Generator
    rare : int, optional
        Number of images of label L − 1, all distinct. The difference to Zipf's law is made up by label 0, so
        that the size stays. Default: what the law gives.
    exponent : float
        Zipf exponent.

    Returns
    -------
    ndarray, int64, shape (size, 3)

    Raises
    ------
    ValueError
        If the pool has fewer distinct images of the last label than wanted.
    """
    labels = indices("labels", labels, shape=(None,))
    check_whole(1, size=size)
    counts = zipf_counts(3 * size, int(labels.max()) + 1, exponent)
    if rare is not None:
        check_whole(0, rare=rare)
        counts[0] += counts[-1] - rare
        counts[-1] = rare
    available = int((labels == len(counts) - 1).sum())
    if counts[-1] > available:
        raise ValueError(
            f"{counts[-1]} distinct images of label {len(counts) - 1} are wanted, the pool has {available}"
        )
    return draw(labels, counts, rng)


def subset(triplets, labels, size, rare, rng):
    """Choose triplets at random so that the last label appears exactly ``rare`` times (appendix D.2).

    The paper trains each model on a random 80 % of 40,000 triplets, with the number of 9s held equal. So
    triplets with a 9 are taken in random order until there are ``rare`` of them, and the rest is filled with
    triplets that have none.

    Parameters
    ----------
    triplets : ndarray, int, shape (M, 3)
        Indices into the pool.
    labels : ndarray, int, shape (N,)
        Labels of the pool.
    size : int
        Number of triplets to keep.
    rare : int
        Number of images of the last label in them.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, int64, shape (size, 3)
        Rows of ``triplets`` in random order.

    Raises
    ------
    ValueError
        If no such choice exists.
    """
    labels = real_array("labels", labels)
    triplets = indices("triplets", triplets, len(labels), (None, 3))
    check_whole(0, size=size, rare=rare)
    last = labels.max()
    count = (labels[triplets] == last).sum(axis=1)
    taken, missing = [], rare
    for row in rng.permutation(np.flatnonzero(count)):
        if count[row] <= missing:  # a row that holds too many leaves the rows with one to fill up
            taken.append(row)
            missing -= count[row]
        if not missing:
            break
    plain = np.flatnonzero(count == 0)
    fill = size - len(taken)
    if missing or not 0 <= fill <= len(plain):
        raise ValueError(
            f"no choice of {size} triplets with {rare} images of label {last}: the {len(triplets)} given "
            f"hold {count.sum()} of them, and {len(plain)} triplets without"
        )
    rows = np.concatenate([np.array(taken, dtype=np.int64), rng.choice(plain, fill, replace=False)])
    return triplets[rng.permutation(rows)]


def pairs(labels, partners, size, rng):
    """Draw pairs of partner images for a composed test set.

    Parameters
    ----------
    labels : ndarray, int, shape (N,)
        Labels of the test pool.
    partners : sequence of int
        Labels that both members of a pair are drawn from: uniform over the labels, then over their images.
    size : int
        Number of pairs.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, int64, shape (size, 2)
        Indices into the pool. Every image is used equally often, to within one, so that 500 pairs of 5 × 200
        images use each image exactly once (appendix D.2).
    """
    check_whole(1, size=size)
    partners = indices("partners", list(partners), shape=(None,))
    counts = np.zeros(max(partners) + 1, int)
    counts[list(partners)] = -(-2 * size // len(partners))
    return rng.permutation(choose(labels, counts, rng))[: 2 * size].reshape(size, 2)


def composed(rare, partners, position):
    """Combine every rare image with every pair of partners.

    Parameters
    ----------
    rare : ndarray, int, shape (R,)
        Indices of rare images.
    partners : ndarray, int, shape (P, 2)
        Pairs of indices, see :func:`pairs`.
    position : {0, 1, 2}
        Place of the rare image in the triplet.

    Returns
    -------
    ndarray, int32, shape (R · P, 3)
        The rare image changes slowest. D.1's 600 × 2,700 combinations take 19 MB.

    Examples
    --------
    >>> composed(np.array([7, 8]), np.array([[0, 1], [2, 3]]), position=1).tolist()
    [[0, 7, 1], [2, 7, 3], [0, 8, 1], [2, 8, 3]]
    """
    if position not in (0, 1, 2):
        raise ValueError(f"position is {position}; it must be 0, 1 or 2")
    rare, partners = indices("rare", rare, 2**31), indices("partners", partners, 2**31, (None, 2))
    out = np.empty((len(rare), len(partners), 3), np.int32)
    out[:, :, position] = rare[:, None]
    out[:, :, [place for place in range(3) if place != position]] = partners
    return out.reshape(-1, 3)


def composed_everywhere(rare, partners):
    """Combine every rare image with every pair of partners, at each position.

    Parameters
    ----------
    rare, partners
        As for :func:`composed`.

    Returns
    -------
    ndarray, int32, shape (3, R · P, 3)
        By the position of the rare image.

    Examples
    --------
    >>> composed_everywhere(np.array([7]), np.array([[0, 1]])).tolist()
    [[[7, 0, 1]], [[0, 7, 1]], [[0, 1, 7]]]
    """
    return np.stack([composed(rare, partners, position) for position in range(3)])


def target(name):
    """Return the function of labels that a target's name stands for.

    Parameters
    ----------
    name : str or callable
        One of ``TARGETS``, or a function of labels, which is returned as it is.

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        For an unknown name.
    """
    return name if callable(name) else lookup.choose(TARGETS, name, "target")


def targets(labels, triplets, name="sum"):
    """Return what is asked about each triplet: the sum of its labels (section 5.2), or another target.

    Parameters
    ----------
    labels : ndarray, int, shape (N,)
    triplets : ndarray, int, shape (M, 3)
    name : str or callable
        As for :func:`target`.

    Returns
    -------
    ndarray, float32, shape (M,)

    Examples
    --------
    >>> targets(np.array([4, 9]), np.array([[0, 0, 1]]), "weighted").tolist()
    [39.0]
    """
    labels = real_array("labels", labels)
    return target(name)(labels[indices("triplets", triplets, len(labels))]).astype(np.float32)
