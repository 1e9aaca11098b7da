"""Every rule passes, fails and fails when it cannot be computed; the page is one well-formed, self-contained file."""

import copy
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from models.gate import decide, holm, judge
from uniscale.artifacts import read_json, write_json
from uniscale.errors import DataError
from uniscale.sections import GateConfig

CONFIG = GateConfig.model_validate(
    {
        "primary": "click.gauc",
        "floors": {"click.auc": 0.6, "evaluation.positives": 200},
        "ceilings": {"click.ece": 0.05, "parity.max_difference": 0.005},
        "non_inferiority": {"click.auc": 0.002},
        "require_superiority": True,
        "confidence": 0.95,
        "bootstrap_resamples": 1000,
        "slices": {"by": ["scenario", "user_cohort"], "tolerance": 0.02, "min_positives": 100},
    }
)


def difference(value, error):
    return {"value": value, "low": value - 2 * error, "high": value + 2 * error, "standard_error": error}


def cohort(by, name, value=0.01, error=0.004, positives=500):
    return {
        "by": by,
        "slice": name,
        "measure": "click.auc",
        "rows": 10 * positives,
        "positives": positives,
        "candidate": 0.7 + value,
        "champion": 0.7,
        "difference": difference(value, error),
    }


GOOD = {
    "candidate": {"name": "hhsft"},
    "champion": {"name": "dlrm_mlp"},
    "confidence": 0.95,
    "resamples": 1000,
    "measures": {
        "click.auc": 0.71,
        "click.gauc": 0.66,
        "champion.click.auc": 0.70,
        "champion.click.gauc": 0.65,
        "click.ece": 0.01,
        "parity.max_difference": 0.001,
        "evaluation.positives": 900,
        "difference.click.auc": difference(0.01, 0.002),
        "difference.click.gauc": difference(0.01, 0.003),
    },
    "slices": [
        cohort("scenario", "keyword"),
        cohort("scenario", "category"),
        cohort("user_cohort", "new"),
        cohort("user_cohort", "heavy"),
    ],
    "reasons": {},
}


def changed(**measures):
    evaluation = copy.deepcopy(GOOD)
    evaluation["measures"] |= {key.replace("__", "."): value for key, value in measures.items()}
    return evaluation


def verdicts(evaluation, config=CONFIG):
    return {gate["name"]: gate["verdict"] for gate in judge(config, evaluation)["gates"]}


def test_a_better_model_is_promoted():
    decision = judge(CONFIG, GOOD)
    assert decision["verdict"] == "promote"
    assert decision["failed"] == []
    assert set(verdicts(GOOD).values()) == {"pass"}


@pytest.mark.parametrize(
    ("measures", "failed"),
    [
        ({"click__auc": 0.6}, []),  # bounds are inclusive
        ({"click__auc": 0.59}, ["floor:click.auc"]),
        ({"evaluation__positives": 199}, ["floor:evaluation.positives"]),
        ({"click__ece": 0.05}, []),
        ({"click__ece": 0.051}, ["ceiling:click.ece"]),
        ({"parity__max_difference": 0.006}, ["ceiling:parity.max_difference"]),
        ({"difference__click__auc": difference(0.0, 0.0009)}, []),
        ({"difference__click__auc": difference(0.0, 0.001)}, ["non_inferiority:click.auc"]),
        ({"difference__click__gauc": difference(0.01, 0.0051)}, ["superiority:click.gauc"]),
        ({"difference__click__gauc": difference(-0.01, 0.001)}, ["superiority:click.gauc"]),
        ({"click__auc": None}, ["floor:click.auc"]),
        ({"click__auc": math.nan}, ["floor:click.auc"]),
        ({"click__ece": "0.01"}, ["ceiling:click.ece"]),
        ({"difference__click__auc": None}, ["non_inferiority:click.auc"]),
        ({"difference__click__auc": {"value": 0.1}}, ["non_inferiority:click.auc"]),
        ({"difference__click__gauc": {"value": 0.1, "low": None, "high": None}}, ["superiority:click.gauc"]),
    ],
)
def test_each_rule_passes_fails_and_fails_when_it_cannot_be_computed(measures, failed):
    decision = judge(CONFIG, changed(**measures))
    assert decision["failed"] == failed
    assert decision["verdict"] == ("reject" if failed else "promote")


@pytest.mark.parametrize("measure", ["click.auc", "click.ece", "difference.click.auc", "difference.click.gauc"])
def test_an_absent_measure_fails_and_the_evaluations_reason_is_told(measure):
    evaluation = copy.deepcopy(GOOD)
    del evaluation["measures"][measure]
    evaluation["reasons"][measure] = "one class only"
    failed = [gate for gate in judge(CONFIG, evaluation)["gates"] if gate["verdict"] == "fail"]
    assert len(failed) == 1
    assert failed[0]["why"] == "cannot be computed: one class only"


def test_a_winner_overall_that_loses_one_slice_is_held_by_that_slice():
    evaluation = copy.deepcopy(GOOD)
    evaluation["slices"][2] = cohort("user_cohort", "new", value=-0.05, error=0.01)
    decision = judge(CONFIG, evaluation)
    assert decision["failed"] == ["slice:user_cohort=new"]
    assert decision["verdict"] == "reject"


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (cohort("scenario", "keyword", value=-0.05, error=0.03), "pass"),  # p 0.048: chance, once it is one of four
        (cohort("scenario", "keyword", value=-0.05, error=0.02), "fail"),  # p 0.006 < 0.05 / 4
        (cohort("scenario", "keyword", value=-0.015, error=0.001), "pass"),  # certain, but within the tolerance
        (cohort("scenario", "keyword", value=-0.3, error=0.01, positives=99), "reported"),  # too small to be judged
        (cohort("scenario", "keyword", value=0.0, error=0.0), "pass"),  # the same model
        (cohort("scenario", "keyword", value=-0.3, error=0.0), "fail"),
        (cohort("scenario", "keyword") | {"difference": None}, "fail"),
        (cohort("scenario", "keyword", value=math.nan), "fail"),
    ],
)
def test_slices_fail_for_certain_losses_beyond_the_tolerance_or_missing_numbers(row, verdict):
    evaluation = copy.deepcopy(GOOD)
    evaluation["slices"][0] = row
    assert verdicts(evaluation)["slice:scenario=keyword"] == verdict


