"""The linear scores against the influence functions of Captum, an attribution library of others.

An influence function is a derivative, of the loss in the weight of one training row. Leaving the row out is
no small change, but in a linear model the whole change is the derivative over one less the leverage. The
library takes the Hessian and the gradients by automatic differentiation of a ``torch.nn.Linear``; it knows no
formula of ours.
"""

import numpy as np
import pytest
import torch
from captum.influence import NaiveInfluenceFunction

from memcomp import memorization
from memcomp.linear import PowerLaw, ridge

N, D = 60, 80
PENALTIES = (0.25, 4.0)  # exact in single precision, in which Captum adds them to the Hessian


class Output(torch.nn.Module):
    """In place of a loss on test rows: the prediction itself."""

    reduction = "none"

    def forward(self, output, target):
        return output


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    law = PowerLaw(D, 4, 1.3)
    X = law.sample(N, rng).toarray()
    truth = np.arange(1, D + 1) ** -0.1
    return law, X, truth, X @ truth + 0.3 * rng.normal(size=N)


def rows(X, y):
    return torch.from_numpy(X), torch.from_numpy(y)[:, None]


def attribution(X, y, solution, penalty, on=None):
    """Return Captum's influence functions of squared error, at a given solution.

    The Hessian of the sum of squared errors is 2 X'X, so the penalty enters it twice.
    """
    model = torch.nn.Linear(X.shape[1], 1, bias=False, dtype=torch.float64)
    loss = torch.nn.MSELoss(reduction="none")
    with torch.no_grad():
        model.weight[:] = torch.from_numpy(solution)
    return NaiveInfluenceFunction(
        model,
        torch.utils.data.TensorDataset(*rows(X, y)),
        checkpoint="",
        checkpoints_load_func=lambda model, path: 1.0,  # the weights are set already
        loss_fn=loss,
        test_loss_fn=on,
        batch_size=len(X),
        projection_dim=X.shape[1],
        hessian_reg=2 * penalty,
        hessian_inverse_tol=1e-9,
    )


def change_of_predictions(found, Z):
    """Prediction for each test row less that of the solution without row i, shape (n, m)."""
    return (Z @ (found.solution[:, None] - found.solutions)).T


def on_predictions(X, y, solution, penalty, Z):
    """Derivative of each test row's prediction, shape (n, m), when a training row is weighted down."""
    found = attribution(X, y, solution, penalty, on=Output()).influence(rows(Z, np.zeros(len(Z))))
    # Captum's sign is that of a loss, which falls where the row pulls the prediction up.
    return -found.numpy().T


@pytest.mark.parametrize("penalty", PENALTIES)
def test_leverage_is_the_self_influence_over_the_squared_residual(problem, penalty):
    _, X, _, y = problem
    found = memorization.leave_one_out(X, y, penalty)
    residual = y - X @ found.solution
    # Gradients 2 (y - ŷ) x on both sides, and half the inverse of X'X + λ between them.
    score = attribution(X, y, found.solution, penalty).self_influence(rows(X, y)).numpy()
    assert np.abs(residual).min() > 1e-4
    assert found.leverage == pytest.approx(score / (2 * residual**2), rel=1e-8)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_influence_on_predictions_is_the_derivative_over_one_less_the_leverage(problem, penalty):
    law, X, _, y = problem
    Z = law.sample(25, np.random.default_rng(1)).toarray()
    found = memorization.leave_one_out(X, y, penalty)
    slope = on_predictions(X, y, found.solution, penalty, Z)
    ours = change_of_predictions(found, Z)
    assert ours == pytest.approx(slope / (1 - found.leverage)[:, None], rel=1e-7, abs=1e-10)
    assert np.abs(ours - slope).max() > 0.1, "the factor matters here"


@pytest.mark.parametrize("penalty", PENALTIES)
def test_influence_on_composed_losses_is_the_derivative_and_the_square_of_the_change(problem, penalty):
    """A composed loss is the squared error on D test rows: scaled unit vectors, labelled by the truth."""
    law, X, truth, y = problem
    found = memorization.leave_one_out(X, y, penalty)
    tests = [[], [3], [10, 40], [0, 20, 21]]
    ours = memorization.composed_influence(found, truth, law.p, tests)
    for column, features in zip(ours.T, tests):
        weight = law.p.copy()
        weight[features] = 1.0
        Z = np.diag(np.sqrt(weight))
        library = attribution(X, y, found.solution, penalty)
        slope = library.influence(rows(Z, Z @ truth)).numpy().sum(axis=0)
        change = on_predictions(X, y, found.solution, penalty, Z)
        scale = 1 - found.leverage
        expected = slope / scale + (change**2).sum(axis=1) / scale**2
        assert column == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert np.abs(ours).max() > 0.1


def test_to_first_order_a_memorized_row_is_not_needed(problem):
    _, X, _, y = problem
    Z = np.eye(D)  # predictions for single features, which are the coefficients
    found = memorization.leave_one_out(X, y)
    slope = on_predictions(X, y, found.solution, 0.0, Z)
    ours = change_of_predictions(found, Z)
    whole = found.leverage > 1 - 1e-9
    assert 5 < whole.sum() < N - 5
    assert ours[~whole] == pytest.approx(
        slope[~whole] / (1 - found.leverage[~whole])[:, None], rel=1e-6, abs=1e-9
    )
    # A row that is fitted whatever its label has no gradient left: to first order it is not needed.
    assert slope[whole] == pytest.approx(0, abs=1e-10)
    largest = np.abs(ours[whole]).max(axis=1)
    assert largest.min() > 1e-3
    assert np.median(largest) > 0.5


def test_an_error_of_either_side_would_be_seen(problem):
    """A Hessian with half of the penalty, or the solution of another penalty, is no match."""
    law, X, _, y = problem
    Z = law.sample(5, np.random.default_rng(1)).toarray()
    found = memorization.leave_one_out(X, y, 4.0)
    ours = change_of_predictions(found, Z)
    for solution, penalty in ((found.solution, 2.0), (ridge(X, y, 2.0), 4.0)):
        wrong = on_predictions(X, y, solution, penalty, Z) / (1 - found.leverage)[:, None]
        assert np.abs(wrong - ours).max() > 0.01
