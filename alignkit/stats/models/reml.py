"""Restricted maximum likelihood of variance components, for rows that depend on each other within blocks alone.

The model is y = X b + sum_k Z_k u_k + e with independent u_k ~ N(0, v_k I) and e ~ N(0, v_0 I); all rows
that share a random effect are in one block. With V = v_0 I + sum_k v_k K_k, K_k = Z_k Z_k' and
P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1, the deviance (-2 log restricted likelihood) has gradient
tr(P K_i) - y'P K_i P y and expected second derivatives tr(P K_i P K_j).

Each step minimises that quadratic model over v >= 0, exactly, as a non-negative least-squares problem:
away from the boundary it is Fisher scoring (Patterson and Thompson, 1971), and near the end Newton's step.
Variances are fitted as such and not as standard deviations, whose gradient at 0 vanishes whether 0 is the
best value or the worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize

MOST_STEPS = 200
CONVERGED = 1e-10
"""The search ends where the quadratic model promises no larger decrease of the deviance."""

NEAR = 0.1
"""From there on a step is Newton's."""

SMALLEST_RESIDUAL = 1e-10
"""Where the residual variance is kept above 0, as a share of the variance of the response."""

SMALLEST_SATURATED = 1e-6
"""The same where every row can be told by the effects: the likelihood is then finite at 0, and its derivatives are
differences of numbers that grow with the inverse of the square."""

FIXED = "the fixed effects"


@dataclass(frozen=True, eq=False)
class Component:
    """One random effect a block and level: row i has values[i] times the effect of level codes[i] in its block.

    codes : [n], the level of each row. values : [n, m], ones for an intercept, or the columns of a slope,
    scaled to a mean square of 1 over rows, so that a variance is its part in the variance of a mean row.
    unit : that mean square before it was scaled.
    """

    name: str
    codes: np.ndarray
    values: np.ndarray
    unit: float = 1.0


