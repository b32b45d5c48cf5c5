"""The blockwise bilevel methods: step time, parallel speed-up, rates.

    python benchmarks/bilevel.py                  # all parts
    python benchmarks/bilevel.py --parts blocks

``blocks``: 16 sampled of a thousand and of a million blocks, see ``bilevel_blocks.py``.
``speedup``: updates until a target against the number of sampled blocks, ``bilevel_speedup.py``.
``t9``: slopes on quadratics with the constants of the published check, ``bilevel_t9.py``.
"""

import argparse
import json

import bilevel_blocks
import bilevel_speedup
import bilevel_t9
import jax
import optax
from timing import available_cores, children, report_blocks, stay_on


def main():
    available = available_cores()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", default="blocks,speedup,t9")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--cores", default=",".join(map(str, sorted({len(available), 1})[::-1])))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        stay_on(int(options.cores))
        print(json.dumps(bilevel_blocks.measure()))
        return
    print(f"jax {jax.__version__}, optax {optax.__version__}")
    for part in options.parts.split(","):
        if part == "blocks":
            for cores in map(int, options.cores.split(",")):
                results = children(__file__, part, options.processes, cores)
                head = f"cores: {cores}, processes: {len(results)}, median [range]"
                report_blocks(results, bilevel_blocks.CASES, head)
        else:
            {"speedup": bilevel_speedup.main, "t9": bilevel_t9.main}[part]()


if __name__ == "__main__":
    main()
