"""One row per method: factory, family, paper, what it needs, how to run it, what it claims."""

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax.numpy as jnp
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
from stochopt.claims import (
    Claim,
    bilevel,
    compositional,
    gradient_descent,
    model_based,
    model_building,
    orthogonal,
    sliding,
    surrogates,
    variance_reduction,
)
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
from stochopt.model_based import (
    prox_subgradient,
    stochastic_prox_linear,
    stochastic_prox_point,
    truncated_model,
)
from stochopt.model_building import smb, smb_independent
from stochopt.orthogonal import adago, muon, trust_region
from stochopt.problems import ORACLES, Problem
from stochopt.sliding import (
    accelerated_sliding,
    conditional_gradient_sliding,
    gradient_sliding,
    restart_free_accelerated_sliding,
    restart_free_sliding,
    sliding_eval_params,
    stochastic_gradient_sliding,
)
from stochopt.surrogates import armijo, proxy_prox, target_surrogate
from stochopt.variance_reduction import page, saga, storm, svrg

# Factory arguments that a problem supplies, to its fields: the oracles, and what goes with them.
_FROM_PROBLEM = {
    name: name
    for name in (
        *ORACLES,
        "inner_shape",
        "lower_params",
        "num_batches",
        "num_blocks",
        "num_sampled",
        "num_samples",
        "prox",
        "sample",
    )
} | {"num_examples": "num_blocks"}


class UnknownMethodError(ValueError):
    """No method of that name; the message offers the nearest ones."""


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """A method, as experiments, tests, documentation and the command line see it.

    Attributes:
      name: unique; optax's own methods carry the path below ``optax``.
      factory: returns the transformation. Arguments named like an oracle (or ``inner_shape``,
        ``lower_params``, ``num_batches``, ``num_blocks``, ``num_sampled``, ``num_samples``,
        ``sample``) are taken from the :class:`stochopt.problems.Problem`; ``num_examples`` is its
        ``num_blocks``.
      family: heading of the list.
      summary: one line.
      paper: authors, year and where to read it.
      defaults: hyper-parameters that differ from the factory's own or that it has no default for.
      gradient_of: the oracle whose gradient is fed to ``update``, or ``"unregularized"`` of the
        problem; ``None`` for an estimator, which calls its oracles itself.
      takes: what ``update`` gets as ``batch``: the problem's ``"batch"``, or its view ``"blocks"``
        (with ``block_indices``) or ``"data"``, or the batch with ``"sample_indices"``.
      independent_jacobian: whether experiments draw a second batch for the Jacobian of the inner
        function (``jacobian_batch``, and its blocks), for a method that needs independence.
      gradient_counter: name in the state that counts gradient evaluations; ``None`` means that
        every update costs one.
      eval_params: ``eval_params(state, params)``, the point to evaluate.
      estimates: name to ``function(state)``: what the state holds an estimate of, under the names
        of ``exact`` of a :class:`stochopt.problems.Problem`.
      claims: the convergence rates that are claimed of the method.
      seeds: how an experiment batches seeds: ``"vmap"``, or ``"map"`` for methods that branch
        (``vmap`` runs both branches of a ``cond``).
    """

    name: str
    factory: Callable[..., optax.GradientTransformation]
    family: str
    summary: str
    paper: str
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gradient_of: str | None = "loss"
    takes: Literal["batch", "blocks", "data", "sample_indices"] = "batch"
    independent_jacobian: bool = False
    gradient_counter: str | None = None
    eval_params: Callable[[Any, Any], Any] = lambda state, params: params
    estimates: Mapping[str, Callable[[Any], Any]] = dataclasses.field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    seeds: Literal["vmap", "map"] = "vmap"

    @property
    def bound(self) -> tuple[str, ...]:
        """Arguments of the factory that the problem supplies."""
        return tuple(n for n in inspect.signature(self.factory).parameters if n in _FROM_PROBLEM)

    @property
    def oracles(self) -> tuple[str, ...]:
        """Every oracle that a problem must offer."""
        bound = (name for name in self.bound if name in ORACLES)
        view = None if self.takes == "batch" else self.takes
        return tuple(filter(None, (self.gradient_of, *bound, view)))

    @property
    def hyperparams(self) -> dict[str, Any]:
        """Every hyper-parameter with its default; ``inspect.Parameter.empty`` without one."""
        parameters = inspect.signature(self.factory).parameters.values()
        own = {p.name: p.default for p in parameters if p.name not in _FROM_PROBLEM}
        return {**own, **self.defaults}

    def make(self, problem: Problem, **hyperparams: Any) -> optax.GradientTransformationExtraArgs:
        """Builds the transformation for ``problem``.

        Raises:
          ValueError: the problem lacks an oracle, or a hyper-parameter is unknown.
        """
        if missing := problem.missing(self.oracles):
            raise ValueError(
                f"{self.name} needs the oracles {', '.join(self.oracles)}; "
                f"problem {problem.name!r} has no {', '.join(missing)}."
            )
        if unknown := set(hyperparams) - set(self.hyperparams):
            raise ValueError(
                f"{self.name} has no hyper-parameter {', '.join(sorted(unknown))}; "
                f"it has {', '.join(self.hyperparams)}."
            )
        bound = {name: getattr(problem, _FROM_PROBLEM[name]) for name in self.bound}
        transformation = self.factory(**bound, **{**self.defaults, **hyperparams})
        return optax.with_extra_args_support(transformation)


