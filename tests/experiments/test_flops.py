"""Counting matrix products: every construct that hides or repeats one."""

import jax
import jax.numpy as jnp
import pytest

from stochopt.experiments import matmul_flops

X = jnp.ones((4, 6))
ONE = 2 * 4 * 6 * 4  # X @ X.T


def product(x):
    return x @ x.T


def test_a_product_and_a_batch_of_products():
    assert matmul_flops(product, X) == ONE
    assert matmul_flops(product, jax.ShapeDtypeStruct((4, 6), jnp.bfloat16)) == ONE
    batched = lambda x: jnp.einsum("bij,bkj->bik", x, x)
    assert matmul_flops(batched, jnp.ones((5, 4, 6))) == 5 * ONE
    assert matmul_flops(lambda x: jnp.vdot(x, x), jnp.ones(7)) == 2 * 7


def test_a_convolution_counts_its_products():
    images, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    dimensions = ("NHWC", "HWIO", "NHWC")
    convolve = lambda x, k: jax.lax.conv_general_dilated(
        x, k, (1, 1), "SAME", dimension_numbers=dimensions
    )
    assert matmul_flops(convolve, images, kernel) == 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)


def test_loops_count_with_their_length():
    scan = lambda x: jax.lax.scan(lambda c, _: (c + product(x).sum(), None), 0.0, length=7)[0]
    assert matmul_flops(scan, X) == 7 * ONE
    nested = lambda x: jax.lax.map(scan, jnp.stack([x] * 3))
    assert matmul_flops(nested, X) == 21 * ONE
    fori = lambda x: jax.lax.fori_loop(0, 7, lambda i, c: c + product(x).sum(), 0.0)
    assert matmul_flops(fori, X) == 7 * ONE


def test_functions_inside_functions():
    assert matmul_flops(jax.jit(jax.checkpoint(product)), X) == ONE
    assert matmul_flops(jax.jit(jax.vmap(product)), jnp.stack([X] * 3)) == 3 * ONE
    # The gradient multiplies by both factors again.
    assert matmul_flops(jax.grad(lambda x: product(x).sum()), X) == 3 * ONE


def test_the_dearest_branch_counts():
    branch = lambda p, x: jax.lax.cond(p, product, lambda x: product(product(x)), x)
    assert matmul_flops(branch, True, X) == ONE + 2 * 4 * 4 * 4


def test_a_device_of_a_shard_map_counts_its_share():
    mesh = jax.make_mesh((8,), ("x",))
    spread = jax.shard_map(jax.vmap(product), mesh=mesh, in_specs=jax.P("x"), out_specs=jax.P("x"))
    assert (
        matmul_flops(
            spread, jax.device_put(jnp.ones((8, 4, 6)), jax.NamedSharding(mesh, jax.P("x")))
        )
        == ONE
    )


def test_a_loop_of_unknown_length_is_refused_only_if_it_multiplies():
    unknown = lambda body: lambda x: jax.lax.while_loop(lambda c: c[0] < x.sum(), body, (0.0, x))
    with pytest.raises(ValueError, match="while loop"):
        matmul_flops(unknown(lambda c: (c[0] + 1, product(c[1]) @ c[1])), X)
    assert matmul_flops(unknown(lambda c: (c[0] + 1, c[1] * 2)), X) == 0
