"""The gate: rules of promotion as data, applied to measures in JSON; a rule that cannot be computed fails.

Three families. Floors and ceilings are absolute. Against the champion, the burden of proof is the candidate's: the
lower bound of the paired interval must stay above minus the margin everywhere (non-inferiority) and above zero on the
primary measure (superiority). On slices it is the accuser's, because many small cohorts could never all be proven
safe: a slice fails when it loses more than the tolerance and Holm's step-down over all slices rejects chance.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from models.gate_page import render
from uniscale.artifacts import atomic_folder, read_json, write_json
from uniscale.errors import DataError
from uniscale.sections import GateConfig

Verdict = Literal["pass", "fail", "not_applicable", "reported"]
REQUIRED = ("candidate", "champion", "confidence", "measures", "slices", "reasons")


@dataclass(frozen=True)
class Gate:
    """One rule, the numbers it looked at, and its verdict with a sentence why."""

    name: str
    measure: str
    rule: str
    verdict: Verdict
    why: str
    numbers: Mapping[str, float | int | None] = field(default_factory=dict)


def decide(config: GateConfig, measures: Path, out: Path, more: Sequence[Path] = ()) -> str:
    """Apply the rules and write `decision.json` and `decision.html` to the folder `out`.

    Args:
        config: the rules.
        measures: `measures.json` of an evaluation.
        more: further files of flat measures, e.g. of the service's load test or of drift, to which floors and
            ceilings may refer.

    Returns:
        "promote" when no rule failed, "reject" otherwise.

    Raises:
        DataError: a file is missing, is no evaluation, or brings a measure that is known already.
    """
    evaluation = read_json(Path(measures))
    absent = [key for key in REQUIRED if not isinstance(evaluation, dict) or key not in evaluation]
    if absent:
        raise DataError(f"{measures} is no evaluation, it lacks {', '.join(absent)}: give measures.json of `evaluate`")
    for path in more:
        extra = read_json(Path(path))
        twice = sorted(set(extra) & set(evaluation["measures"]))
        if twice:
            raise DataError(f"{path} brings {twice[0]}, which {measures} has already: rename one of them")
        evaluation["measures"] |= extra
    decision = judge(config, evaluation)
    with atomic_folder(Path(out)) as folder:
        write_json(folder / "decision.json", decision)
        (folder / "decision.html").write_text(render(decision, evaluation), encoding="utf-8")
    return str(decision["verdict"])


def judge(config: GateConfig, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The decision as JSON: verdict, the names that failed, and every gate. See `decide`."""
    gates = [
        *_bounds(config.floors, evaluation, least=True),
        *_bounds(config.ceilings, evaluation, least=False),
        *_non_inferiority(config, evaluation),
        *_superiority(config, evaluation),
        *_slices(config, evaluation),
    ]
    failed = [gate.name for gate in gates if gate.verdict == "fail"]
    return {
        "verdict": "reject" if failed else "promote",
        "failed": failed,
        "candidate": evaluation["candidate"],
        "champion": evaluation["champion"],
        "primary": config.primary,
        "confidence": config.confidence,
        "gates": [asdict(gate) for gate in gates],
    }


def _bounds(rules: Mapping[str, float], evaluation: Mapping[str, Any], least: bool) -> Iterable[Gate]:
    kind, sign = ("floor", ">=") if least else ("ceiling", "<=")
    for measure, bound in rules.items():
        value = _number(evaluation["measures"].get(measure))
        name, rule = f"{kind}:{measure}", f"{measure} {sign} {bound:g}"
        if value is None:
            yield Gate(name, measure, rule, "fail", _why_missing(measure, evaluation), {"value": None, "bound": bound})
            continue
        passed = value >= bound if least else value <= bound
        side = ("reaches" if passed else "is below") if least else ("stays within" if passed else "is above")
        why = f"{value:.4g} {side} the {kind} of {bound:g}"
        yield Gate(name, measure, rule, "pass" if passed else "fail", why, {"value": value, "bound": bound})


def _non_inferiority(config: GateConfig, evaluation: Mapping[str, Any]) -> Iterable[Gate]:
    for measure, margin in config.non_inferiority.items():
        rule = f"lower bound of candidate - champion > -{margin:g}"
        yield _compared("non_inferiority", measure, rule, -margin, config, evaluation)


def _superiority(config: GateConfig, evaluation: Mapping[str, Any]) -> Iterable[Gate]:
    if config.require_superiority:
        rule = "lower bound of candidate - champion > 0"
        yield _compared("superiority", config.primary, rule, 0.0, config, evaluation)