@dataclass(frozen=True, eq=False)
class Blocks:
    """The rows of every block, rotated into the span of its X and Z and padded with zeros to one shape.

    Outside that span a row says nothing but the residual variance: `rest` is its sum of squares there.
    A row of zeros has variance v_0 and no other part in the likelihood, which is easily taken out again.

    x : [blocks, r, p]; y : [blocks, r]; z : [blocks, r, q]; owner : [q], the component of each column of z.
    n : how many rows there are. names : the components; component k has variance v_(k+1).
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    owner: np.ndarray
    rest: float
    n: int
    names: tuple[str, ...]

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, block: np.ndarray, components: Sequence[Component]) -> Blocks:
        """Sort the rows x [n, p], y [n] of blocks `block` [n] with the given components."""
        members = [np.flatnonzero(block == position) for position in range(int(block.max()) + 1)]
        parts = [[_indicators(component, rows) for component in components] for rows in members]
        # Every component takes the same columns in every block, as many as in its largest.
        widths = [max(part[k].shape[1] for part in parts) for k in range(len(components))]
        starts = np.concatenate([[0], np.cumsum(widths)]).astype(int)
        rotated = []
        rest = 0.0
        for rows, part in zip(members, parts, strict=True):
            z = np.zeros((len(rows), starts[-1]))
            for start, columns in zip(starts, part, strict=False):
                z[:, start : start + columns.shape[1]] = columns
            basis = _span(np.hstack([z, x[rows]]))
            inside = basis.T @ y[rows]
            rest += float(((y[rows] - basis @ inside) ** 2).sum())
            rotated.append((basis.T @ x[rows], inside, basis.T @ z))
        r = max(len(inside) for _, inside, _ in rotated)
        return cls(
            x=np.stack([_padded(item[0], r) for item in rotated]),
            y=np.stack([_padded(item[1], r) for item in rotated]),
            z=np.stack([_padded(item[2], r) for item in rotated]),
            owner=np.repeat(np.arange(len(components)), widths),
            rest=rest,
            n=len(y),
            names=tuple(component.name for component in components),
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The deviance at `variances` [1 + components], with its derivatives; the residual variance comes first.

    expected, observed : [1 + components] twice, second derivatives of the deviance.
    coefficients [p] and covariance [p, p] of the fixed effects; `information` [1 + components, p, p] holds
    X'V^-1 K_i V^-1 X, so that covariance @ information[i] @ covariance is how the covariance changes with
    variance i.
    """

    variances: np.ndarray
    deviance: float
    gradient: np.ndarray
    expected: np.ndarray
    observed: np.ndarray
    quadratic: np.ndarray
    coefficients: np.ndarray
    covariance: np.ndarray
    information: np.ndarray


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where a search ended: `at`, after `steps`, with `promised` of further decrease; and whether that is the end."""

    at: Evaluation
    steps: int
    promised: float
    converged: bool


def evaluate(blocks: Blocks, variances: np.ndarray) -> Evaluation:
    """The restricted likelihood at given variances, the residual's (first) above 0."""
    residual, others = float(variances[0]), variances[1:]
    n_blocks, r, p = blocks.x.shape
    n, owner = blocks.n, blocks.owner
    q = len(owner)
    v = (blocks.z * others[owner]) @ blocks.z.transpose(0, 2, 1)
    v[:, np.arange(r), np.arange(r)] += residual
    root = np.linalg.cholesky(v)
    scaled = np.linalg.solve(root, np.concatenate([blocks.z, blocks.x, blocks.y[:, :, None]], axis=2))
    z, x, y = scaled[:, :, :q], scaled[:, :, q : q + p], scaled[:, :, q + p]

    xx = np.einsum("srp,srk->pk", x, x)
    covariance = np.linalg.inv(xx)
    coefficients = covariance @ np.einsum("srp,sr->p", x, y)
    residuals = y - x @ coefficients
    square = float((residuals**2).sum()) + blocks.rest / residual
    # The padded matrix has blocks * r rows where the table has n: the difference is residual variance alone.
    log_v = 2 * float(np.log(np.diagonal(root, axis1=1, axis2=2)).sum()) + (n - n_blocks * r) * np.log(residual)
    deviance = (n - p) * np.log(2 * np.pi) + log_v + float(np.linalg.slogdet(xx)[1]) + square

    # For the components: Z'V^-1 Z, Z'V^-1 X and Z'P y within blocks. P joins blocks through `covariance` alone.
    zt = z.transpose(0, 2, 1)
    zz, zx, zy = zt @ z, zt @ x, (zt @ residuals[:, :, None])[:, :, 0]
    own = np.eye(len(others))[owner]  # [q, components]
    joint = zx @ covariance @ zx.transpose(0, 2, 1)
    by_owner = [zx[:, owner == k].reshape(-1, p) for k in range(len(others))]
    m = np.array([columns.T @ columns for columns in by_owner]).reshape(-1, p, p)
    mc = m @ covariance
    trace = own.T @ np.einsum("scc->c", zz - joint)
    quadratic = own.T @ (zy**2).sum(axis=0)
    expected = own.T @ (zz * (zz - 2 * joint)).sum(axis=0) @ own + np.einsum("ipk,jkp->ij", mc, mc)
    pulled = np.array([(zy[:, owner == k].ravel()) @ columns for k, columns in enumerate(by_owner)]).reshape(-1, p)
    curvature = own.T @ (zz * (zy[:, :, None] * zy[:, None, :])).sum(axis=0) @ own - pulled @ covariance @ pulled.T

    # The residual's part follows from the sum: v_0 I + sum_k v_k K_k = V, and P V P = P.
    trace = np.concatenate([[(n - p - others @ trace) / residual], trace])
    quadratic = np.concatenate([[(square - others @ quadratic) / residual], quadratic])
    expected = _with_residual(expected, trace, variances)
    curvature = _with_residual(curvature, quadratic, variances)
    information = np.concatenate([((xx - np.tensordot(others, m, 1)) / residual)[None], m])
    return Evaluation(
        variances=variances,
        deviance=deviance,
        gradient=trace - quadratic,
        expected=expected,
        observed=2 * curvature - expected,
        quadratic=quadratic,
        coefficients=coefficients,
        covariance=covariance,
        information=information,
    )


def minimise(blocks: Blocks, start: np.ndarray, *, floor: float) -> Optimum:
    """Search for the variances of the smallest deviance from `start`, the residual's kept at `floor` or above."""
    now = evaluate(blocks, np.maximum(start, [floor, *np.zeros(len(start) - 1)]))
    promised = np.inf
    for steps in range(MOST_STEPS):
        try:
            move = _step(now, floor, near=promised < NEAR) - now.variances
        except np.linalg.LinAlgError:  # rounding has the derivatives
            return Optimum(now, steps, promised, False)
        promised = -float(now.gradient @ move)
        if promised < CONVERGED:
            return Optimum(now, steps, max(promised, 0.0), True)
        size = 1.0
        while True:
            new = evaluate(blocks, now.variances + size * move)
            if new.deviance <= now.deviance - 1e-4 * size * promised:
                break
            size /= 2
            if size < 1e-6:
                # What is promised may be less than the rounding of the deviance itself.
                return Optimum(now, steps, promised, promised < 1e-6)
        now = new
    return Optimum(now, MOST_STEPS, promised, promised < 1e-6)


