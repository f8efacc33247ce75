"""The documentation: Sphinx, furo, and notebooks that myst-nb executes while it builds.

Sphinx rather than MkDocs: equations and their numbers can be referred to from everywhere, notebooks are text files that
the build itself executes, and every warning (a link to nothing, a failed cell) can be made an error. MathJax is served
with the pages, so the site works offline.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))
# a cell of a notebook is small: more threads would wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

import generate  # noqa: E402

from difftime import __version__  # noqa: E402

project = "difftime"
author = "the difftime developers"
copyright = "MIT licence"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "reference/generated"]
default_role = "code"

html_theme = "furo"
html_title = f"difftime {version}"
html_static_path = ["_static"]
html_css_files = ["difftime.css"]
html_theme_options = {"sidebar_hide_name": False, "navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "monokai"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_rtype = False

generate.everything(HERE)
