"""The page in a browser, with the keyboard and the mouse."""

import dataclasses
import shutil

import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.inspector.page import page as html_of
from memgpt_jax.inspector.trace import LayerRecord
from tests.laws.rereading import Tiny

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
TEXT = "Das Gedächtnis ist ein Garten, das Gedächtnis. " * 3


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as programs:
        browser = programs.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """A function that opens a page, and asserts at the end that it asked nobody and had no error."""
    wrong, pages = [], []

    def open_page(address: str, **options):
        page = browser.new_page(**options)
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if request.url != address else None)
        page.goto(address)
        page.wait_for_selector("body[data-ready=true]")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert wrong == []


@pytest.fixture(scope="module")
def trace() -> mg.Trace:
    tiny = Tiny()
    return mg.trace(tiny.model, TEXT, tokenizer=tiny.tokenizer, top=4)[0]


@pytest.fixture(scope="module")
def address(tmp_path_factory, trace) -> str:
    path = tmp_path_factory.mktemp("page") / "page.html"
    mg.write_page(trace, path)
    return path.as_uri()


def test_a_notebook_shows_the_page_of_a_trace(browser, trace):
    page = browser.new_page()
    page.set_content(trace._repr_html_())
    frame = page.frame_locator("iframe")
    frame.locator("span[data-token='60']").click()
    assert "Token 60" in frame.locator("#detail").inner_text()
    page.close()


def test_a_token_shows_what_it_reads_and_who_reads_it(opened, address):
    page = opened(address)
    shown = page.locator("#document").inner_text()
    assert "Garten" in shown
    page.click("span[data-token='60']")
    panel = page.locator("#detail").inner_text()
    assert "Token 60" in panel and "without memory" in panel and "write gate" in panel
    assert "Tokens that self-attention reads most" in panel
    assert page.locator("#detail tr.link").count() > 0 and page.locator(".token.source").count() > 0
    page.locator("#detail tr.link").first.click()
    chosen = page.locator(".token.selected").get_attribute("data-token")
    assert int(chosen) < 60
    assert "Tokens that read its entry" in page.locator("#detail").inner_text()
    assert page.locator(".token.reader[data-token='60']").count() == 1


def test_the_keyboard(opened, address):
    page = opened(address)
    page.click("span[data-token='60']")
    page.keyboard.press("ArrowRight")
    assert page.locator(".token.selected").get_attribute("data-token") == "61"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert int(page.locator(".token.selected").get_attribute("data-token")) < 60
    page.keyboard.press("Escape")
    assert page.locator(".token.selected").count() == 0
    seen = set()
    for _ in range(5):
        page.keyboard.press("c")
        seen.add(page.locator("#legend").inner_text())
    assert len(seen) == 5
    before = page.evaluate("document.documentElement.dataset.theme")
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") != before
    page.keyboard.press("?")
    assert page.locator("dialog[open]").count() == 1


