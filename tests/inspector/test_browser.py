"""The page in a browser, with the keyboard and the mouse."""

import dataclasses
import re
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
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_keys_work_after_a_click_on_a_button_and_scroll_the_text(opened, tmp_path):
    trace = long_trace(3000)
    layers = [dataclasses.replace(trace.layers[0], layer=number) for number in range(2)]
    mg.write_page(dataclasses.replace(trace, layers=layers), tmp_path / "page.html")
    page = opened((tmp_path / "page.html").as_uri())
    page.click("#theme")
    page.keyboard.press("ArrowRight")
    assert page.locator(".token.selected").get_attribute("data-token") == "0"
    page.keyboard.press("Enter")
    assert page.locator(".token.selected").get_attribute("data-token") == "0"
    for key, layer in (("l", "1"), ("l", "1"), ("L", "0")):
        page.keyboard.press(key)
        assert page.locator("#layer").input_value() == layer
    page.click("span[data-token='5']")
    page.evaluate("document.getElementById('document').onscroll = () => { document.body.dataset.scrolled = 'true'; }")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("body[data-scrolled=true]", timeout=10_000)


def test_rows_charts_and_buttons_have_roles_and_names(opened, address):
    page = opened(address)
    names = ("Light or dark", "Keys")
    assert all(page.get_by_role("button", name=name, exact=True).count() == 1 for name in names)
    assert page.locator("#charts").get_by_role("img", name=re.compile(".")).count() == 2
    page.click("span[data-token='60']")
    rows = page.locator("#detail tr.link")
    assert rows.get_by_role("button", name=re.compile(".")).count() == rows.count() > 0
    rows.get_by_role("button").first.focus()
    page.keyboard.press("Enter")
    assert int(page.locator(".token.selected").get_attribute("data-token")) < 60
    assert page.evaluate("document.activeElement.id") == "document"


COLOURS = (
    """elements => elements.map((each) => [getComputedStyle(each).color, getComputedStyle(each).backgroundColor])"""
)


def luminance(rgb) -> float:
    """Relative luminance of sRGB from 0 to 255 (WCAG 2.2)."""
    values = np.asarray(rgb) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_a_contrast_of_four_and_a_half(opened, tmp_path, scheme):
    """Level AA, on the strongest colours of tokens, also of those without text, and in errors."""
    trace, bits = long_trace(4), np.array([0, 12, 12, 0], np.float32)
    without = np.array([9, 0, 0, 9], np.float32)  # helps, harms
    trace = dataclasses.replace(trace, bits=bits, bits_without=without, texts=["a", "b", "", ""])
    mg.write_page(trace, tmp_path / "page.html")
    page = opened((tmp_path / "page.html").as_uri(), color_scheme=scheme)
    page.evaluate("document.getElementById('status').className = 'error'")
    [[_, body]] = page.eval_on_selector_all("body", COLOURS)
    numbers = lambda colour: np.array([float(each) for each in re.findall(r"[\d.]+", colour)])  # noqa: E731
    for colour in ("bits", "saved"):
        page.select_option("#colour", colour)
        for front, back in page.eval_on_selector_all(".token, #status", COLOURS):
            *rgb, alpha = [*numbers(back), 1][:4]
            behind = alpha * np.array(rgb) + (1 - alpha) * numbers(body)
            low, high = sorted((luminance(numbers(front)), luminance(behind)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (colour, front, back)


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


def test_what_is_known_of_an_eviction(opened, tmp_path):
    trace, evicted = long_trace(3), np.array([-2, -1, 4], np.int32)
    layers = [dataclasses.replace(trace.layers[0], evicted=evicted)]
    mg.write_page(dataclasses.replace(trace, layers=layers), tmp_path / "page.html")
    page = opened((tmp_path / "page.html").as_uri())
    texts = ("no entry is known to be its own", "its entry is not evicted", "its entry is evicted before segment 5")
    for token, text in enumerate(texts):
        page.click(f"span[data-token='{token}']")
        assert text in page.locator("#detail").inner_text()


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


def live(browser, **answers):
    """The page with the selected token 5 of a server that is made up, and the changes of entries that it was asked for.

    answers: by the last part of the path, in place of those that are given here.
    """
    edits, page = [], browser.new_page()
    entry = {"place": 3, "token": 5, "length": 1, "age": 1, "gate": 0.0004321}
    found = {
        "page": {"body": html_of(), "content_type": "text/html"},
        "inspect": {"json": {"session": "sess_0", "trace": long_trace(200).encoded()}},
        "entries": {"json": {"data": [entry]}},
        "edit": {"json": {"id": "sess_1"}},
    } | answers

    def answer(route):
        path = route.request.url.rpartition("/")[2]
        if path == "edit":
            edits.append(route.request.post_data_json)
        route.fulfill(**found[path])

    page.route("http://page.test/**", answer)
    page.goto("http://page.test/page")
    page.click("#ask button")
    page.click("span[data-token='5']")
    page.wait_for_selector("#entries button")
    return page, edits


def test_a_gate_that_is_small_or_missing_does_not_delete_an_entry(browser):
    page, edits = live(browser)
    page.click("#entries >> text=Set gate")
    page.wait_for_selector("#status >> text=with the gate")
    page.fill("#entries input", "")
    page.click("#entries >> text=Set gate")
    assert page.locator("#status.error").inner_text() == "give a write gate from 0 to 1"
    assert edits == [{"session": "sess_0", "layer": 0, "place": 3, "gate": 0.000432}]
    page.close()


def test_a_document_is_changed_by_one_request_at_a_time(browser):
    """Of two clicks the second finds the buttons disabled; afterwards they work again, from the new document."""
    page, edits = live(browser)
    for _ in range(2):
        page.locator("#entries >> text=Delete").evaluate("button => { button.click(); button.click(); }")
        page.wait_for_selector("#status >> text=without the entry")
        page.wait_for_selector("#entries button")
    assert [edit["session"] for edit in edits] == ["sess_0", "sess_1"]
    page.close()


def test_an_answer_that_is_no_json_is_shown_by_its_status(browser):
    page, _ = live(browser, edit={"status": 413, "body": "<html>too large</html>", "content_type": "text/html"})
    page.click("#entries >> text=Delete")
    assert page.locator("#status.error").inner_text() == "status 413"
    assert page.locator("#entries >> text=Delete").is_enabled()
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
