"""Function regression: Friedman's first function by a small network."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt.problems.problem import Problem

BATCH_SIZE = 64


def _function(x: np.ndarray) -> np.ndarray:
    return (
        10 * np.sin(np.pi * x[:, 0] * x[:, 1])
        + 20 * (x[:, 2] - 0.5) ** 2
        + 10 * x[:, 3]
        + 5 * x[:, 4]
    )


def friedman() -> Problem:
    r"""Network 10-64-64-1 with tanh on Friedman's first function; minibatches of 64.

    .. math::

       y = 10 \sin(\pi x_1 x_2) + 20 (x_3 - 1/2)^2 + 10 x_4 + 5 x_5, \qquad x \in [0, 1]^{10},

    standardized; five of the ten inputs are irrelevant. Fixed data from NumPy's ``default_rng(0)``:
    2,000 points for training, the next 1,000 for testing, without noise.

    References:
      Friedman, `Multivariate Adaptive Regression Splines
      <https://doi.org/10.1214/aos/1176347963>`_, 1991
    """
    from stochopt.problems._flax import functional, nnx

    class Network(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.hidden1 = nnx.Linear(10, 64, rngs=rngs)
            self.hidden2 = nnx.Linear(64, 64, rngs=rngs)
            self.head = nnx.Linear(64, 1, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.head(jnp.tanh(self.hidden2(jnp.tanh(self.hidden1(x)))))[:, 0]

    init, apply = functional(Network)
    x = np.random.default_rng(0).uniform(size=(3000, 10))
    y = _function(x)
    y = ((y - y[:2000].mean()) / y[:2000].std()).astype(np.float32)
    x = (2 * x - 1).astype(np.float32)

    def mean_squared_error(params: dict, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.mean(jnp.square(apply(params, batch[0]) - batch[1]))

    def sample(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        index = jax.random.randint(key, (BATCH_SIZE,), 0, 2000)
        return jnp.asarray(x)[index], jnp.asarray(y)[index]

    def metrics(params: dict) -> dict[str, jax.Array]:
        return {
            "train_loss": mean_squared_error(
                params, (jnp.asarray(x[:2000]), jnp.asarray(y[:2000]))
            ),
            "test_loss": mean_squared_error(params, (jnp.asarray(x[2000:]), jnp.asarray(y[2000:]))),
        }

    return Problem(
        name="friedman",
        summary="function regression (Friedman 1), network 10-64-64-1",
        init=init,
        sample=sample,
        metrics=metrics,
        objective="train_loss",
        score="test_loss",
        target=0.01,
        loss=mean_squared_error,
    )
