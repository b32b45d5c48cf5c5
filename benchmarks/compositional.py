"""Time of a step of the coupled estimator: against the number of blocks, and beside LibAUC.

    python benchmarks/compositional.py                  # both parts, three processes each
    python benchmarks/compositional.py --parts blocks

``blocks``: 16 sampled of a thousand and of a million blocks. Indices and batches are drawn before,
and a compiled loop with a donated carry takes all steps; the two numbers of blocks run in turn.

``libauc``: LibAUC's losses that keep a table with a row for each sample, with LibAUC's own
optimizers, beside the same mathematics here: same model, batches, table and optimizer. Before
anything is timed, twenty steps of both are compared. Three ways to step take turns: PyTorch as
LibAUC is used; a compiled step called from Python; a compiled loop. LibAUC runs a second time under
``python -O``, without the assertions in its losses. Where it is not installed, only the compiled
steps are timed; ``pip install --no-deps libauc`` with torch, pandas, pillow, scikit-learn, scipy
and tqdm is enough.

Ratios are within a process, medians and ranges over processes. PyTorch runs with one thread, which
is faster than two at these sizes.
"""

import argparse
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import (
    NUM_BLOCKS,
    NUM_SAMPLED,
    available_cores,
    children,
    in_turn,
    loop_over_blocks,
    report_blocks,
    spread,
    stay_on,
)

from stochopt.compositional import (
    adaptive_log_moving_average,
    estimate_coupled,
    estimate_rows,
    log_moving_average,
    moving_average,
)

# Of each block: samples in its batch, entries of its inner value, features of a sample.
PROBLEMS = {"1 sample, 1 value": (1, 1, 16), "32 samples, 8 values": (32, 8, 64)}
LOSSES = ("average precision", "entropic risk, SOX", "entropic risk, SCENT")


# Part 1: number of blocks


def blocks_loop(num_blocks, problem, num_steps=2000, num_batches=32):
    """Steps of the estimator alone."""
    samples, values, features = PROBLEMS[problem]
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    batches = {
        "features": normal(num_batches, NUM_SAMPLED, samples, features),
        "target": normal(num_batches, NUM_SAMPLED, values),
    }
    optimizer = optax.chain(
        estimate_coupled(
            lambda x, batch: jnp.mean(jnp.tanh(batch["features"] @ x), axis=0),
            lambda y, x, batch: 0.5 * jnp.sum((y - batch["target"]) ** 2),
            tracker=moving_average(0.1),
            inner_shape=jax.ShapeDtypeStruct((values,), jnp.float32),
            num_blocks=num_blocks,
        ),
        optax.scale_by_learning_rate(0.01),
    )
    x = 0.1 * normal(features, values)
    run, _ = loop_over_blocks(optimizer, x, batches, num_blocks, num_steps)
    return run, num_steps


def measure_blocks():
    record = {}
    for problem in PROBLEMS:
        loops = {num_blocks: blocks_loop(num_blocks, problem) for num_blocks in NUM_BLOCKS}
        runs = {num_blocks: run for num_blocks, (run, _) in loops.items()}
        took = in_turn(runs)
        record[problem] = {n: took[n] / num_steps for n, (_, num_steps) in loops.items()}
    return record


# Part 2: LibAUC

TABLE, BATCH, POSITIVE, FEATURES, HIDDEN, CLASSES = 10_000, 64, 16, 32, 64, 100
RATE, MARGIN = 0.9, 1.0
NUM_STEPS = 200


def draws(loss):
    """Batches, labels and indices of all steps, and initial weights: the same for both sides."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((NUM_STEPS, BATCH, FEATURES)).astype(np.float32)
    indices = np.stack([rng.permutation(TABLE)[:BATCH] for _ in range(NUM_STEPS)])
    if loss == "average precision":  # the positive samples stand first
        shapes, labels = {"hidden": (HIDDEN, FEATURES), "out": (1, HIDDEN)}, None
        x[:, :POSITIVE] += 0.5
    else:
        shapes = {"out": (CLASSES, FEATURES)}
        labels = rng.integers(0, CLASSES, (NUM_STEPS, BATCH))
    weights = {
        name: (0.2 * rng.standard_normal(shape)).astype(np.float32)
        for name, shape in shapes.items()
    }
    return x, labels, indices.astype(np.int32), weights


def precision_optimizer():
    """Average precision with LibAUC's defaults: a squared hinge, clipped and decayed Adam."""

    def inner_rows(weights, x):
        scores = (weights["out"] @ jnp.tanh(weights["hidden"] @ x.T))[0]
        surrogate = jnp.maximum(MARGIN - (scores[:POSITIVE, None] - scores), 0) ** 2
        everyone = jnp.mean(surrogate, axis=1)
        positive = jnp.sum(surrogate[:, :POSITIVE], axis=1) / BATCH
        return jnp.stack([everyone, positive], axis=1)

    estimate = estimate_rows(  # the blocks share one forward pass
        inner_rows,
        lambda y, weights, x: -y[:, 1] / y[:, 0],
        tracker=moving_average(RATE),
        inner_shape=jax.ShapeDtypeStruct((2,), jnp.float32),
        num_blocks=TABLE,
        per_block=False,
    )
    return estimate, optax.chain(
        estimate,
        optax.clip(1.0),
        optax.add_decayed_weights(1e-5),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(1e-3),
    )


