"""Points in place of images: the Gaussian mixture of appendix D.1."""

import numpy as np


def gaussian(counts, *, means=0, draw=0, dim=100, covariance=1.0):
    """Draw vectors from the Gaussian mixture of appendix D.1.

    The mean of each class is one standard normal vector; a vector of the class is that mean plus normal
    noise. The paper's covariance is not readable in the text we have; the identity is our choice.

    Parameters
    ----------
    counts : sequence of int
        Number of vectors of each class.
    means : int
        Seed of the mean vectors. Equal seeds give equal means, whatever the counts.
    draw : int
        Seed of the vectors around them.
    dim : int
        Dimension.
    covariance : float
        Variance of each coordinate around the mean.

    Returns
    -------
    vectors : ndarray, float32, shape (sum(counts), dim)
    labels : ndarray, int64, shape (sum(counts),)
        Sorted.
    """
    counts = np.asarray(counts)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = np.random.default_rng([means, 0]).standard_normal((len(counts), dim), dtype=np.float32)
    vectors = np.random.default_rng([means, 1, int(draw)]).standard_normal(
        (len(labels), dim), dtype=np.float32
    )
    vectors *= np.float32(np.sqrt(covariance))
    vectors += centres[labels]
    return vectors, labels
