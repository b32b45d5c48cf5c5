"""Public names that the built documentation lacks: ``check_coverage.py path/to/objects.inv``.

A name of an ``__all__`` is documented when the inventory holds it, or holds the same object under
another public name (``stochopt.orthogonal.adago`` is ``stochopt.adago``).
"""

import importlib
import pkgutil
import sys
import types
from pathlib import Path
from typing import Any

from sphinx.util.inventory import InventoryFile

import stochopt


def public_names() -> dict[str, Any]:
    """Every name in every ``__all__`` of the package, with the object behind it."""
    found = pkgutil.walk_packages(stochopt.__path__, "stochopt.")
    modules = [stochopt, *(importlib.import_module(module.name) for module in found)]
    return {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in modules
        for name in getattr(module, "__all__", ())
    }


def missing(inventory: Path) -> list[str]:
    """Public names without an entry in the inventory."""
    entries = InventoryFile.loads(inventory.read_bytes(), uri="").data
    documented = {name for kind, names in entries.items() if kind[:3] == "py:" for name in names}
    public = public_names()
    seen = {id(target) for name, target in public.items() if name in documented}
    return [
        name
        for name, target in public.items()
        if name not in documented
        and (isinstance(target, types.ModuleType) or id(target) not in seen)
    ]


if __name__ == "__main__":
    names = missing(Path(sys.argv[1]))
    sys.exit("public names without documentation: " + ", ".join(names) if names else 0)
