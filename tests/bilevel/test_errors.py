"""Oracles and hidden variables that do not fit are named."""

import jax
import jax.numpy as jnp
import optax
import pytest

from stochopt import amigo, bsvrb_v1, bsvrb_v2, f2sa, mrbo, rsvrb, saba, soba, stocbio
from stochopt.bilevel import (
    FieldParams,
    LowerAndAdjoint,
    LowerOnly,
    adjoint_field,
    estimate_field,
    estimate_saga_field,
    hide,
)

X, Y = jnp.ones(3), jnp.ones(2)
COUPLING = jnp.ones((2, 3))


def upper(x, y, batch):
    return jnp.sum((y - batch * jnp.ones(2)) ** 2)


def lower(x, y, batch):
    return y @ (y - COUPLING @ x - batch)


BLOCKS = {"num_blocks": 4, "num_sampled": 2}
SAMPLE = {"sample": lambda key: 1.0}
OF_BLOCKS = {"batch": jnp.ones(2), "block_indices": jnp.arange(2)}
OF_SAMPLES = {"batch": 1.0, "sample_indices": (0, 0)}
METHODS = {
    "soba": (soba, {}, {"batch": 1.0}),
    "mrbo": (mrbo, {}, {"batch": 1.0}),
    "f2sa": (f2sa, {}, {"batch": 1.0}),
    "saba": (saba, {"num_samples": 2}, OF_SAMPLES),
    "amigo": (amigo, SAMPLE, {"batch": 1.0}),
    "stocbio": (stocbio, SAMPLE, {"batch": 1.0}),
    "bsvrb_v1": (bsvrb_v1, BLOCKS, OF_BLOCKS),
    "bsvrb_v2": (bsvrb_v2, BLOCKS, OF_BLOCKS),
    "rsvrb": (rsvrb, BLOCKS, OF_BLOCKS),
}
each_method = pytest.mark.parametrize("method", METHODS)


def update(method, upper=upper, lower=lower, lower_params=Y):
    make, options, extras = METHODS[method]
    optimizer = make(upper, lower, lower_params=lower_params, **options)
    step = lambda x: optimizer.update(None, optimizer.init(x), x, **extras)
    return jax.eval_shape(step, X)


def notes_of(caught):
    """Without those of JAX."""
    return [n for n in caught.value.__notes__ if "er(params, lower_params, batch) got" in n]


@each_method
def test_control_nothing_is_wrong(method):
    update(method)


@each_method
@pytest.mark.parametrize("wrong", [jnp.ones(5), jnp.ones((4, 2)), {"w": Y}])
def test_lower_params_that_do_not_fit_are_named(method, wrong):
    with pytest.raises((TypeError, ValueError)) as caught:
        update(method, lower_params=wrong)
    shapes = {"w": (2,)} if isinstance(wrong, dict) else wrong.shape
    (note,) = notes_of(caught)
    assert f"params of shapes (3,), lower_params of shapes {shapes}, batch of shapes ()" in note


@each_method
@pytest.mark.parametrize("name", ["upper", "lower"])
def test_oracles_that_return_no_scalar_are_named(method, name):
    oracle = {"upper": upper, "lower": lower}[name]
    vector = lambda x, y, batch: oracle(x, y, batch) * jnp.ones(1)
    with pytest.raises(ValueError, match=rf"^{name} must return a scalar, got shapes \(1,\)"):
        update(method, **{name: vector})


@each_method
def test_errors_of_an_oracle_keep_their_type(method):
    class OwnError(Exception):
        pass

    def broken(x, y, batch):
        raise OwnError("of the user")

    with pytest.raises(OwnError, match="of the user") as caught:
        update(method, lower=broken)
    (note,) = notes_of(caught)
    assert note.startswith("lower")


@pytest.mark.parametrize("method", ["bsvrb_v1", "bsvrb_v2", "rsvrb"])
def test_the_axis_of_the_blocks(method):
    make, options, extras = METHODS[method]
    optimizer = make(upper, lower, lower_params=Y, **options)
    state = optimizer.init(X)
    for name in ("batch", "jacobian_batch"):
        wrong = extras | {name: jnp.ones(3)}
        with pytest.raises(ValueError, match=rf"^{name} of shape \(3,\) needs the leading axis"):
            optimizer.update(None, state, X, **wrong)


# The field form.

ESTIMATORS = {
    "estimate_field": (estimate_field(adjoint_field(upper, lower)), {"batch": 1.0}),
    "estimate_saga_field": (
        estimate_saga_field(upper, lower, num_lower_samples=2, num_upper_samples=2),
        OF_SAMPLES,
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_hidden_variables_that_do_not_fit(name):
    estimator, extras = ESTIMATORS[name]
    good = FieldParams(X, LowerAndAdjoint(Y, Y))
    state = estimator.init(good)
    step = lambda params: estimator.update(None, state, params, **extras)
    step(good)
    with pytest.raises(TypeError, match=rf"^{name}: params must be a FieldParams"):
        step({"x": X})
    with pytest.raises(TypeError, match=rf"^{name}: the hidden variables must be a LowerAndAdj"):
        step(good._replace(hidden=LowerOnly(Y)))
    with pytest.raises(TypeError, match=r"must be a LowerAndAdjoint, got .*Array"):
        step(good._replace(hidden=Y))
    with pytest.raises(ValueError, match=rf"^{name}: hidden has shapes .*\(3,\)"):
        step(good._replace(hidden=LowerAndAdjoint(Y, X)))


def test_hidden_variables_of_another_field_are_found_by_hide():
    optimizers = (optax.sgd(0.1),)
    hidden = hide(ESTIMATORS["estimate_field"][0], LowerOnly(Y), optimizers)
    with pytest.raises(TypeError, match="must be a LowerAndAdjoint, got LowerOnly"):
        hidden.update(None, hidden.init(X), X, batch=1.0)


def test_an_estimator_that_returns_something_else_is_found_by_hide():
    def update(updates, state, params, **extra_args):
        return FieldParams(params.params, LowerOnly(params.params)), state

    estimator = optax.GradientTransformationExtraArgs(lambda params: (), update)
    hidden = hide(estimator, LowerOnly(Y), (optax.sgd(0.1),))
    with pytest.raises(ValueError, match=r"direction has shapes .*\(3,\).* start has .*\(2,\)"):
        hidden.update(None, hidden.init(X), X, batch=1.0)
