"""Experiments from tables: hand-computed results of two public ones, and what a bad table is told."""

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from monitoring.definition import load_definition
from monitoring.experiment import analyse_table
from uniscale.cli import app
from uniscale.errors import ConfigError, DataError, UniscaleError

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
COOKIE_CATS = load_definition(EXAMPLES / "cookie_cats.yaml")
UPWORTHY = load_definition(EXAMPLES / "upworthy.yaml")


def players(gate_30=(44_700, 20_034, 8_502), gate_40=(45_489, 20_119, 8_279)):
    """A table with Cookie Cats' numbers of players and of returns after a day and a week (rounds made up)."""
    counts = np.array([gate_30[0], gate_40[0]])
    place = np.concatenate([np.arange(n) for n in counts])
    arm = np.repeat([0, 1], counts)
    columns = {"userid": np.arange(counts.sum()), "version": np.array(["gate_30", "gate_40"])[arm]}
    for name, at in (("retention_1", 1), ("retention_7", 2)):
        columns[name] = place < np.array([gate_30[at], gate_40[at]])[arm]
    return pa.table(columns | {"sum_gamerounds": place % 50})


def analysed(folder, table, definition=COOKIE_CATS):
    pq.write_table(table, folder / "table.parquet")
    result = analyse_table(definition, folder / "table.parquet", folder / "out")
    assert json.loads((folder / "out" / "experiment.json").read_text()) == json.loads(json.dumps(result))
    assert ">nan" not in (folder / "out" / "experiment.html").read_text().lower()
    return result


def row(result, name):
    return next(r for r in result["metrics"] if r["name"] == name)


def test_cookie_cats_by_hand(tmp_path):
    result = analysed(tmp_path, players())
    assert result["sample_ratio"]["p"] == pytest.approx(0.0086, abs=5e-5)
    assert result["sample_ratio"]["status"] == "warn" and result["mode"] == "A/B"
    week, day = row(result, "retention_7"), row(result, "retention_1")
    # 8,502 / 44,700 and 8,279 / 45,489; z of two proportions, unpooled: 3.164 and 1.784.
    assert (week["control"], week["treatment"]) == pytest.approx((0.190201, 0.182000), abs=1e-6)
    assert week["lift"] == pytest.approx(-0.043119, abs=1e-6) and week["p"] == pytest.approx(0.001556, abs=1e-6)
    assert week["interval"] == pytest.approx([-0.068891, -0.016634], abs=2e-6)
    assert day["lift"] == pytest.approx(-0.013176, abs=1e-6) and day["p"] == pytest.approx(0.074408, abs=1e-5)
    assert result["verdict"] == "roll back"


def test_upworthy_by_hand_and_as_its_rows_would_be(tmp_path):
    counts = {"index": [70094, 70095], "impressions": [13_331, 13_587], "clicks": [209, 166]}
    table = pa.table(counts | {"clickability_test_id": ["527fee4a632bdb5afb013925"] * 2})
    result = analysed(tmp_path, table, UPWORTHY)
    ctr = row(result, "ctr")
    # p = 0.015678 and 0.012218; log-scale error √((1 − p)/209 + (1 − q)/166) = 0.10317.
    assert ctr["lift"] == pytest.approx(-0.220707, abs=1e-6) and ctr["p"] == pytest.approx(0.015556, abs=2e-5)
    assert ctr["interval"] == pytest.approx([-0.363474, -0.045918], abs=1e-4)
    assert "Impression-level binomial" in result["source"]["statement"]
    assert "Impression-level binomial" in (tmp_path / "out" / "experiment.html").read_text()
    clicked = np.concatenate([np.arange(13_331) < 209, np.arange(13_587) < 166])
    arm = np.repeat(["70094", "70095"], [13_331, 13_587])
    rows = pa.table({"unit": np.arange(len(arm)), "variant": arm, "clicks": clicked})
    source = {"kind": "units", "unit": "unit", "variant": "variant", "day": None}
    expanded = UPWORTHY.model_validate(UPWORTHY.model_dump() | {"source": source})
    same = row(analysed(tmp_path, rows, expanded), "ctr")
    for key in ("lift", "interval", "p", "mde"):
        assert ctr[key] == pytest.approx(same[key], rel=1e-6)


