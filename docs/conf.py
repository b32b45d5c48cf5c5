"""Sphinx configuration; `sphinx-build -W --keep-going -b html docs docs/_build/html`."""

import sys
from pathlib import Path

import stochopt

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "stochopt"
author = "the stochopt authors"
copyright = "the stochopt authors"
version = release = stochopt.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "stochopt_docs",
]
exclude_patterns = ["_build", "generated", "**/.ipynb_checkpoints"]
nitpicky = True
# References into the package must resolve; types of other libraries have no pages here.
nitpick_ignore_regex = [("py:.*", r"(?!stochopt\.).*")]

# Pages with code are executed on every build; an exception in a cell fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# The Args sections say what an argument may be; expanded type aliases would drown them.
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 72
add_module_names = False

html_theme = "sphinx_book_theme"
html_title = "stochopt"
html_static_path = ["_static"]
html_css_files = ["stochopt.css"]
html_theme_options = {
    "navbar_persistent": [],  # the search field is in the sidebar already
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "path_to_docs": "docs",
}