def _compared(
    kind: str, measure: str, rule: str, bound: float, config: GateConfig, evaluation: Mapping[str, Any]
) -> Gate:
    name = f"{kind}:{measure}"
    if evaluation["champion"] is None:
        return Gate(name, measure, rule, "not_applicable", "there is no champion to compare with")
    key = f"difference.{measure}"
    found = evaluation["measures"].get(key) or {}
    numbers = {part: _number(found.get(part)) for part in ("value", "low", "high")}
    value, low, high = numbers.values()
    if value is None or low is None or high is None:
        return Gate(name, measure, rule, "fail", _why_missing(key, evaluation), {**numbers, "bound": bound})
    measured_at = evaluation["confidence"]
    if measured_at < config.confidence:
        why = f"the interval was made at {measured_at:.0%} confidence, the rule asks {config.confidence:.0%}"
        return Gate(name, measure, rule, "fail", f"cannot be computed: {why}", {**numbers, "bound": bound})
    passed = low > bound
    why = f"{value:+.4f}, {measured_at:.0%} interval {low:+.4f} to {high:+.4f}; its lower end is " + (
        f"above {bound:g}" if passed else f"not above {bound:g}"
    )
    return Gate(name, measure, rule, "pass" if passed else "fail", why, {**numbers, "bound": bound})


def _slices(config: GateConfig, evaluation: Mapping[str, Any]) -> Iterable[Gate]:
    tolerance, alpha = config.slices.tolerance, 1 - config.confidence
    rule = f"no loss beyond {tolerance:g} for which Holm's test (level {alpha:.2g}, over all slices) rules out chance"
    tested: list[tuple[str, str, dict[str, Any], float, float]] = []  # name, measure, row, difference, p of a loss
    for by in config.slices.by:
        rows = [row for row in evaluation["slices"] if row["by"] == by]
        if evaluation["champion"] is None:
            yield Gate(f"slice:{by}", by, rule, "not_applicable", "there is no champion to compare with")
            continue
        if not rows:
            yield Gate(f"slice:{by}", by, rule, "fail", _why_missing(f"slices by {by}", evaluation))
        for row in rows:
            name, measure = f"slice:{by}={row['slice']}", row["measure"]
            if row["positives"] < config.slices.min_positives:
                why = f"{row['positives']} positives, fewer than {config.slices.min_positives}: shown, not judged"
                yield Gate(name, measure, rule, "reported", why, _slice_numbers(row))
                continue
            difference = row.get("difference") or {}
            value, error = _number(difference.get("value")), _number(difference.get("standard_error"))
            if value is None or error is None:
                yield Gate(name, measure, rule, "fail", _why_missing(name, evaluation), _slice_numbers(row))
                continue
            tested.append((name, measure, row, value, _p_of_loss(value, error)))
    held = holm([p for *_, p in tested], alpha)
    for (name, measure, row, value, p), loses in zip(tested, held, strict=True):
        failed = loses and value < -tolerance
        if failed:
            why = f"loses {-value:.4f}, beyond {tolerance:g}, and chance is rejected (p {p:.2g}, Holm over {len(held)})"
        elif value < -tolerance:
            why = f"loses {-value:.4f}, but chance explains it (p {p:.2g}, Holm over {len(held)}): watch it"
        else:
            why = f"{value:+.4f} is within the tolerance of {tolerance:g}"
        yield Gate(name, measure, rule, "fail" if failed else "pass", why, {**_slice_numbers(row), "p_loss": p})


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Holm's step-down: which hypotheses are rejected with a family-wise error of at most alpha, in input order."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    rejected = [False] * len(p_values)
    for rank, place in enumerate(order):
        if p_values[place] > alpha / (len(p_values) - rank):
            break
        rejected[place] = True
    return rejected


def _p_of_loss(value: float, standard_error: float) -> float:
    """One-sided p that the difference is not negative, normal with the bootstrap's standard error.

    The share of resamples would be too coarse: Holm over k slices needs p below alpha / k.
    """
    if standard_error == 0:
        return 0.0 if value < 0 else 1.0
    return 0.5 * math.erfc(-value / standard_error / math.sqrt(2))


def _slice_numbers(row: Mapping[str, Any]) -> dict[str, float | int | None]:
    difference = row.get("difference") or {}
    bounds = {part: _number(difference.get(part)) for part in ("value", "low", "high")}
    return {"rows": row["rows"], "positives": row["positives"], **bounds}


def _number(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def _why_missing(measure: str, evaluation: Mapping[str, Any]) -> str:
    reason = evaluation["reasons"].get(measure, "the evaluation has no such number")
    return f"cannot be computed: {reason}"