def test_rows_by_day_add_up_to_the_unit_and_have_a_curve(tmp_path):
    rng, users, days = np.random.default_rng(5), 400, 4
    user, day = np.repeat(np.arange(users), days), np.tile(np.arange(days), users)
    clicks = rng.poisson(1.0, users * days).astype(float)
    arm = np.where(user % 2, "gate_40", "gate_30")
    columns = {"userid": user, "version": arm, "retention_7": clicks, "retention_1": clicks, "sum_gamerounds": clicks}
    columns["day"] = [date(2026, 3, 2) + timedelta(days=int(n)) for n in day]
    source = COOKIE_CATS.source.model_dump() | {"day": "day"}
    definition = COOKIE_CATS.model_validate(
        COOKIE_CATS.model_dump() | {"source": source, "stop": {"days": 4, "early": "harm"}}
    )
    result = analysed(tmp_path, pa.table(columns), definition)
    totals = [clicks[arm == name].sum() / (users / 2) for name in ("gate_30", "gate_40")]
    found = row(result, "retention_7")
    assert [found["control"], found["treatment"]] == pytest.approx(totals)
    curve = [point for point in result["by_day"] if point["metric"] == "retention_7"]
    assert len(curve) == days and curve[-1]["lift"] == pytest.approx(found["lift"])
    for last in range(days):
        # Up to each day, the summed table says the same: users not seen yet are left out, as here nobody is.
        sums = np.where(day <= last, clicks, 0.0).reshape(users, days).sum(axis=1)
        table = {"userid": np.arange(users), "version": arm[::days]} | dict.fromkeys(
            columns.keys() - {"userid", "version", "day"}, sums
        )
        plain = row(analysed(tmp_path, pa.table(table)), "retention_7")
        for key in ("lift", "interval", "p"):
            assert curve[last][key] == pytest.approx(plain[key], rel=1e-9)


@pytest.mark.parametrize("last", ["2026-03-04", "2026-07-30"])
def test_a_repeated_day_counts_once_however_long_the_experiment(tmp_path, last):
    days = [date(2026, 3, 2), date(2026, 3, 3), date.fromisoformat(last)]
    rows = [
        {"userid": n, "version": f"gate_{30 + n % 2 * 10}", "day": day, "retention_1": n % 3, "sum_gamerounds": n + 1}
        for n in range(40)
        for day in days
    ]
    rows = [row | {"retention_7": n % 5} for n, row in enumerate(rows)]
    source = COOKIE_CATS.source.model_dump() | {"day": "day"}
    definition = COOKIE_CATS.model_validate(COOKIE_CATS.model_dump() | {"source": source})
    once = analysed(tmp_path, pa.Table.from_pylist(rows), definition)
    twice = analysed(tmp_path, pa.Table.from_pylist(rows + rows[:7]), definition)

    def same(one, other):
        pairs = [(row(one, "rounds"), row(other, "rounds")), *zip(one["by_day"], other["by_day"], strict=True)]
        return all(a[key] == pytest.approx(b[key], rel=1e-9) for a, b in pairs for key in ("lift", "interval", "p"))

    assert same(twice, once)
    elsewhere = [r | {"version": "gate_50", "retention_7": 99} for r in rows[:9]]  # in a third variant as well
    assert same(analysed(tmp_path, pa.Table.from_pylist(rows + elsewhere), definition), once)
    said = next(check["statement"] for check in twice["checks"] if check["name"] == "duplicates")
    assert said == "7 of 127 rows repeat a unit; each counts once."
    stray = pa.Table.from_pylist([*rows, rows[0] | {"day": date(1970, 1, 1)}])
    with pytest.raises(DataError, match="1970-01-01 to"):
        analysed(tmp_path, stray, definition)


def test_a_covariate_column_narrows_the_interval(tmp_path):
    rng = np.random.default_rng(6)
    before = rng.gamma(2.0, 5.0, 3000)
    table = pa.table(
        {
            "userid": np.arange(3000),
            "version": np.where(np.arange(3000) % 2, "gate_30", "gate_40"),
            "now": rng.poisson(before).astype(float),
            "earlier": before,
        }
    )
    metric = COOKIE_CATS.metrics[2].__dict__ | {"name": "now", "numerator": "now"}
    changes = {"primary": "now", "guardrails": {}}
    plain = COOKIE_CATS.model_validate(COOKIE_CATS.model_dump() | changes | {"metrics": [metric]})
    adjusted = COOKIE_CATS.model_validate(
        COOKIE_CATS.model_dump() | changes | {"metrics": [metric | {"covariate": "earlier"}]}
    )
    wide, narrow = (row(analysed(tmp_path, table, d), "now") for d in (plain, adjusted))
    assert narrow["cuped"] and not wide["cuped"]
    assert np.ptp(narrow["interval"]) < 0.7 * np.ptp(wide["interval"])


def test_repeated_units_count_once_and_strangers_are_left_out(tmp_path):
    small = players((400, 160, 80), (420, 170, 90))
    plain = analysed(tmp_path, small)
    again = analysed(tmp_path, pa.concat_tables([small, small.slice(0, 50)]))
    assert row(again, "retention_1")["control"] == row(plain, "retention_1")["control"]
    assert [c["status"] for c in again["checks"] if c["name"] == "duplicates"] == ["warn"]
    other = small.set_column(1, "version", pa.array(["gate_50"] * 10 + small["version"].to_pylist()[10:]))
    left_out = analysed(tmp_path, other)
    assert any("10 rows of gate_50 are left out" in check["statement"] for check in left_out["checks"])


