"""Reads the output of `perf script`, prints the functions that take most time, and writes a flame graph to the file named by the first argument."""

import collections
import html
import re
import sys

WIDTH, ROW, TOP = 1200, 16, 24


def stacks(lines):
    """The functions of each sample, outermost first."""
    frames = []
    for line in lines:
        line = line.rstrip()
        if not line:
            if frames:
                yield frames[::-1]
            frames = []
        elif line[0] in " \t":
            name = line.split(None, 1)[1].rsplit(" (", 1)[0]
            frames.append(plain(name))
    if frames:
        yield frames[::-1]


def plain(name):
    """A function's name without its offset, its hash and its generic parameters."""
    name = re.sub(r"\+0x[0-9a-f]+$", "", name)
    name = re.sub(r"::h[0-9a-f]{16}", "", name)
    name = re.sub(r"\[[0-9a-f]{16}\]", "", name)
    while (shorter := re.sub(r"<[^<>]*>", "", name)) != name and shorter.strip(":"):
        name = shorter
    return name.strip(":") or "[unknown]"


class Frame:
    def __init__(self):
        self.count, self.callees = 0, {}

    def add(self, stack):
        self.count += 1
        if stack:
            self.callees.setdefault(stack[0], Frame()).add(stack[1:])


def rectangles(name, frame, left, depth, whole, out):
    wide = WIDTH * frame.count / whole
    if wide < 0.5:
        return depth
    hue = 210 if name.startswith(("exitgate", "_R")) else 30 if depth < 3 or "::" in name else 0
    label = html.escape(name)
    shown = html.escape(name[: int(wide / 6.2)]) if wide > 30 else ""
    out.append(
        f'<g><title>{label}: {100 * frame.count / whole:.1f} %</title><rect x="{left:.1f}" y="{TOP + depth * ROW}" width="{wide:.1f}" '
        f'height="{ROW - 1}" fill="hsl({hue},60%,78%)"/><text x="{left + 2:.1f}" y="{TOP + depth * ROW + 11}">{shown}</text></g>'
    )
    deepest, at = depth, left
    for callee, below in sorted(frame.callees.items()):
        deepest = max(deepest, rectangles(callee, below, at, depth + 1, whole, out))
        at += WIDTH * below.count / whole
    return deepest


def main():
    root, own, total = Frame(), collections.Counter(), collections.Counter()
    for stack in stacks(sys.stdin):
        root.add(stack)
        own[stack[-1]] += 1
        total.update(set(stack))
    if not root.count:
        sys.exit("no samples")
    print(f"{root.count} samples")
    for title, counts in [("by itself", own), ("with what it calls", total)]:
        print(f"  {title}:")
        for name, count in counts.most_common(40):
            print(f"    {100 * count / root.count:5.1f} %  {name}")
    out = []
    deepest = rectangles("all", root, 0, 0, root.count, out)
    height = TOP + (deepest + 1) * ROW
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="10">\n'
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n' + "\n".join(out) + "\n</svg>\n"
        )


main()
