"""Which glyphs look like digits, by a rule that sees no result of any experiment."""

import warnings

import numpy as np
import pandas as pd

from memcomp.data.digits import embedded
from memcomp.data.store import cached

SHARE = 0.5  # of the classifier's probability that may fall on one digit


@cached(maxsize=1)
def _reader():
    """Return a classifier of digits, a search for the nearest one, and the usual distance to it."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neighbors import NearestNeighbors
    from sklearn.neural_network import MLPClassifier

    images, labels = embedded("train")
    classifier = MLPClassifier(max_iter=20, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 20 epochs are enough, and meant
        classifier.fit(_flat(images), labels)
    neighbours = NearestNeighbors(n_neighbors=1).fit(_flat(images))
    usual = np.median(neighbours.kneighbors(_flat(embedded("test")[0]))[0])
    return classifier, neighbours, usual


def _flat(images):
    return images.reshape(-1, 28 * 28) / 255


def resemblance(drawn):
    """Tell how much each class of glyphs looks like a digit.

    A class is a *look-alike* if a classifier of digits puts more than ``SHARE`` of its probability on one
    digit, in the mean over the drawings, or if at least half of the drawings are nearer to a digit than a
    digit usually is to the nearest other one. The classifier is a perceptron with one hidden layer, trained
    on the 4,000 ``embedded`` digits of training; distances are Euclidean, to the same digits, and *usual* is
    the median over the held-out ones.

    Parameters
    ----------
    drawn : sequence of array_like, uint8, shape (drawings, 28, 28)
        One entry a class; the classes may differ in their number of drawings.

    Returns
    -------
    pandas.DataFrame
        One row a class: ``digit`` that it is read as most, ``share`` of the probability on it, ``distance``
        in units of the usual one, ``alike``.
    """
    classifier, neighbours, usual = _reader()
    flat = _flat(np.concatenate(drawn))
    ends = np.cumsum([len(one) for one in drawn])[:-1]
    read = np.stack([one.mean(0) for one in np.split(classifier.predict_proba(flat), ends)])
    nearest = [np.median(one) for one in np.split(neighbours.kneighbors(flat)[0], ends)]
    found = {"digit": read.argmax(1), "share": read.max(1), "distance": np.array(nearest) / usual}
    return pd.DataFrame(found).eval(f"alike = share > {SHARE} or distance < 1")