def test_a_dimension_without_slices_fails():
    evaluation = copy.deepcopy(GOOD)
    evaluation["slices"] = evaluation["slices"][:2]
    assert judge(CONFIG, evaluation)["failed"] == ["slice:user_cohort"]


def test_holm_steps_down_and_stops_at_the_first_that_stands():
    assert holm([0.01, 0.04, 0.03], 0.05) == [True, False, False]  # 0.01 <= 0.05/3, 0.03 > 0.05/2
    assert holm([0.01, 0.04, 0.02], 0.05) == [True, True, True]
    assert holm([], 0.05) == []


def test_comparisons_do_not_apply_to_a_first_model_and_only_to_that():
    first = copy.deepcopy(GOOD) | {"champion": None, "slices": []}
    first["measures"] = {key: value for key, value in first["measures"].items() if not key.startswith("difference")}
    found = verdicts(first)
    assert judge(CONFIG, first)["verdict"] == "promote"
    assert {name for name, verdict in found.items() if verdict == "not_applicable"} == {
        "non_inferiority:click.auc",
        "superiority:click.gauc",
        "slice:scenario",
        "slice:user_cohort",
    }
    assert judge(CONFIG, first | {"champion": {"name": "dlrm_mlp"}})["verdict"] == "reject"


def test_intervals_made_at_less_confidence_than_asked_do_not_count():
    decision = judge(CONFIG, copy.deepcopy(GOOD) | {"confidence": 0.9})
    assert decision["failed"] == ["non_inferiority:click.auc", "superiority:click.gauc"]
    assert "90% confidence" in next(g["why"] for g in decision["gates"] if g["verdict"] == "fail")


def test_superiority_is_asked_only_where_the_config_asks_it():
    config = CONFIG.model_copy(update={"require_superiority": False})
    assert judge(config, changed(difference__click__gauc=difference(0.0, 0.0005)))["verdict"] == "promote"


def test_decide_writes_the_record_and_takes_measures_of_other_steps(tmp_path):
    write_json(tmp_path / "measures.json", GOOD)
    write_json(tmp_path / "served.json", {"serving.p99_ms": 80.0})
    config = CONFIG.model_copy(update={"ceilings": {"serving.p99_ms": 50.0}})
    assert decide(CONFIG, tmp_path / "measures.json", tmp_path / "first") == "promote"
    assert decide(config, tmp_path / "measures.json", tmp_path / "second") == "reject"  # nobody measured it
    more = [tmp_path / "served.json"]
    assert decide(config, tmp_path / "measures.json", tmp_path / "third", more) == "reject"
    gate = next(g for g in read_json(tmp_path / "third" / "decision.json")["gates"] if g["verdict"] == "fail")
    assert gate["name"] == "ceiling:serving.p99_ms"
    assert gate["numbers"] == {"value": 80.0, "bound": 50.0}
    write_json(tmp_path / "served.json", {"click.auc": 1.0})
    with pytest.raises(DataError, match=r"brings click.auc"):
        decide(config, tmp_path / "measures.json", tmp_path / "fourth", more)
    write_json(tmp_path / "measures.json", {"click.auc": 1.0})
    with pytest.raises(DataError, match="is no evaluation, it lacks candidate"):
        decide(config, tmp_path / "measures.json", tmp_path / "fifth")


class Balanced(HTMLParser):
    """Checks that every element that is opened is closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("case", ["promoted", "rejected", "first", "hostile"])
def test_the_page_is_well_formed_self_contained_and_names_what_failed(tmp_path, case):
    evaluation = copy.deepcopy(GOOD)
    if case == "rejected":
        evaluation["slices"][2] = cohort("user_cohort", "new", value=-0.05, error=0.01)
        evaluation["reasons"]["conversion.auc"] = "one class only"
    elif case == "first":
        evaluation |= {"champion": None, "slices": []}
        evaluation["measures"] = {k: v for k, v in GOOD["measures"].items() if not k.startswith(("diff", "champ"))}
    elif case == "hostile":
        evaluation["slices"][0]["slice"] = "<script>alert(1)</script>"
        evaluation["candidate"]["name"] = "a<b>&c"
    write_json(tmp_path / "measures.json", evaluation)
    verdict = decide(CONFIG, tmp_path / "measures.json", tmp_path / "gate")
    page = (tmp_path / "gate" / "decision.html").read_text()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert "script" not in parser.seen
    assert not re.search(r"(?:src|href)=|url\(|@import", page)
    assert "prefers-color-scheme: dark" in page
    assert ("<h1>Reject</h1>" if verdict == "reject" else "<h1>Promote</h1>") in page
    if case == "rejected":
        assert "slice:user_cohort=new" in page.split("</header>")[0]
        assert "one class only" in page
    if case == "promoted":
        assert page.count("<svg") == 6  # two differences and four slices
        assert "+0.0100" in page


def test_the_gate_reads_json_and_needs_no_framework():
    code = "import sys, models.gate; print(sorted({'torch', 'mlflow', 'sklearn', 'numpy'} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
