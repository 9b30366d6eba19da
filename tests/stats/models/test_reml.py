"""The restricted likelihood and its derivatives against dense matrices, differences, and another optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from alignkit.stats.models.reml import Blocks, Component, confounded, evaluate, minimise


class Case:
    """A small unbalanced table of two crossed components within seeds, one of them a slope, as dense matrices too."""

    def __init__(self, noise: int = 0, keep: float = 0.8) -> None:
        generator = np.random.default_rng(noise)
        seed, a, b = (axis.ravel() for axis in np.meshgrid(range(6), range(3), range(4), indexing="ij"))
        kept = generator.random(len(seed)) < keep
        seed, a, b = seed[kept], a[kept], b[kept]
        n = len(seed)
        slope = (b - b.mean())[:, None].astype(float)
        self.x = np.column_stack([np.ones(n), a == 1, a == 2, b])
        self.y = generator.normal(0, 1, 6)[seed] + generator.normal(0, 0.8, (6, 3))[seed, a] + generator.normal(0, 1, n)
        self.components = [
            Component("seed", np.zeros(n, int), np.ones((n, 1))),
            Component("seed:a", a, np.ones((n, 1))),
            Component("slope", np.zeros(n, int), slope),
        ]
        self.blocks = Blocks.of(self.x, self.y, seed, self.components)
        same = seed[:, None] == seed[None, :]
        self.kernels = [np.eye(n)] + [
            same * (c.codes[:, None] == c.codes[None, :]) * (c.values @ c.values.T) for c in self.components
        ]

    def p(self, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        v = sum(variance * kernel for variance, kernel in zip(variances, self.kernels, strict=True))
        inverse = np.linalg.inv(v)
        covariance = np.linalg.inv(self.x.T @ inverse @ self.x)
        return v, covariance, inverse - inverse @ self.x @ covariance @ self.x.T @ inverse

    def deviance(self, variances: np.ndarray) -> float:
        v, covariance, p = self.p(variances)
        n, k = self.x.shape
        logs = np.linalg.slogdet(v)[1] - np.linalg.slogdet(covariance)[1]
        return float((n - k) * np.log(2 * np.pi) + logs + self.y @ p @ self.y)


VARIANCES = np.array([0.7, 0.4, 0.9, 0.2])


def test_the_likelihood_and_its_derivatives_are_those_of_dense_matrices() -> None:
    case = Case()
    found = evaluate(case.blocks, VARIANCES)
    _, covariance, p = case.p(VARIANCES)
    py = p @ case.y
    expected = np.array([[np.trace(p @ i @ p @ j) for j in case.kernels] for i in case.kernels])
    curvature = np.array([[py @ i @ p @ j @ py for j in case.kernels] for i in case.kernels])
    assert found.deviance == pytest.approx(case.deviance(VARIANCES), rel=1e-12)
    np.testing.assert_allclose(found.gradient, [np.trace(p @ k) - py @ k @ py for k in case.kernels], rtol=1e-9)
    np.testing.assert_allclose(found.expected, expected, rtol=1e-9)
    np.testing.assert_allclose(found.observed, 2 * curvature - expected, rtol=1e-8)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9)


def test_derivatives_are_those_of_differences() -> None:
    case, step = Case(1), 1e-5
    found = evaluate(case.blocks, VARIANCES)
    change = found.covariance @ found.information @ found.covariance
    for k, move in enumerate(step * np.eye(4)):
        up, down = evaluate(case.blocks, VARIANCES + move), evaluate(case.blocks, VARIANCES - move)
        assert found.gradient[k] == pytest.approx((up.deviance - down.deviance) / (2 * step), rel=1e-5, abs=1e-6)
        np.testing.assert_allclose(found.observed[k], (up.gradient - down.gradient) / (2 * step), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(change[k], (up.covariance - down.covariance) / (2 * step), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("noise", range(4))
def test_no_general_optimiser_finds_a_better_likelihood(noise: int) -> None:
    case = Case(noise, keep=0.7)
    ends = [minimise(case.blocks, np.array(start), floor=1e-10) for start in ([1.0, 0, 0, 0], [0.01, 1, 1, 1])]
    assert all(end.converged and end.promised < 1e-8 for end in ends)
    assert ends[0].at.deviance == pytest.approx(ends[1].at.deviance, abs=1e-7)
    other = optimize.minimize(
        lambda roots: case.deviance(roots**2 + [1e-8, 0, 0, 0]), np.ones(4), method="Nelder-Mead",
        options={"maxiter": 4000, "maxfev": 4000, "xatol": 1e-7, "fatol": 1e-9},
    )  # fmt: skip
    assert ends[0].at.deviance <= other.fun + 1e-7
    # At the end the gradient is 0, or the variance is 0 and the gradient points below it.
    at = ends[0].at
    size = np.sqrt(np.diag(at.expected))
    assert (np.abs(at.gradient / size)[at.variances > 0] < 1e-4).all()
    assert ((at.gradient / size)[at.variances == 0] > -1e-4).all()


def test_at_least_one_of_those_cases_ends_on_the_boundary_and_one_inside() -> None:
    ends = [minimise(Case(k, keep=0.7).blocks, np.array([1.0, 0, 0, 0]), floor=1e-10).at for k in range(4)]
    zeros = [int((end.variances == 0).sum()) for end in ends]
    assert min(zeros) == 0 and max(zeros) > 0


def test_components_that_rows_cannot_tell_apart_are_named() -> None:
    case = Case()
    n = len(case.y)
    seed_twice = Component("again", np.zeros(n, int), 2 * np.ones((n, 1)))
    rows = Component("rows", np.arange(n), np.ones((n, 1)))
    block = np.array([np.flatnonzero(row)[0] for row in case.kernels[1] > 0])
    block = np.unique(block, return_inverse=True)[1]
    blocks = Blocks.of(case.x, case.y, block, [*case.components, seed_twice, rows])
    assert confounded(case.blocks) == {}
    assert confounded(blocks) == {3: ("seed",), 4: ("residual",)}


def test_a_component_that_the_fixed_effects_take_up_is_named() -> None:
    case = Case()
    block = np.unique([np.flatnonzero(row)[0] for row in case.kernels[1] > 0], return_inverse=True)[1]
    x = np.column_stack([case.x, np.eye(6)[block][:, 1:]])
    assert confounded(Blocks.of(x, case.y, block, case.components)) == {0: ("the fixed effects",)}
