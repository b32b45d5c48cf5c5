"""What the pages take from the package itself, and the check that nothing public is missing.

Before the pages are read:

- ``notebooks/`` is copied into the source tree, since Sphinx reads nothing outside it;
- ``generated/catalog.md`` is written, one row per method of the catalog;
- ``generated/families.md`` and ``generated/problems.md`` are written. They document every public
  name that no page documents by hand, so a new method or problem appears by itself.

After an HTML build every name in every ``__all__`` must be in ``objects.inv``.
"""

import inspect
import re
import shutil
import types
from pathlib import Path
from typing import Any

import check_coverage
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import stochopt
from stochopt import catalog, problems

_AUTODOC = re.compile(r"\.\. auto\w+:: (stochopt[\w.]*)")
_DATA = re.compile(r"\.\. py:data:: (\w+)\n +:module: ([\w.]+)")


def _write(path: Path, text: str) -> None:
    """Writes only what differs, so that an incremental build stays incremental."""
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _rst(*lines: str) -> list[str]:
    return ["```{eval-rst}", *lines, "```", ""]


def _link_papers(paper: str) -> str:
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)


def _catalog_table() -> str:
    lines = [
        "| method | family | what it does | paper | oracles | cost counter |",
        "|---" * 6 + "|",
    ]
    for row in catalog.METHODS:
        counter = f"`{row.gradient_counter}`" if row.gradient_counter else "one per update"
        cells = [
            f"{{py:obj}}`{row.name} <stochopt.{row.name}>`",
            row.family,
            row.summary,
            _link_papers(row.paper),
            ", ".join(f"`{name}`" for name in row.oracles),
            counter,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    others = [f"`{m.name}`" for m in catalog.methods() if m not in catalog.METHODS]
    lines += ["", "Methods of optax with a default learning rate: " + ", ".join(others) + "."]
    return "\n".join(lines) + "\n"


def _directive(name: str, target: Any) -> list[str]:
    if inspect.isclass(target):
        return [f".. autoclass:: {name}", "   :members:"]
    if inspect.isfunction(target):
        return [f".. autofunction:: {name}"]
    module, _, short = name.rpartition(".")
    return [f".. py:data:: {short}", f"   :module: {module}"]


def _families(documented: set[str]) -> str:
    """Every family with links to its names; a name that no page documents is documented here."""
    lines: list[str] = []
    families = [n for n in stochopt.__all__ if isinstance(getattr(stochopt, n), types.ModuleType)]
    for family in families:
        package = getattr(stochopt, family)
        lines += [f"## {package.__name__}", "", *_rst(f".. automodule:: {package.__name__}")]
        links, here = [], []
        for name in package.__all__:
            target = getattr(package, name)
            full = f"stochopt.{name}" if name in stochopt.__all__ else f"{package.__name__}.{name}"
            links.append(f"{{py:obj}}`{name} <{full}>`")
            if full not in documented:
                here += _rst(*_directive(full, target))
        lines += [", ".join(links) + ".", "", *here]
    return "\n".join(lines) + "\n"


def _problems(documented: set[str]) -> str:
    """Each module of problems: its text, then its factories."""
    factories: dict[str, list[str]] = {}
    for name in problems.__all__:
        target = getattr(problems, name)
        if inspect.isfunction(target) and f"stochopt.problems.{name}" not in documented:
            factories.setdefault(target.__module__, []).append(name)
    lines = []
    for module, names in factories.items():
        lines += [f"## {', '.join(names)}", ""]
        lines += _rst(f".. automodule:: {module}", "   :no-index:")
        for name in names:
            lines += _rst(f".. autofunction:: stochopt.problems.{name}")
    return "\n".join(lines) + "\n"


def _prepare(app: Sphinx, config: Any) -> None:
    source = Path(app.srcdir)
    shutil.rmtree(source / "notebooks", ignore_errors=True)
    shutil.copytree(
        source.parent / "notebooks",
        source / "notebooks",
        ignore=shutil.ignore_patterns(".*"),
    )
    pages = [p for p in source.rglob("*.md") if not {"_build", "generated"} & set(p.parts)]
    texts = [page.read_text() for page in pages]
    documented = {name for text in texts for name in _AUTODOC.findall(text)}
    documented |= {f"{module}.{name}" for text in texts for name, module in _DATA.findall(text)}
    _write(source / "generated" / "catalog.md", _catalog_table())
    _write(source / "generated" / "families.md", _families(documented))
    _write(source / "generated" / "problems.md", _problems(documented))


def _describe_fields(
    app: Sphinx, what: str, name: str, target: Any, options: Any, lines: list[str]
) -> None:
    """Turns the comments behind a NamedTuple's fields into an ``Attributes`` section."""
    if what != "class" or not (isinstance(target, type) and hasattr(target, "_fields")):
        return
    pattern = r"^ {4}(\w+): .*?  # (?:type: ignore\S* +# )?(.+)$"
    comments = re.findall(pattern, inspect.getsource(target), re.MULTILINE)
    described = [f"   {field}: {text}" for field, text in comments if field in target._fields]
    if described:
        lines += ["", "Attributes:", *described, ""]


def _skip_fields(app: Sphinx, what: str, name: str, target: Any, skip: bool, options: Any) -> Any:
    """Leaves out the members that ``tuple`` and ``NamedTuple`` bring along."""
    return True if type(target).__name__ == "_tuplegetter" else None


def _check(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.name == "html":
        missing = check_coverage.missing(Path(app.outdir) / "objects.inv")
        if missing:
            raise ExtensionError("public names without documentation: " + ", ".join(missing))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", _prepare)
    # Before napoleon reads the docstring.
    app.connect("autodoc-process-docstring", _describe_fields, priority=100)
    app.connect("autodoc-skip-member", _skip_fields)
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
