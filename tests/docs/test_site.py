"""The built site is complete, and every file that a page loads is part of it. `make test-slow` installs the builder."""

import os
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

import memgpt_jax as mg

ROOT = Path(__file__).parents[2]
LOADING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
pytestmark = pytest.mark.slow


class Loaded(HTMLParser):
    """The addresses of the files that a browser loads for a page, and of its links."""

    def __init__(self, page: str):
        super().__init__()
        self.files: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag in LOADING and values.get(LOADING[tag]) and values.get("rel") not in ("next", "prev", "index", "search"):
            self.files.append(values[LOADING[tag]])
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built as by `make docs`, into a folder of its own."""
    pytest.importorskip("sphinx", reason="make test-slow installs it")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-E", "-W", "--keep-going", "-q", "docs", str(folder / "html")]
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = os.environ | offline | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "html"


def test_no_page_loads_a_file_from_another_host(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        for address in Loaded(page.read_text()).files:
            parts = urlsplit(address)
            assert not parts.scheme and not parts.netloc, f"{page}: {address}"
            assert (page.parent / unquote(parts.path)).exists(), f"{page}: {address} is missing"


def test_no_style_loads_a_file_from_another_host(site):
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text()), style


def test_equations_have_their_renderer(site):
    page = (site / "memory" / "kv.html").read_text()
    assert r"\operatorname*{softmax}" in page
    assert any("tex-svg.js" in file for file in Loaded(page).files)


def test_links_between_pages_work(site):
    for page in site.rglob("*.html"):
        for address in Loaded(page.read_text()).links:
            parts = urlsplit(address)
            if not parts.scheme and not parts.netloc and parts.path:
                assert (page.parent / unquote(parts.path)).exists(), f"{page}: {address}"


def test_every_public_name_is_documented(site):
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"zlib.\n", 1)[1]).decode()
    documented = {line.split()[0] for line in inventory.splitlines()}
    public = {name for name in mg.__all__ if not isinstance(getattr(mg, name), ModuleType)}
    assert {name for name in public if f"memgpt_jax.{name}" not in documented} == set()


def test_search_finds_the_pages(site):
    index = (site / "searchindex.js").read_text()
    assert "memory/titans" in index and "delta" in index


def test_the_notebook_was_executed(site):
    assert "with memory: accuracy" in (site / "tutorial.html").read_text()
