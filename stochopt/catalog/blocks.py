"""One block of the parameters at a time."""

import functools

from stochopt.blocks import cyclic_block_descent, vr_cyclic_block_descent
from stochopt.catalog.method import Method
from stochopt.claims import blocks as claims

_method = functools.partial(
    Method,
    family="block descent",
    from_problem={"smoothness": "block_smoothness"},
    gradient_of=None,
    gradient_counter="num_block_gradients",
)

ROWS = (
    _method(
        name="cyclic_block_descent",
        factory=cyclic_block_descent,
        summary="a gradient step in one block after the other",
        paper="Beck, Tetruashvili 2013, doi:10.1137/120887679",
        claims=claims.CYCLIC_BLOCK_DESCENT,
    ),
    _method(
        name="vr_cyclic_block_descent",
        factory=vr_cyclic_block_descent,
        summary="finite sums: the same with PAGE's recursive gradient in every block",
        paper="Cai, Song, Wright, Diakonikolas 2023, arXiv:2212.05088",
        claims=claims.VR_CYCLIC_BLOCK_DESCENT,
        seeds="map",
    ),
)
