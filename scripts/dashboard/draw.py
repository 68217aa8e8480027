"""Draws a Grafana dashboard as SVG: as much of it as envoy/observability/dashboard.json uses."""

import math
import re
from collections import namedtuple
from html import escape

# `answers`: by expression, a list of (labels, [[time, value], …]).
Results = namedtuple("Results", "start end step answers")

MARGIN, COLUMN, UNIT, GAP = 16, 52, 26, 8
HEAD = 58
COLORS = {"green": "#56a64b", "blue": "#3274d9", "red": "#e02f44", "orange": "#ff780a", "purple": "#a352cc", "text": "#24292e"}
# For series without a colour of their own.
PALETTE = ["#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300",
           "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477"]
GRID, INK, DIM = "#e8eaed", "#24292e", "#70757d"


def dashboard(board, results):
    panels = board["panels"]
    high = HEAD + max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) * UNIT + MARGIN
    wide = 2 * MARGIN + 24 * COLUMN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif">',
        rectangle(0, 0, wide, high, "#f4f5f5"),
        text(MARGIN, 26, board["title"], size=18, bold=True),
        text(MARGIN, 44, "Drawn by scripts/dashboard from dashboard.json and a real Prometheus, which read two gateways of the "
             "demo. Series that are always 0 are left out. Time in minutes.", color=DIM),
    ]
    for panel in panels:
        parts += Panel(panel, results).parts()
    return "\n".join([*parts, "</svg>\n"])


class Panel:
    def __init__(self, panel, results):
        self.panel, self.results = panel, results
        place = panel["gridPos"]
        self.x, self.y = MARGIN + place["x"] * COLUMN, HEAD + place["y"] * UNIT
        self.wide, self.high = place["w"] * COLUMN - GAP, place["h"] * UNIT - GAP
        self.defaults = panel.get("fieldConfig", {}).get("defaults", {})

    def parts(self):
        if self.panel["type"] == "row":
            return [text(self.x, self.y + 15, "⌄ " + self.panel["title"], size=13, bold=True)]
        draw = {"timeseries": self.timeseries, "stat": self.stat, "state-timeline": self.timeline, "table": self.table}
        frame = rectangle(self.x, self.y, self.wide, self.high, "#fff", 'rx="3" stroke="#dcdee1"')
        return [frame, text(self.x + 8, self.y + 16, self.panel["title"], bold=True), *draw[self.panel["type"]]()]

    def series(self):
        """As `every`, but what is always 0 is left out where anything else is not."""
        found = self.every()
        return {name: values for name, values in found.items() if any(values.values())} or found

    def every(self):
        """Names, and values by step. Gaps have none."""
        found = {}
        for target in self.panel["targets"]:
            for labels, values in self.results.answers[target["expr"]]:
                name = re.sub(r"{{(\w+)}}", lambda word: labels.get(word[1], ""), target.get("legendFormat", "")).strip()
                numbers = {round((float(at) - self.results.start) / self.results.step): float(value) for at, value in values}
                found[name] = {at: value for at, value in numbers.items() if math.isfinite(value)}
        return {name: values for name, values in sorted(found.items()) if values}

    def color(self, name, number):
        for override in self.panel["fieldConfig"]["overrides"]:
            if override["matcher"]["options"] == name:
                color = override["properties"][0]["value"]["fixedColor"]
                return COLORS.get(color, color)
        return PALETTE[number % len(PALETTE)]

    def timeseries(self):
        series = self.series()
        colors = {name: self.color(name, number) for number, name in enumerate(series)}
        legend, rows = self.legend(colors)
        if not series:
            return [text(self.x + self.wide / 2, self.y + self.high / 2, "No data", "middle", color=DIM)]
        stacked = "stacking" in self.defaults["custom"]
        layers = stack(series) if stacked else {name: (None, values) for name, values in series.items()}
        top = max(value for _, values in layers.values() for value in values.values())
        marks = nice_marks(top, self.defaults["unit"])
        left, right = self.x + 58, self.x + self.wide - 10
        low, high = self.y + self.high - 24 - 14 * rows, self.y + 30

        def y(value):
            return low - value / marks[-1] * (low - high)

        parts = [part for mark in marks for part in (
            line(left, y(mark), right, y(mark)), text(left - 6, y(mark) + 3, shown(mark, self.defaults["unit"]), "end", 10, DIM))]
        x, times = self.times(left, right, low)
        for name, (below, values) in layers.items():
            for piece in pieces(values):
                over = points([(x(at), y(values[at])) for at in piece])
                if below is None:
                    parts.append(f'<path d="M{over}" fill="none" stroke="{colors[name]}" stroke-width="1.3"/>')
                else:
                    under = points([(x(at), y(below[at])) for at in reversed(piece)])
                    parts.append(f'<path d="M{over} {under}z" fill="{colors[name]}" fill-opacity="0.7"/>')
        return parts + times + legend

    def times(self, left, right, low):
        """The axis of time: where a step is, and its marks."""
        steps = (self.results.end - self.results.start) / self.results.step

        def x(step):
            return left + step / steps * (right - left)

        minutes = range(int((self.results.end - self.results.start) / 60) + 1)
        return x, [text(x(60 * one / self.results.step), low + 13, one, "middle", 10, DIM) for one in minutes]

    def legend(self, colors):
        """The parts, and how many rows they take: at most three."""
        rows, x = [[]], self.x + 10
        for name, color in colors.items():
            wide = 22 + 5.9 * len(name)
            if x + wide > self.x + self.wide - 6 and rows[-1]:
                rows.append([])
                x = self.x + 10
            rows[-1].append((x, name, color))
            x += wide
        if len(rows) > 3:
            left_out = sum(map(len, rows[3:])) + 1
            rows = rows[:3]
            rows[-1][-1] = (rows[-1][-1][0], f"and {left_out} more", "#fff")
        parts = []
        for number, row in enumerate(rows):
            y = self.y + self.high - 7 - 14 * (len(rows) - 1 - number)
            for x, name, color in row:
                parts += [rectangle(x, y - 5, 10, 3, color), text(x + 14, y, name, size=10)]
        return parts, len(rows)

    def stat(self):
        found = self.results.answers[self.panel["targets"][0]["expr"]]
        value = float(found[0][1][0][1]) if found else math.nan
        steps = [step for step in self.defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]]
        word = shown(value, self.defaults["unit"], self.defaults.get("decimals", 0)) if math.isfinite(value) else "No data"
        color = COLORS[steps[-1]["color"]]
        return [text(self.x + self.wide / 2, self.y + self.high / 2 + 22, word, "middle", 34, color, bold=True)]

    def timeline(self):
        series = self.every()
        options = self.defaults["mappings"][0]["options"]
        legend, _ = self.legend({one["text"]: COLORS[one["color"]] for one in options.values()})
        left, right, low = self.x + 74, self.x + self.wide - 10, self.y + self.high - 38
        step = (low - self.y - 30) / max(len(series), 1)
        x, times = self.times(left, right, low)
        parts = []
        for number, (name, values) in enumerate(series.items()):
            y = self.y + 30 + number * step
            parts.append(text(left - 6, y + step / 2 + 3, name, "end", 10, DIM))
            for piece in same(values):
                color = COLORS[options[str(int(values[piece[0]]))]["color"]]
                end = min(x(piece[-1] + 1), right)
                parts.append(rectangle(x(piece[0]), y + 2, end - x(piece[0]), step - 4, color, 'fill-opacity="0.75"'))
        return parts + times + legend

    def table(self):
        organize = self.panel["transformations"][0]["options"]
        fields = sorted(organize["indexByName"], key=organize["indexByName"].get)
        rows = [[organize["renameByName"].get(field, field) for field in fields]]
        for labels, values in self.results.answers[self.panel["targets"][0]["expr"]]:
            rows.append([f"{float(values[0][1]):.0f}" if field == "Value" else labels.get(field, "") for field in fields])
        wide = (self.wide - 16) / len(fields)
        return [text(self.x + 10 + column * wide, self.y + 40 + 20 * number, cell, color=INK if number else DIM)
                for number, row in enumerate(rows) for column, cell in enumerate(row)]