@pytest.mark.parametrize(
    "change, verdict, said",
    [
        (lambda t: t.filter(pa.compute.equal(t["version"], "gate_30")), "invalid", "No unit of gate_40"),
        (lambda t: t.slice(0, 1), "invalid", "No unit of gate_40"),
        (lambda t: t.slice(0, 0), "invalid", "No unit of gate_30 or gate_40"),
        (
            lambda t: t.set_column(3, "retention_7", pa.array([False] * len(t))),
            "keep running",
            "no retention_7 in either variant",
        ),
    ],
)
def test_a_table_that_says_nothing_gets_a_clear_verdict(tmp_path, change, verdict, said):
    result = analysed(tmp_path, change(players((400, 160, 80), (420, 170, 90))))
    assert result["verdict"] == verdict and said in result["reason"]
    assert said in (tmp_path / "out" / "experiment.html").read_text()


@pytest.mark.parametrize(
    "table, said",
    [
        (
            players((9, 4, 2), (9, 4, 2)).rename_columns(["user", "version", "retention_1", "retention_7", "x"]),
            "userid",
        ),
        (players((9, 4, 2), (9, 4, 2)).drop_columns(["retention_7"]), "no column 'retention_7'; did you mean"),
        (players().slice(0, 9).set_column(4, "sum_gamerounds", pa.array([1.0] * 8 + [None])), "1 values of sum_game"),
        (players().slice(0, 9).set_column(4, "sum_gamerounds", pa.array([1.0] * 8 + [np.nan])), "not finite"),
        (players().slice(0, 9).set_column(4, "sum_gamerounds", pa.array(["many"] * 9)), "metrics need numbers"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error(tmp_path, table, said):
    with pytest.raises(DataError, match=said):
        analysed(tmp_path, table)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "impressions, clicks, said",
    [
        ([100, 100], [101, 3], "not between"),
        ([100, None], [1, 3], "not between"),
        ([100, 100], [1, None], "not between"),
    ],
)
def test_impossible_counts_are_an_error(tmp_path, impressions, clicks, said):
    table = pa.table({"index": [70094, 70095], "impressions": impressions, "clicks": clicks})
    table = table.append_column("clickability_test_id", pa.array(["527fee4a632bdb5afb013925"] * 2))
    with pytest.raises(DataError, match=said):
        analysed(tmp_path, table, UPWORTHY)
    with pytest.raises(ConfigError, match="unknown treatment"):
        analyse_table(UPWORTHY, tmp_path / "table.parquet", tmp_path / "out", "70096")


def analyze(folder, *more):
    """The verb on the table of a folder."""
    command = ["experiment", "analyze", "--config", str(EXAMPLES / "cookie_cats.yaml"), "--out", str(folder / "out")]
    return CliRunner().invoke(app, [*command, "--data", str(folder / "players.parquet"), *more])


def test_the_verb_warns_and_exits_non_zero_under_strict(tmp_path):
    pq.write_table(players(), tmp_path / "players.parquet")
    lenient, strict = analyze(tmp_path), analyze(tmp_path, "--strict")
    assert (lenient.exit_code, strict.exit_code) == (0, 4), lenient.output + strict.output
    assert "WARNING sample ratio" in strict.output and "p = 0.0086 < 0.01" in strict.output
    assert (tmp_path / "out" / "experiment.html").exists()


@pytest.mark.parametrize(
    "change, code",
    [
        (lambda t: t, 0),
        (lambda t: t.filter(pa.compute.equal(t["version"], "gate_30")), 4),
        (lambda t: t.slice(0, 1), 4),
    ],
)
def test_the_exit_code_says_whether_the_result_can_be_believed(tmp_path, change, code):
    pq.write_table(change(players((400, 160, 80), (420, 170, 90))), tmp_path / "players.parquet")
    done = analyze(tmp_path)
    assert done.exit_code == code, done.output


def test_an_unknown_metric_and_a_missing_table_end_with_an_error(tmp_path):
    text = (EXAMPLES / "cookie_cats.yaml").read_text().replace("primary: retention_7", "primary: retention_9")
    (tmp_path / "wrong.yaml").write_text(text)
    for config, said in ((tmp_path / "wrong.yaml", "unknown metric"), (EXAMPLES / "cookie_cats.yaml", "no file")):
        arguments = ["experiment", "analyze", "--config", str(config), "--data", str(tmp_path / "none.csv")]
        done = CliRunner().invoke(app, arguments)
        assert isinstance(done.exception, UniscaleError) and said in str(done.exception)
