"""The soft regression forest: a decision rule that is smooth in features and parameters."""

import math

import jax
import jax.numpy as jnp

from stochopt.problems._flax import nnx


def default_depth(num_features: int) -> int:
    """Levels of gates in a tree: the smallest number of bits for the features, and one."""
    return math.ceil(math.log2(num_features)) + 1


class SoftRegressionForest(nnx.Module):
    r"""A mean over trees whose gates send a point both ways, with weights that sum to one.

    A gate :math:`k` of a tree passes the share :math:`s_k(x) = \sigma(w_k^T x + b_k)` of what it
    gets to its left and the rest to its right. The weight :math:`\mu_\ell(x)` of a leaf is the
    product along its path, and with a value :math:`\pi_\ell` at each leaf

    .. math::

       f(x) = \frac1K \sum_{\text{trees}} \sum_\ell \mu_\ell(x) \, \pi_\ell,
       \qquad \sum_\ell \mu_\ell(x) = 1 .

    The output lies between the smallest and the largest leaf. Level :math:`r` of a tree is the
    block of gates :math:`2^r - 1, \dots, 2^{r+1} - 2`; the left child of the gate at place
    :math:`j` of its level stands at place :math:`j` of the next one, the right child at
    :math:`j + 2^r`.

    Args:
      num_features: size of a point.
      num_outputs: size of a decision.
      num_trees: :math:`K`.
      depth: levels of gates, so :math:`2^{\text{depth}}` leaves;
        :math:`\lceil \log_2 \text{features} \rceil + 1` by default.
      rngs: gates start at :math:`N(0, 0.1^2)`, leaves uniformly in [0, 0.1].

    References:
      Zhang, Wang, `arXiv:2601.11016 <https://arxiv.org/abs/2601.11016>`_, 2026
    """

    def __init__(
        self,
        num_features: int,
        num_outputs: int = 1,
        num_trees: int = 20,
        depth: int | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        depth = default_depth(num_features) if depth is None else depth
        gates, leaves = 2**depth - 1, 2**depth
        normal = lambda *shape: 0.1 * jax.random.normal(rngs.params(), shape)
        uniform = lambda *shape: 0.1 * jax.random.uniform(rngs.params(), shape)
        self.weight = nnx.Param(normal(num_features, gates, num_trees))
        self.bias = nnx.Param(normal(gates, num_trees))
        self.leaves = nnx.Param(uniform(leaves, num_trees, num_outputs))

    def leaf_weights(self, x: jax.Array) -> jax.Array:
        """Shares ``[..., leaf, tree]`` of points ``x[..., features]``; a sum of 1 over leaves."""
        weight, bias = self.weight[...], self.bias[...]
        gates, trees = bias.shape
        shares = jax.nn.sigmoid(
            (x @ weight.reshape(len(weight), -1)).reshape(*x.shape[:-1], gates, trees) + bias
        )
        reached, level = jnp.ones((*x.shape[:-1], 1, trees), shares.dtype), 1
        while level <= gates:
            share = shares[..., level - 1 : 2 * level - 1, :]
            left = reached * share
            reached, level = jnp.concatenate([left, reached - left], axis=-2), 2 * level
        return reached

    def __call__(self, x: jax.Array) -> jax.Array:
        """Decisions ``[..., outputs]`` at points ``x[..., features]``."""
        reached, leaves = self.leaf_weights(x), self.leaves[...]
        shares = reached.reshape(*x.shape[:-1], -1)
        return shares @ leaves.reshape(-1, leaves.shape[-1]) / leaves.shape[1]
