"""An optimizer inside the objective."""

import functools

import optax

from stochopt.bilevel import (
    amigo,
    block_variables,
    bsa,
    bsvrb_v1,
    bsvrb_v2,
    f2sa,
    mrbo,
    rsvrb,
    saba,
    soba,
    stocbio,
    sustain,
    ttsa,
)
from stochopt.catalog.method import Method, held
from stochopt.claims import bilevel as claims

# Tracked Hessians stray; lower problems of the zoo have curvatures above this.
_FLOOR = {"hessian_floor": 0.2}
# At the point where the directions were taken; one row for each block.
_LOWER = held(lower="lower_params")
_LOWER_AND_ADJOINT = held(lower="lower_params", adjoint="adjoint")
_BLOCKS = {
    "lower": lambda state: (
        block_variables(optax.tree.get(state, "EstimateBlockwiseState")).lower_params
    )
}
_CORRECTED = held(gradient="direction")

_method = functools.partial(Method, family="bilevel", gradient_of=None)

ROWS = (
    _method(
        name="soba",
        factory=soba,
        summary="parameters, lower variable and adjoint variable descend at once",
        paper="Dagréou et al. 2022, arXiv:2201.13409",
        estimates=_LOWER_AND_ADJOINT,
        claims=claims.SOBA,
    ),
    _method(
        name="saba",
        factory=saba,
        summary="the same with the memory of all samples of finite sums",
        paper="Dagréou et al. 2022, arXiv:2201.13409",
        takes="sample_indices",
        estimates=_LOWER_AND_ADJOINT,
        claims=claims.SABA,
    ),
    _method(
        name="mrbo",
        factory=mrbo,
        summary="recursive variance reduction, adjoint by a Neumann series",
        paper="Yang, Ji, Liang 2021, arXiv:2106.04692",
        estimates=_LOWER,
        claims=claims.MRBO,
    ),
    _method(
        name="sustain",
        factory=sustain,
        summary="the same with a series of random length",
        paper="Khanduri et al. 2021, arXiv:2102.07367",
        estimates=_LOWER,
        claims=claims.SUSTAIN,
    ),
    _method(
        name="f2sa",
        factory=f2sa,
        summary="the lower problem as a growing penalty, first derivatives only",
        paper="Kwon et al. 2023, arXiv:2301.10945",
        estimates=_LOWER,
        claims=claims.F2SA,
    ),
    _method(
        name="amigo",
        factory=amigo,
        summary="warm-started inner loops for lower variable and linear system",
        paper="Arbel, Mairal 2022, arXiv:2111.14580",
        estimates=_LOWER_AND_ADJOINT,
        claims=claims.AMIGO,
    ),
    _method(
        name="stocbio",
        factory=stocbio,
        summary="lower steps, then a Neumann series",
        paper="Ji, Yang, Liang 2021, arXiv:2010.07962",
        estimates=_LOWER,
        claims=claims.STOCBIO,
    ),
    _method(
        name="bsa",
        factory=bsa,
        summary="lower steps, then a Neumann series of random length",
        paper="Ghadimi, Wang 2018, arXiv:1802.02246",
        estimates=_LOWER,
        claims=claims.BSA,
    ),
    _method(
        name="ttsa",
        factory=ttsa,
        summary="one lower step, one upper step, on two time scales",
        paper="Hong et al. 2023, arXiv:2007.05170",
        estimates=_LOWER,
        claims=claims.TTSA,
    ),
    _method(
        name="bsvrb_v1",
        factory=bsvrb_v1,
        summary="many lower problems, a few at a time, tracked Hessians",
        paper="Hu et al. 2023, arXiv:2305.18730",
        defaults=_FLOOR,
        takes="blocks",
        estimates={**_BLOCKS, **_CORRECTED},
        claims=claims.BSVRB_V1,
    ),
    _method(
        name="bsvrb_v2",
        factory=bsvrb_v2,
        summary="the same with tracked adjoints",
        paper="Hu et al. 2023, arXiv:2305.18730",
        takes="blocks",
        estimates={**_BLOCKS, **_CORRECTED},
        claims=claims.BSVRB_V2,
    ),
    _method(
        name="rsvrb",
        factory=rsvrb,
        summary="many small lower problems, all derivatives tracked as one vector",
        paper="Guo et al. 2021, arXiv:2105.02266",
        defaults=_FLOOR,
        takes="blocks",
        estimates=held(lower="previous_lower_params", gradient="direction"),
        claims=claims.RSVRB,
    ),
)
