"""Matrices by a step of their own, every other leaf by AdamW."""

from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from stochopt._checks import check_range
from stochopt.orthogonal import matrices


def with_adamw(
    name: str,
    matrix_step: optax.GradientTransformation,
    weight_dimension_numbers: matrices.DimensionNumbers,
    *,
    mu_dtype: Any,
    weight_decay_mask: Any,
    adam_learning_rate: optax.ScalarOrSchedule,
    adam_b1: jax.typing.ArrayLike,
    adam_b2: jax.typing.ArrayLike,
    adam_eps: jax.typing.ArrayLike,
    adam_weight_decay: jax.typing.ArrayLike,
) -> optax.GradientTransformationExtraArgs:
    """``matrix_step``, labelled ``name``, on matrices and ``optax.adamw`` on the other leaves."""
    check_range("adam_learning_rate", adam_learning_rate, "[0, inf)")
    check_range("adam_b1", adam_b1, "[0, 1)")
    check_range("adam_b2", adam_b2, "[0, 1)")
    check_range("adam_eps", adam_eps, "[0, inf)")
    check_range("adam_weight_decay", adam_weight_decay, "[0, inf)")

    def labels(params: optax.Params) -> Any:
        numbers = matrices.resolve(weight_dimension_numbers, params)
        is_entry = lambda x: x is False or isinstance(x, MuonDimensionNumbers)
        return jax.tree.map(lambda n: "adamw" if n is False else name, numbers, is_leaf=is_entry)

    other_step = optax.adamw(
        adam_learning_rate,
        b1=adam_b1,
        b2=adam_b2,
        eps=adam_eps,
        mu_dtype=mu_dtype,
        weight_decay=adam_weight_decay,
        mask=weight_decay_mask,
    )
    return optax.partition({name: matrix_step, "adamw": other_step}, labels)
