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


@pytest.fixture(params=[1280, 400])
def shown(request, browser, page_file):
    """The page in a window of so many pixels, all that is folded opened, and what it asked the network for."""
    tab = browser.new_page(viewport={"width": request.param, "height": 900})
    asked: list[str] = []
    complaints: list[str] = []
    tab.on("request", lambda sent: asked.append(sent.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.goto(page_file.as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    tab.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    yield tab, asked, complaints
    tab.close()


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
    assert len(images) >= 10
    phone = tab.viewport_size["width"] < 700
    for natural, seen in images:
        assert 0 < seen <= tab.viewport_size["width"]
        assert natural >= seen  # never blown up
        assert (natural < 1000) == phone


def test_every_link_of_the_contents_leads_somewhere(shown):
    tab, _, _ = shown
    assert tab.evaluate("[...document.querySelectorAll('nav a')].every(link => document.querySelector(link.hash))")