def smallest_residual(blocks: Blocks) -> float:
    """The residual variance at which a search stops: above 0, and above where rounding has its derivatives."""
    spans = [_span(z) for z in blocks.z]
    outside = np.concatenate([x - span @ (span.T @ x) for x, span in zip(blocks.x, spans, strict=True)])
    told = sum(span.shape[1] for span in spans) + int(np.linalg.matrix_rank(outside, tol=1e-7))
    return SMALLEST_SATURATED if told >= blocks.n else SMALLEST_RESIDUAL


def confounded(blocks: Blocks) -> dict[int, tuple[str, ...]]:
    """The components that the rows cannot tell from the residual and earlier ones, and which those are.

    P K_i P must not be a combination of the others, P being the projection away from the fixed effects.
    """
    count = len(blocks.names)
    gram = evaluate(blocks, np.concatenate([[1.0], np.zeros(count)])).expected
    names = ("residual", *blocks.names)
    kept = [0]
    aliases: dict[int, tuple[str, ...]] = {}
    size = np.sqrt(np.maximum(np.diag(gram), 0.0))
    for k in range(1, count + 1):
        # The trace of K_k itself is n: what the fixed effects leave of it may be rounding alone.
        if size[k] < 1e-7 * np.sqrt(blocks.n):
            aliases[k - 1] = (FIXED,)
            continue
        unit = gram[np.ix_(kept, kept)] / np.outer(size[kept], size[kept])
        along = gram[kept, k] / (size[kept] * size[k])
        weights = np.linalg.lstsq(unit, along, rcond=None)[0]
        if 1 - weights @ along < 1e-9:
            aliases[k - 1] = tuple(names[i] for i, weight in zip(kept, weights, strict=True) if abs(weight) > 1e-6)
        else:
            kept.append(k)
    return aliases


def _step(now: Evaluation, floor: float, *, near: bool) -> np.ndarray:
    """Where the quadratic model of the deviance has its minimum over variances >= 0.

    Its second derivatives are the expected ones, which are positive definite everywhere, but near the end,
    where scoring may be slow, the observed ones if they are so too. Raises `LinAlgError` where there are none.
    """
    diagonal = np.diag(now.expected)
    if not (np.isfinite(now.expected).all() and np.isfinite(now.observed).all() and (diagonal > 0).all()):
        raise np.linalg.LinAlgError("no second derivatives")
    scale = 1 / np.sqrt(diagonal)
    second = now.observed * np.outer(scale, scale)
    if not near or np.linalg.eigvalsh(second)[0] < 1e-3:
        second = now.expected * np.outer(scale, scale) + 1e-14 * np.eye(len(scale))
    root = np.linalg.cholesky(second)
    smallest = np.concatenate([[floor], np.zeros(len(scale) - 1)])
    target = second @ ((now.variances - smallest) / scale) - now.gradient * scale
    solution, _ = optimize.nnls(root.T, linalg.solve_triangular(root, target, lower=True))
    return np.asarray(smallest + scale * solution)


def _with_residual(matrix: np.ndarray, sums: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Border `matrix` [components twice] so that matrix @ variances = sums, the residual's row and column first."""
    residual, others = variances[0], variances[1:]
    edge = (sums[1:] - matrix @ others) / residual
    corner = (sums[0] - others @ edge) / residual
    return np.block([[np.array([[corner]]), edge[None]], [edge[:, None], matrix]])


def _indicators(component: Component, rows: np.ndarray) -> np.ndarray:
    """Z of one component in one block: for every level there its indicator times each column of `values`."""
    levels, codes = np.unique(component.codes[rows], return_inverse=True)
    indicator = np.eye(len(levels))[codes]
    return (indicator[:, :, None] * component.values[rows][:, None, :]).reshape(len(rows), -1)


def _span(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the span of `columns`."""
    q, r, _ = linalg.qr(columns, mode="economic", pivoting=True)
    size = np.abs(np.diag(r))
    return np.asarray(q[:, : int((size > 1e-10 * size.max(initial=0.0)).sum())])


def _padded(rows: np.ndarray, r: int) -> np.ndarray:
    return np.concatenate([rows, np.zeros((r - len(rows), *rows.shape[1:]))])
