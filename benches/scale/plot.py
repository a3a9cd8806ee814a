"""Small charts with a logarithmic axis, as SVG: a row for each kind, a panel for each cost."""

import math

WIDTH, HEIGHT = 215, 150
LEFT, TOP, RIGHT, BOTTOM = 44, 34, 14, 26
INK, FAINT, LINE = "#1f2933", "#9aa5b1", "#2563a8"

# The panels: title, and column of the table.
PANELS = [("memory each, KiB", 1), ("CPU a request, µs", 2), ("latency p50, µs", 3), ("latency p99, µs", 4), ("to make one, µs", 5)]


def draw(kinds):
    """`kinds` maps a name to (heads, rows); a cell may be None."""
    parts, height = [], HEIGHT * len(kinds)
    for line, (name, (_, rows)) in enumerate(kinds.items()):
        for place, (title, column) in enumerate(PANELS):
            parts.append(panel(place * WIDTH, line * HEIGHT, f"{name}: {title}", rows, column))
    width = WIDTH * len(PANELS)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="10" fill="{INK}">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def panel(left, top, title, rows, column):
    points = [(row[0], row[column]) for row in rows if row[column] is not None]
    counts = [row[0] for row in rows]
    highest = nice(max((value for _, value in points), default=1))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    low, span = math.log10(min(counts)), math.log10(max(counts)) - math.log10(min(counts)) or 1

    def x(count):
        return left + LEFT + wide * (math.log10(count) - low) / span

    def y(value):
        return top + TOP + high * (1 - value / highest)

    out = [f'<text x="{left + LEFT}" y="{top + 20}" font-weight="bold">{title}</text>']
    for share in [0, 0.5, 1]:
        value = highest * share
        out.append(f'<path d="M{left + LEFT} {y(value):.1f}h{wide}" stroke="{FAINT}" stroke-width="0.5"/>')
        out.append(f'<text x="{left + LEFT - 4}" y="{y(value) + 3:.1f}" text-anchor="end">{value:,g}</text>')
    for count in counts:
        out.append(f'<text x="{x(count):.1f}" y="{top + HEIGHT - 10}" text-anchor="middle">{count:,}</text>')
    path = " ".join(f"{x(count):.1f},{y(value):.1f}" for count, value in points)
    out.append(f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="1.5"/>')
    out.extend(f'<circle cx="{x(count):.1f}" cy="{y(value):.1f}" r="2.5" fill="{LINE}"/>' for count, value in points)
    return "\n".join(out)


def nice(value):
    """The next 1, 2, 5 or 10 times a power of ten."""
    power = 10 ** math.floor(math.log10(max(value, 1e-9)))
    return next(step * power for step in [1, 2, 5, 10] if step * power >= value)
