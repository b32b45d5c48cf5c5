"""Does a robust newsvendor beat plain and noise-injected empirical risk, out of sample?

    python benchmarks/causal_newsvendor.py --out race/causal.json                 # both sizes
    python benchmarks/causal_newsvendor.py --train 50 --grid strong --out race/strong.json
    python benchmarks/causal_newsvendor.py --show race/causal.json                # tables again

Three methods train the same soft forest from the same starts, near the best constant order, with
clipping to norm 4 and Adam:

- ``causal-sdro``: the estimator with one log-domain tracker for each training pair, after its rate
  has been one (no memory) for the first half, while losses fall by many temperatures;
- ``noise``: mean loss at features and outcomes with the same Gaussian noise, as many draws;
- ``erm``: mean loss at the training pairs.

Each has six settings. Every training set chooses one of them, and one of six moments to stop, by
its held-out loss: on a quarter of 400 pairs, in four folds of 50 pairs. The choice is then trained
on all of the pairs. Held-out pairs come from the distribution of the training pairs, so no choice
knows of the shifted test sets. All instances and settings run through one compiled program.
"""

import argparse
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt.compositional import estimate_coupled, log_moving_average
from stochopt.problems._flax import functional
from stochopt.problems.causal import (
    causal_sdro,
    gaussian_kernel,
    newsvendor_data,
    newsvendor_loss,
    newsvendor_oracle,
)
from stochopt.problems.causal.forest import SoftRegressionForest

INSTANCES, NUM_TEST, NUM_HINDSIGHT = 10, 10_000, 2_000
LEARNING_RATE, CLIP, TRACKER_RATE = 0.05, 4.0, 0.3
DRAWS, CHECKPOINTS = 4, 6
DIMENSIONS = (5, 10, 20)
# Of each training size: pairs in a batch, updates, folds, and how many of them are held out.
SIZES = {400: (32, 204, 4, 1), 50: (16, 150, 4, 4)}
# Settings of each grid: multiplier, regularization, weight decay of the gates.
GRIDS = {
    "default": {
        "causal-sdro": [(m, r, 0.3) for m in (0.5, 4.0, 32.0) for r in (0.05, 0.4)],
        "noise": [(1.0, r, 0.3) for r in (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)],
        "erm": [(1.0, 0.0, decay) for decay in (0.0, 0.1, 0.3, 0.6, 1.0, 3.0)],
    },
    "strong": {
        "causal-sdro": [(m, r, 0.3) for m in (0.2, 0.5, 4.0) for r in (0.4, 1.6)],
        "noise": [(1.0, r, 0.3) for r in (0.2, 0.4, 0.8, 1.6, 3.2, 6.4)],
        "erm": [(1.0, 0.0, decay) for decay in (0.3, 1.0, 3.0, 6.0, 10.0, 20.0)],
    },
}
METHODS = list(GRIDS["default"])
TESTS = {
    "same": {},
    "features + 1": {"test_shift": 1.0},
    "features x 1.5": {"test_scale": 1.5},
    "noise x 1.5": {"test_noise": 1.5},
}


def rule(dimension):
    return functional(lambda rngs: SoftRegressionForest(dimension, rngs=rngs))


def mean_loss(apply, params, x, y):
    return jnp.mean(jax.vmap(newsvendor_loss)(apply(params, x), y))


