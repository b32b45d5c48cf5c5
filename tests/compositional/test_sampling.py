"""Draws of blocks: distinct, exactly uniform over ordered choices, in time of the sampled ones."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from stochopt.compositional import sample_blocks


@functools.cache
def sampler(num_blocks, num_sampled):
    draw = functools.partial(sample_blocks, num_blocks=num_blocks, num_sampled=num_sampled)
    return jax.jit(jax.vmap(draw))


# The second half draws a permutation, the first redraws repeated blocks.
SIZES = [(3, 1), (9, 4), (1000, 499), (10**6, 7), (2**31 - 1, 100), (1, 1), (6, 3), (8, 8), (9, 5)]


@pytest.mark.parametrize(("num_blocks", "num_sampled"), SIZES)
def test_blocks_are_distinct_and_in_range(num_blocks, num_sampled):
    blocks = sampler(num_blocks, num_sampled)(jax.random.split(jax.random.key(0), 50))
    assert blocks.shape == (50, num_sampled)
    assert blocks.dtype == jnp.int32
    assert blocks.min() >= 0
    assert blocks.max() < num_blocks
    assert all(len(set(row)) == num_sampled for row in np.asarray(blocks).tolist())


@settings(max_examples=10)
@given(num_blocks=st.integers(1, 7), data=st.data(), seed=st.integers(0, 2**31))
def test_every_draw_is_a_set(num_blocks, data, seed):
    num_sampled = data.draw(st.integers(1, num_blocks))
    keys = jax.random.split(jax.random.key(seed), 64)
    blocks = np.asarray(sampler(num_blocks, num_sampled)(keys))
    assert np.all(np.diff(np.sort(blocks, axis=1), axis=1) > 0)
    assert blocks.min() >= 0
    assert blocks.max() < num_blocks


def uniformity(draw, num_blocks, num_sampled):
    """Chi-squared statistic of the ordered choices and its quantile for one test in a million."""
    choices = math.perm(num_blocks, num_sampled)
    keys = jax.random.split(jax.random.key(1), 400 * choices)
    place = num_blocks ** np.arange(num_sampled)
    codes, counts = np.unique(np.asarray(draw(keys)) @ place, return_counts=True)
    possible = itertools.permutations(range(num_blocks), num_sampled)
    assert set(codes) <= {int(np.dot(blocks, place)) for blocks in possible}
    missing = choices - len(codes)
    return np.sum((counts - 400) ** 2) / 400 + 400 * missing, chi2.ppf(1 - 1e-6, choices - 1)


@pytest.mark.parametrize(("num_blocks", "num_sampled"), [(5, 2), (7, 3), (4, 2), (4, 4), (5, 3)])
def test_every_ordered_choice_is_as_likely(num_blocks, num_sampled):
    statistic, bound = uniformity(sampler(num_blocks, num_sampled), num_blocks, num_sampled)
    assert statistic < bound


def test_control_a_repeated_block_replaced_by_its_neighbour_is_found():
    def neighbour(key):
        first, second = jax.random.randint(key, (2,), 0, 5)
        return jnp.stack([first, jnp.where(first == second, (second + 1) % 5, second)])

    statistic, bound = uniformity(jax.jit(jax.vmap(neighbour)), 5, 2)
    assert statistic > 2 * bound


def test_control_sorted_blocks_are_found():
    ordered = lambda keys: jnp.sort(sampler(5, 2)(keys), axis=1)
    statistic, bound = uniformity(ordered, 5, 2)
    assert statistic > 2 * bound


def test_vmap_draws_what_one_key_draws():
    keys = jax.random.split(jax.random.key(3), 12)
    for num_blocks, num_sampled in [(9, 4), (6, 4)]:
        together = sampler(num_blocks, num_sampled)(keys)
        alone = jax.jit(sample_blocks, static_argnums=(1, 2))
        for key, blocks in zip(keys, together, strict=True):
            np.testing.assert_array_equal(alone(key, num_blocks, num_sampled), blocks)
    assert len(np.unique(np.asarray(together), axis=0)) > 8
    np.testing.assert_array_equal(sample_blocks(keys[-1], 6, 4), together[-1])


def test_a_key_of_numbers_will_do():
    typed, raw = jax.random.key(5), jax.random.PRNGKey(5)
    np.testing.assert_array_equal(sample_blocks(typed, 50, 4), sample_blocks(raw, 50, 4))


def largest_array(jaxpr):
    """The number of entries of the largest array that a program makes, loops included."""
    sizes = [math.prod(v.aval.shape) for e in jaxpr.eqns for v in e.outvars]
    parts = [part for e in jaxpr.eqns for part in jax.tree.leaves(list(e.params.values()))]
    inner = [getattr(part, "jaxpr", part) for part in parts]
    return max([*sizes, *(largest_array(part) for part in inner if hasattr(part, "eqns"))])


def test_work_grows_with_the_sampled_blocks_only():
    draw = lambda key: sample_blocks(key, 10**6, 64)
    assert 64 <= largest_array(jax.make_jaxpr(draw)(jax.random.key(0)).jaxpr) <= 4 * 64
    memory = jax.jit(draw).lower(jax.random.key(0)).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 64 * 1024
    choice = lambda key: jax.random.choice(key, 10**6, (64,), replace=False)
    assert largest_array(jax.make_jaxpr(choice)(jax.random.key(0)).jaxpr) >= 10**6


@pytest.mark.parametrize(
    ("num_blocks", "num_sampled", "message"),
    [
        (0, 1, "num_blocks must be a whole number of at least 1, got 0"),
        (5, 0, "num_sampled must be a whole number of at least 1, got 0"),
        (5, 2.5, "num_sampled must be a whole number of at least 1, got 2.5"),
        (5, 6, "num_sampled=6 is more than num_blocks=5"),
    ],
)
def test_impossible_draws(num_blocks, num_sampled, message):
    with pytest.raises(ValueError, match=message):
        sample_blocks(jax.random.key(0), num_blocks, num_sampled)
