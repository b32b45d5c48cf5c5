"""One block of the parameters at a time."""

from stochopt.blocks.constants import estimate_block_smoothness
from stochopt.blocks.descent import (
    CyclicBlockDescentState,
    cyclic_block_descent,
    cyclic_descent_bound,
)
from stochopt.blocks.gradient import block_value_and_grad
from stochopt.blocks.minimization import BlockMinimizationState, cyclic_block_minimization
from stochopt.blocks.orders import OrderOfCycle, cyclic, random, shuffled
from stochopt.blocks.partition import Blocks, Partition, by_labels, by_path, equal_slices
from stochopt.blocks.schedule import BlockScheduleState, block_schedule, scheduled_value_and_grad
from stochopt.blocks.variance_reduced import VRCyclicBlockDescentState, vr_cyclic_block_descent

__all__ = [
    # Methods
    "cyclic_block_descent",
    "vr_cyclic_block_descent",
    "cyclic_block_minimization",
    "cyclic_descent_bound",
    "CyclicBlockDescentState",
    "VRCyclicBlockDescentState",
    "BlockMinimizationState",
    # Schedules
    "block_schedule",
    "scheduled_value_and_grad",
    "BlockScheduleState",
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