def fit(method, dimension, size, key, x, y, training, setting):
    """Trains on the rows where ``training``; held-out losses and params at all checkpoints."""
    num_sampled, num_steps, *_ = SIZES[size]
    multiplier, regularization, decay = setting
    draws = 1 if method == "erm" else DRAWS
    init, apply = rule(dimension)
    problem = causal_sdro(
        x,
        y,
        newsvendor_loss,
        multiplier=multiplier,
        regularization=regularization,
        kernel=gaussian_kernel,
        rule=(init, apply),
        num_sampled=num_sampled,
        batch_size=draws,
    )
    steps = [
        optax.clip_by_global_norm(CLIP),
        optax.scale_by_adam(),
        optax.add_decayed_weights(decay, mask={"weight": True, "bias": False, "leaves": False}),
        optax.scale_by_learning_rate(optax.cosine_decay_schedule(LEARNING_RATE, num_steps)),
    ]
    if method == "causal-sdro":
        rate = lambda count: jnp.where(count < num_steps // 2, 1.0, TRACKER_RATE)
        steps.insert(
            0,
            estimate_coupled(
                problem.inner,
                problem.outer,
                tracker=log_moving_average(rate),
                inner_shape=jax.ShapeDtypeStruct((), x.dtype),
                num_blocks=size,
            ),
        )
    optimizer = optax.chain(*steps)

    def plain_loss(params, batch):
        rows, noise_of_x, noise_of_y = batch
        at = (x[rows][:, None] + noise_of_x, y[rows][:, None] + noise_of_y)
        return mean_loss(apply, params, *(leaf.reshape(-1, leaf.shape[-1]) for leaf in at))

    def step(carry, key):
        params, state = carry
        for_rows, for_noise = jax.random.split(key)
        scores = jnp.where(training, jax.random.uniform(for_rows, (size,)), -1.0)
        rows = jax.lax.top_k(scores, num_sampled)[1].astype(jnp.int32)
        batch = (rows, *problem.sample(for_noise)[1:])
        if method == "causal-sdro":
            grads, extra = None, {"batch": batch, "block_indices": rows}
        else:
            grads, extra = jax.grad(plain_loss)(params, batch), {}
        updates, state = optimizer.update(grads, state, params, **extra)
        return (optax.apply_updates(params, updates), state), None

    def until_checkpoint(carry, keys):
        carry, _ = jax.lax.scan(step, carry, keys)
        losses = jax.vmap(newsvendor_loss)(apply(carry[0], x), y)
        held_out = jnp.sum(jnp.where(training, 0.0, losses)) / jnp.maximum(jnp.sum(~training), 1)
        return carry, (held_out, carry[0])

    for_init, for_steps = jax.random.split(key)
    params = init(for_init)
    # From zero the leaves would take most updates to reach the demands.
    constant = jnp.nanquantile(jnp.where(training, y[:, 0], jnp.nan), 1 / 1.6)
    params = params | {"leaves": params["leaves"] + constant}
    keys = jax.random.split(for_steps, num_steps).reshape(CHECKPOINTS, -1)
    return jax.lax.scan(until_checkpoint, (params, optimizer.init(params)), keys)[1]


def fit_all(method, dimension, size, settings):
    """All instances times all settings, one after the other in one compiled program."""
    settings = jnp.asarray(settings)

    @jax.jit
    def run(keys, x, y, training):
        def one(place):
            i, s = place // len(settings), place % len(settings)
            return fit(method, dimension, size, keys[i], x[i], y[i], training, settings[s])

        results = jax.lax.map(one, jnp.arange(len(keys) * len(settings)))
        split = lambda leaf: leaf.reshape(len(keys), len(settings), *leaf.shape[1:])
        return jax.tree.map(split, results)

    return run


def test_sets(dimension, size):
    """Training sets, test sets by name with the losses of the best decisions, and the floors."""
    keys = jax.random.split(jax.random.key(dimension), INSTANCES)
    sets = {}
    for name, options in TESTS.items():
        make = functools.partial(
            newsvendor_data, num_train=size, num_test=NUM_TEST, dimension=dimension, **options
        )
        data = jax.jit(jax.vmap(make))(keys)
        best, floor = newsvendor_oracle(data.test_location, options.get("test_noise", 1.0))
        losses = jax.vmap(jax.vmap(newsvendor_loss))(
            jnp.asarray(best, jnp.float32)[..., None], data.test_outcomes
        )
        sets[name] = (data, np.asarray(losses, np.float64), floor.mean(axis=1))
    return sets


def constant_losses(sets):
    """Losses of one order for all features, the quantile of the training demands."""
    order = jnp.quantile(sets["same"][0].outcomes, 1 / 1.6, axis=1, keepdims=True)
    losses = jax.vmap(lambda z, y: jnp.mean(jax.vmap(newsvendor_loss, (None, 0))(z[0], y)))
    return {name: losses(order, data.test_outcomes).tolist() for name, (data, _, _) in sets.items()}


def measure(dimension, size, grid):
    """One row of the tables: losses of all methods on all test sets, for every instance."""
    *_, num_folds, num_held_out = SIZES[size]
    sets = test_sets(dimension, size)
    train = sets["same"][0]
    keys = jax.random.split(jax.random.key(1000 + dimension), INSTANCES)
    fold = np.arange(size) % num_folds
    apply = rule(dimension)[1]

    @jax.jit
    def losses_of(params, x, y):
        return jax.lax.map(lambda instance: mean_loss(apply, *instance), (params, x, y))

    record = {
        "floor": {name: floor.tolist() for name, (_, _, floor) in sets.items()},
        "best": {name: best.mean(axis=1).tolist() for name, (_, best, _) in sets.items()},
        "best_few": {
            name: best[:, :NUM_HINDSIGHT].mean(axis=1).tolist()
            for name, (_, best, _) in sets.items()
        },
        "constant": constant_losses(sets),
        "settings": GRIDS[grid],
        "methods": {},
    }
    for method, settings in GRIDS[grid].items():
        run = fit_all(method, dimension, size, settings)
        held_out = np.mean(
            [
                run(keys, train.features, train.outcomes, jnp.asarray(fold != k))[0]
                for k in range(num_held_out)
            ],
            axis=0,
        )
        _, params = run(keys, train.features, train.outcomes, jnp.ones(size, bool))
        chosen = held_out.reshape(INSTANCES, -1).argmin(axis=1)
        setting, checkpoint = np.divmod(chosen, CHECKPOINTS)
        places = (np.arange(INSTANCES), setting, checkpoint)
        mine = jax.tree.map(lambda p, places=places: p[places], params)
        few = lambda leaf: leaf[:, :NUM_HINDSIGHT]
        record["methods"][method] = {
            "setting": setting.tolist(),
            "checkpoint": checkpoint.tolist(),
            "losses": {
                name: losses_of(mine, data.test_features, data.test_outcomes).tolist()
                for name, (data, _, _) in sets.items()
            },
            "train": losses_of(mine, train.features, train.outcomes).tolist(),
            # Losses of each setting without a choice, at the last checkpoint, on fewer points.
            "hindsight": {
                name: [
                    losses_of(
                        jax.tree.map(lambda p, s=s: p[:, s, -1], params),
                        few(data.test_features),
                        few(data.test_outcomes),
                    ).tolist()
                    for s in range(len(settings))
                ]
                for name, (data, _, _) in sets.items()
            },
        }
    return record


def median_range(values):
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def mean_error(values):
    return f"{np.mean(values):+.4f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.4f}"


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def head(*cells):
    row(*cells)
    row(*["---"] * len(cells))


def show(records):
    """The tables of ``docs/results/causal.md``."""
    methods = METHODS
    pairs = [("causal-sdro", "erm"), ("causal-sdro", "noise"), ("noise", "erm")]
    print("\nOut-of-sample loss, median and quartiles\n")
    head("pairs", "features", "floor", *(f"`{m}`" for m in methods))
    for (size, dimension), record in records.items():
        losses = [median_range(record["methods"][m]["losses"]["same"]) for m in methods]
        row(size, dimension, f"{np.mean(record['floor']['same']):.4f}", *losses)
    for name in TESTS:
        print(f"\nTest set: {name}. Mean excess over the best decisions, paired differences\n")
        differences = [f"`{a}` - `{b}`" for a, b in pairs]
        methods_head = [f"`{m}`" for m in methods]
        head("pairs", "features", "floor", "constant", *methods_head, *differences)
        for (size, dimension), record in records.items():
            losses = {m: np.array(record["methods"][m]["losses"][name]) for m in methods}
            excess = [f"{np.mean(losses[m] - record['best'][name]):.4f}" for m in methods]
            paired = [mean_error(losses[a] - losses[b]) for a, b in pairs]
            constant = np.subtract(record["constant"][name], record["best"][name])
            fixed = [f"{np.mean(x):.4f}" for x in (record["floor"][name], constant)]
            row(size, dimension, *fixed, *excess, *paired)
    print("\nThe best of six settings in hindsight, mean excess over the best decisions\n")
    head("test set", "pairs", "features", *(f"`{m}`" for m in methods), "`causal-sdro` - `noise`")
    for name in TESTS:
        for (size, dimension), record in records.items():
            best = {}
            for m in methods:
                table = np.array(record["methods"][m]["hindsight"][name])
                best[m] = table[table.mean(axis=1).argmin()]
            excess = [f"{np.mean(best[m] - record['best_few'][name]):.4f}" for m in methods]
            row(name, size, dimension, *excess, mean_error(best["causal-sdro"] - best["noise"]))
    print("\nBy multiplier, without a choice: mean excess over the best decisions, test set same\n")
    show_multipliers(records)
    print("\nHow often each setting was chosen\n")
    head("pairs", "features", *(f"`{m}`" for m in methods))
    for (size, dimension), record in records.items():
        counts = [
            " ".join(map(str, np.bincount(record["methods"][m]["setting"], minlength=6)))
            for m in methods
        ]
        row(size, dimension, *counts)


def show_multipliers(records):
    """Excess losses of the robust settings beside those of plain means under the same noise."""
    first = next(iter(records.values()))["settings"]["causal-sdro"]
    multipliers = sorted({multiplier for multiplier, *_ in first})
    head("pairs", "features", "regularization", *multipliers, "noise")
    for (size, dimension), record in records.items():
        excess = {}
        for method in ("causal-sdro", "noise"):
            means = np.mean(record["methods"][method]["hindsight"]["same"], axis=1)
            for setting, mean in zip(record["settings"][method], means, strict=True):
                multiplier = setting[0] if method == "causal-sdro" else "noise"
                excess[multiplier, setting[1]] = f"{mean - np.mean(record['best_few']['same']):.4f}"
        for regularization in sorted({setting[1] for setting in record["settings"]["causal-sdro"]}):
            cells = [excess[column, regularization] for column in (*multipliers, "noise")]
            row(size, dimension, regularization, *cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--dimensions", type=int, nargs="+", default=list(DIMENSIONS))
    parser.add_argument("--grid", default="default", choices=list(GRIDS))
    parser.add_argument("--out", type=Path, default=Path("race/causal.json"))
    parser.add_argument("--show", type=Path, nargs="+", help="records to print, nothing is run")
    arguments = parser.parse_args()
    records = {}
    if arguments.show:
        for path in arguments.show:
            for name, record in json.loads(path.read_text()).items():
                records[tuple(map(int, name.split()))] = record
        return show(records)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for size in arguments.train:
        for dimension in arguments.dimensions:
            records[size, dimension] = measure(dimension, size, arguments.grid)
            print(f"{size} pairs, {dimension} features: done", flush=True)
            named = {f"{size} {dimension}": record for (size, dimension), record in records.items()}
            arguments.out.write_text(json.dumps(named))
    return show(records)


if __name__ == "__main__":
    main()
