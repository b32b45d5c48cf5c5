"""optax's own test suites, run on every method of the catalog."""

import optax
import pytest
from helpers import RADIUS
from optax_suites import Harness, load, replace_lookup, suite

from stochopt import catalog

# The lower Hessian there is one: a single term of a Neumann series is its inverse.
ONE_TERM = {"num_terms": 1, "series_step": 1.0}

#: Hyper-parameters with which each method comes within 3e-2 of the minimizers of the suites'
#: parabolas and Rosenbrock functions, in 10,000 steps.
# All of the objective is smooth, so the inner loops need one step.
CURVED = {"smoothness": 1000.0, "subgradient_bound": 1e-12}
HYPERPARAMS = {
    "adago": {"learning_rate": 0.1, "adam_learning_rate": 0.01},
    "muon": {"learning_rate": 0.01, "adam_learning_rate": 0.01},
    "trust_region": {"learning_rate": 0.003},
    "smb": {"learning_rate": 0.02},
    "smb_independent": {"learning_rate": 0.02},
    "prox_subgradient": {"learning_rate": 1.1e-3},
    "truncated_model": {"learning_rate": 1.1e-3},
    "stochastic_prox_linear": {"learning_rate": 1.1e-3},
    "stochastic_prox_point": {"learning_rate": 1.1e-3},
    "scgd": {"learning_rate": 1.1e-3},
    "asc_pg": {"learning_rate": 1.1e-3},
    "nasa": {"step": 0.1, "direction_weight": 5.0, "learning_rate": 0.011},
    "scma": {"learning_rate": 1.1e-3, "direction_rate": 0.5},
    "scsc": {"learning_rate": 1.1e-3},
    "scst": {"learning_rate": 1.1e-3},
    "sox": {"learning_rate": 1.1e-3, "direction_rate": 0.5},
    "msvr": {"learning_rate": 1.1e-3},
    "meco": {"learning_rate": 1.1e-3, "direction_rate": 0.5},
    "sogclr": {"learning_rate": 0.022, "direction_rate": 0.5},
    "isogclr": {"learning_rate": 0.022, "direction_rate": 0.5},
    "soba": {"learning_rate": 1.1e-3},
    "saba": {"learning_rate": 1.1e-3},
    "mrbo": {"learning_rate": 1.1e-3, **ONE_TERM},
    "sustain": {"learning_rate": 1.1e-3, **ONE_TERM},
    "f2sa": {"learning_rate": 1.1e-3},
    "amigo": {"learning_rate": 1.1e-3},
    "stocbio": {"learning_rate": 1.1e-3, **ONE_TERM},
    "bsa": {"learning_rate": 1.1e-3, **ONE_TERM},
    "ttsa": {"learning_rate": 1.1e-3, **ONE_TERM},
    "bsvrb_v1": {"learning_rate": 1.1e-3},
    "bsvrb_v2": {"learning_rate": 1.1e-3},
    "rsvrb": {"learning_rate": 1.1e-3},
    "gradient_sliding": CURVED,
    "stochastic_gradient_sliding": {**CURVED, "noise": 1e-12},
    "restart_free_sliding": {
        "smoothness": 2000.0,
        "strong_convexity": 0.1,
        "subgradient_bound": 1e-12,
        "noise": 1e-12,
        "initial_gap": 1e30,
    },
    "accelerated_sliding": {"smoothness": 3000.0, "cheap_smoothness": 1e-12},
    "restart_free_accelerated_sliding": {
        "smoothness": 2000.0,
        "strong_convexity": 0.1,
        "operator_norm": 1e-12,
        "initial_gap": 1e30,
    },
    "conditional_gradient_sliding": {
        "smoothness": 3000.0,
        "diameter": 2 * RADIUS,
    },
    "proxy_prox": {"learning_rate": 5e-3, "inner_optimizer": optax.sgd(1e-3), "max_inner": 5},
    "target_surrogate": {
        "target_step": 5e-3,
        "inner_optimizer": optax.sgd(1.1e-3),
        "num_inner": 2,
    },
    "page": {"learning_rate": 1.1e-3},
    "storm": {"learning_rate": 1.1e-3},
    "svrg": {"learning_rate": 1.1e-3},
    "saga": {"learning_rate": 1.1e-3},
    "cyclic_block_descent": {"learning_rate": 1.1e-2},
    "vr_cyclic_block_descent": {"learning_rate": 1.1e-2},
}

