import re
import shutil
import subprocess
from xml.etree import ElementTree

import pytest

from monitoring.charts import Axis, percent
from monitoring.experiment import analyse
from monitoring.page import render
from tests.monitoring.ab_logs import config, rewrite, write_experiment

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    paths = write_experiment(folder, users=400, lift=0.3, before_days=3, seed=41)
    return analyse(config(), out=folder / "out", **paths), folder / "out" / "experiment.html"


def tree(text):
    return ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))


def test_it_is_well_formed_self_contained_and_light(page):
    text = page[1].read_text()
    root = tree(text)
    ids = [node.attrib["id"] for node in root.iter() if "id" in node.attrib]
    assert len(ids) == len(set(ids))
    links = [node.attrib["href"] for node in root.iter("a")]
    assert links and all(link.removeprefix("#") in ids for link in links)
    assert not re.search(r"https?://|<script|url\(|@import", text)
    assert len(text) < 200_000


def test_the_verdict_comes_first_then_the_sample_ratio(page):
    said = [text.strip() for text in tree(page[1].read_text()).find("body").itertext() if text.strip()]
    verdict = said.index(page[0]["verdict"])
    assert verdict < 4
    assert (
        verdict < next(n for n, text in enumerate(said) if text.startswith("Sample ratio")) < said.index("Scorecard", 5)
    )


def test_every_metric_has_its_numbers_or_its_reason(page):
    result, path = page
    text = path.read_text()
    for row in result["metrics"]:
        assert row["label"] in text and row["meaning"].replace("'", "&#x27;") in text
        shown = percent(row["lift"]) if row["lift"] is not None else row["withheld"].replace("'", "&#x27;")
        assert shown in text
    assert not re.search(r"\b(nan|None|inf)\b", text)


def test_names_from_the_logs_are_escaped(page):
    result = dict(page[0])
    control = result["variants"]["control"] | {"name": "<b>champion</b>", "versions": ["<i>"]}
    text = render(result | {"variants": result["variants"] | {"control": control}})
    assert "<b>champion" not in text and "&lt;b&gt;champion" in text
    tree(text)


def test_an_invalid_experiment_still_has_its_page(tmp_path):
    paths = write_experiment(tmp_path, users=60, seed=42)
    rewrite(paths["serving_log"], lambda rows: [r for r in rows if r["variant"] == "champion"])
    result = analyse(config(), out=tmp_path / "out", **paths)
    text = (tmp_path / "out" / "experiment.html").read_text()
    tree(text)
    assert result["reason"].replace("'", "&#x27;")[:40] in text


def test_axis_keeps_most_intervals_and_cuts_the_rest():
    axis = Axis.around([(-0.1, 0.1), (-0.2, 0.1), (-9.0, 9.0)])
    assert axis.limit == pytest.approx(0.3)
    assert axis.x(9.0) == axis.x(0.3) and axis.x(0.0) == pytest.approx(120.0)
    assert Axis.around([None]).limit == 0.1


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [400, 1200])
def test_it_renders_in_chromium_without_scrolling_sideways(page, tmp_path, width):
    probe = tmp_path / "page.html"
    script = (
        "<script>document.title = [document.documentElement.scrollWidth, document.documentElement.clientWidth, "
        "getComputedStyle(document.querySelector('.verdict strong')).fontSize].join(' ')</script></body>"
    )
    probe.write_text(page[1].read_text().replace("</body>", script))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    command += ["--disable-background-networking", "--disable-component-update", f"--window-size={width},900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", probe.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    content, window, size = re.search(r"<title>([0-9.]+) ([0-9.]+) ([0-9.]+)px</title>", dom).groups()
    assert int(content) <= int(window)
    assert float(size) >= 20