def inverse_sqrt(start: float, knee: float) -> optax.Schedule:
    r"""The schedule :math:`s / \sqrt{1 + t / k}`: flat for ``knee`` updates, then decaying."""
    return lambda count: start / jnp.sqrt(1 + count / knee)


# From the paper's step size downwards: with its limit of 20 the automatic step size grows, once the
# loss is tiny, until a step kills every unit of a ReLU network.
_ADJUSTED = {"adjust_every": 20, "max_learning_rate": 1.0}

# Their theorems ask for rates that fall like 1 / sqrt(t); a constant one leaves a bias.
_FALLING = {"learning_rate": inverse_sqrt(0.05, 100), "tracker_rate": inverse_sqrt(0.2, 10)}
# Tracked Hessians stray; lower problems of the zoo have curvatures above this.
_FLOOR = {"hessian_floor": 0.2}

Estimates = Mapping[str, Callable[[Any], Any]]
_INNER: Estimates = {"inner": lambda state: optax.tree.get(state, "tracked_value")}
_AVERAGED: Estimates = {"gradient": lambda state: optax.tree.get(state, "averaged_direction")}
_TEMPERATURE: Estimates = {
    "temperature": lambda state: optax.tree.get(state, "individual_temperature")[:, 0]
}
_CORRECTED: Estimates = {"gradient": lambda state: optax.tree.get(state, "direction")}

# At the point where the directions were taken; one row for each block.
_LOWER: Estimates = {"lower": lambda state: optax.tree.get(state, "lower_params")}
_LOWER_AND_ADJOINT: Estimates = {
    **_LOWER,
    "adjoint": lambda state: optax.tree.get(state, "adjoint"),
}
_BLOCKS: Estimates = {
    "lower": lambda state: (
        block_variables(optax.tree.get(state, "EstimateBlockwiseState")).lower_params
    )
}

# Constants of the composite problem, where sliding is raced.
_COMPOSITE = {"smoothness": 1.0, "subgradient_bound": 1.0}
_SADDLE = {"smoothness": 1.0, "operator_norm": 0.05}
_SLIDING: Mapping[str, Any] = {
    "family": "sliding",
    "gradient_of": "smooth",
    "gradient_counter": "num_smooth_gradients",
    "eval_params": sliding_eval_params,
}

