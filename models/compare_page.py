"""A comparison as Markdown and as one self-contained page: what each system gained over the base, and how surely."""

from collections.abc import Mapping
from html import escape
from typing import Any

from models.curves import chart
from models.gate_page import STYLE, difference_cells, scale_of, table

SHOWN = ("auc", "gauc", "hr@5")  # of the first task, where a table names no columns
STAGE_HEAD = ["stage", "requests", "samples", "click positives"]
COSTS = {"dense parameters": "dense_parameters", "FLOPs a sample": "forward_flops_per_sample"}


def markdown(comparison: Mapping[str, Any]) -> str:
    """One table: costs, means ± standard deviations, differences to the base with intervals, published gains."""
    shown = _shown(comparison)
    head = ["system", "training rows", "dense parameters", "FLOPs a sample"]
    head += [column for name in shown for column in (name, f"Δ {name}")]
    lines = [_line(head), _line(["---"] * 2 + ["---:"] * (len(head) - 2))]
    for system in comparison["systems"]:
        cells = [system["label"], f"{_mean(system['samples_per_epoch']):,.0f}", f"{system['parameters']['dense']:,}"]
        cells.append(f"{system['forward_flops_per_sample']:,}")
        for name in shown:
            cells += [_number(system["measures"][name]), _gain(system, name, comparison["base"])]
        lines.append(_line(cells))
    lines += [_line([label, f"not run: {why}", *[""] * (len(head) - 2)]) for label, why in _not_run(comparison)]
    return "\n".join([*_stages(comparison), *lines, "", *_reading(comparison), ""])


def page(comparison: Mapping[str, Any], title: str) -> str:
    """HTML with a forest plot of each shown measure, and the curves of a figure."""
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
                f'<tr><td>{escape(system["label"])}</td><td class="n">{_number(system["measures"][name])}</td>'
                f'{difference_cells(value, scale)}<td class="soft">{by_seed}</td>'
                f'<td class="n">{"" if paper is None else f"{paper / 100:+.4f}"}</td></tr>'
            )
        head = ("system", "#mean", "#difference", "#interval", "", "by seed", "#paper")
        parts.append(f"<h2>{escape(name)}</h2>{table(head, rows)}")
    if not_run := _not_run(comparison):
        rows = [f"<tr><td>{escape(label)}</td><td>{escape(why)}</td></tr>" for label, why in not_run]
        parts.append(f"<h2>Not run</h2>{table(('system or measure', 'why'), rows)}")
    told = "".join(f"<p>{escape(sentence)}</p>" for sentence in _reading(comparison))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"/><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>{told}{_stages_html(comparison)}"
        f"{''.join(parts)}{_curves(comparison)}</body></html>\n"
    )


def _curves(comparison: Mapping[str, Any]) -> str:
    """The first measure's gain along the dense parameters and the FLOPs, a line for each curve."""
    if not comparison["curves"]:
        return ""
    name, parts = _shown(comparison)[0], []
    found = {system["label"]: system for system in comparison["systems"]}
    for heading, cost in COSTS.items():
        series = {
            line: sorted(
                (float(_cost(found[label], cost)), found[label]["differences"].get(name, {"mean": 0.0})["mean"])
                for label in labels
                if label in found
            )
            for line, labels in comparison["curves"].items()
        }
        parts.append(f"<h2>Δ {escape(name)} over {escape(comparison['base'])}</h2>{chart(series, heading)}")
    return "".join(parts)


def _cost(system: Mapping[str, Any], cost: str) -> int:
    return int(system["parameters"]["dense"] if cost == "dense_parameters" else system[cost])


def _not_run(comparison: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Systems and columns without numbers, and why."""
    known = _known(comparison)
    missing = {name: "the data has no such measure" for name in comparison["columns"] if name not in known}
    return list((comparison["not_run"] | missing).items())


def _known(comparison: Mapping[str, Any]) -> set[str]:
    return {name for system in comparison["systems"] for name in system["differences"]}


def _shown(comparison: Mapping[str, Any]) -> list[str]:
    """The table's columns that could be measured; without any, those of the first task that has differences."""
    known = _known(comparison)
    columns = [name for name in comparison["columns"] if name in known]
    tasks = sorted({name.partition(".")[0] for name in known if not name.startswith("truth.")})
    return columns or [f"{task}.{name}" for task in tasks[:1] for name in SHOWN if f"{task}.{name}" in known]


def _gain(system: Mapping[str, Any], name: str, base: str) -> str:
    difference, paper = system["differences"].get(name), system["paper"].get(name)
    if difference is None:
        return "base" if system["label"] == base else "not known"
    text = f"{difference['mean']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"
    return text if paper is None else f"{text} (paper {paper / 100:+.4f})"


def _stages(comparison: Mapping[str, Any]) -> list[str]:
    """UniScale's Table 1 where the comparison holds it: counts, their multiples, the published multiples."""
    if not comparison["stages"]:
        return []
    lines = [_line(STAGE_HEAD), _line(["---", "---:", "---:", "---:"])]
    return [*lines, *(_line(cells) for cells in _stage_cells(comparison)), ""]


def _stages_html(comparison: Mapping[str, Any]) -> str:
    if not comparison["stages"]:
        return ""
    rows = (f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells in _stage_cells(comparison))
    return table(STAGE_HEAD, rows)


def _stage_cells(comparison: Mapping[str, Any]) -> list[list[str]]:
    return [
        [row["stage"]]
        + [f"{row[name]:,} ({row[f'{name}_x']:.2f}x, paper {x:.1f}x)" for name, x in row["paper"].items()]
        for row in comparison["stages"]
    ]


def _reading(comparison: Mapping[str, Any]) -> list[str]:
    seeds, share, rates = comparison["seeds"], f"{comparison['confidence']:.0%}", comparison["rates"]
    way = "Student's t over the seeds" if len(seeds) > 1 else "a paired bootstrap over users"
    listed = ", ".join(map(str, seeds))
    tuning = (
        f"Each system took the best of the learning rates {', '.join(f'{rate:g}' for rate in rates)} on the validation "
        "rows."
        if rates
        else "No system was tuned: all have the sizes and the learning rate of the configuration."
    )
    sizes = [system["parameters"]["dense"] for system in comparison["systems"]]
    return [
        f"Seeds {listed}; differences to {comparison['base']} with {share} intervals by {way}, on the target domain's "
        "exposed test rows with in-domain labels; an interval without zero is a paired test that finds a difference.",
        f"{tuning} Dense parameters, embeddings left out, go from {min(sizes):,} to {max(sizes):,}.",
        *([comparison["reading"]] if comparison["reading"] else []),
    ]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _number(measure: Mapping[str, Any]) -> str:
    if measure["mean"] is None:
        return "not known"
    return f"{measure['mean']:.4f}" + ("" if measure["spread"] is None else f" ± {measure['spread']:.4f}")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
