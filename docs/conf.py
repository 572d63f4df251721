"""Sphinx configuration of the documentation site. `make docs` builds it into docs/_build, without network access."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

from sphinx.util.fileutil import copy_asset_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the extensions docstrings.py, fields.py, figures.py and reference.py of this site

project = "memgpt_jax"
author = "The memgpt_jax authors"
copyright = "the memgpt_jax authors, Apache-2.0"
release = version = importlib.metadata.version("memgpt-jax")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "docstrings",
    "fields",
    "figures",
    "reference",
]
exclude_patterns = ["_build"]
templates_path = []

# Pages are Markdown. `tutorial.md` is a notebook in text form: the build executes it and stops at an error.
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

# The reference is read from the imported package, so that it shows inherited configuration fields.
add_module_names = False
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "special-members": "__call__",
}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Arguments", "params_style")]
default_role = "code"

html_theme = "furo"
html_title = "memgpt_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1a5fb4", "color-brand-content": "#1a5fb4"},
    "dark_css_variables": {"color-brand-primary": "#78aeed", "color-brand-content": "#78aeed"},
}

# MathJax comes from an installed package instead of a content delivery network. The SVG output is one file that needs
# no fonts, so that equations also appear in pages opened from disk.
mathjax_path = "tex-svg.js"


def copy_mathjax(app, error):
    """Copy MathJax into the built site."""
    if error is None and app.builder.format == "html":
        package = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent
        copy_asset_file(package / "static/mathjax/tex-svg.js", app.outdir / "_static/tex-svg.js")


def setup(app):
    app.connect("build-finished", copy_mathjax)