METHODS = (
    Method(
        name="adago",
        factory=adago,
        family="orthogonal",
        summary="AdaGrad step sizes on orthogonalized momentum; AdamW for vectors",
        paper="Zhang et al. 2025, arXiv:2509.02981",
        estimates={"gradient": lambda state: optax.tree.get(state, "ScaleByAdagoState").mu},
        claims=orthogonal.ADAGO,
    ),
    Method(
        name="muon",
        factory=muon,
        family="orthogonal",
        summary="orthogonalized momentum on hidden matrices; AdamW for the rest",
        paper="Jordan et al. 2024, kellerjordan.github.io/posts/muon",
        estimates={"gradient": lambda state: optax.tree.get(state, "ScaleByLmoState").mu},
        claims=orthogonal.MUON,
    ),
    Method(
        name="trust_region",
        factory=trust_region,
        family="orthogonal",
        summary="steps of fixed length in any norm along the averaged gradient",
        paper="Kovalev 2025, arXiv:2503.12645",
        defaults={"learning_rate": 0.02},
        estimates={"gradient": lambda state: optax.tree.get(state, "ScaleByLmoState").mu},
        claims=orthogonal.TRUST_REGION,
    ),
    Method(
        name="smb",
        factory=smb,
        family="model building",
        summary="models the curvature that a rejected step met",
        paper="Birbil et al. 2024, arXiv:2111.07058",
        defaults=_ADJUSTED,
        gradient_counter="num_gradients",
        claims=model_building.SMB,
        seeds="map",
    ),
    Method(
        name="smb_independent",
        factory=smb_independent,
        family="model building",
        summary="the same with a fresh batch for the model (SMBi)",
        paper="Birbil et al. 2024, arXiv:2111.07058",
        defaults=_ADJUSTED,
        gradient_counter="num_gradients",
        claims=model_building.SMB_INDEPENDENT,
        seeds="map",
    ),
    Method(
        name="prox_subgradient",
        factory=prox_subgradient,
        family="model based",
        summary="the loss as a line, a regularizer as it is",
        paper="Davis, Drusvyatskiy 2019, arXiv:1803.06523",
        defaults={"learning_rate": 0.05},
        gradient_of="unregularized",
        claims=model_based.PROX_SUBGRADIENT,
    ),
    Method(
        name="truncated_model",
        factory=truncated_model,
        family="model based",
        summary="subgradient steps that end at a lower bound of the loss",
        paper="Asi, Duchi 2019, arXiv:1810.05633",
        defaults={"learning_rate": 0.05},
        claims=model_based.TRUNCATED_MODEL,
    ),
    Method(
        name="stochastic_prox_linear",
        factory=stochastic_prox_linear,
        family="model based",
        summary="absolute values of smooth functions, kinks kept",
        paper="Davis, Drusvyatskiy 2019, arXiv:1803.06523",
        defaults={"learning_rate": 0.05},
        gradient_of=None,
        claims=model_based.STOCHASTIC_PROX_LINEAR,
    ),
    Method(
        name="stochastic_prox_point",
        factory=stochastic_prox_point,
        family="model based",
        summary="the minimizer of the sampled loss itself, near the point",
        paper="Davis, Drusvyatskiy 2019, arXiv:1803.06523",
        defaults={"learning_rate": 0.05},
        gradient_of=None,
        claims=model_based.STOCHASTIC_PROX_POINT,
    ),
    Method(
        name="scgd",
        factory=scgd,
        family="compositional",
        summary="a function of an expectation, inner value by a moving average",
        paper="Wang, Fang, Liu 2017, arXiv:1411.3803",
        defaults=_FALLING,
        gradient_of=None,
        estimates=_INNER,
        claims=compositional.SCGD,
    ),
    Method(
        name="asc_pg",
        factory=asc_pg,
        family="compositional",
        summary="the same with samples at an extrapolated point",
        paper="Wang, Liu, Fang 2017, arXiv:1607.07329",
        defaults=_FALLING,
        gradient_of=None,
        estimates=_INNER,
        claims=compositional.ASC_PG,
    ),
    Method(
        name="nasa",
        factory=nasa,
        family="compositional",
        summary="one time scale for point, direction and inner value; constraints",
        paper="Ghadimi, Ruszczynski, Wang 2020, arXiv:1812.01094",
        defaults={"step": inverse_sqrt(0.1, 100), "learning_rate": 0.1},
        gradient_of=None,
        estimates={**_INNER, **_AVERAGED},
        claims=compositional.NASA,
    ),
    Method(
        name="scma",
        factory=scma,
        family="compositional",
        summary="moving averages of inner value and direction",
        paper="Ghadimi, Ruszczynski, Wang 2020, arXiv:1812.01094",
        defaults={**_FALLING, "direction_rate": inverse_sqrt(0.2, 10)},
        gradient_of=None,
        estimates={**_INNER, **_AVERAGED},
        claims=compositional.SCMA,
    ),
    Method(
        name="scsc",
        factory=scsc,
        family="compositional",
        summary="a function of an expectation, inner value tracked with correction",
        paper="Chen, Sun, Yin 2021, arXiv:2008.10847",
        defaults=_FALLING,
        gradient_of=None,
        estimates=_INNER,
        claims=compositional.SCSC,
    ),
    Method(
        name="scst",
        factory=scst,
        family="compositional",
        summary="variance reduction of inner value and direction",
        paper="Chen, Zhou 2019, arXiv:1902.02715",
        defaults={**_FALLING, "direction_rate": inverse_sqrt(0.2, 10)},
        gradient_of=None,
        independent_jacobian=True,
        estimates={**_INNER, **_CORRECTED},
        claims=compositional.SCST,
    ),
    Method(
        name="sox",
        factory=sox,
        family="compositional",
        summary="a mean of functions of expectations, a table of inner values",
        paper="Wang, Yang 2022, arXiv:2202.12396",
        defaults={**_FALLING, "direction_rate": inverse_sqrt(0.2, 10)},
        gradient_of=None,
        takes="blocks",
        estimates={**_INNER, **_AVERAGED},
        claims=compositional.SOX,
    ),
    Method(
        name="msvr",
        factory=msvr,
        family="compositional",
        summary="the same with variance reduction of table and direction",
        paper="Jiang et al. 2022, arXiv:2207.08540",
        defaults={**_FALLING, "direction_rate": inverse_sqrt(0.2, 10)},
        gradient_of=None,
        takes="blocks",
        independent_jacobian=True,
        estimates={**_INNER, **_CORRECTED},
        claims=compositional.MSVR,
    ),
    Method(
        name="meco",
        factory=meco,
        family="compositional",
        summary="maximum likelihood for unnormalized models",
        paper="Jiang et al. 2023, arXiv:2306.07485",
        defaults={**_FALLING, "direction_rate": inverse_sqrt(0.2, 10)},
        gradient_of=None,
        takes="data",
        estimates={**_INNER, **_AVERAGED},
        claims=compositional.MECO,
    ),
    Method(
        name="sogclr",
        factory=sogclr,
        family="compositional",
        summary="contrastive learning with small batches",
        paper="Yuan et al. 2022, arXiv:2202.12387",
        gradient_of=None,
        takes="blocks",
        estimates={**_INNER, **_AVERAGED},
        claims=compositional.SOGCLR,
    ),
    Method(
        name="isogclr",
        factory=isogclr,
        family="compositional",
        summary="the same with a temperature for each example",
        paper="Qiu et al. 2023, arXiv:2305.11965",
        gradient_of=None,
        takes="blocks",
        estimates={**_INNER, **_AVERAGED, **_TEMPERATURE},
        claims=compositional.ISOGCLR,
    ),
    Method(
        name="soba",
        factory=soba,
        family="bilevel",
        summary="parameters, lower variable and adjoint variable descend at once",
        paper="Dagréou et al. 2022, arXiv:2201.13409",
        gradient_of=None,
        estimates=_LOWER_AND_ADJOINT,
        claims=bilevel.SOBA,
    ),
    Method(
        name="saba",
        factory=saba,
        family="bilevel",
        summary="the same with the memory of all samples of finite sums",
        paper="Dagréou et al. 2022, arXiv:2201.13409",
        gradient_of=None,
        takes="sample_indices",
        estimates=_LOWER_AND_ADJOINT,
        claims=bilevel.SABA,
    ),
    Method(
        name="mrbo",
        factory=mrbo,
        family="bilevel",
        summary="recursive variance reduction, adjoint by a Neumann series",
        paper="Yang, Ji, Liang 2021, arXiv:2106.04692",
        gradient_of=None,
        estimates=_LOWER,
        claims=bilevel.MRBO,
    ),
    Method(
        name="sustain",
        factory=sustain,
        family="bilevel",
        summary="the same with a series of random length",
        paper="Khanduri et al. 2021, arXiv:2102.07367",
        gradient_of=None,
        estimates=_LOWER,
        claims=bilevel.SUSTAIN,
    ),
    Method(
        name="f2sa",
        factory=f2sa,
        family="bilevel",
        summary="the lower problem as a growing penalty, first derivatives only",
        paper="Kwon et al. 2023, arXiv:2301.10945",
        gradient_of=None,
        estimates=_LOWER,
        claims=bilevel.F2SA,
    ),
    Method(
        name="amigo",
        factory=amigo,
        family="bilevel",
        summary="warm-started inner loops for lower variable and linear system",
        paper="Arbel, Mairal 2022, arXiv:2111.14580",
        gradient_of=None,
        estimates=_LOWER_AND_ADJOINT,
        claims=bilevel.AMIGO,
    ),
    Method(
        name="stocbio",
        factory=stocbio,
        family="bilevel",
        summary="lower steps, then a Neumann series",
        paper="Ji, Yang, Liang 2021, arXiv:2010.07962",
        gradient_of=None,
        estimates=_LOWER,
        claims=bilevel.STOCBIO,
    ),
    Method(
        name="bsa",
        factory=bsa,
        family="bilevel",
        summary="lower steps, then a Neumann series of random length",
        paper="Ghadimi, Wang 2018, arXiv:1802.02246",
        gradient_of=None,
        estimates=_LOWER,
        claims=bilevel.BSA,
    ),
    Method(
        name="ttsa",
        factory=ttsa,
        family="bilevel",
        summary="one lower step, one upper step, on two time scales",
        paper="Hong et al. 2023, arXiv:2007.05170",
        gradient_of=None,
        estimates=_LOWER,
        claims=bilevel.TTSA,
    ),
    Method(
        name="bsvrb_v1",
        factory=bsvrb_v1,
        family="bilevel",
        summary="many lower problems, a few at a time, tracked Hessians",
        paper="Hu et al. 2023, arXiv:2305.18730",
        defaults=_FLOOR,
        gradient_of=None,
        takes="blocks",
        estimates={**_BLOCKS, **_CORRECTED},
        claims=bilevel.BSVRB_V1,
    ),
    Method(
        name="bsvrb_v2",
        factory=bsvrb_v2,
        family="bilevel",
        summary="the same with tracked adjoints",
        paper="Hu et al. 2023, arXiv:2305.18730",
        gradient_of=None,
        takes="blocks",
        estimates={**_BLOCKS, **_CORRECTED},
        claims=bilevel.BSVRB_V2,
    ),
    Method(
        name="rsvrb",
        factory=rsvrb,
        family="bilevel",
        summary="many small lower problems, all derivatives tracked as one vector",
        paper="Guo et al. 2021, arXiv:2105.02266",
        defaults=_FLOOR,
        gradient_of=None,
        takes="blocks",
        estimates={
            "lower": lambda state: optax.tree.get(state, "previous_lower_params"),
            **_CORRECTED,
        },
        claims=bilevel.RSVRB,
    ),
    Method(
        name="gradient_sliding",
        factory=gradient_sliding,
        summary="smooth plus nonsmooth: many subgradients for each smooth gradient",
        paper="Lan 2016, arXiv:1406.0919",
        defaults={**_COMPOSITE, "horizon": 100, "initial_distance": 10.0},
        claims=sliding.GRADIENT_SLIDING,
        **_SLIDING,
    ),
    Method(
        name="stochastic_gradient_sliding",
        factory=stochastic_gradient_sliding,
        summary="the same with subgradients from samples",
        paper="Lan 2016, arXiv:1406.0919",
        defaults={**_COMPOSITE, "noise": 0.5, "horizon": 100, "initial_distance": 10.0},
        claims=sliding.STOCHASTIC_GRADIENT_SLIDING,
        **_SLIDING,
    ),
    Method(
        name="restart_free_sliding",
        factory=restart_free_sliding,
        summary="the same for strongly convex problems, at a linear rate",
        paper="constants derived here",
        defaults={**_COMPOSITE, "noise": 0.5, "strong_convexity": 0.005, "initial_gap": 10.0},
        claims=sliding.RESTART_FREE_SLIDING,
        **_SLIDING,
    ),
    Method(
        name="accelerated_sliding",
        factory=accelerated_sliding,
        summary="two smooth parts: an accelerated inner loop for each smooth gradient",
        paper="Lan, Ouyang 2022, doi:10.1007/s10589-022-00365-z; constants derived here",
        defaults={"smoothness": 1.0, "cheap_smoothness": 100.0},
        claims=sliding.ACCELERATED_SLIDING,
        **_SLIDING,
    ),
    Method(
        name="restart_free_accelerated_sliding",
        factory=restart_free_accelerated_sliding,
        summary="a norm of a linear map, smoothed less and less, at a linear rate",
        paper="complexity: Wu, Xu, Zhang 2026, arXiv:2602.04161; constants derived here",
        defaults={**_SADDLE, "strong_convexity": 0.005, "initial_gap": 10.0},
        claims=sliding.RESTART_FREE_ACCELERATED_SLIDING,
        **_SLIDING,
    ),
    Method(
        name="conditional_gradient_sliding",
        factory=conditional_gradient_sliding,
        summary="many linear minimizations for each gradient, no projection",
        paper="Lan, Zhou 2016, doi:10.1137/140992382",
        defaults={"smoothness": 1.0, "diameter": 2**0.5},
        claims=sliding.CONDITIONAL_GRADIENT_SLIDING,
        **{**_SLIDING, "gradient_of": "loss"},
    ),
    Method(
        name="proxy_prox",
        factory=proxy_prox,
        family="surrogates",
        summary="proximal point steps on a cheap loss similar to the expensive one",
        paper="Woodworth, Mishchenko, Bach 2023, arXiv:2302.03542",
        defaults={"learning_rate": 0.5, "inner_optimizer": optax.sgd(0.05)},
        gradient_counter="num_target_gradients",
        claims=surrogates.PROXY_PROX,
    ),
    Method(
        name="target_surrogate",
        factory=target_surrogate,
        family="surrogates",
        summary="one gradient in the predictions, many steps of the model (SSO)",
        paper="Lavington et al. 2023, arXiv:2302.02607",
        # A surrogate with short steps of the targets is too steep for inner steps of this size.
        defaults={
            "inner_optimizer": optax.sgd(0.02),
            "target_step": armijo(500.0, lower=500.0),
        },
        gradient_of=None,
        gradient_counter="num_target_gradients",
        claims=surrogates.TARGET_SURROGATE,
    ),
    Method(
        name="page",
        factory=page,
        family="variance reduction",
        summary="finite sums, convex or not: a recursive gradient, at times a full one",
        paper="Li, Bao, Zhang, Richtárik 2021, arXiv:2008.10898",
        gradient_of=None,
        gradient_counter="num_gradients",
        estimates={"gradient": lambda state: optax.tree.get(state, "anchor_gradient")},
        claims=variance_reduction.PAGE,
        seeds="map",
    ),
    Method(
        name="storm",
        factory=storm,
        family="variance reduction",
        summary="streams: momentum without its lag, two gradients on one batch",
        paper="Cutkosky, Orabona 2019, arXiv:1905.10018",
        gradient_of=None,
        gradient_counter="num_gradients",
        estimates=_CORRECTED,
        claims=variance_reduction.STORM,
    ),
    Method(
        name="svrg",
        factory=svrg,
        family="variance reduction",
        summary="finite sums: gradients corrected from a snapshot",
        paper="Johnson, Zhang 2013, NIPS",
        gradient_of=None,
        gradient_counter="num_gradients",
        claims=variance_reduction.SVRG,
        seeds="map",
    ),
    Method(
        name="saga",
        factory=saga,
        family="variance reduction",
        summary="finite sums: the memory of the last gradient of every sample",
        paper="Defazio, Bach, Lacoste-Julien 2014, arXiv:1407.0202",
        gradient_of=None,
        takes="blocks",
        claims=variance_reduction.SAGA,
    ),
)

