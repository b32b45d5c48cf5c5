"""The convergence rates claimed of the methods: a module for each family."""

from stochopt.claims.claim import Claim, Constants, Control, powers, powers_of_two

__all__ = ["Claim", "Constants", "Control", "powers", "powers_of_two"]
