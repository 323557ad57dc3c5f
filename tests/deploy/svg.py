"""Draws the pictures of docs/ as SVG text: a trace as a waterfall, and a row of the dashboard."""

import math
from itertools import groupby
from xml.sax.saxutils import escape

WIDTH = 900
# An opaque background, so that the picture is readable on light and dark pages.
PAPER, EDGE, GRID, TEXT, FAINT = "#fcfcfa", "#d0d4d9", "#e4e6e9", "#1f2328", "#59636e"
LINES = ("#2563a8", "#c2410c", "#2e7d32", "#7b3fa0", "#9a6b00", "#00707a")
SERVER, CLIENT, FAILED = "#2563a8", "#2e7d32", "#c62828"


class Sheet:
    """A picture that is being drawn."""

    def __init__(self, title, description, by="tests/deploy/pictures.sh"):
        self.title, self.description, self.by, self.parts = title, description, by, []

    def rect(self, x, y, width, height, fill, more=""):
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}"{more}/>')

    def line(self, x1, y1, x2, y2, stroke=GRID):
        self.parts.append(f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="{stroke}"/>')

    def text(self, x, y, text, size=10, fill=TEXT, more=""):
        self.parts.append(f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}"{more}>{escape(text)}</text>')

    def measure(self, x, y, text, anchor="start"):
        """Adds a measured value, which `words` ignores."""
        self.text(x, y, text, 10, FAINT, f' class="measure" text-anchor="{anchor}"')

    def svg(self, height):
        """Returns the picture with this height."""
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
            'role="img" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" fill="none">',
            f"<title>{escape(self.title)}</title>", f"<desc>{escape(self.description)}</desc>",
            f"<!-- Drawn by {self.by} from measurements of the gateway. -->",
            f'<rect x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1:g}" rx="8" fill="{PAPER}" stroke="{EDGE}"/>',
            *self.parts, "</svg>", ""])


def ticks(most, wanted=4):
    """Returns round numbers from 0 to at least `most`."""
    step = 10 ** math.floor(math.log10(most / wanted))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step * wanted >= most * 0.999)
    return [step * number for number in range(math.ceil(most / step - 0.001) + 1)]


def milliseconds(seconds):
    return f"{seconds * 1e3:.3g} ms"


def trace(title, description, spans):
    """Draws spans, the outermost first. Each has `name`, `kind`, `start` and `end` in seconds since the start of the trace,
    `failed`, and `attributes` by name."""
    sheet = Sheet(title, description)
    left, right = 420, WIDTH - 30
    marks = ticks(max(span["end"] for span in spans), 5)
    at = lambda seconds: left + (right - left) * seconds / marks[-1]
    top, y = 72, 98
    sheet.text(20, 28, title, 13, more=' font-weight="bold"')
    sheet.text(20, 45, description, 10, FAINT)
    rows = []
    for span in spans:
        rows.append((y, span))
        y += 18 + 14 * len(span["attributes"]) + 20
    bottom = y - 14
    for mark in marks:
        sheet.line(at(mark), top + 6, at(mark), bottom)
        sheet.measure(at(mark), top, milliseconds(mark) if mark else "0", "middle")
    for y, span in rows:
        inner = 0 if span is spans[0] else 14
        sheet.text(20 + inner, y, span["name"], 12, more=' font-weight="bold"')
        sheet.text(20 + inner, y + 16, f"{span['kind']}{', failed' if span['failed'] else ''}", 10, FAINT)
        for number, (name, value) in enumerate(sorted(span["attributes"].items())):
            sheet.text(20 + inner, y + 30 + 14 * number, f"{name} = {value}", 10)
        width = max(at(span["end"]) - at(span["start"]), 2)
        colour = FAILED if span["failed"] else SERVER if span["kind"] == "SERVER" else CLIENT
        sheet.rect(at(span["start"]), y + 8, width, 16, colour, ' rx="2"')
        sheet.measure(at(span["start"]), y + 38, milliseconds(span["end"] - span["start"]))
    return sheet.svg(bottom + 14)


# Grafana unit -> format of a number.
UNITS = {
    "reqps": lambda value: f"{value:.3g}/s",
    "percentunit": lambda value: f"{value * 100:.3g} %",
    "s": lambda value: milliseconds(value) if value < 1 else f"{value:.3g} s",
}


def row(title, description, seconds, panels):
    """Draws panels side by side over the same time, each with `title`, `unit` and `series`: name -> list of (second, value)."""
    sheet = Sheet(title, description)
    sheet.text(20, 30, title, 13, more=' font-weight="bold"')
    step = (WIDTH - 20) / len(panels)
    top, bottom = 78, 220
    for number, panel in enumerate(panels):
        left, right = 20 + step * number + 48, step * (number + 1) - 4
        sheet.text(20 + step * number, 58, panel["title"], 12, more=' font-weight="bold"')
        values = [value for points in panel["series"].values() for _, value in points if math.isfinite(value)]
        marks = ticks(max(values, default=0) or 1)
        x = lambda second: left + (right - left) * second / seconds
        y = lambda value: bottom - (bottom - top) * value / marks[-1]
        for mark in marks:
            sheet.line(left, y(mark), right, y(mark))
            sheet.measure(left - 6, y(mark) + 3, UNITS[panel["unit"]](mark) if mark else "0", "end")
        for mark in (0, seconds):
            sheet.measure(x(mark), bottom + 16, f"{mark} s", "middle")
        for (name, points), (line, colour) in zip(sorted(panel["series"].items()), enumerate(LINES)):
            for there, run in groupby(points, lambda point: math.isfinite(point[1])):
                if there:
                    way = "L".join(f"{x(second):.1f} {y(value):.1f}" for second, value in run)
                    sheet.parts.append(f'<path d="M{way}" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round"/>')
            sheet.rect(left, bottom + 28 + 15 * line, 12, 3, colour)
            sheet.text(left + 18, bottom + 33 + 15 * line, name, 10)
    legend = max(len(panel["series"]) for panel in panels)
    return sheet.svg(bottom + 34 + 15 * legend)
