"""The page of the inspector: one HTML file without foreign hosts."""

from importlib.resources import files


def page(trace: str = "null") -> str:
    """The HTML of the page.

    Args: trace: what it shows, as `Trace.json` gives it; `null`: it asks the server that it comes from.
    """
    static = files("memgpt_jax.inspector") / "static"
    content = {name: (static / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")}
    html = content["page.html"].replace("/* page.css */", content["page.css"])
    return html.replace("/* page.js */", content["page.js"]).replace("/* trace */", trace.replace("<", "\\u003c"))