def entropic_optimizer(tracker):
    """Compositional entropic risk of a linear classifier, momentum 0.9."""

    def inner(weights, batch):
        x, label = batch
        logits = weights["out"] @ x
        return jax.nn.logsumexp(logits - logits[label]) - jnp.log(CLASSES - 1.0)

    estimate = estimate_coupled(
        inner,
        lambda y, weights, batch: y,
        tracker=tracker,
        inner_shape=jax.ShapeDtypeStruct((), jnp.float32),
        num_blocks=TABLE,
    )
    return estimate, optax.chain(estimate, optax.sgd(0.1, momentum=0.9))


def compiled(loss):
    """Our side: the two ways to take all steps, and a trajectory to compare."""
    x, labels, indices, initial = draws(loss)
    estimate, optimizer = {
        "average precision": precision_optimizer,
        "entropic risk, SOX": lambda: entropic_optimizer(log_moving_average(RATE)),
        "entropic risk, SCENT": lambda: entropic_optimizer(adaptive_log_moving_average(1.0)),
    }[loss]()
    blocks = indices[:, :POSITIVE] if labels is None else indices
    batches = x if labels is None else (x, labels)
    stacked = jax.tree.map(jnp.asarray, (batches, blocks))
    listed = [jax.tree.map(lambda leaf, t=t: leaf[t], stacked) for t in range(NUM_STEPS)]

    def start():
        weights = jax.tree.map(jnp.array, initial)
        return weights, optimizer.init(weights)

    def advance(carry, draw):
        weights, state = carry
        batch, blocks = draw
        updates, state = optimizer.update(None, state, weights, batch=batch, block_indices=blocks)
        return (optax.apply_updates(weights, updates), state), None

    step = jax.jit(lambda carry, draw: advance(carry, draw)[0], donate_argnums=0)
    loop = jax.jit(lambda carry, draws: jax.lax.scan(advance, carry, draws)[0], donate_argnums=0)
    stepped, looped = start(), start()

    def from_python():
        nonlocal stepped
        for draw in listed:
            stepped = step(stepped, draw)
        return stepped

    def in_a_loop():
        nonlocal looped
        looped = loop(looped, stacked)
        return looped

    def trajectory(num_steps):
        carry, memory, blocks = start(), estimate.init(initial), listed[0][1]
        look = jax.jit(estimate.update)
        for batch, _ in listed[:num_steps]:
            weights = jax.tree.map(np.array, carry[0])
            direction, memory = look(None, memory, weights, batch=batch, block_indices=blocks)
            yield direction, weights
            carry = step(carry, (batch, blocks))

    return {"compiled loop": in_a_loop, "compiled step": from_python}, trajectory