def stack(series):
    """Each layer's lower and upper edge."""
    below = dict.fromkeys(sorted({at for values in series.values() for at in values}), 0.0)
    layers = {}
    for name, values in series.items():
        above = {at: base + values.get(at, 0.0) for at, base in below.items()}
        layers[name] = (below, above)
        below = above
    return layers


def pieces(values):
    """Runs of steps without a gap."""
    runs = []
    for at in sorted(values):
        if runs and runs[-1][-1] == at - 1:
            runs[-1].append(at)
        else:
            runs.append([at])
    return runs


def same(values):
    """Runs of steps with the same value."""
    runs = []
    for at in sorted(values):
        if runs and runs[-1][-1] == at - 1 and values[at] == values[runs[-1][0]]:
            runs[-1].append(at)
        else:
            runs.append([at])
    return runs


def points(places):
    """A path through places, without those in the middle of a level line."""
    written = [(f"{x:.0f}", f"{y:.1f}") for x, y in places]
    neighbours = zip([None, *written], written, [*written[1:], None])
    return " ".join(",".join(here) for before, here, after in neighbours
                    if not (before and after and before[1] == here[1] == after[1]))


def nice_marks(top, unit):
    """From 0, at most six."""
    base = 1024 ** int(math.log(max(top, 1), 1024)) if unit == "bytes" else 1
    top = max(top / base, 1e-9) if top else 1.0
    step = 10 ** math.floor(math.log10(top / 2))
    step = next(step * factor for factor in (1, 2, 5, 10) if top / (step * factor) <= 4)
    return [base * step * number for number in range(math.ceil(top / step * 0.999) + 1)]


def shown(value, unit, decimals=None):
    if unit == "percentunit":
        return f"{100 * value:.{decimals or 0}f}%" if decimals is not None else f"{100 * value:.3g}%"
    if unit == "ms":
        return f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.3g} ms"
    if unit == "bytes":
        return f"{value / 2**20:.3g} MiB"
    ending = {"reqps": " req/s", "ops": " ops/s"}.get(unit, "")
    if value >= 1000 and decimals is None:
        return f"{value / 1000:.3g} K{ending}"
    return (f"{value:.{decimals}f}" if decimals is not None else f"{value:.3g}") + ending


def rectangle(x, y, wide, high, color, more=""):
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="{wide:.0f}" height="{high:.0f}" fill="{color}" {more}/>'


def line(x1, y1, x2, y2):
    return f'<path d="M{x1:.0f},{y1:.1f} {x2:.0f},{y2:.1f}" stroke="{GRID}"/>'


def text(x, y, words, anchor="start", size=12, color=INK, bold=False):
    weight = ' font-weight="600"' if bold else ""
    place = f'x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {place}{weight} fill="{color}">{escape(str(words))}</text>'
