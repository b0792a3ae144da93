"""The report as a browser shows it, on a wide screen and on a phone."""

import shutil

import pytest
from report_fixtures import whole_report

from analysis import report

OUTSIDE = """() => [...document.querySelectorAll('body *')]
    .filter(element => element.checkVisibility() && element.getBoundingClientRect().right > innerWidth + 0.5)
    .map(element => element.tagName + ': ' + element.textContent.trim().slice(0, 60))"""

CUT = """() => [...document.querySelectorAll('.scroll, th, td, td > div, summary, figcaption, nav a')]
    .filter(element => element.checkVisibility() && element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0)
    .map(element => element.tagName + ': ' + element.textContent.trim().slice(0, 60))"""

SMALL = """() => [...document.querySelectorAll('p, li, td, th, figcaption, caption, code, .interval')]
    .map(element => parseFloat(getComputedStyle(element).fontSize)).filter(size => size < 11.5)"""


@pytest.fixture(scope="module")
def page_file():
    """The report of a small study, tuned and confirmed, with a failed trial."""
    return whole_report() / report.PAGE


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture(scope="module", params=[1280, 400])
def shown(request, browser, page_file):
    """The page in a window of so many pixels, with all that is folded and all figures, and what it asked the network for."""
    context = browser.new_context(viewport={"width": request.param, "height": 900}, color_scheme="light", offline=True)
    tab = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    tab.on("request", lambda sent: asked.append(sent.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(page_file.as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    tab.wait_for_function(
        "document.querySelectorAll('.js-plotly-plot .main-svg .xy').length >= document.querySelectorAll('.chart').length"
    )
    tab.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    yield tab, asked, complaints
    context.close()


def test_nothing_is_cut_off_or_runs_out_of_the_window(shown):
    tab, _, _ = shown
    assert tab.evaluate(OUTSIDE) == []
    assert tab.evaluate(CUT) == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_page_asks_the_network_for_nothing_and_complains_of_nothing(shown):
    _, asked, complaints = shown
    assert asked
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert complaints == []


def test_text_is_large_enough_to_read(shown):
    tab, _, _ = shown
    assert tab.evaluate(SMALL) == []


def test_every_figure_is_drawn_for_the_width_it_is_shown_at(shown):
    tab, _, _ = shown
    images = tab.evaluate(
        "[...document.images].map(image => [image.naturalWidth, image.getBoundingClientRect().width])"
    )
    plots = tab.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot .main-svg')].map(plot => plot.getBoundingClientRect().width)"
    )
    assert len(images) >= 4
    assert len(plots) >= 20
    assert all(0 < width <= tab.viewport_size["width"] for width in plots)
    phone = tab.viewport_size["width"] < 700
    for natural, seen in images:
        assert 0 < seen <= tab.viewport_size["width"]
        assert natural >= seen  # never blown up
        assert (natural < 1000) == phone


def test_every_link_of_the_contents_leads_somewhere(shown):
    tab, _, _ = shown
    assert tab.evaluate("[...document.querySelectorAll('nav a')].every(link => document.querySelector(link.hash))")


def point_at(tab, key, figure="answer"):
    tab.press(f"#chart-{figure} .plot", key)
    return tab.inner_text(f"#chart-{figure} .told")


def shown_traces(tab, figure="answer"):
    return tab.evaluate(f"document.querySelector('#chart-{figure} .plot').data.filter(trace => trace.visible).length")


def test_arrow_keys_say_every_value_and_buttons_hide_methods_show_seeds_and_change_scales(shown):
    tab, _, complaints = shown
    first, second = point_at(tab, "ArrowRight"), point_at(tab, "ArrowRight")
    assert first != second
    assert "lr=" in first
    assert "0." in first
    whole = shown_traces(tab)
    button = tab.locator("#chart-answer .series button").first
    button.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert 0 < shown_traces(tab) < whole
    button.press(" ")
    assert shown_traces(tab) == whole
    accuracy = "winners-whole-confirm-class_pairs"
    before = shown_traces(tab, accuracy)
    tab.locator(f"#chart-{accuracy} .tools button", has_text="seeds").click()
    assert shown_traces(tab, accuracy) == before + 3 * 7
    kind = f"document.querySelector('#chart-{accuracy} .plot')._fullLayout.xaxis.type"
    assert tab.evaluate(kind) == "linear"
    tab.locator(f"#chart-{accuracy} .tools button", has_text="log x").click()
    assert tab.evaluate(kind) == "log"
    assert complaints == []


def test_axes_of_settings_span_what_was_searched_and_those_of_accuracy_end_at_one(shown):
    tab, _, _ = shown
    axes = tab.evaluate("""() => { const full = document.querySelector('#chart-settings-class_pairs .plot')._fullLayout;
        return [full.xaxis.range.map(end => 10 ** end), full.xaxis.type, full.yaxis.range, full.yaxis.maxallowed]; }""")
    (low, high), kind, accuracy, most = axes
    assert (kind, most) == ("log", 1)
    assert low < 1e-3 < 1 < high
    assert max(accuracy) <= 1


def test_a_dark_page_has_dark_figures(shown):
    tab, _, _ = shown
    paper = "getComputedStyle(document.body).backgroundColor"
    ground = "document.querySelector('#chart-answer .plot')._fullLayout.paper_bgcolor"
    light = tab.evaluate(paper), tab.evaluate(ground)
    tab.emulate_media(color_scheme="dark")
    dark = tab.evaluate(paper), tab.evaluate(ground)
    tab.emulate_media(color_scheme="light")
    assert light == ("rgb(255, 255, 255)", "#ffffff")
    assert dark == ("rgb(22, 24, 27)", "#16181b")


def test_a_page_is_small_enough_to_send(page_file):
    assert page_file.stat().st_size < 6e6
