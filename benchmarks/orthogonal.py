"""Time of one optimizer step on transformer-shaped trees, beside optax's Muon and Adam.

    python benchmarks/orthogonal.py           # trees 6x384 and 24x64, three processes each
    python benchmarks/orthogonal.py --trees 12x768 --processes 1

A tree of ``LxD`` has L layers of width D: four attention matrices D x D, two of the perceptron,
D x 4D and 4D x D, two gains. Every process compiles each optimizer once and then times single
steps in turn, so that all see the same machine; ratios are within a process, their medians and
ranges over processes. Steps have no donated buffers and start from the same state.

FLOP/s are those that the polynomial of the iteration needs, over the step time, and are related to
the best matrix product of the same size range on this machine. PyTorch's Muon, which multiplies in
bfloat16 whatever the dtype, takes part where PyTorch is installed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import stochopt
from stochopt.experiments import matmul_flops

REPEATS = 9


def transformer(layers, width, dtype):
    shapes = dict.fromkeys(("query", "key", "value", "out"), (width, width))
    shapes |= {"up": (width, 4 * width), "down": (4 * width, width), "norm1": (width,)}
    shapes |= {"norm2": (width,)}
    rng = np.random.default_rng(0)
    draw = lambda shape: jnp.asarray(0.02 * rng.standard_normal(shape), dtype)
    return [{name: draw(shape) for name, shape in shapes.items()} for _ in range(layers)]


def optimizers(dtype):
    narrow = lambda x: stochopt.orthogonal.newton_schulz(x, dtype=dtype)
    return {
        "stochopt.adago": stochopt.adago(orthogonalize=narrow),
        "stochopt.muon": stochopt.muon(orthogonalize=narrow),
        "optax.contrib.muon": optax.contrib.muon(0.02),
        "optax.adam": optax.adam(1e-3),
    }


def torch_muon_step(params):
    """One step of PyTorch's own Muon on the matrices, or ``None`` without it."""
    try:
        import torch
    except ImportError:
        return None
    if not hasattr(torch.optim, "Muon"):
        return None
    weights = [torch.tensor(np.asarray(x)) for x in jax.tree.leaves(params) if x.ndim == 2]
    weights = [torch.nn.Parameter(x) for x in weights]
    for weight in weights:
        weight.grad = weight.detach().clone()
    optimizer = torch.optim.Muon(weights, lr=0.02)
    return optimizer.step


def seconds(function):
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def peak(width, dtype):
    """FLOP/s of the best of a few matrix products."""
    best = 0.0
    for size in (width, 1024, 2048):
        x = jnp.ones((size, size), dtype) / size
        repeats = max(1, int(2e10 / (2 * size**3)))
        chain = jax.jit(lambda x, n=repeats: jax.lax.fori_loop(0, n, lambda i, y: y @ x, x))
        jax.block_until_ready(chain(x))
        took = min(seconds(lambda chain=chain, x=x: chain(x)) for _ in range(5))
        best = max(best, 2 * size**3 * repeats / took)
    return best


def measure(layers, width, dtype):
    """One process: compile seconds, step seconds, FLOPs of each optimizer, and the peak."""
    params = transformer(layers, width, dtype)
    compiled, record = {}, {}
    small = transformer(1, 32, dtype)
    for optimizer in optimizers(dtype).values():  # what only the first one pays
        jax.jit(optimizer.update).lower(small, optimizer.init(small), small).compile()
    for name, optimizer in optimizers(dtype).items():
        state = optimizer.init(params)
        start = time.perf_counter()
        lowered = jax.jit(optimizer.update).lower(params, state, params)
        step = lowered.compile()
        record[name] = {"compile": time.perf_counter() - start, "step": []}
        record[name]["flops"] = matmul_flops(optimizer.update, params, state, params)
        compiled[name] = lambda step=step, state=state: step(params, state, params)
    time_in_turn(compiled, record)
    if torch_step := torch_muon_step(params):  # by itself: its workers spin on after a step
        record["torch.optim.Muon"] = {"compile": float("nan"), "step": [], "flops": 0}
        time_in_turn({"torch.optim.Muon": lambda: torch_step() or 0}, record)
    for entry in record.values():
        entry["step"] = statistics.median(entry["step"])
    return {"device": jax.devices()[0].device_kind, "peak": peak(width, dtype), "rows": record}


def time_in_turn(steps, record):
    for step in steps.values():
        jax.block_until_ready(step())
    for _ in range(REPEATS):
        for name, step in steps.items():
            record[name]["step"].append(seconds(step))


def spread(values, digits=2):
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def report(tree, results):
    print(f"\n{tree}, {results[0]['device']}, {len(results)} processes, median [range]")
    print("| optimizer | step, ms | step ratio | compile, s | compile ratio | of peak |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in results[0]["rows"]:
        rows = [(r["rows"][name], r["rows"]["optax.contrib.muon"], r["peak"]) for r in results]
        print(
            f"| `{name}` | {spread([1e3 * row['step'] for row, _, _ in rows], 1)} "
            f"| {spread([row['step'] / base['step'] for row, base, _ in rows])} "
            f"| {spread([row['compile'] for row, _, _ in rows])} "
            f"| {spread([row['compile'] / base['compile'] for row, base, _ in rows])} "
            f"| {spread([row['flops'] / row['step'] / top for row, _, top in rows])} |"
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--trees", default="6x384,24x64")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for tree in options.trees.split(","):
        if options.child:
            layers, width = map(int, tree.split("x"))
            print(json.dumps(measure(layers, width, jnp.dtype(options.dtype))))
            return
        command = [sys.executable, __file__, "--child", "--trees", tree, "--dtype", options.dtype]
        runs = [
            subprocess.run(command, check=True, capture_output=True, text=True).stdout
            for _ in range(options.processes)
        ]
        report(tree, [json.loads(run.splitlines()[-1]) for run in runs])


if __name__ == "__main__":
    main()
