"""Functions of an expectation."""

import functools

import optax

from stochopt.catalog.method import Method, held, inverse_sqrt
from stochopt.claims import compositional as claims
from stochopt.compositional import (
    asc_pg,
    isogclr,
    meco,
    msvr,
    nasa,
    scgd,
    scma,
    scsc,
    scst,
    sogclr,
    sox,
)

# Their theorems ask for rates that fall like 1 / sqrt(t); a constant one leaves a bias.
_FALLING = {"learning_rate": inverse_sqrt(0.05, 100), "tracker_rate": inverse_sqrt(0.2, 10)}
_INNER = held(inner="tracked_value")
_AVERAGED = held(gradient="averaged_direction")
_CORRECTED = held(gradient="direction")
_TEMPERATURE = {"temperature": lambda state: optax.tree.get(state, "individual_temperature")[:, 0]}

_method = functools.partial(Method, family="compositional", gradient_of=None)

ROWS = (
    _method(
        name="scgd",
        factory=scgd,
        summary="a function of an expectation, inner value by a moving average",
        paper="Wang, Fang, Liu 2017, arXiv:1411.3803",
        defaults=_FALLING,
        estimates=_INNER,
        claims=claims.SCGD,
    ),
    _method(
        name="asc_pg",
        factory=asc_pg,
        summary="the same with samples at an extrapolated point",
        paper="Wang, Liu, Fang 2017, arXiv:1607.07329",
        defaults=_FALLING,
        estimates=_INNER,
        claims=claims.ASC_PG,
    ),
    _method(
        name="nasa",
        factory=nasa,
        summary="one time scale for point, direction and inner value; constraints",
        paper="Ghadimi, Ruszczynski, Wang 2020, arXiv:1812.01094",
        defaults={"step": inverse_sqrt(0.1, 100), "learning_rate": 0.1},
        estimates={**_INNER, **_AVERAGED},
        claims=claims.NASA,
    ),
    _method(
        name="scma",
        factory=scma,
        summary="moving averages of inner value and direction",
        paper="Ghadimi, Ruszczynski, Wang 2020, arXiv:1812.01094",
        defaults={**_FALLING, "direction_rate": inverse_sqrt(0.2, 10)},
        estimates={**_INNER, **_AVERAGED},
        claims=claims.SCMA,
    ),
    _method(
        name="scsc",
        factory=scsc,
        summary="a function of an expectation, inner value tracked with correction",
        paper="Chen, Sun, Yin 2021, arXiv:2008.10847",
        defaults=_FALLING,
        estimates=_INNER,
        claims=claims.SCSC,
    ),
    _method(
        name="scst",
        factory=scst,
        summary="variance reduction of inner value and direction",
        paper="Chen, Zhou 2019, arXiv:1902.02715",
        defaults={**_FALLING, "direction_rate": inverse_sqrt(0.2, 10)},
        independent_jacobian=True,
        estimates={**_INNER, **_CORRECTED},
        claims=claims.SCST,
    ),
    _method(
        name="sox",
        factory=sox,
        summary="a mean of functions of expectations, a table of inner values",
        paper="Wang, Yang 2022, arXiv:2202.12396",
        defaults={**_FALLING, "direction_rate": inverse_sqrt(0.2, 10)},
        takes="blocks",
        estimates={**_INNER, **_AVERAGED},
        claims=claims.SOX,
    ),
    _method(
        name="msvr",
        factory=msvr,
        summary="the same with variance reduction of table and direction",
        paper="Jiang et al. 2022, arXiv:2207.08540",
        defaults={**_FALLING, "direction_rate": inverse_sqrt(0.2, 10)},
        takes="blocks",
        independent_jacobian=True,
        estimates={**_INNER, **_CORRECTED},
        claims=claims.MSVR,
    ),
    _method(
        name="meco",
        factory=meco,
        summary="maximum likelihood for unnormalized models",
        paper="Jiang et al. 2023, arXiv:2306.07485",
        defaults={**_FALLING, "direction_rate": inverse_sqrt(0.2, 10)},
        takes="data",
        estimates={**_INNER, **_AVERAGED},
        claims=claims.MECO,
    ),
    _method(
        name="sogclr",
        factory=sogclr,
        summary="contrastive learning with small batches",
        paper="Yuan et al. 2022, arXiv:2202.12387",
        takes="blocks",
        estimates={**_INNER, **_AVERAGED},
        claims=claims.SOGCLR,
    ),
    _method(
        name="isogclr",
        factory=isogclr,
        summary="the same with a temperature for each example",
        paper="Qiu et al. 2023, arXiv:2305.11965",
        takes="blocks",
        estimates={**_INNER, **_AVERAGED, **_TEMPERATURE},
        claims=claims.ISOGCLR,
    ),
)
