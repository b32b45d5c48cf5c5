"""The Gram form of Newton-Schulz: as exact as the direct form, and cheaper where it is taken."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references.matrices import distance, gaussian, ill_conditioned, low_rank

from stochopt.experiments.flops import matmul_flops
from stochopt.orthogonal import (
    CUBIC,
    JORDAN,
    JORDAN_CONVERGED,
    QUINTIC,
    newton_schulz,
    polar_express,
)

# The package has a function of the same name.
module = importlib.import_module("stochopt.orthogonal.newton_schulz")

TABLES = {
    "jordan": JORDAN,
    "quintic": QUINTIC,
    "express": polar_express(),
    "cubic": CUBIC,
    "jordan 8 + 2": JORDAN_CONVERGED,
}
GAUSSIAN = {
    f"gaussian {m} x {n}": gaussian(m + n, (m, n))
    for m, n in [(64, 64), (64, 256), (64, 512), (384, 1536)]
}
ILL = {
    "condition 1e3": ill_conditioned(20, (64, 256), 1e3),
    "condition 1e6": ill_conditioned(20, (64, 256), 1e6),
    "condition 1e10": ill_conditioned(20, (64, 256), 1e10),
    "rank 8": low_rank(40, (64, 256), 8),
}
MATRICES = GAUSSIAN | ILL


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4))
def compiled(form, x, table, dtype, parts):
    y = module.normalized(x).astype(dtype)
    for part in parts:
        y = form(y, part, jnp.matmul)
    return y


def iterate(form, x, table, dtype, parts=None):
    parts = module._parts(table, float(jnp.finfo(dtype).eps)) if parts is None else parts
    x = jnp.asarray(x, jnp.float64 if dtype == jnp.float64 else jnp.float32)
    return np.asarray(compiled(form, x, table, dtype, tuple(parts)), np.float64)


def both(x, table, dtype):
    return tuple(
        iterate(form, x, table, dtype) for form in (module._gram_form, module._direct_form)
    )


@pytest.mark.parametrize("table", TABLES)
def test_same_function_in_double_precision(x64, table):
    for name, x in MATRICES.items():
        # Ten steps multiply the smallest singular values, and their rounding, by 2e4.
        bound = 1e-7 if table == "jordan 8 + 2" else 1e-9
        assert distance(*both(x, TABLES[table], jnp.float64)) < bound, name


@pytest.mark.parametrize("name", GAUSSIAN)
def test_same_numbers_in_single_precision_on_gaussian_matrices(x64, name):
    for table in TABLES.values():
        assert distance(*both(GAUSSIAN[name], table, jnp.float32)) < 1e-4


@pytest.mark.parametrize("name", ILL)
def test_same_numbers_in_single_precision_on_ill_conditioned_matrices(x64, name):
    assert distance(*both(ILL[name], JORDAN, jnp.float32)) < 1e-3
    assert distance(*both(ILL[name], QUINTIC, jnp.float32)) < 1e-3
    # Steeper tables enlarge the smallest singular values, and their rounding, more.
    assert distance(*both(ILL[name], polar_express(), jnp.float32)) < 3e-3
    assert distance(*both(ILL[name], JORDAN_CONVERGED, jnp.float32)) < 1e-2


@pytest.mark.parametrize("table", ["jordan", "quintic", "express"])
def test_no_less_exact_than_the_direct_form_in_half_precision(x64, table):
    for name, x in MATRICES.items():
        exact = iterate(module._direct_form, x, TABLES[table], jnp.float64)
        gram, direct = both(x, TABLES[table], jnp.bfloat16)
        assert distance(gram, exact) < 1.3 * distance(direct, exact), name


@pytest.mark.parametrize("table", ["jordan", "quintic", "express"])
def test_control_half_precision_explodes_without_starting_anew(x64, table):
    x, table = ILL["condition 1e3"], TABLES[table]
    exact = iterate(module._direct_form, x, table, jnp.float64)
    assert distance(iterate(module._gram_form, x, table, jnp.bfloat16, [table]), exact) > 1


def test_control_ten_steps_explode_without_starting_anew(x64):
    x, table = ILL["condition 1e6"], JORDAN_CONVERGED
    exact = iterate(module._direct_form, x, table, jnp.float64)
    error = distance(iterate(module._gram_form, x, table, jnp.float32, [table]), exact)
    assert not error < 1e6


def test_parts_hold_the_table_in_order():
    cut = lambda table, dtype: module._parts(table, float(jnp.finfo(dtype).eps))
    for table in TABLES.values():
        for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
            assert sum(cut(table, dtype), ()) == table
        assert [len(part) for part in cut(table, jnp.float64)] == [len(table)]
    assert [len(part) for part in cut(JORDAN, jnp.float32)] == [5]
    assert [len(part) for part in cut(JORDAN, jnp.bfloat16)] == [2, 2, 1]


@pytest.mark.parametrize(
    ("shape", "table", "dtype", "cubes"),
    [
        ((16, 16), JORDAN, jnp.float32, 30),
        ((16, 64), JORDAN, jnp.float32, 50),  # the direct form takes 90
        ((64, 16), JORDAN, jnp.float32, 50),
        ((3, 16, 64), JORDAN, jnp.float32, 150),
        ((3, 64, 256), JORDAN, jnp.float32, 150 * 4**3),  # a loop
        ((16, 64), JORDAN, jnp.bfloat16, 70),  # starts anew twice: 26 + 26 + 18
        ((16, 64), CUBIC, jnp.float32, 40),
        ((16, 16), CUBIC, jnp.float32, 20),
    ],
)
def test_the_cheaper_form_is_taken(shape, table, dtype, cubes):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    assert matmul_flops(lambda x: newton_schulz(x, table, dtype=dtype), x) == cubes * 16**3


@pytest.mark.parametrize("columns", [16, 22, 24, 26, 32, 160])
@pytest.mark.parametrize("table", TABLES)
def test_the_choice_is_never_the_dearer_form(columns, table):
    x = jax.ShapeDtypeStruct((16, columns), jnp.float32)
    table = TABLES[table]

    def cost(form):
        def run(x):
            for part in module._parts(table, float(jnp.finfo(jnp.float32).eps)):
                x = form(part)(x, part, jnp.matmul)
            return x

        return matmul_flops(run, x)

    forms = (module._gram_form, module._direct_form)
    chosen = cost(lambda part: module._form(part, 16, columns))
    assert chosen <= min(cost(lambda part, f=f: f) for f in forms)
    assert chosen == matmul_flops(lambda x: newton_schulz(x, table), x)
