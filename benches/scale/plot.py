"""Small multiples on a logarithmic axis, as SVG: one row a kind, one panel a cost."""

import math

WIDTH, HEIGHT = 250, 150
LEFT, TOP, RIGHT, BOTTOM = 44, 34, 14, 26
INK, FAINT, LINES = "#1f2933", "#9aa5b1", ["#2563a8", "#c2570c"]

# What a panel shows: title, and the columns whose lines it has.
PANELS = [("memory each, KiB", [1]), ("CPU a request, µs", [2]), ("latency p50 and p99, µs", [3, 4]), ("to open or make one, µs", [5])]


def draw(kinds):
    """`kinds` is name → (heads, rows); a cell may be None."""
    parts, height = [], HEIGHT * len(kinds)
    for line, (name, (_, rows)) in enumerate(kinds.items()):
        for place, (title, columns) in enumerate(PANELS):
            parts.append(panel(place * WIDTH, line * HEIGHT, f"{name}: {title}", rows, columns))
    width = WIDTH * len(PANELS)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="10" fill="{INK}">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def panel(left, top, title, rows, columns):
    points = [[(row[0], row[column]) for row in rows if row[column] is not None] for column in columns]
    counts = [row[0] for row in rows]
    highest = nice(max((value for line in points for _, value in line), default=1))
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
    for line, colour in zip(points, LINES):
        path = " ".join(f"{x(count):.1f},{y(value):.1f}" for count, value in line)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out.extend(f'<circle cx="{x(count):.1f}" cy="{y(value):.1f}" r="2.5" fill="{colour}"/>' for count, value in line)
    return "\n".join(out)


def nice(value):
    """The next 1, 2, 5 or 10 times a power of ten."""
    power = 10 ** math.floor(math.log10(max(value, 1e-9)))
    return next(step * power for step in [1, 2, 5, 10] if step * power >= value)