HARNESS = Harness()
FACTORIES = {method.name: HARNESS.factory(method) for method in catalog.METHODS}
ROWS = tuple({"opt_name": name, "opt_kwargs": HYPERPARAMS.get(name, {})} for name in FACTORIES)
UNWRAPPED = tuple({**row, "wrapper_name": None, "wrapper_kwargs": None} for row in ROWS)

_contrib = load(
    "optax.contrib._common_test",
    HARNESS,
    {
        "_MAIN_OPTIMIZERS_UNDER_TEST": UNWRAPPED,
        "_OTHER_OPTIMIZERS_UNDER_TEST": (),
        "_ALL_OPTIMIZERS_UNDER_TEST": UNWRAPPED,
    },
)
replace_lookup(_contrib, "_get_opt_factory", FACTORIES.__getitem__)
ContribTest = suite(
    _contrib.ContribTest,
    HARNESS,
    # num_noise is a shape and order a function, to be named in static_args, as the state rules do.
    deselect=(
        r"test_optimizers_can_be_wrapped_in_inject_hyperparams.*'(meco|cyclic_block_descent)'",
        *(
            rf"test_optimizers_accept_learning_rate_schedule.*'{method.name}'"
            for method in catalog.METHODS
            if "learning_rate" not in method.hyperparams
        ),
    ),
)

_alias = load("optax._src.alias_test", HARNESS, {"_OPTIMIZERS_UNDER_TEST": ROWS})
replace_lookup(_alias, "_get_opt", lambda self, name: FACTORIES[name])
AliasTest = suite(
    _alias.AliasTest,
    HARNESS,
    deselect=(
        "test_explicit_dtype",  # names three of optax's optimizers, reads no table
        # The same checks as in ContribTest; what is left is what only this suite has: complex
        # parameters, and a loop of single steps in place of a scan.
        "test_optimizers_accept_extra_args",
        "test_optimizers_can_be_wrapped_in_inject_hyperparams",
        "test_preserve_dtype",
        "test_gradient_accumulation",
        r"test_state_shape_dtype_shard_stability.*float\d+",
        # Plain gradient descent: the Hessian's condition number there is 8,000, and 10,000 steps
        # of the largest stable size leave an error of 0.1.
        *(
            rf"test_optimization.*'{method.name}'.*_setup_rosenbrock.*complex"
            for method in catalog.METHODS
            if method.family
            in (
                "bilevel",
                "block descent",
                "compositional",
                "model based",
                "surrogates",
                "variance reduction",
            )
        ),
    ),
)

_sharding = load(
    "optax._src.sharding_test",
    HARNESS,
    {
        "OPTIMIZERS": {
            row["opt_name"]: FACTORIES[row["opt_name"]](**row["opt_kwargs"]) for row in ROWS
        }
    },
)
ShardingTest = suite(
    _sharding.ShardingTest,
    HARNESS,
    deselect=["test_microbatch"],  # tests optax.microbatching, reads no table
)

_float64 = load(
    "optax._src.float64_test",
    HARNESS,
    {
        "ALL_MODULES": [
            (row["opt_name"], FACTORIES[row["opt_name"]], row["opt_kwargs"]) for row in ROWS
        ]
    },
)
Float64Test = suite(_float64.Float64Test, HARNESS)


def test_the_table_of_hyperparameters_has_every_method():
    assert set(HYPERPARAMS) == set(FACTORIES)


def test_a_suite_that_lost_its_table_is_an_error():
    with pytest.raises(LookupError, match="no longer defines _RENAMED"):
        load("optax._src.float64_test", HARNESS, {"_RENAMED": ()})


def test_a_deselection_without_a_test_is_an_error():
    with pytest.raises(LookupError, match="has no test test_gone"):
        suite(_float64.Float64Test, HARNESS, deselect=["test_gone"])


def test_a_skipped_test_is_a_failure():
    class Skips(_float64.Float64Test):
        def test_skips(self):
            self.skipTest("not today")

    with pytest.raises(AssertionError, match="not today"):
        suite(Skips, HARNESS)("test_skips").debug()
