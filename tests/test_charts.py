import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from evaluation.report import charts

RATIOS = {"interior_0.01-0.1": 0.05, "interior_0.1-0.2": 0.2, "free_0.1-0.2": 0.1, "free_0.2-0.3": 0.25}


def summary(**methods):
    """A summary of PSNR; each method has the means of its classes. The interval is from 1 below to 2 above."""
    rows = [
        {"metric": "psnr", "method": method, "category": category, "mean": mean, "low": mean - 1, "high": mean + 2}
        for method, means in methods.items()
        for category, mean in zip(RATIOS, means, strict=False)
    ]
    return pd.DataFrame(rows)


def drawn(table, ratios=RATIOS, name="psnr"):
    """The charts of a summary as {caption: root element}."""
    scores = pd.DataFrame({"category": list(ratios), "hole_ratio": list(ratios.values())})
    return {caption: ElementTree.fromstring(svg) for caption, svg in charts.charts(table, scores, name)}


def points(chart):
    """The points of a chart as {(method, value): (x, y)}, read from the tooltips."""
    found = {}
    for point in chart.iter("use"):
        if (title := point.find("title")) is not None:
            method, value = title.text.split(": ")
            found[method, float(value)] = float(point.get("x")), float(point.get("y"))
    return found


def ticks(chart):
    """The labels of the axes as ({value: x}, {value: y}), the latter where the lines of the grid are."""
    labels = [text for text in chart.iter("text") if re.fullmatch(r"[\d.]+", text.text)]
    x = {float(text.text): float(text.get("x")) for text in labels if "middle" in text.get("style")}
    grid = [path.get("d") for path in chart.iter("path") if "var(--line," in path.get("style", "")]
    lines = re.findall(r"M 46 (\S+) +L 412 \1", " ".join(grid))
    values = [float(text.text) for text in labels if "end" in text.get("style")]
    return x, dict(zip(values, map(float, lines), strict=True))


def test_points_lie_at_their_values_on_the_axes():
    chart = drawn(summary(a=[20, 30], b=[25, 35]))["interior"]
    x, y = ticks(chart)
    assert x[0] < x[0.2] and y[30] < y[20]  # y points down in SVG
    found = points(chart)
    for (method, value), ratio in {("a", 20): 0.05, ("a", 30): 0.2, ("b", 25): 0.05, ("b", 35): 0.2}.items():
        assert found[method, value][0] == pytest.approx(np.interp(ratio, [0, 0.2], [x[0], x[0.2]]), abs=0.01)
        assert found[method, value][1] == pytest.approx(np.interp(value, [20, 30, 35], [y[20], y[30], y[35]]), abs=0.01)


def test_a_curve_has_the_colour_of_its_method():
    chart = drawn(summary(a=[20, 30], b=[25, 35]))["interior"]
    for point in chart.iter("use"):
        if (title := point.find("title")) is not None:
            assert ("var(--s0," in point.get("style")) == title.text.startswith("a:")
            assert ("var(--s1," in point.get("style")) == title.text.startswith("b:")


def test_the_band_covers_the_interval():
    chart = drawn(summary(a=[20, 30]))["interior"]
    _, y = ticks(chart)
    px = (y[20] - y[30]) / 10  # of 1 dB
    band = next(path for path in chart.iter("path") if path.get("id") and "z" in path.get("d"))
    heights = [float(text) + charts.HEIGHT for text in re.findall(r"[ML] \S+ (\S+)", band.get("d"))]
    assert max(heights) == pytest.approx(y[20] + px, abs=0.05)  # from 1 below the lower mean
    assert min(heights) == pytest.approx(y[30] - 2 * px, abs=0.05)  # to 2 above the higher one


def test_interior_and_free_classes_have_charts_of_their_own_with_one_axis():
    found = drawn(summary(a=[20, 30, 41, 42]))
    assert list(found) == ["interior", "free"]
    assert [value for _, value in points(found["interior"])] == [20, 30]
    assert [value for _, value in points(found["free"])] == [41, 42]
    assert ticks(found["interior"])[1] == ticks(found["free"])[1]


def test_other_classes_share_a_chart():
    ratios = {"grown_00": 0.05, "grown_05": 0.1}
    table = summary(a=[20, 30]).assign(category=list(ratios))
    assert list(drawn(table, ratios)) == ["hole ratio"]


def test_a_single_class_and_a_metric_without_numbers_have_no_chart():
    assert drawn(summary(a=[20])) == {}
    assert drawn(summary(a=[np.nan, np.nan])) == {}


def test_a_class_without_a_mean_is_left_out_of_its_curve():
    ratios = {"interior_0.01-0.1": 0.05, "interior_0.1-0.2": 0.2, "interior_0.2-0.3": 0.3}
    table = summary(a=[20, np.nan, 30]).assign(category=list(ratios))
    chart = drawn(table, ratios)["interior"]
    assert [value for _, value in points(chart)] == [20, 30]


def test_more_methods_than_colours_have_other_dashes():
    chart = drawn(summary(**{f"m{i}": [i, i + 1] for i in range(9)}))["interior"]
    curves = [path.get("style") for path in chart.iter("path") if "stroke-width: 2" in path.get("style", "")]
    assert len(curves) == 9 and "var(--s0," in curves[8]
    assert "dasharray" in curves[8] and not any("dasharray" in style for style in curves[:8])


def test_the_same_chart_is_the_same_text_and_ids_differ_between_charts():
    table = summary(a=[20, 30, 20, 30])
    scores = pd.DataFrame({"category": list(RATIOS), "hole_ratio": list(RATIOS.values())})
    once, again = (charts.charts(table, scores, "psnr") for _ in range(2))
    assert once == again
    ids = [re.findall(r' id="([^"]+)"', svg) for _, svg in once]
    assert ids[0] and not set(ids[0]) & set(ids[1])


def test_settings_of_the_user_do_not_change_a_chart(monkeypatch):
    import matplotlib

    table = summary(a=[20, 30])
    before = ElementTree.tostring(drawn(table)["interior"])
    with matplotlib.rc_context({"lines.markersize": 30, "grid.linewidth": 9, "font.size": 30}):
        assert ElementTree.tostring(drawn(table)["interior"]) == before


def test_the_page_and_the_charts_have_the_same_colours():
    from importlib.resources import files

    css = (files("evaluation.report") / "templates" / "style.css").read_text()
    for colour, variable in charts.VARIABLES.items():
        assert f"{variable}: {colour};" in css
