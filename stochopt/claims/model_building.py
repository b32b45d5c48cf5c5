"""SMB and SMBi."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import optax

from stochopt.claims.claim import Claim, Control, powers_of_two
from stochopt.problems import cosine

_ETA = 0.5
# Half as long again as the longest that gradient descent bears, 2 / L; the bound is 2 / (eta L).
_LONG_STEP = 3.0


def _long_steps(horizon: Any) -> Mapping[str, Any]:
    return {"learning_rate": _LONG_STEP, "eta": _ETA}


# Short enough for every trial step to be accepted: with noise the theory is gradient descent's.
def _shrinking_steps(horizon: Any) -> Mapping[str, Any]:
    return {"learning_rate": 32 / horizon**0.5}


DETERMINISTIC = Claim(
    setting="smooth; no noise; trial steps below 2 / (eta L)",
    theorem="stochopt, derived on its page",
    problem=functools.partial(cosine, noise=0.0),
    constants=_long_steps,
    measure="squared_gradient_norm",
    exponent=1.0,
    control=Control(
        "every trial step accepted",
        constants=lambda horizon: {"learning_rate": _LONG_STEP},
        method={"factory": optax.sgd, "gradient_counter": None},
    ),
)

SAME_BATCH = Claim(
    setting="smooth; noise of bounded variance",
    theorem="stochopt, derived on its page",
    problem=functools.partial(cosine, noise=0.15),
    constants=_shrinking_steps,
    measure="squared_gradient_norm",
    exponent=1 / 2,
    horizons=powers_of_two(9, 16),
    control=Control("constant step size", constants=lambda horizon: {"learning_rate": 1.5}),
)

INDEPENDENT_BATCH = dataclasses.replace(
    SAME_BATCH,
    theorem="Birbil, Martin, Onay, Oztoprak 2024, arXiv:2111.07058",
    control=Control("gradients biased by 10 %", bias=0.1),
)

SMB = (SAME_BATCH, DETERMINISTIC)
SMB_INDEPENDENT = (INDEPENDENT_BATCH, DETERMINISTIC)
