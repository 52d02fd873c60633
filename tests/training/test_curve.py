"""The learning curve shows every line of the logs, and nothing before there is one."""

import json
from pathlib import Path
from xml.etree import ElementTree

from kosmos2.training import journal
from kosmos2.training.curve import write_curve

SVG = "{http://www.w3.org/2000/svg}"


def test_every_logged_value_is_a_point_inside_the_picture(tmp_path: Path) -> None:
    log = [
        {
            "step": n,
            "pictures": 16 * n,
            "text_loss": 7 / n,
            "location_loss": 8 / n,
            "patch_loss": 1.0,
        }
        for n in range(1, 8)
    ]
    exams = [{"step": n, "find_accuracy": n / 8, "mean_iou": n / 9} for n in (3, 6)]
    (tmp_path / journal.LOG).write_text("".join(json.dumps(line) + "\n" for line in log))
    (tmp_path / journal.EVALUATIONS).write_text("".join(json.dumps(e) + "\n" for e in exams))

    write_curve(tmp_path)

    drawn = ElementTree.fromstring((tmp_path / "curve.svg").read_text("utf-8"))
    lines = [line.attrib["points"].split() for line in drawn.iter(f"{SVG}polyline")]
    assert [len(points) for points in lines] == [7, 7, 7, 2, 2]
    for points in lines:
        for x, y in (map(float, point.split(",")) for point in points):
            assert 0 <= x <= 420
            assert 0 <= y <= 260


def test_a_run_without_a_log_has_no_curve(tmp_path: Path) -> None:
    write_curve(tmp_path)
    assert not list(tmp_path.iterdir())
