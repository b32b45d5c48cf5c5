"""Parts of linear models: designs, losses, penalties, gaps; bad arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from stochopt import linear_models as lm

RNG = np.random.default_rng(0)
N, D = 30, 11
MATRIX = RNG.standard_normal((N, D)) * (RNG.random((N, D)) < 0.4)
MATRIX[:, 5] = 0
TARGETS = RNG.standard_normal(N)
LABELS = np.where(TARGETS > 0, 1.0, -1.0)
LOSSES = {
    "squared": (lm.squared(), TARGETS),
    "logistic": (lm.logistic(), LABELS),
    "huber": (lm.huber(0.5), TARGETS),
}
PENALTIES = {
    "l1": lm.l1(0.02),
    "elastic_net": lm.elastic_net(0.02, 0.05),
    "group_lasso": lm.group_lasso(0.03, 4),
    "mcp": lm.mcp(0.02, 30.0),
}
DESIGNS = {
    "dense": lambda: lm.dense(MATRIX),
    "sparse": lambda: lm.sparse(scipy.sparse.coo_array(MATRIX)),
}


@pytest.mark.parametrize("make", DESIGNS.values(), ids=DESIGNS)
def test_designs_are_the_matrix(x64, make):
    design = make()
    x, v = RNG.standard_normal(D), RNG.standard_normal(N)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)
    assert design.shape == (N, D)
    close(jax.jit(lambda design, x: design.matvec(x))(design, x), MATRIX @ x)
    close(design.rmatvec(v), MATRIX.T @ v)
    close(design.squared_column_norms(), (MATRIX**2).sum(axis=0))
    close(design.columns(np.array([7, D, 0])), MATRIX[:, [7, 5, 0]])  # 5 is a column of zeros
    wide = np.pad(MATRIX, ((0, 0), (0, 1)))
    padded = design.padded(4)
    assert padded.shape == (N, 12)
    parts = padded.cut(4)
    assert [part.shape for part in parts] == 3 * [(N, 4)]
    for j, part in enumerate(parts):
        block = wide[:, 4 * j : 4 * j + 4]
        close(padded.block_rmatvec(jnp.asarray(j), v, 4), block.T @ v)
        close(padded.block_update(v, jnp.asarray(j), x[:4]), v + block @ x[:4])
        close(part.rmatvec(v), block.T @ v)
        close(part.matvec(x[:4]), block @ x[:4])


def test_sparse_adds_what_is_given_twice_and_takes_numpy(x64):
    twice = scipy.sparse.coo_array(([1.0, 2.0], ([1, 1], [0, 0])), shape=(3, 2))
    design = lm.sparse(twice)
    assert design.values.shape == (2, 1)
    np.testing.assert_array_equal(design.columns(jnp.arange(2)), twice.toarray())
    np.testing.assert_array_equal(
        lm.sparse(np.eye(3, dtype=int)).matvec(jnp.arange(3.0)), [0, 1, 2]
    )


@pytest.mark.parametrize("name", LOSSES)
def test_losses_have_their_derivative_curvature_and_conjugate(x64, name):
    loss, targets = LOSSES[name]
    z = 3 * RNG.standard_normal(N)
    slopes = loss.derivative(z, targets)
    np.testing.assert_allclose(
        slopes, jax.grad(lambda z: loss.value(z, targets).sum())(jnp.asarray(z)), atol=1e-14
    )
    # Equality in Fenchel and Young's inequality at the derivative, and only there.
    slack = lambda u: loss.value(z, targets) + loss.conjugate(u, targets) - u * z
    np.testing.assert_allclose(slack(slopes), 0, atol=1e-13)
    assert np.all(slack(0.9 * slopes)[np.abs(slopes) > 1e-3] > 1e-9)
    far = np.linspace(-9, 9, 4001)
    curvatures = np.diff(loss.derivative(far, 1.0)) / np.diff(far)
    assert 0.99 * loss.curvature < curvatures.max() <= loss.curvature + 1e-9
    if name != "squared":  # outside the domain
        assert np.all(np.isinf(loss.conjugate(1.5 * np.ones(N), targets)))


@pytest.mark.parametrize("name", PENALTIES)
def test_violations_vanish_where_the_prox_stays(x64, name):
    """x = prox(x - s g) if and only if -g is a subgradient at x."""
    penalty = PENALTIES[name]
    center, step = np.repeat([0.1, 0.001, -0.2], 4) * RNG.uniform(0.9, 1.1, 12), 2.0
    x = penalty.prox(center, step)
    assert 0 < np.count_nonzero(x) < 12
    gradient = (x - center) / step
    assert np.abs(penalty.violation(x, gradient)).max() < 1e-14
    # The distance is that to the nearest subgradient: moving along a normal adds what was moved.
    kept = np.flatnonzero(np.abs(x).reshape(-1, penalty.group_size).sum(axis=1))
    moved = gradient + 0.3 * np.sign(x) * (np.arange(12) // penalty.group_size == kept[0])
    moved_by = np.linalg.norm(moved - gradient)
    np.testing.assert_allclose(penalty.violation(x, moved)[kept[0]], moved_by, rtol=1e-12)
    huge = penalty.violation(np.zeros(12), np.full(12, 5.0))
    np.testing.assert_allclose(huge, 5 * penalty.group_size**0.5 - penalty.weight, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "penalty"),
    [("squared", "l1"), ("logistic", "elastic_net"), ("huber", "group_lasso")],
)
def test_the_gap_bounds_the_suboptimality_and_closes(x64, name, penalty):
    loss, targets = LOSSES[name]
    make = lambda design: lm.linear_model(design, targets, loss, PENALTIES[penalty])
    model = make(lm.dense(MATRIX))
    solution = lm.solve(model, tolerance=1e-12, block_width=4)
    assert solution.relative_gap < 1e-12
    assert solution.num_cycles < 10_000
    assert lm.optimality(model, solution.params) < 1e-5

    @jax.jit
    def evaluate(model, x):
        smooth = lambda x: model.objective(x) - model.penalty.value(x)
        checks = lm.duality_gap(model, x), lm.optimality(model, x), model.gradient(x)
        return model.objective(x), checks, jax.grad(smooth)(x)

    least, _, _ = evaluate(model, solution.params)
    for scale in (0.01, 0.1, 1.0):
        x = np.asarray(solution.params) + scale * RNG.standard_normal(D)
        value, checks, gradient = evaluate(model, x)
        assert checks[0] >= value - least > 0
    # Both designs give the same, and the gradient is that of autodiff.
    np.testing.assert_allclose(checks[2], gradient, rtol=0, atol=1e-13)
    _, others, _ = evaluate(make(lm.sparse(MATRIX)), x)
    for ours, other in zip(checks, others, strict=True):
        np.testing.assert_allclose(other, ours, rtol=0, atol=1e-12)


def test_bad_arguments_are_named():
    design = lm.dense(MATRIX)
    with pytest.raises(ValueError, match=r"dense: matrix needs .* got \(3,\)"):
        lm.dense(np.ones(3))
    with pytest.raises(ValueError, match=r"sparse: matrix needs .* got \(0, 3\)"):
        lm.sparse(np.ones((0, 3)))
    with pytest.raises(ValueError, match="dense: matrix must be real"):
        lm.dense(1j * MATRIX)
    with pytest.raises(ValueError, match=r"targets must be one for each of the 30 .* \(29,\)"):
        lm.linear_model(design, TARGETS[1:], lm.squared(), lm.l1(0.1))
    with pytest.raises(ValueError, match=r"targets\[0\] = .* -1 and 1"):
        lm.linear_model(design, TARGETS, lm.logistic(), lm.l1(0.1))
    with pytest.raises(ValueError, match="weight must lie in"):
        lm.l1(-1.0)
    with pytest.raises(ValueError, match="ridge_weight must lie in"):
        lm.elastic_net(1.0, -1.0)
    with pytest.raises(ValueError, match="group_size must be a whole number"):
        lm.group_lasso(1.0, 0)
    with pytest.raises(ValueError, match="gamma must lie in"):
        lm.mcp(1.0, 0.0)
    with pytest.raises(ValueError, match="threshold must lie in"):
        lm.huber(0.0)
    with pytest.raises(ValueError, match="width must be a whole number"):
        design.padded(0)

    model = lm.linear_model(design, TARGETS, lm.squared(), lm.group_lasso(0.1, 4))
    descent = lambda model=model, **options: lm.linear_model_descent(
        model, **{"block_width": 4, **options}
    )
    with pytest.raises(ValueError, match=r"block_width = 6 must be a multiple .* group_size = 4"):
        descent(block_width=6)
    with pytest.raises(ValueError, match="refresh_every must be a whole number"):
        descent(refresh_every=0)
    with pytest.raises(ValueError, match="learning_rate must lie in"):
        descent(learning_rate=2.0)
    with pytest.raises(ValueError, match="smoothness must lie in"):
        descent(smoothness=0.0)
    with pytest.raises(ValueError, match=r"smoothness .* each of the 3 blocks, got shape \(2,\)"):
        descent(smoothness=np.ones(2))
    flat = lm.linear_model(design, TARGETS, lm.squared(), lm.mcp(0.1, 3.0))
    with pytest.raises(ValueError, match=r"the step 5 of block 1 must be below 3\.0 for .* MCP"):
        descent(flat, smoothness=np.array([1.0, 0.2, 0.5]))
    with pytest.raises(TypeError, match="solve: penalty MCP is not convex"):
        lm.solve(flat)
    with pytest.raises(TypeError, match="duality_gap: penalty MCP is not convex"):
        lm.duality_gap(flat, jnp.zeros(D))
    with pytest.raises(ValueError, match="tolerance must lie in"):
        lm.solve(model, tolerance=-1.0)
    optimizer = descent()
    with pytest.raises(ValueError, match=r"params must be one array of shape \(11,\).*\(12,\)"):
        optimizer.init(jnp.zeros(12))
    with pytest.raises(ValueError, match=r"dtype float32.*dtype float16"):
        optimizer.init(jnp.zeros(D, jnp.float16))
    with pytest.raises(ValueError, match=r"linear_model_descent: .*params are missing"):
        optimizer.update(None, optimizer.init(jnp.zeros(D)))
