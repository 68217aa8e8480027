"""Plots as SVG, by hand: bars, and lines."""

import math
from html import escape

WIDTH, HEIGHT = 760, 320
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 60
COLORS = {
    "plain": "#8a8f98",
    "plain again": "#c3c7cd",
    "native": "#4c78a8",
    "callout": "#e4572e",
    "router": "#f2a541",
    "TensorZero": "#59a14f",
    "LiteLLM": "#9467bd",
}


def bars(title, unit, groups, series, log=False):
    """`groups`: values by name of the series, by group. A value may be missing."""
    scale = Scale([value for group in groups.values() for value in group.values()], log)
    parts = []
    labelled = len(series) <= 3
    step = (WIDTH - LEFT - RIGHT) / len(groups)
    wide = 0.8 * step / len(series)
    for number, (group, values) in enumerate(groups.items()):
        start = LEFT + number * step + 0.1 * step
        parts.append(text(start + 0.4 * step, HEIGHT - BOTTOM + 18, group))
        for place, name in enumerate(series):
            if name in values:
                x, y = start + place * wide, scale.y(values[name])
                parts.append(rectangle(x, y, wide - 1, HEIGHT - BOTTOM - y, COLORS[name]))
                if labelled:
                    parts.append(text(x + wide / 2, y - 4, short(values[name]), size=9))
    return picture(title, unit, scale, series, parts)


def lines(title, unit, axis, series):
    """`series`: values by place on the axis, by name. Both axes are logarithmic."""
    places = sorted({place for values in series.values() for place in values})
    scale = Scale([value for values in series.values() for value in values.values()], True)
    low, high = math.log(places[0]), math.log(places[-1])

    def x(place):
        return LEFT + 20 + (math.log(place) - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT - 60)

    parts = [text(x(place), HEIGHT - BOTTOM + 18, axis(place)) for place in places]
    for name, values in series.items():
        points = [(x(place), scale.y(value)) for place, value in sorted(values.items())]
        joined = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{COLORS[name]}" stroke-width="2"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{COLORS[name]}"/>' for px, py in points]
    return picture(title, unit, scale, series, parts)


class Scale:
    """The vertical axis: from 0, or logarithmic from the power of ten below."""

    def __init__(self, values, log):
        self.log = log
        top = max(values)
        if log:
            self.low, self.high = math.floor(math.log10(min(values))), math.ceil(math.log10(top * 1.1))
            self.marks = [10**power for power in range(self.low, self.high + 1)]
        else:
            step = 10 ** math.floor(math.log10(top / 2))
            step = next(step * factor for factor in (1, 2, 5, 10) if top / (step * factor) <= 5)
            self.low, self.high = 0, step * math.ceil(top * 1.05 / step)
            self.marks = [step * number for number in range(round(self.high / step) + 1)]

    def y(self, value):
        value = math.log10(value) if self.log else value
        return HEIGHT - BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def picture(title, unit, scale, series, parts):
    """Axes, legend and frame around the parts."""
    head = [text(LEFT, 18, title, "start", 14), text(WIDTH - RIGHT, 18, unit, "end", 11)]
    for mark in scale.marks:
        y = scale.y(mark)
        head.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e5e8"/>')
        head.append(text(LEFT - 6, y + 4, short(mark), "end"))
    for number, name in enumerate(series):
        x = LEFT + number * 105
        head.append(rectangle(x, HEIGHT - 22, 10, 10, COLORS[name]))
        head.append(text(x + 14, HEIGHT - 13, name, "start"))
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    return "\n".join([frame, '<rect width="100%" height="100%" fill="#fff"/>', *head, *parts, "</svg>\n"])


def rectangle(x, y, width, height, color):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}"/>'


def text(x, y, words, anchor="middle", size=11):
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {place} fill="#333">{escape(str(words))}</text>'


def short(value):
    """A number in three digits."""
    for limit, sign in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{sign}"
    return f"{value:.3g}"