# optax's own methods at the learning rates its documentation or its tests use; any other one races
# by its path below ``optax`` once a learning rate is given.
_OPTAX_DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {"learning_rate": 0.1},
    "adam": {"learning_rate": 1e-3},
    "adamw": {"learning_rate": 1e-3},
    "lion": {"learning_rate": 1e-4},
    "polyak_sgd": {},
    "contrib.muon": {"learning_rate": 0.02},
    "contrib.momo": {"learning_rate": 1.0},
    "contrib.momo_adam": {"learning_rate": 1e-2},
    "contrib.prodigy": {"learning_rate": 1.0},
    "contrib.schedule_free_adamw": {"learning_rate": 2.5e-3},
}
_OPTAX_EVAL_PARAMS = {
    "contrib.schedule_free_adamw": optax.contrib.schedule_free_eval_params,
    "contrib.schedule_free_sgd": optax.contrib.schedule_free_eval_params,
}
# Rates of optax's own methods: the yardsticks.
_OPTAX_CLAIMS: dict[str, tuple[Claim, ...]] = {"sgd": gradient_descent.SGD}


def _optax_method(path: str) -> Method | None:
    """The row of ``optax.<path>``, if that is a public factory of a whole optimizer."""
    target: Any = optax
    for part in path.split("."):
        target = None if part.startswith("_") else getattr(target, part, None)
    if not inspect.isfunction(target) or not any(
        name.endswith("learning_rate") for name in inspect.signature(target).parameters
    ):
        return None
    options = {"eval_params": _OPTAX_EVAL_PARAMS[path]} if path in _OPTAX_EVAL_PARAMS else {}
    return Method(
        name=path,
        factory=target,
        family="optax",
        summary=(inspect.getdoc(target) or "").split("\n")[0].rstrip("."),
        paper="see its documentation",
        defaults=_OPTAX_DEFAULTS.get(path, {}),
        claims=_OPTAX_CLAIMS.get(path, ()),
        **options,
    )


def methods(*, optax_too: bool = True) -> tuple[Method, ...]:
    """Our methods, and optax's that have a default learning rate."""
    others = [_optax_method(path) for path in _OPTAX_DEFAULTS] if optax_too else []
    return METHODS + tuple(filter(None, others))


def find(name: str) -> Method:
    """The method of that name.

    Raises:
      UnknownMethodError: there is none; the message names the nearest.
    """
    for method in METHODS:
        if method.name == name:
            return method
    if found := _optax_method(name.removeprefix("optax.")):
        return found
    known = [method.name for method in methods()]
    raise UnknownMethodError(f"unknown optimizer {name!r}; {nearest(name, known)}")


def nearest(name: str, known: list[str]) -> str:
    """Says which of the ``known`` names a misspelt one may have meant."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known are {', '.join(known)}."
