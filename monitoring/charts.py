"""Small inline SVG charts of the experiment page: an interval on a shared axis, and lifts by day.

Colours come from classes of the page's style sheet, so that the charts follow light and dark; each chart carries its
numbers as text for those who do not see it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, ROW = 240, 34


@dataclass(frozen=True)
class Axis:
    """A symmetric axis of relative lift: `limit` is 0.2 for −20 % to +20 %."""

    limit: float

    @classmethod
    def around(cls, intervals: Sequence[Sequence[float] | None]) -> "Axis":
        """An axis wide enough for most intervals; one that is far wider than the rest is cut at the edge."""
        reaches = sorted(max(abs(bound) for bound in interval) for interval in intervals if interval)
        if not reaches:
            return cls(0.1)
        return cls(_round_up(min(reaches[-1], 1.5 * reaches[len(reaches) // 2])))

    def x(self, lift: float) -> float:
        """Horizontal position of a lift, cut at the edges."""
        share = (max(-self.limit, min(self.limit, lift)) + self.limit) / (2 * self.limit)
        return 6 + share * (WIDTH - 12)


def percent(value: float) -> str:
    """A signed lift: `+1.2 %` with a thin space; tiny and huge ones stay short."""
    digits = 0 if abs(value) >= 1 else 1 if abs(value) >= 0.0095 or value == 0 else 2
    return f"{value * 100:+.{digits}f}\u202f%".replace("-", "\u2212")


def forest_axis(axis: Axis) -> str:
    """The scale above a column of `forest_row` charts."""
    ticks = "".join(
        f'<text x="{axis.x(t):.1f}" y="12" text-anchor="{anchor}">{_tick(t)}</text>'
        for t, anchor in ((-axis.limit, "start"), (0.0, "middle"), (axis.limit, "end"))
    )
    return f'<svg class="forest" viewBox="0 0 {WIDTH} 16" aria-hidden="true">{ticks}</svg>'


def forest_row(
    axis: Axis,
    lift: float,
    interval: Sequence[float] | None,
    always: Sequence[float] | None,
    tone: str,
    margin: float | None = None,
) -> str:
    """One lift with its fixed-horizon interval (thick), its always-valid one (thin), zero, and a margin (dashed)."""
    middle = ROW / 2
    parts = [f'<line class="zero" x1="{axis.x(0):.1f}" x2="{axis.x(0):.1f}" y1="0" y2="{ROW}"/>']
    if margin is not None and abs(margin) < axis.limit:
        parts.append(f'<line class="margin" x1="{axis.x(margin):.1f}" x2="{axis.x(margin):.1f}" y1="0" y2="{ROW}"/>')
    said = f"lift {percent(lift)}"
    if always:
        left, right = axis.x(always[0]), axis.x(always[1])
        parts.append(f'<line class="thin {tone}" x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}"/>')
        said += f", always valid {percent(always[0])} to {percent(always[1])}"
    if interval:
        left, right = axis.x(interval[0]), axis.x(interval[1])
        parts.append(_bar(tone, left, max(right - left, 1), middle - 5, 10))
        parts += [_cut(axis, bound, middle, tone) for bound in interval if abs(bound) > axis.limit]
        said += f", interval {percent(interval[0])} to {percent(interval[1])}"
    parts.append(f'<circle class="dot" cx="{axis.x(lift):.1f}" cy="{middle}" r="4"/>')
    label = escape(said, quote=True)
    return f'<svg class="forest" viewBox="0 0 {WIDTH} {ROW}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def days_chart(points: Sequence[dict[str, Any]], label: str) -> str:
    """Cumulative lift at the end of each day, with both intervals as bars; days without a lift are left blank."""
    width, height, left, bottom = 640, 230, 58, 26
    axis = Axis.around([point["interval"] for point in points] + [_always(point) for point in points])
    step = (width - left - 10) / max(len(points), 1)

    def y(lift: float) -> float:
        share = (max(-axis.limit, min(axis.limit, lift)) + axis.limit) / (2 * axis.limit)
        return 8 + (1 - share) * (height - bottom - 16)

    parts = []
    for tick in (-axis.limit, -axis.limit / 2, 0.0, axis.limit / 2, axis.limit):
        kind = "zero" if tick == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{left}" x2="{width}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{_tick(tick)}</text>')
    every = math.ceil(len(points) / 8)
    trail = []
    for number, point in enumerate(points):
        x = left + step * (number + 0.5)
        if number % every == 0:
            parts.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle">{escape(point["day"][5:])}</text>')
        if point["lift"] is None:
            continue
        if always := _always(point):
            top, base = (y(bound) for bound in reversed(always))
            parts.append(f'<line class="thin flat" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{base:.1f}"/>')
        if point["interval"]:
            top, base = (y(bound) for bound in reversed(point["interval"]))
            parts.append(_bar("flat", x - 6, 12, top, max(base - top, 1)))
        trail.append(f"{x:.1f},{y(point['lift']):.1f}")
    parts.append(f'<polyline class="trail" points="{" ".join(trail)}"/>')
    parts += [f'<circle class="dot" cx="{at.split(",")[0]}" cy="{at.split(",")[1]}" r="4"/>' for at in trail]
    said = escape(f"Cumulative lift of {label} by day; the table below holds its numbers", quote=True)
    return f'<svg class="days" viewBox="0 0 {width} {height}" role="img" aria-label="{said}">{"".join(parts)}</svg>'


def _tick(lift: float) -> str:
    return f"{lift * 100:+.3g}\u202f%".replace("-", "\u2212") if lift else "0"


def _always(point: dict[str, Any]) -> Sequence[float] | None:
    return point["always_valid"]["interval"] if point["always_valid"] else None


def _bar(tone: str, x: float, width: float, y: float, height: float) -> str:
    return f'<rect class="bar {tone}" x="{x:.1f}" width="{width:.1f}" y="{y:.1f}" height="{height:.1f}" rx="2"/>'


def _cut(axis: Axis, bound: float, middle: float, tone: str) -> str:
    """An arrowhead where an interval runs beyond the axis."""
    x, inward = axis.x(bound), -7 if bound > 0 else 7
    points = f"{x:.1f},{middle} {x + inward:.1f},{middle - 8} {x + inward:.1f},{middle + 8}"
    return f'<polygon class="bar {tone}" points="{points}"/>'


def _round_up(value: float) -> float:
    """The next of 1, 2, 3, 4, 5, 6, 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-6)))
    return next(step * power for step in (1, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * 0.999)
