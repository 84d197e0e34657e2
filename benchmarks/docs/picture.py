"""The picture of the first screen, docs/picture.svg: what diet_ray does, and what it gains on one log.

    python -m benchmarks.docs.picture

It brings its own background, for light and for dark, and its text is so large that a phone, which shows it at half its size, has 12 pixels.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from benchmarks.docs.figures import Measured, measured
from diet_ray.judge.fidelity.live.result import BLIND, SAME_ROWS

PICTURE = Path(__file__).parents[2] / "docs" / "picture.svg"
WIDTH, TEXT = 640, 22
LABELS, LONGEST = 250, 290
"""Where bars begin, and the length of the longest."""

STYLE = f"""
    text {{ font: {TEXT}px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }}
    .card {{ fill: #ffffff; stroke: #d0d7de }} .box {{ fill: #f0f4f9; stroke: #8c959f }} .head {{ font-weight: 600 }}
    .soft {{ fill: #59636e }} .bar {{ fill: #8c959f }} .ours {{ fill: #0969da }} .arrow {{ stroke: #59636e; fill: none; stroke-width: 2 }}
    @media (prefers-color-scheme: dark) {{
      text {{ fill: #f0f6fc }} .card {{ fill: #0d1117; stroke: #3d444d }} .box {{ fill: #1b2330; stroke: #7d8590 }}
      .soft {{ fill: #b1bac4 }} .bar {{ fill: #7d8590 }} .ours {{ fill: #4493f8 }} .arrow {{ stroke: #b1bac4 }}
    }}
"""


def picture(of: Measured) -> str:
    """The picture, as SVG."""
    task, last = of.live.tasks[0], of.live.blocks[-1]
    full, launch = of.seconds("full"), of.seconds("memory")
    flow = [
        ("click log", f"{last.rows_before / 1e6:.1f} M rows"),
        ("memory", f"{last.units:,} units"),
        ("leaderboard", f"{len(of.live.candidates)} candidates"),
    ]
    parts = _flow(flow, ["distil", "launch"])
    parts += _bars(168, "CPU seconds per candidate", [("full backfill", full, 1), ("from the memory", launch, 1)])
    losses = {
        "blind choice": of.regret(BLIND, task),
        "full backfills": of.regret(SAME_ROWS, task),
        "random rows*": of.regret("random", task),
        "from the memory": of.regret("memory", task),
    }
    parts += _bars(292, "Taking the first choice loses, nats", [(name, loss, 3) for name, loss in losses.items()])
    parts.append(_text(20, 494, f"{of.name}: the first tenth of {len(of.live.blocks)} weeks.", "soft"))
    parts.append(_text(20, 524, "* with the reference's probabilities as labels", "soft"))
    said = (
        f"diet_ray distils a click log into a memory of {of.live.ratio:.0%} of its rows. On {of.name}, a candidate that starts from the "
        f"memory costs {full / launch:.0f} times less CPU than a full backfill, and the first choice loses "
        f"{losses['from the memory']:.3f} nats instead of {losses['full backfills']:.3f}."
    )
    body = "\n".join(f"  {part}" for part in parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="544" viewBox="0 0 {WIDTH} 544" role="img">\n'
        f"  <title>{escape(said)}</title>\n  <style>{STYLE}  </style>\n"
        f'  <rect class="card" x="1" y="1" width="{WIDTH - 2}" height="542" rx="10"/>\n{body}\n</svg>\n'
    )


def _flow(boxes: list[tuple[str, str]], between: list[str]) -> list[str]:
    """Boxes from left to right, with what happens between them."""
    wide, gap = 170, 45
    parts = []
    for index, (name, size) in enumerate(boxes):
        left = 20 + index * (wide + gap)
        middle = left + wide / 2
        parts.append(f'<rect class="box" x="{left}" y="40" width="{wide}" height="84" rx="8"/>')
        parts.append(_text(middle, 75, name, "head", "middle"))
        parts.append(_text(middle, 106, size, "soft", "middle"))
        if index < len(between):
            right = left + wide
            parts.append(f'<path class="arrow" d="M{right + 6} 82 H{right + gap - 8} m-9 -7 l9 7 l-9 7"/>')
            parts.append(_text(right + gap / 2, 30, between[index], "soft", "middle"))
    return parts


def _bars(top: int, heading: str, lines: list[tuple[str, float, int]]) -> list[str]:
    """A heading with a bar per line, each with its value and that many digits; the line of the memory, the last, is in our colour."""
    most = max(value for _, value, _ in lines)
    parts = [_text(20, top, heading, "head")]
    for index, (name, value, digits) in enumerate(lines):
        y, length = top + 14 + 36 * index, round(LONGEST * value / most, 1)
        ours = index == len(lines) - 1
        parts.append(_text(20, y + 22, name))
        colour = "ours" if ours else "bar"
        parts.append(f'<rect class="{colour}" x="{LABELS}" y="{y}" width="{max(length, 2)}" height="28" rx="3"/>')
        parts.append(_text(LABELS + length + 10, y + 22, f"{value:.{digits}f}", "head" if ours else ""))
    return parts


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    place = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:g}" y="{y:g}"{style}{place}>{escape(text)}</text>'


def svg() -> str:
    """The picture of the log on which the memory wins."""
    return picture(measured()["complete-journey-live"])


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
