from dataclasses import replace
from xml.etree import ElementTree

import pytest

from loadshed.demo.figures import Spread
from loadshed.demo.overload import Plan, Run
from loadshed.demo.picture import draw

SVG = "{http://www.w3.org/2000/svg}"


def parse(picture: str) -> ElementTree.Element:
    return ElementTree.fromstring(picture)  # noqa: S314, it is ours


def texts(picture: str, element: str) -> list[str]:
    return [found.text or "" for found in parse(picture).iter(SVG + element)]


def test_every_value_is_in_the_picture(runs: list[Run], plan: Plan) -> None:
    tips = texts(draw(runs, plan), "title")
    for tip in (
        "0.5x without loadshed: 0.47",
        "0.5x with loadshed: 0.47",
        "10x without loadshed: 0.00",
        "10x with loadshed: 0.98",
        "0.5x without loadshed: 105 ms",
        "0.5x with loadshed: 105 ms",
        "10x without loadshed: nobody was served in time",
        "10x with loadshed: 207 ms",
    ):
        assert tips.count(tip) == 1


def test_both_curves_are_labelled_where_they_end(runs: list[Run], plan: Plan) -> None:
    words = texts(draw(runs, plan), "text")
    assert "with loadshed: 0.98" in words
    assert "without loadshed: 0.00" in words
    assert "with loadshed: 207 ms" in words
    assert "without loadshed: nobody was served in time" in words


def test_both_panels_have_a_tick_for_each_load(runs: list[Run], plan: Plan) -> None:
    words = texts(draw(runs, plan), "text")
    assert words.count("10") == 2
    assert words.count("0.5") == 3  # and one for half the capacity


def test_the_scale_of_the_loads_is_logarithmic(runs: list[Run]) -> None:
    plan = Plan(loads=(1, 2, 4))
    every = [replace(run, load=load) for load in plan.loads for run in runs[:2]]
    root = parse(draw(every, plan))
    ticks = [tick for tick in root.iter(SVG + "text") if tick.attrib["text-anchor"] == "middle"]
    one, two, four = (float(tick.attrib["x"]) for tick in ticks[:3])
    assert [tick.text for tick in ticks[:3]] == ["1", "2", "4"]
    assert two - one == pytest.approx(four - two, abs=0.1)


def test_one_load_alone_can_be_drawn(runs: list[Run]) -> None:
    words = texts(draw(runs[2:], Plan(loads=(10,))), "text")
    assert "with loadshed: 0.98" in words


def test_goodput_above_its_capacity_stays_inside_the_panel(runs: list[Run], plan: Plan) -> None:
    more = replace(runs[-1], figures=replace(runs[-1].figures, goodput=1.5))
    root = parse(draw([*runs[:-1], more], plan))
    points = [rect for rect in root.iter(SVG + "rect") if rect.attrib["width"] == "10"]
    in_the_legend, in_the_panels = points[:2], points[2:]
    lowest = max(float(point.attrib["y"]) for point in in_the_legend)
    assert all(float(point.attrib["y"]) > lowest + 40 for point in in_the_panels)


def test_an_answer_after_the_deadline_stays_inside_the_panel(runs: list[Run], plan: Plan) -> None:
    slow = replace(runs[-1], figures=replace(runs[-1].figures, served=Spread(0.4, 0.6)))
    assert "with loadshed: 600 ms" in texts(draw([*runs[:-1], slow], plan), "text")


def test_the_picture_needs_nothing_from_elsewhere(runs: list[Run], plan: Plan) -> None:
    picture = draw(runs, plan)
    assert "href" not in picture
    assert "url(" not in picture
    assert picture.count("http") == 1  # the namespace
