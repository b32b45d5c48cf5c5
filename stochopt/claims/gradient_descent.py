"""Stochastic gradient descent, the yardstick."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from stochopt.claims.claim import Claim, Constants, Control, powers_of_two
from stochopt.problems import cosine, noisy_quadratic, polyak_lojasiewicz


def _decaying(scale: float, strong_convexity: float, smoothness: float) -> Constants:
    r"""The step sizes :math:`\eta_t = \min(1 / L, \; s / (\mu (t + 1)))`, for any horizon."""

    def rate(count: jax.Array) -> jax.Array:
        return jnp.minimum(1 / smoothness, scale / (strong_convexity * (count + 1)))

    return lambda horizon: {"learning_rate": rate}


NONCONVEX = Claim(
    setting="smooth, not convex; noise of bounded variance",
    theorem="Ghadimi, Lan 2013, arXiv:1309.5549",
    problem=functools.partial(cosine, noise=0.3),
    constants=lambda horizon: {"learning_rate": 8 / horizon**0.5},
    measure="squared_gradient_norm",
    exponent=1 / 2,
    control=Control("gradients biased by 10 %", bias=0.1),
)

STRONGLY_CONVEX = Claim(
    setting="strongly convex quadratic; additive noise",
    theorem="Nemirovski, Juditsky, Lan, Shapiro 2009, doi:10.1137/070704277",
    problem=functools.partial(noisy_quadratic, spectrum=np.linspace(0.25, 1, 30), noise=1.0),
    constants=_decaying(2.0, 0.25, 1.0),
    measure="gap",
    exponent=1.0,
    over="tail",
    two_sided=True,
    # With s < 1/2 the same closed form gives the exponent 2 s.
    control=Control("step size 0.2 / (mu t), too short", constants=_decaying(0.2, 0.25, 1.0)),
)

POLYAK_LOJASIEWICZ = Claim(
    setting="Polyak-Lojasiewicz, not convex; noise of bounded variance",
    theorem="Karimi, Nutini, Schmidt 2016, arXiv:1608.04636",
    problem=functools.partial(polyak_lojasiewicz, noise=1.0),
    constants=_decaying(2.0, 1 / 32, 8.0),
    measure="gap",
    exponent=1.0,
    over="tail",
    control=Control("constant step size", constants=lambda horizon: {"learning_rate": 1 / 64}),
    horizons=powers_of_two(10, 17),
)

SGD = (NONCONVEX, STRONGLY_CONVEX, POLYAK_LOJASIEWICZ)
