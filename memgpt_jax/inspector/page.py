"""The page of the inspector: one HTML file without foreign hosts."""

from importlib.resources import files
from pathlib import Path

from memgpt_jax.files.replacement import replace_file
from memgpt_jax.inspector.trace import Trace


def page(trace: Trace | None = None) -> str:
    """The HTML of the page.

    Args: trace: what it shows; None: it asks the server that it comes from.
    """
    static = files("memgpt_jax.inspector") / "static"
    content = {name: (static / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")}
    data = "null" if trace is None else trace.json().replace("<", "\\u003c")
    html = content["page.html"].replace("/* page.css */", content["page.css"])
    return html.replace("/* page.js */", content["page.js"]).replace("/* trace */", data)


def write_page(trace: Trace, path: str | Path) -> None:
    """Write the page with a trace into one HTML file. Raises `OSError`."""
    replace_file(Path(path), page(trace))
