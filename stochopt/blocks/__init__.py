"""One block of the parameters at a time."""

from stochopt.blocks.active_set import (
    ActiveSetNewtonState,
    active_set_newton,
    identification_bound,
)
from stochopt.blocks.constants import estimate_block_smoothness
from stochopt.blocks.descent import CyclicBlockDescentState, cyclic_block_descent
from stochopt.blocks.fractional import (
    FractionalDescentState,
    fractional_coordinate_descent,
    parametric_coordinate_descent,
)
from stochopt.blocks.gradient import block_value_and_grad
from stochopt.blocks.greedy import GreedyBlockDescentState, greedy_block_descent
from stochopt.blocks.lines import (
    Candidates,
    CoordinateLine,
    minimizers_of_difference,
    minimizers_of_ratio,
    on_interval,
    with_l1_kink,
)
from stochopt.blocks.matrices import BlockCholesky, block_cholesky, block_hessian
from stochopt.blocks.minimization import BlockMinimizationState, cyclic_block_minimization
from stochopt.blocks.orders import OrderOfCycle, cyclic, random, shuffled
from stochopt.blocks.partition import Blocks, Partition, by_labels, by_path, equal_slices
from stochopt.blocks.rules import (
    GreedyRule,
    gauss_southwell,
    gauss_southwell_diagonal,
    gauss_southwell_lipschitz,
    gauss_southwell_quadratic,
    proximal_gauss_southwell,
)
from stochopt.blocks.schedule import BlockScheduleState, block_schedule, scheduled_value_and_grad
from stochopt.blocks.theory import (
    CyclicSmoothness,
    cyclic_descent_bound,
    mahalanobis_constants,
    vr_cyclic_descent_bound,
    vr_cyclic_step,
)
from stochopt.blocks.updates import (
    BlockUpdate,
    ChosenBlock,
    gradient_update,
    matrix_update,
    newton_update,
    submatrix_update,
)
from stochopt.blocks.variable import largest_coordinates
from stochopt.blocks.variance_reduced import VRCyclicBlockDescentState, vr_cyclic_block_descent

__all__ = [
    # Methods
    "cyclic_block_descent",
    "vr_cyclic_block_descent",
    "cyclic_block_minimization",
    "CyclicBlockDescentState",
    "VRCyclicBlockDescentState",
    "BlockMinimizationState",
    # Schedules
    "block_schedule",
    "scheduled_value_and_grad",
    "BlockScheduleState",
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
    # Greedy descent
    "greedy_block_descent",
    "GreedyBlockDescentState",
    "largest_coordinates",
    "gauss_southwell",
    "gauss_southwell_lipschitz",
    "gauss_southwell_diagonal",
    "gauss_southwell_quadratic",
    "proximal_gauss_southwell",
    "GreedyRule",
    "gradient_update",
    "matrix_update",
    "submatrix_update",
    "newton_update",
    "BlockUpdate",
    "ChosenBlock",
    "block_cholesky",
    "BlockCholesky",
    "block_hessian",
    # Active sets
    "active_set_newton",
    "ActiveSetNewtonState",
    "identification_bound",
    # Ratios
    "fractional_coordinate_descent",
    "parametric_coordinate_descent",
    "FractionalDescentState",
    "minimizers_of_ratio",
    "minimizers_of_difference",
    "with_l1_kink",
    "on_interval",
    "Candidates",
    "CoordinateLine",
]
