"""Models of the sampled loss: the theorems are the same for all of them."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt.claims.claim import Claim, Constants, Control, powers_of_two
from stochopt.model_based import prox_subgradient, stochastic_prox_point
from stochopt.problems import noisy_quadratic, noisy_squares, separable_composite

_squares = functools.partial(noisy_squares, dimension=4, start=5.0)
_BIASED = Control("gradients biased by 10 %", bias=0.1)


def _short(horizon: Any) -> Mapping[str, Any]:
    return {"learning_rate": 0.5 / horizon**0.5}


def _decaying(scale: float, longest: float = jnp.inf) -> Constants:
    r"""The step sizes :math:`\eta_t = \min(c, \; s / (t + 1))`, for any horizon."""

    def rate(count: jax.Array) -> jax.Array:
        return jnp.minimum(longest, scale / (count + 1))

    return lambda horizon: {"learning_rate": rate}


# The expectation is smooth there, and the square of its gradient at most a constant times that of
# the gradient of the envelope, which the theorem is about.
_weakly_convex = functools.partial(
    Claim,
    theorem="Davis, Drusvyatskiy 2019, arXiv:1803.06523",
    constants=_short,
    measure="squared_gradient_norm",
    exponent=1 / 2,
)
_QUADRATIC_GROWTH = "stochopt, derived on its page"


def _without_regularizer(learning_rate: Any) -> optax.GradientTransformation:
    return prox_subgradient(learning_rate)


def _inverse_step(loss_prox: Any, learning_rate: Any) -> optax.GradientTransformation:
    inverse = lambda params, step, batch: loss_prox(params, 1 / step, batch)
    return stochastic_prox_point(inverse, learning_rate)


PROX_SUBGRADIENT = (
    _weakly_convex(
        setting="weakly convex; bounded subgradients",
        problem=_squares,
        control=_BIASED,
    ),
    Claim(
        setting="convex, not smooth; strongly convex regularizer",
        theorem=_QUADRATIC_GROWTH,
        problem=functools.partial(separable_composite, condition=10.0, weight=0.02, noise=0.2),
        constants=_decaying(10.0, longest=1.0),
        measure="squared_distance",
        exponent=1.0,
        over="tail",
        control=Control("regularizer left out", method={"factory": _without_regularizer}),
    ),
)
TRUNCATED_MODEL = (
    _weakly_convex(
        setting="weakly convex; bounded subgradients",
        problem=_squares,
        control=Control(
            "lower bound above the loss at the optimum",
            constants=lambda horizon: {**_short(horizon), "lower_bound": 2.0},
        ),
    ),
)
STOCHASTIC_PROX_LINEAR = (
    _weakly_convex(
        setting="weakly convex; bounded subgradients; two residuals",
        problem=functools.partial(_squares, batch_size=2),
        control=_BIASED,
        horizons=powers_of_two(8, 15),  # each update solves a quadratic program
    ),
)
STOCHASTIC_PROX_POINT = (
    _weakly_convex(
        setting="weakly convex; bounded subgradients",
        problem=_squares,
        control=Control("inverse of the step size", method={"factory": _inverse_step}),
    ),
    Claim(
        setting="strongly convex quadratic; additive noise; steps of any length",
        theorem=_QUADRATIC_GROWTH,
        problem=functools.partial(noisy_quadratic, spectrum=np.linspace(0.25, 1, 30), noise=1.0),
        constants=_decaying(8.0),
        measure="gap",
        exponent=1.0,
        over="tail",
        two_sided=True,
        # As for gradient descent, s < 1 / (2 mu) gives the exponent 2 mu s.
        control=Control("step size 0.2 / (mu t), too short", constants=_decaying(0.8)),
    ),
)
