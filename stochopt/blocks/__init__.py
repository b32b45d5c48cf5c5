"""One block of the parameters at a time."""

from stochopt.blocks.constants import estimate_block_smoothness
from stochopt.blocks.descent import CyclicBlockDescentState, cyclic_block_descent
from stochopt.blocks.gradient import block_value_and_grad
from stochopt.blocks.minimization import BlockMinimizationState, cyclic_block_minimization
from stochopt.blocks.orders import OrderOfCycle, cyclic, random, shuffled
from stochopt.blocks.partition import Blocks, Partition, by_labels, by_path, equal_slices
from stochopt.blocks.theory import (
    CyclicSmoothness,
    cyclic_descent_bound,
    mahalanobis_constants,
    vr_cyclic_descent_bound,
    vr_cyclic_step,
)
from stochopt.blocks.variance_reduced import VRCyclicBlockDescentState, vr_cyclic_block_descent

__all__ = [
    # Methods
    "cyclic_block_descent",
    "vr_cyclic_block_descent",
    "cyclic_block_minimization",
    "CyclicBlockDescentState",
    "VRCyclicBlockDescentState",
    "BlockMinimizationState",
    # What is proved of them
    "mahalanobis_constants",
    "cyclic_descent_bound",
    "vr_cyclic_step",
    "vr_cyclic_descent_bound",
    "CyclicSmoothness",
    # Partitions
    "by_labels",
    "by_path",
    "equal_slices",
    "Partition",
    "Blocks",
    # Orders of a cycle
    "cyclic",
    "shuffled",
    "random",
    "OrderOfCycle",
    # Parts
    "block_value_and_grad",
    "estimate_block_smoothness",
]
