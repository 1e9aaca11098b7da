"""A comparison as Markdown and as one self-contained page: what each system gained over the base, and how surely."""

from collections.abc import Mapping
from html import escape
from typing import Any

from models.gate_page import STYLE, difference_cells, scale_of

SHOWN = ("auc", "gauc", "hr@5")


def markdown(comparison: Mapping[str, Any]) -> str:
    """One table: costs, mean measures, difference to the base with its interval, the published gain."""
    shown = _shown(comparison)
    head = ["system", "training rows", "dense parameters", "FLOPs a sample"]
    head += [column for name in shown for column in (name, f"Δ {name}")]
    lines = [_line(head), _line(["---"] * 2 + ["---:"] * (len(head) - 2))]
    for system in comparison["systems"]:
        cells = [system["label"], f"{_mean(system['samples_per_epoch']):,.0f}", f"{system['parameters']['dense']:,}"]
        cells.append(f"{system['forward_flops_per_sample']:,}")
        for name in shown:
            cells += [_number(system["measures"][name]["mean"]), _gain(system, name)]
        lines.append(_line(cells))
    lines += [_line([label, f"not run: {why}", *[""] * (len(head) - 2)]) for label, why in _not_run(comparison)]
    return "\n".join([*lines, "", _reading(comparison), ""])


def page(comparison: Mapping[str, Any], title: str) -> str:
    """HTML with a forest plot of each shown measure."""
    parts = []
    for name in _shown(comparison):
        differences = [system["differences"].get(name) for system in comparison["systems"]]
        scale = scale_of(differences)
        rows = []
        for system, difference in zip(comparison["systems"], differences, strict=True):
            paper = system["paper"].get(name)
            value = {**difference, "value": difference["mean"]} if difference else None
            by_seed = ", ".join(f"{one:+.4f}" for one in difference["by_seed"]) if difference else ""
            rows.append(
                f'<tr><td>{escape(system["label"])}</td><td class="n">{_number(system["measures"][name]["mean"])}</td>'
                f'{difference_cells(value, scale)}<td class="soft">{by_seed}</td>'
                f'<td class="n">{"" if paper is None else f"{paper / 100:+.4f}"}</td></tr>'
            )
        rows += [
            f'<tr><td>{escape(label)}</td><td colspan="6" class="soft">not run: {escape(why)}</td></tr>'
            for label, why in _not_run(comparison)
        ]
        head = '<th>system</th><th class="n">mean</th><th class="n">difference</th><th class="n">interval</th><th></th>'
        head += '<th>by seed</th><th class="n">paper</th>'
        parts.append(f'<h2>{escape(name)}</h2><div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>')
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"/><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1><p>{escape(_reading(comparison))}</p>"
        f"{''.join(parts)}</body></html>\n"
    )


def _not_run(comparison: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Systems without numbers, and why."""
    return list(comparison["not_run"].items())


def _shown(comparison: Mapping[str, Any]) -> list[str]:
    """The shown measures of the first task that has differences."""
    known = {name for system in comparison["systems"] for name in system["differences"]}
    tasks = sorted({name.partition(".")[0] for name in known if not name.startswith("truth.")})
    return [f"{task}.{name}" for task in tasks[:1] for name in SHOWN if f"{task}.{name}" in known]


def _gain(system: Mapping[str, Any], name: str) -> str:
    difference, paper = system["differences"].get(name), system["paper"].get(name)
    if difference is None:
        return "base"
    text = f"{difference['mean']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"
    return text if paper is None else f"{text} (paper {paper / 100:+.4f})"


def _reading(comparison: Mapping[str, Any]) -> str:
    seeds, share = comparison["seeds"], f"{comparison['confidence']:.0%}"
    way = "Student's t over the seeds" if len(seeds) > 1 else "a paired bootstrap over users"
    listed = ", ".join(map(str, seeds))
    return (
        f"Seeds {listed}; differences to {comparison['base']} with {share} intervals by {way}, on the target domain's "
        "exposed test rows with in-domain labels."
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4f}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
