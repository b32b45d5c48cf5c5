"""Relatives of sliding: gradients of the expensive loss, and what is paid for them elsewhere.

    python benchmarks/surrogates.py                  # all parts, about a minute and a half
    python benchmarks/surrogates.py --parts proxy

``proxy``: gradients of the target until its squared norm is 0.001, on random quadratics in 50
dimensions with eigenvalues from 0.001 to L, beside a proxy at distance delta, start with a gap of
1/2; and gradient descent with step size 1 / L. Inner problems to a relative accuracy of 0.1 by
Nesterov's method. The last column is the largest ratio of the least squared norm so far to its
bound over 1,000 updates, with inner problems solved exactly.

``targets``: the loss after 200 gradients in the predictions, for numbers of inner steps, and SGD.

``simplex``: gradients and linear minimizations until a gap, of conditional gradient sliding and of
the conditional gradient method, and the largest ratio of a gap to its bound.

Double precision.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import stochopt
from stochopt import sliding, surrogates
from stochopt.problems import proxy_quadratic, simplex_quadratic, target_logistic

SQUARED_NORM = 1e-3


def scan(step, carry, num_steps):
    return jax.jit(lambda carry: jax.lax.scan(step, carry, None, num_steps)[1])(carry)


def nesterov(smoothness, strong_convexity):
    root = np.sqrt(strong_convexity / smoothness)
    return optax.sgd(1 / smoothness, momentum=(1 - root) / (1 + root), nesterov=True)


def proxy_run(smoothness, distance, num_steps, solve):
    """Squared gradient norms before each update, and gradients of the proxy after it."""
    problem = proxy_quadratic(50, smoothness, 1e-3, distance, noise=0.0)
    optimizer = solve(problem, smoothness, distance, 1 / (2 * distance))

    def step(carry, _):
        x, state = carry
        slope = problem.exact["gradient"](x)
        updates, state = optimizer.update(slope, state, x)
        counts = [optax.tree.get(state, f"num_{n}", 0) for n in ("proxy_gradients", "truncated")]
        return (x + updates, state), (jnp.sum(slope**2), *counts)

    x = problem.init(jax.random.key(0))
    return map(np.asarray, scan(step, (x, optimizer.init(x)), num_steps))


def inexact(problem, smoothness, distance, eta):
    # The surrogate lies between the curvatures 1 / eta - delta and L + delta + 1 / eta.
    inner = nesterov(smoothness + distance + 1 / eta, 1 / eta - distance)
    return surrogates.proxy_step(
        problem.proxy, eta, inner_optimizer=inner, accuracy=0.1, max_inner=100_000
    )


def exact(problem, smoothness, distance, eta):
    hessian = jax.hessian(lambda x: problem.proxy(x, None))(jnp.zeros(50))
    inverse = jnp.linalg.inv(hessian + jnp.eye(50) / eta)
    return optax.stateless(lambda g, x: -inverse @ g)


def descent(smoothness):
    """Gradients of gradient descent, in closed form."""
    eigenvalues = np.geomspace(1e-3, smoothness, 50)
    steps = np.arange(100_000)
    shrunk = (1 - eigenvalues / smoothness) ** (2 * steps[:, None])
    below = shrunk @ eigenvalues / 50 <= SQUARED_NORM
    return int(np.argmax(below)) if below.any() else None


def proxies() -> None:
    print("| L | delta | target gradients | proxy gradients | gradient descent | to the bound |")
    print("| --- | --- | --- | --- | --- | --- |")
    for distance in (0.1, 0.5, 2.0):
        for smoothness in (10.0, 100.0, 1000.0):
            squares, inner, truncated = proxy_run(smoothness, distance, 300, inexact)
            assert truncated[-1] == 0
            count = int(np.argmax(squares <= SQUARED_NORM))
            assert count > 0
            squares, *_ = proxy_run(smoothness, distance, 1001, exact)
            bound = 18 * distance * 0.5 / np.arange(1, 1001)
            ratio = np.max(np.minimum.accumulate(squares[1:]) / bound)
            print(
                f"| {smoothness:,.0f} | {distance} | {count} | {inner[count - 1]:,} "
                f"| {descent(smoothness):,} | {ratio:.3f} |"
            )


def targets() -> None:
    problem = target_logistic(noise=0.0)
    least = problem.metrics(jnp.asarray(problem.optimum))["train_loss"]
    zero = jnp.zeros(200)

    def final(optimizer):
        optimizer = optax.with_extra_args_support(optimizer)

        def step(carry, _):
            x, state = carry
            slope = problem.exact["gradient"](x)
            updates, state = optimizer.update(slope, state, x, batch=zero)
            return (x + updates, state), problem.metrics(x + updates)["train_loss"]

        x = problem.init(None)
        return scan(step, (x, optimizer.init(x)), 200)

    print(f"\ntarget-logistic, least loss {least:.6f}, after 200 target gradients")
    print("| method | loss | above the least | ever up |\n| --- | --- | --- | --- |")
    inner = optax.sgd(1 / problem.smoothness)
    rows = {"`optax.sgd(1 / B)`": inner}
    for name, rule in (("4 n", 800.0), ("search", surrogates.armijo(800.0))):
        for m in (1, 10, 100):
            rows[f"`target_surrogate`, {name}, m = {m}"] = stochopt.target_surrogate(
                problem.predict, problem.target_loss, inner_optimizer=inner,
                target_step=rule, num_inner=m,
            )  # fmt: skip
    for name, optimizer in rows.items():
        losses = final(optimizer)
        up = "yes" if np.any(np.diff(losses) > 1e-12) else "no"
        print(f"| {name} | {losses[-1]:.4f} | {losses[-1] - least:.1e} | {up} |")


def frank_wolfe(problem, num_steps):
    """Gaps of the conditional gradient method with exact line search."""

    def step(x, _):
        g = problem.exact["subgradient"](x)
        away = problem.linear_minimizer(g) - x
        curvature = away @ (problem.exact["subgradient"](x + away) - g)
        x = x + jnp.clip(-g @ away / jnp.where(curvature > 0, curvature, 1), 0, 1) * away
        return x, problem.metrics(x)["gap"]

    return np.asarray(scan(step, problem.init(None), num_steps))


def on_the_simplex() -> None:
    problem = simplex_quadratic(noise=0.0)
    diameter = np.sqrt(2)
    optimizer = stochopt.conditional_gradient_sliding(
        problem.linear_minimizer, smoothness=problem.smoothness, diameter=diameter
    )

    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(problem.exact["subgradient"](x), state, x)
        gap = problem.metrics(state.averaged_point)["gap"]
        return (x + updates, state), (gap, state.num_linear_minimizations)

    x = problem.init(None)
    gaps, minimizations = map(np.asarray, scan(step, (x, optimizer.init(x)), 2000))
    bound = sliding.conditional_sliding_bound(problem.smoothness, diameter, np.arange(1, 2001))
    plain = frank_wolfe(problem, 20_000)
    print("\nsimplex-quadratic; of conditional gradients each step takes one of both")
    print("| gap | gradients | linear minimizations | conditional gradients |")
    print("| --- | --- | --- | --- |")
    for gap in (1e-3, 1e-4, 1e-5):
        first = int(np.argmax(gaps <= gap))
        assert gaps[first] <= gap
        steps = f"{int(np.argmax(plain <= gap)) + 1:,}" if plain.min() <= gap else "over 20,000"
        print(f"| {gap:g} | {first + 1:,} | {minimizations[first]:,} | {steps} |")
    print(f"largest ratio of a gap to its bound: {np.max(gaps / bound):.2f}")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parts = {"proxy": proxies, "targets": targets, "simplex": on_the_simplex}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    for part in parser.parse_args().parts:
        parts[part]()