def eager(loss):
    """The same in PyTorch, as LibAUC's documentation has it."""
    import torch
    from libauc.losses import APLoss
    from libauc.losses.xc import EntLossClassification
    from libauc.optimizers import SCENT, SOAP

    torch.set_num_threads(1)
    x, labels, indices, initial = draws(loss)
    layers = {name: torch.nn.Linear(*w.shape[::-1], bias=False) for name, w in initial.items()}
    for name, layer in layers.items():
        layer.weight.data = torch.tensor(initial[name])
    model = torch.nn.Sequential(*layers.values())
    precision = labels is None
    if precision:
        model.insert(1, torch.nn.Tanh())
        target = [(torch.arange(BATCH) < POSITIVE).float()] * NUM_STEPS
        table_loss = APLoss(data_len=TABLE, gamma=RATE, margin=MARGIN)
        optimizer = SOAP(model.parameters(), lr=1e-3, verbose=False)
    else:
        target = list(torch.tensor(labels)[..., None])
        scent = loss.endswith("SCENT")
        table_loss = EntLossClassification(TABLE, alpha=0.0, gamma=RATE, is_scent=scent)
        optimizer = SCENT(model.parameters(), lr=0.1, momentum=0.9)
    listed = list(zip(torch.tensor(x), target, torch.tensor(indices).long(), strict=True))

    def backward(batch, target, indices):
        scores = model(batch)
        optimizer.zero_grad()
        if precision:
            table_loss(scores, target, indices).backward()
        else:
            table_loss(scores - scores.gather(1, target), indices)["loss"].backward()

    def from_python():
        for draw in listed:
            backward(*draw)
            optimizer.step()
        return 0

    def trajectory(num_steps):
        for t, (batch, target, _) in enumerate(listed[:num_steps]):
            # This table of LibAUC starts at zero; at rate 1 it takes the first sample, as ours do.
            table_loss.gamma = 1.0 if precision and t == 0 else RATE
            backward(batch, target, listed[0][2])
            weights = {name: layer.weight for name, layer in layers.items()}
            yield (
                {name: weight.grad.numpy().copy() for name, weight in weights.items()},
                {name: weight.detach().numpy().copy() for name, weight in weights.items()},
            )
            optimizer.step()

    return from_python, trajectory


def disagreement(ours, theirs, num_steps=20):
    """Largest relative differences of directions and of weights along two trajectories.

    All steps look at the same blocks, so that rows of the table are averaged, not only started.
    """

    def relative(a, b):
        a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(x)]) for x in (a, b))
        return float(np.linalg.norm(a - b) / np.linalg.norm(b))

    pairs = zip(ours(num_steps), theirs(num_steps), strict=True)
    differences = [[relative(a, b) for a, b in zip(*pair, strict=True)] for pair in pairs]
    return [max(column) for column in zip(*differences, strict=True)]


def measure_libauc():
    record = {}
    for loss in LOSSES:
        runs, trajectory = compiled(loss)
        difference = None
        try:
            difference = disagreement(trajectory, eager(loss)[1])
            runs["LibAUC"] = eager(loss)[0]
        except ImportError as error:
            print(f"LibAUC is left out: {error}", file=sys.stderr)
        record[loss] = {name: took / NUM_STEPS for name, took in in_turn(runs).items()}
        record[loss]["difference"] = difference
    return record


# Reports


def report_libauc(results, bare, head):
    print(f"\nLosses with a table of {TABLE:,} rows, {head}")
    print("| loss | step by | µs a step | LibAUC's over it |")
    print("| --- | --- | --- | --- |")
    for loss in LOSSES:
        rows = [result[loss] for result in results]
        installed = "LibAUC" in rows[0]
        for name in ("compiled loop", "compiled step"):
            ratio = spread([row["LibAUC"] / row[name] for row in rows], 1) if installed else ""
            print(f"| {loss} | {name} | {spread([1e6 * row[name] for row in rows], 1)} | {ratio} |")
        if installed:
            stripped = [1e6 * result[loss]["LibAUC"] for result in bare]
            print(f"| {loss} | LibAUC | {spread([1e6 * row['LibAUC'] for row in rows], 1)} | |")
            print(f"| {loss} | LibAUC without assertions | {spread(stripped, 1)} | |")
            direction, weights = rows[0]["difference"]
            print(f"| {loss} | difference: {direction:.0e} direction, {weights:.0e} weights | | |")


def main():
    available = available_cores()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", default="blocks,libauc")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--cores", default=",".join(map(str, sorted({len(available), 1})[::-1])))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        stay_on(int(options.cores))
        measure = {"blocks": measure_blocks, "libauc": measure_libauc}[options.parts]
        print(json.dumps(measure()))
        return
    print(f"jax {jax.__version__}, optax {optax.__version__}")
    for part in options.parts.split(","):
        for cores in map(int, options.cores.split(",")):
            results = children(__file__, part, options.processes, cores)
            head = f"cores: {cores}, processes: {len(results)}, median [range]"
            if part == "blocks":
                report_blocks(results, PROBLEMS, head)
            else:
                report_libauc(
                    results, children(__file__, part, options.processes, cores, ["-O"]), head
                )


if __name__ == "__main__":
    main()