def test_a_phone_has_no_sideways_scrolling(opened, address):
    page = opened(address, viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(("first", "segment"), [(5, 4), (128, 64)])
def test_entries_of_segments_and_of_tokens_have_their_own_readers(opened, tmp_path, first, segment):
    """Read by one token each: the segment before the trace, the second one in it, and that of the trace's second token.

    The trace begins inside a segment, or on its boundary.
    """
    trace, none = long_trace(200), np.full((200, 1), -1, np.int32)
    entry, length = none.copy(), np.ones_like(none)
    second = (first // segment + 1) * segment
    for reader, name, size in ((170, 0, segment), (171, second, segment), (172, first + 1, 1)):
        entry[reader], length[reader] = name, size
    weight = np.ones((200, 1), np.float32)
    reads = {"top_entry": entry, "top_length": length, "top_weight": weight, "top_head": np.zeros_like(none)}
    layers = [dataclasses.replace(trace.layers[0], **reads)]
    trace = dataclasses.replace(trace, first=first, segment_length=segment, layers=layers)
    mg.write_page(trace, tmp_path / "page.html")
    page, start = opened((tmp_path / "page.html").as_uri()), second - first
    want = {0: [], 1: [172], start - 1: [], start: [171], start + segment - 1: [171], start + segment: []}
    for token, readers in want.items():
        page.click(f"span[data-token='{token}']")
        found = page.eval_on_selector_all(".token.reader", "all => all.map((each) => Number(each.dataset.token))")
        assert found == readers, token


def test_the_map_of_slots(opened, tmp_path):
    """Token i reads slot i mod 5 and writes the next one."""
    trace, slots = long_trace(200), np.eye(5, dtype=np.uint8)[np.arange(200) % 5] * 255
    maps = {"slot_reads": slots, "slot_writes": np.roll(slots, 1, axis=1) // 2}
    [layer] = trace.layers
    trace = dataclasses.replace(trace, layers=[dataclasses.replace(layer, **maps)])
    mg.write_page(trace, tmp_path / "page.html")
    page = opened((tmp_path / "page.html").as_uri())
    box = page.locator("#slot-map").bounding_box()
    place = {"x": 30 + (box["width"] - 30) * 58.5 / 200, "y": 40}
    page.locator("#slot-map").click(position=place)
    assert page.locator("#slot-text").inner_text() == "Token 58 reads slot 3 (1.00); it writes slot 4 (0.50)."
    page.check("#slot-near")
    assert "tokens 0 to 127" in page.locator("#slot-legend").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#slot-text").inner_text().startswith("Token 59 reads slot 4")


def test_a_gate_that_is_small_or_missing_does_not_delete_an_entry(browser):
    """The page asks a server that is made up here."""
    edits = []

    def answer(route):
        path, body = route.request.url.rpartition("/")[2], route.request.post_data_json
        if path == "page":
            return route.fulfill(body=html_of(), content_type="text/html")
        if path == "edit":
            edits.append(body)
        entry = {"place": 3, "token": 5, "length": 1, "age": 1, "gate": 0.0004321}
        found = {"inspect": {"session": "sess_0", "trace": long_trace(200).encoded()}, "entries": {"data": [entry]}}
        return route.fulfill(json=found.get(path, {"id": "sess_1"}))

    page = browser.new_page()
    page.route("http://page.test/**", answer)
    page.goto("http://page.test/page")
    page.click("#ask button")
    page.click("span[data-token='5']")
    page.click("#entries >> text=Set gate")
    page.wait_for_selector("#status >> text=with the gate")
    page.fill("#entries input", "")
    page.click("#entries >> text=Set gate")
    assert page.locator("#status.error").inner_text() == "give a write gate from 0 to 1"
    assert edits == [{"session": "sess_0", "layer": 0, "place": 3, "gate": 0.000432}]
    page.close()


@pytest.mark.slow
def test_an_entry_of_a_live_document_is_taken_out_and_deleted(browser):
    pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
    from tests.serving.conftest import served

    with served(Tiny(), slots=1, inspector=True) as (_, port):
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/inspect")
        page.fill("#text", TEXT)
        page.click("#ask button")
        page.wait_for_selector("span[data-token='100']")
        said = lambda: page.locator("#status").inner_text()  # noqa: E731
        page.wait_for_function("document.getElementById('status').textContent.includes('sess_')")
        before = said().split()[-1]
        last = page.evaluate("document.querySelectorAll('.token').length") - 1
        for back in range(1, 12):  # the youngest token with an entry
            page.click(f"span[data-token='{last - back}']")
            page.wait_for_selector("#entries h2")
            if page.locator("#entries button").count():
                break
        page.click("#entries >> text=Without it")
        page.wait_for_selector("#comparison >> text=without the entry")
        page.click("#entries >> text=Delete")
        page.wait_for_selector("#entries >> text=none: not written yet, or no longer there")
        after, is_, parent, *how = said().split()
        assert after != before == parent and (is_, *how) == ("is", "without", "the", "entry")
        assert page.locator("#status.error").count() == 0
        page.close()


def long_trace(number: int) -> mg.Trace:
    """A made-up trace of many tokens."""
    random, calls = np.random.default_rng(0), np.arange(0, number + 1, 100, dtype=np.int32)
    entry = np.maximum(np.arange(number)[:, None] - random.integers(1, 5000, (number, 8)), -1).astype(np.int32)
    gate = random.random(number).astype(np.float32)
    record = LayerRecord(
        layer=0,
        fusion_gate=gate,
        write_gate=gate,
        read_mass=random.random((number, 4)).astype(np.float32),
        top_entry=entry,
        top_length=np.ones_like(entry),
        top_weight=np.sort(random.random((number, 8)).astype(np.float32))[:, ::-1] / 8,
        top_head=np.zeros_like(entry),
        window_token=entry,
        window_weight=np.full(entry.shape, 0.125, np.float32),
        has_places=True,
        evicted=np.full(number, -1, np.int32),
        stats={"occupancy": random.random(len(calls) - 1).astype(np.float32)},
    )
    words = ["memory ", "of ", "a\n", "garden ", "🌱 "]
    return mg.Trace(
        mechanism="kv",
        segment_length=100,
        first=0,
        tokens=np.zeros(number, np.int32),
        texts=[words[index] for index in random.integers(len(words), size=number)],
        calls=calls,
        bits=10 * gate,
        bits_without=12 * gate,
        layers=[record],
    )


PAUSE = """async (work) => {
  let longest = 0, last = performance.now(), running = true;
  const tick = () => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    if (running) setTimeout(tick, 0);
  };
  tick();
  const view = document.getElementById("document");
  for (let step = 1; step <= 40; step++) {
    view.scrollTop = view.scrollHeight * step / 40;
    await new Promise((done) => setTimeout(done, 30));
  }
  running = false;
  return [longest, document.querySelectorAll(".token").length];
}"""


@pytest.mark.slow
def test_a_hundred_thousand_tokens(opened, tmp_path, slowness):
    """Only the tokens in view are in the document, and no step of scrolling takes long."""
    path = tmp_path / "page.html"
    mg.write_page(long_trace(100_000), path)
    page = opened(path.as_uri())
    pauses = []
    for _ in range(4):  # other programs on the machine only add to a pause
        longest, drawn = page.evaluate(PAUSE)
        assert drawn < 4_000
        pauses.append(longest)
    assert min(pauses) < 100 * slowness, f"{pauses} ms"
    page.click(".token >> nth=5")
    assert page.locator(".token.selected").count() == 1
