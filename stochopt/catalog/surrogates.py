"""An expensive loss and something cheap that resembles it."""

import functools

import optax

from stochopt.catalog.method import Method
from stochopt.claims import surrogates as claims
from stochopt.surrogates import armijo, proxy_prox, target_surrogate

_method = functools.partial(Method, family="surrogates", gradient_counter="num_target_gradients")

ROWS = (
    _method(
        name="proxy_prox",
        factory=proxy_prox,
        summary="proximal point steps on a cheap loss similar to the expensive one",
        paper="Woodworth, Mishchenko, Bach 2023, arXiv:2302.03542",
        defaults={"learning_rate": 0.5, "inner_optimizer": optax.sgd(0.05)},
        claims=claims.PROXY_PROX,
    ),
    _method(
        name="target_surrogate",
        factory=target_surrogate,
        summary="one gradient in the predictions, many steps of the model (SSO)",
        paper="Lavington et al. 2023, arXiv:2302.02607",
        # A surrogate with short steps of the targets is too steep for inner steps of this size.
        defaults={
            "inner_optimizer": optax.sgd(0.02),
            "target_step": armijo(500.0, lower=500.0),
        },
        gradient_of=None,
        claims=claims.TARGET_SURROGATE,
    ),
)
