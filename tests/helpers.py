"""Problems for the acceptance suite, with every oracle over any parameter tree; trajectories."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import optax
import pytest

from stochopt import _tree, blocks, catalog, lmo, proximal
from stochopt.experiments import gradient_and_extras
from stochopt.model_based import iterated_prox
from stochopt.problems import ORACLES, Problem

#: Decorator: one test for each of our methods.
for_each_method = pytest.mark.parametrize("method", catalog.METHODS, ids=lambda m: m.name)


#: Of a ball that holds all starts and all minimizers.
RADIUS = 15.0


def tree_problem(make_params, objective=None):
    """A problem over ``make_params()`` that offers every oracle any method may ask for.

    ``objective(params) -> scalar`` is deterministic; a batch scales it by a number near one. The
    inner value is the objective itself and the outer function the identity; three blocks share it,
    and it is the negative log density of a model whose normalization is constant; half of it is
    the minimizer of a lower problem, all of it is smooth, it is the only residual, a gradient step
    stands in for its proximal operator, and it parts the views of an example; half of it is a proxy
    of it, and a model predicts the parameters themselves. Every leaf is a block of its own. All
    minimizers are in a ball, for linear minimization. So all methods minimize the same thing.
    """
    if objective is None:

        def objective(params):
            leaves = jax.tree.leaves(params)
            return sum(jnp.sum(jnp.abs(at_least_float32(x) - 1.0) ** 2) for x in leaves)

    # Contrastive batches are pairs of views, a number and its negative.
    scale = lambda batch: batch[0] if isinstance(batch, tuple) else batch
    loss = lambda params, batch: scale(batch) * objective(params)

    def embed(params, views):
        """Unit vectors, as views have opposite signs, at an angle that grows with the objective.

        A similarity is bounded and an objective is not: the logarithm is still steep far away.
        """
        angle = 0.5 * jnp.log1p(jnp.abs(views) * objective(params) / 10)
        turned = jnp.where(views > 0, 0.0, 0.5 * jnp.pi + angle)
        return jnp.stack([jnp.cos(turned), jnp.sin(turned)], axis=1)

    return Problem(
        name="tree",
        summary="every oracle over a given tree",
        init=lambda key: make_params(),
        sample=lambda key: 1.0 + 0.1 * jax.random.normal(key),
        metrics=lambda params: {"objective": objective(params)},
        objective="objective",
        loss=loss,
        full_loss=objective,
        num_batches=1000,  # so many that after a first full gradient there is no second one
        partition=blocks.by_path(lambda path: path),
        block_smoothness=10.0,
        inner=loss,
        outer=lambda value, params, batch: value,
        embed=embed,
        upper=lambda params, y, batch: 0.5 * loss(params, batch) + scale(batch) * y,
        lower=lambda params, y, batch: scale(batch) * y * (0.5 * y - 0.5 * objective(params)),
        lower_params=jnp.zeros([]),
        smooth=loss,
        full_smooth=objective,
        nonsmooth=lambda params, batch: 0.0 * objective(params),
        cheap=lambda params, batch: 0.0 * objective(params),
        operator=lambda params: 0.0 * objective(params),
        dual=proximal.dual_of_l1(1),
        prox=lambda params, step: params,
        proxy=lambda params, batch: 0.5 * objective(params),
        predict=lambda params, batch: params,
        target_loss=loss,
        linear_minimizer=lmo.l2_ball(RADIUS),
        residuals=loss,
        loss_prox=iterated_prox(loss, 1),
        num_samples=1,
        sample_indices=lambda batch: (jnp.int32(0), jnp.int32(0)),
        num_blocks=3,
        blocks=lambda batch: (jnp.asarray([2, 0]), (batch * jnp.ones(2), -batch * jnp.ones(2))),
        data=lambda batch: jnp.stack([batch, batch]),
        log_density=lambda params, x: -loss(params, x),
        log_noise_density=lambda x: jnp.zeros_like(x),
        sample_noise=lambda key: jnp.zeros([]),
    )


def at_least_float32(x):
    return x.astype(_tree.at_least_float32(x.dtype))


def make_step(problem, method, optimizer):
    """``step(params, state, batch, key) -> (updates, state)`` as an experiment would call it."""

    def step(params, state, batch, key=None):
        grad, extras = gradient_and_extras(problem, method, params, batch, key)
        return optimizer.update(grad, state, params, **extras)

    return step


def hyperparam_factory(problem, method):
    """The method's factory with its oracles bound: a function of the hyper-parameters alone.

    It keeps their names, defaults and annotations, which ``optax.inject_hyperparams`` reads.
    """
    signature = inspect.signature(method.factory)
    free = [p for name, p in signature.parameters.items() if name not in method.bound]
    free = [p.replace(default=method.hyperparams[p.name]) for p in free]
    signature = signature.replace(parameters=free)

    @functools.wraps(method.factory)
    def factory(*args, **kwargs):
        return method.make(problem, **signature.bind(*args, **kwargs).arguments)

    factory.__signature__ = signature
    return factory


def types(tree):
    """Shape, dtype, weak type and sharding of every leaf."""
    return jax.tree.map(jax.typeof, tree)


def with_smoothness(method, smoothness):
    """The row with the objective's smoothness as default, where the method wants to know it."""
    if "smoothness" not in method.hyperparams:
        return method
    return dataclasses.replace(method, defaults={**method.defaults, "smoothness": smoothness})


def calls_oracles(method):
    """Whether ``update`` does more than turn a gradient into an update."""
    return bool(set(method.bound) & set(ORACLES) or required_extras(method))


def needs_whole_params(method):
    """Whether ``update`` evaluates oracles at ``params``; a value was evaluated by the caller."""
    return bool(set(method.bound) & set(ORACLES) or set(required_extras(method)) - {"value"})


def required_extras(method):
    """The extra arguments without which ``update`` of this method raises ``TypeError``."""
    problem = tree_problem(lambda: {"matrix": jnp.ones((3, 2)), "vector": jnp.ones(2)})
    optimizer = method.make(problem)
    params = problem.init(None)

    def update_without(name):
        grad, extras = gradient_and_extras(problem, method, params, jnp.ones([]))
        extras.pop(name)
        return optimizer.update(grad, optimizer.init(params), params, **extras)

    _, offered = gradient_and_extras(problem, method, params, jnp.ones([]))
    required = {}
    for name in offered:
        try:
            jax.eval_shape(lambda name=name: update_without(name))
        except TypeError as error:
            required[name] = str(error)
    return required


@functools.partial(jax.jit, static_argnums=(0, 2))
def trajectory(optimizer, start, num_steps, **extra_args):
    """Points and states of a mover after each update, stacked."""

    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(None, state, x, **extra_args)
        x = optax.apply_updates(x, updates)
        return (x, state), (x, state)

    return jax.lax.scan(step, (start, optimizer.init(start)), length=num_steps)[1]
