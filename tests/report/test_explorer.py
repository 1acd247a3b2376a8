"""The token explorer: its file of data, the page of a run, and the page in a browser, by pointer and by keyboard."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mechanism.corpus.store import Corpus, Segment
from mechanism.models.load import load_model
from mechanism.report import explorer as module
from mechanism.report.book import external_loads
from mechanism.report.expert_maps import lift_map
from mechanism.report.explorer import PAGE, STANDALONE, explorer, read_data, with_explorer
from mechanism.report.files import COPIES, PACKAGE
from mechanism.report.provenance import provenance
from tests.report.test_site import PHONE, brightness, browser, colour_scheme, needs_browser, requested  # noqa: F401

COLUMNS = {
    "en": ["Open the file.", "Click OK to close the window."],
    "de": ["Öffnen Sie die Datei.", "Klicken Sie auf OK, um das Fenster zu schließen."],
    "ar": ["افتح الملف.", "انقر فوق موافق."],
}
STYLE, SCRIPT = ((PACKAGE / "report" / f"explorer.{kind}").read_text("utf-8") for kind in ("css", "js"))
LIMIT_OF_THE_SITE = 3e6


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run's folder with the explorer of the tiny model, and its page."""
    folder: Path = tmp_path_factory.mktemp("run")
    model, tokenizer = load_model("tiny", "cpu")
    rows = [Segment(str(i), "g", "test") for i in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MECHANISM_RESULTS", str(folder / "notebooks"))
        patch.setenv("MECHANISM_NOTEBOOK", PAGE)
        shown = explorer(model, tokenizer, Corpus("own", "own", rows, COLUMNS), provenance(seed=7), generated=4)
    assert shown.data == f"{PAGE}.js"
    assert f'<h1>Run</h1>\n<p><a href="{STANDALONE}">' in with_explorer("<h1>Run</h1>", folder, "notebooks")
    return folder


@pytest.fixture(scope="module")
def data(run: Path) -> dict[str, Any]:
    return read_data(run / "notebooks" / f"{PAGE}.js")


def test_data_carry_names_and_provenance(data: dict[str, Any]):
    assert data["names"] == {"en": "English (en)", "de": "German (de)", "ar": "Arabic (ar)"}
    assert data["provenance"]["seed"] == "7"
    assert data["provenance"]["mechanism"].startswith("0.")


def test_what_is_shown_is_counted(data: dict[str, Any]):
    shown = module.Explorer("x.js", data, 0)
    every = [one for own in data["texts"].values() for one in own]
    assert shown.counts == {
        "languages": 3, "sentences": 2, "read": sum(one["n"] for one in every),
        "generated": sum(len(one["t"]) - one["n"] for one in every),
    }  # fmt: skip
    best = [np.reshape(one["w"], (-1, data["slots"]))[: one["n"] * len(data["layers"])].max(1) for one in every]
    assert shown.first_weight == pytest.approx(np.concatenate(best).mean() * data["scale"] / 255)


def test_sentences_beyond_the_limit_are_left_out(data, monkeypatch, tmp_path):
    kept = json.loads(json.dumps(data))
    monkeypatch.setattr(module, "token_routes", lambda *given, **asked: json.loads(json.dumps(kept)))
    monkeypatch.setenv("MECHANISM_RESULTS", str(tmp_path))
    whole = explorer(None, None, None, provenance())
    limited = explorer(None, None, None, provenance(), limit=whole.size - 1)
    assert limited.size < whole.size
    assert (len(whole.record["titles"]), len(limited.record["titles"]), limited.record["routed"]) == (2, 1, 2)
    assert [len(own) for own in limited.record["texts"].values()] == [1, 1, 1]
    assert read_data(tmp_path / limited.data) == limited.record
    assert len(explorer(None, None, None, provenance(), limit=1).record["titles"]) == 1


@pytest.mark.skipif(not (COPIES / f"{PAGE}.js").exists(), reason="the notebook has not been executed")
def test_the_report_loads_a_modest_file_beside_a_light_page():
    assert (COPIES / f"{PAGE}.js").stat().st_size <= LIMIT_OF_THE_SITE
    assert (COPIES / f"{PAGE}.ipynb").stat().st_size <= 1e5


def test_a_run_without_the_page_has_no_explorer(tmp_path: Path):
    assert with_explorer("<h1>Run</h1>", tmp_path, "notebooks") == "<h1>Run</h1>"
    assert not (tmp_path / STANDALONE).exists()


def test_the_page_of_a_run_loads_its_data_alone(run: Path):
    assert list(external_loads(run)) == []
    page = (run / STANDALONE).read_text("utf-8")
    assert f'data-src="notebooks/{PAGE}.js"' in page
    assert "</script" not in SCRIPT
    assert not re.search(r"https?://", page)


def luminance(colour: np.ndarray) -> float:
    parts = np.where(colour <= 0.03928, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(parts @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize(
    ("theme", "rule", "ground"), [("light", 0, "#ffffff"), ("dark", 1, "#121212"), ("dark", 1, "#14181e")]
)
def test_numbers_stand_out_from_their_colour_at_every_weight(theme: str, rule: int, ground: str):
    strong = float(re.findall(rf"{theme}: ([\d.]+)", SCRIPT)[0])
    colour = np.array(re.findall(r"--expert: (\d+) (\d+) (\d+)", STYLE)[rule], dtype=float) / 255
    low, high = ({"#000": 0.0, "#fff": 1.0}[re.findall(rf"--{name}: (#\w+)", STYLE)[rule]] for name in ("low", "high"))
    base = np.array([int(ground[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    for weight in np.arange(256) / 255:
        pair = luminance(base * (1 - weight) + colour * weight), high if weight >= strong else low
        assert (max(pair) + 0.05) / (min(pair) + 0.05) >= 4.5, weight


@pytest.fixture
def page(run: Path, browser: Any) -> Iterator[Any]:  # noqa: F811
    """The browser on the page of the run; afterwards, nothing went wrong and nothing came from elsewhere."""
    requested(browser)
    browser.get_log("browser")
    browser.get("about:blank")
    browser.get((run / STANDALONE).as_uri())
    wait(browser)
    yield browser
    assert [url for url in requested(browser) if not url.startswith(("file:", "data:", "about:"))] == []
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def wait(browser: Any) -> None:  # noqa: F811
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda b: b.execute_script("return !!document.querySelector('.explorer td')"))


def choose(page: Any, name: str, value: str) -> None:
    page.execute_script(
        "const s = document.querySelector(`select[data-keep='${arguments[0]}']`); s.focus(); s.value = arguments[1];"
        "s.dispatchEvent(new Event('change'))",
        name,
        value,
    )


def press(page: Any, *keys: str) -> dict[str, str]:
    """Press keys where the focus is; what then has it, as its data attributes."""
    page.switch_to.active_element.send_keys(*keys)
    return page.execute_script("return {...document.activeElement.dataset}")


def shown(page: Any, number: int) -> dict[str, Any]:
    """A grid as a reader sees it: language, tokens that are read and generated, and the numbers of the first row."""
    return page.execute_script(
        "const table = document.querySelectorAll('.grids table')[arguments[0]];"
        "const tokens = (kind) => [...table.querySelectorAll(`tbody.${kind} th[scope=row]`)].map((t) => t.textContent);"
        "return {code: table.dataset.code, read: tokens('read'), made: tokens('made'),"
        " first: [...table.querySelectorAll('tbody.read tr:nth-child(2) td')].map((cell) => "
        "[...cell.querySelectorAll('.x')].map((chip) => Number(chip.textContent)))}",
        number,
    )


@needs_browser
def test_a_language_and_a_sentence_are_shown_beside_their_translation(page: Any, data: dict[str, Any]):
    choose(page, "lang", "ar")
    choose(page, "text", "1")
    for number, code in enumerate(("ar", "en")):
        one, found = data["texts"][code][1], shown(page, number)
        words = [data["tokens"][i] for i in one["t"]]
        assert (found["code"], found["read"], found["made"]) == (code, words[: one["n"]], words[one["n"] :])
        experts = np.reshape(one["e"], (-1, len(data["layers"]), data["slots"]))[0]
        weights = np.reshape(one["w"], (-1, len(data["layers"]), data["slots"]))[0]
        for cell, index, weight in zip(found["first"], experts, weights, strict=True):
            assert cell == [int(index[i]) for i in np.argsort(-weight, kind="stable")]
    assert page.execute_script("return document.activeElement.dataset.keep") == "text"
    assert "lang=ar" in page.current_url
    choose(page, "with", "ar")
    assert page.execute_script("return document.querySelectorAll('.grids table').length") == 1


@needs_browser
def test_it_is_moved_through_by_keyboard_and_spoken(page: Any, data: dict[str, Any]):
    from selenium.webdriver.common.keys import Keys

    page.execute_script("document.querySelector('select[data-keep=expert]').focus()")
    assert press(page, Keys.TAB) == {"token": "0", "layer": "0"}, "one stop of a grid"
    assert press(page, Keys.ARROW_RIGHT, Keys.ARROW_DOWN) == {"token": "1", "layer": "1"}
    assert press(page, Keys.END) == {"token": "1", "layer": str(len(data["layers"]) - 1)}
    assert press(page, Keys.HOME, Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_UP) == {"token": "0", "layer": "0"}
    one = data["texts"]["de"][0]
    assert press(page, Keys.PAGE_DOWN, Keys.PAGE_DOWN)["token"] == str(len(one["t"]) - 1), "into what is generated"
    said = page.execute_script("return document.querySelector('[aria-live]').textContent")
    at = (len(one["t"]) - 1) * len(data["layers"]) * data["slots"]
    expert, weight = max(zip(one["e"][at : at + 2], one["w"][at : at + 2], strict=True), key=lambda pair: pair[1])
    assert f"generated; layer 0: expert {expert}, weight {weight * data['scale'] / 255:.2f}" in said
    press(page, Keys.ENTER)
    assert f"layer={data['layers'][0]}&expert={expert}" in page.current_url
    assert page.execute_script("return document.activeElement.dataset.token") == str(len(one["t"]) - 1), "focus stays"
    assert f"Expert {expert} of layer 0" in page.execute_script(
        "return document.querySelector('.followed').textContent"
    )
    press(page, Keys.TAB, Keys.TAB)
    assert page.execute_script("return document.activeElement.closest('.detail') !== null"), "then the panel"


@needs_browser
def test_an_address_follows_an_expert_with_its_tokens_and_rates(page: Any, run: Path, data: dict[str, Any]):
    layer, expert = 1, int(np.argmax(data["rates"]["ar"][data["experts"] : 2 * data["experts"]]))
    page.get((run / STANDALONE).as_uri() + f"#layer={data['layers'][layer]}&expert={expert}&lang=ar")
    wait(page)
    place = layer * data["experts"] + expert
    pinned = page.execute_script("return [...document.querySelectorAll('.grids .pin')].map((c) => c.dataset.x)")
    shape = (-1, len(data["layers"]), data["slots"])
    count = sum((np.reshape(data["texts"][c][0]["e"], shape)[:, layer] == expert).sum() for c in ("ar", "en"))
    assert pinned == [f"{layer}/{expert}"] * count
    assert count > 0
    told = page.execute_script("return document.querySelector('.followed').innerText")
    rate = data["rates"]["ar"][place] / 1000
    assert f"ar {100 * rate:.{1 if rate < 0.0995 else 0}f} %" in told
    assert all(data["tokens"][i] in told for i in data["words"]["ar"][place])
    page.execute_script("document.querySelector('.followed .head button').click()")
    assert "expert" not in page.current_url
    assert page.execute_script("return document.querySelectorAll('.pin').length") == 0
    page.execute_script("location.hash = '#lang=de&layer=99&expert=x'")
    assert page.execute_script("return document.querySelector('.followed').hidden"), "no such layer"


@needs_browser
def test_pointing_at_a_cell_names_other_tokens_and_marks_its_experts(page: Any, data: dict[str, Any]):
    from selenium.webdriver.common.action_chains import ActionChains

    cell = page.find_elements("css selector", ".grids td")[1]
    ActionChains(page).move_to_element(cell).perform()
    one = data["texts"]["de"][0]
    experts = one["e"][data["slots"] : 2 * data["slots"]]
    told = page.execute_script("return document.querySelector('.detail').innerText")
    for expert in experts:
        assert f"expert {expert}" in told
        others = [data["tokens"][i] for i in data["words"]["de"][data["experts"] + expert]]
        assert all(word in told for word in others)
    marked = set(page.execute_script("return [...document.querySelectorAll('.hot')].map((chip) => chip.dataset.x)"))
    assert marked == {f"1/{expert}" for expert in experts}


@needs_browser
def test_what_two_sentences_have_in_common_is_the_weight_on_the_same_experts(page: Any, data: dict[str, Any]):
    def usage(one: dict[str, Any], layer: int) -> np.ndarray:
        shape = (-1, len(data["layers"]), data["slots"])
        index, weight = (np.reshape(one[k], shape)[: one["n"], layer].ravel() for k in "ew")
        sums = np.bincount(index, weight, minlength=data["experts"])
        return sums / sums.sum()

    for row, text in enumerate((0, 1)):
        cells = page.execute_script(
            "return [...document.querySelectorAll('.overlap tbody tr')[arguments[0]].querySelectorAll('td')]"
            ".map((cell) => parseFloat(cell.textContent))",
            row,
        )
        pairs = [(usage(data["texts"]["de"][0], k), usage(data["texts"]["en"][text], k)) for k in range(len(cells))]
        assert cells == pytest.approx([100 * np.minimum(*pair).sum() for pair in pairs], abs=0.51)


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_with_legible_text_in_both_schemes(page: Any, scheme: str):
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    colour_scheme(page, scheme)
    page.execute_script("document.querySelector('.explorer td').focus()")
    width = page.execute_script("return document.documentElement.scrollWidth")
    smallest = page.execute_script(
        "return Math.min(...[...document.querySelectorAll('.explorer *')]"
        ".filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))"
        ".map((e) => parseFloat(getComputedStyle(e).fontSize)))"
    )
    ground = page.execute_script("return getComputedStyle(document.querySelector('.detail')).backgroundColor")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert width <= PHONE["width"]
    assert smallest >= 12
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 30)")
    assert brightness(page) < 60 if scheme == "dark" else brightness(page) > 200


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Any, scheme: str):
    axe = pytest.importorskip("axe_core_python.selenium")
    colour_scheme(page, scheme)
    page.execute_script("location.hash = '#layer=1&expert=2'")
    found = axe.Axe().run(page, options={"resultTypes": ["violations"]})["violations"]
    grave = [v for v in found if v["impact"] in ("serious", "critical")]
    assert {v["id"]: [node["html"][:120] for node in v["nodes"]][:3] for v in grave} == {}


@needs_browser
def test_missing_data_are_said(run: Path, browser: Any, tmp_path: Path):  # noqa: F811
    (tmp_path / STANDALONE).write_text((run / STANDALONE).read_text("utf-8"), "utf-8")
    browser.get((tmp_path / STANDALONE).as_uri())
    said = browser.execute_script("return document.querySelector('[role=alert]')?.textContent")
    assert said.startswith(f"The data could not be loaded: they stand beside this page, in notebooks/{PAGE}.js")
    browser.get_log("browser")


@needs_browser
@pytest.mark.parametrize("in_book", [True, False])
def test_a_click_on_a_map_of_experts_leads_to_the_expert(browser: Any, tmp_path: Path, in_book: bool):  # noqa: F811
    import plotly
    from selenium.webdriver.common.action_chains import ActionChains

    coords = {"layer": [1, 3], "expert": range(3), "lang": ["en", "ar"]}
    lift = xr.DataArray(np.full((2, 3, 2), 2.0), coords, tuple(coords))
    made = lift_map(lift, {"rate": lift}, {}, "language-map", "language").html
    script = (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").as_uri()
    kind = "bd-article" if in_book else "jupyter"
    (tmp_path / "page.html").write_text(f'<script src="{script}"></script><div class="{kind}">{made}</div>', "utf-8")
    (tmp_path / f"{PAGE}.html").write_text("<title>there</title>", "utf-8")
    browser.get((tmp_path / "page.html").as_uri())
    place = browser.find_element("css selector", "#language-map .nsewdrag")
    ActionChains(browser).move_to_element(place).move_by_offset(0, 40).pause(0.3).click().perform()
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.support.ui import WebDriverWait

    try:
        WebDriverWait(browser, 5 if in_book else 1).until(lambda b: PAGE in b.current_url)
    except TimeoutException:
        assert not in_book
    assert browser.current_url.endswith(f"{PAGE}.html#layer=3&expert=1&lang=en" if in_book else "page.html")
