"""Gradients with less noise than a batch has."""

import functools

from stochopt.catalog.method import Method, held
from stochopt.claims import variance_reduction as claims
from stochopt.variance_reduction import page, saga, storm, svrg

_method = functools.partial(Method, family="variance reduction", gradient_of=None)

ROWS = (
    _method(
        name="page",
        factory=page,
        summary="finite sums, convex or not: a recursive gradient, at times a full one",
        paper="Li, Bao, Zhang, Richtárik 2021, arXiv:2008.10898",
        gradient_counter="num_gradients",
        estimates=held(gradient="anchor_gradient"),
        claims=claims.PAGE,
        seeds="map",
    ),
    _method(
        name="storm",
        factory=storm,
        summary="streams: momentum without its lag, two gradients on one batch",
        paper="Cutkosky, Orabona 2019, arXiv:1905.10018",
        gradient_counter="num_gradients",
        estimates=held(gradient="direction"),
        claims=claims.STORM,
    ),
    _method(
        name="svrg",
        factory=svrg,
        summary="finite sums: gradients corrected from a snapshot",
        paper="Johnson, Zhang 2013, NIPS",
        gradient_counter="num_gradients",
        claims=claims.SVRG,
        seeds="map",
    ),
    _method(
        name="saga",
        factory=saga,
        summary="finite sums: the memory of the last gradient of every sample",
        paper="Defazio, Bach, Lacoste-Julien 2014, arXiv:1407.0202",
        takes="blocks",
        claims=claims.SAGA,
    ),
)
