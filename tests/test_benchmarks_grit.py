"""The arithmetic of the data-set builder's benchmark; nothing here depends on how fast it is."""

from typing import Any

import pytest

from benchmarks import grit_drivers, grit_gpu, grit_page, grit_quality, grit_scale
from benchmarks.grit_pictures import chart
from benchmarks.grit_quality import Judged, judge, shares
from kosmos2.records.record import Grounded

STAMP = {
    "commit": "abc", "date": "2026-01-01T00:00:00", "processor": "P", "cores": 2,
    "memory_gb": 24.0, "python": "3.11", "torch": "2", "native": "none",
}  # fmt: skip
KNOWN = grit_scale.Constants(
    list_bytes=300, looked_bytes=100, record_bytes=600, marker_bytes=1000, unit_inodes=3,
    unit_driver=0.06, pair_worker=0.005, pair_choose=1e-4, base_bytes=4e8, pair_bytes=10,
    hash_bytes=200,
)  # fmt: skip


def entry(start: int, end: int, x: float, score: float = 1.0) -> Grounded:
    """Return a pair whose box has a side of 0.2 and begins at x."""
    return Grounded(start, end, x, 0.1, x + 0.2, 0.3, score)


# --- what is right


def test_a_pair_is_right_only_where_words_and_box_are() -> None:
    truth = [entry(0, 5, 0.1)]
    assert judge(truth, [entry(2, 9, 0.12)]) == Judged((entry(2, 9, 0.12),), (), ())
    for said in (entry(5, 9, 0.1), entry(0, 5, 0.25)):
        assert judge(truth, [said]) == Judged((), (said,), tuple(truth))


def test_the_truth_is_used_once_and_by_the_surest() -> None:
    unsure, sure = entry(0, 5, 0.1, 0.4), entry(0, 5, 0.11, 0.9)
    assert judge([entry(0, 5, 0.1)], [unsure, sure]) == Judged((sure,), (unsure,), ())


def test_each_pair_takes_the_box_that_it_overlaps_most() -> None:
    near, far = entry(0, 5, 0.1), entry(0, 5, 0.15)
    found = judge([near, far], [entry(0, 5, 0.14, 0.9), entry(0, 5, 0.1, 0.8)])
    assert (len(found.right), found.wrong, found.missed) == (2, (), ())


def test_shares_count_scenes_without_a_record_as_missed() -> None:
    hit = Judged((entry(0, 5, 0.1),), (entry(0, 5, 0.5),), ())
    found = shares([hit, Judged((), (), (entry(0, 5, 0.1), entry(6, 9, 0.1)))])
    assert (found["precision"], found["recall"]) == (0.5, pytest.approx(1 / 3))
    assert found["f1"] == pytest.approx(0.4)
    assert shares([])["precision"] == 0


# --- drivers


def test_what_a_driver_takes_to_start_is_not_counted_to_its_units() -> None:
    few, many = grit_drivers.FEW, grit_drivers.MANY
    plain = [(few * 0.1, many * 0.1)] * 3
    driven = [(7 + few * 0.13, 7 + many * 0.13)] * 3
    found = grit_drivers.overhead("some", driven, plain)
    assert found["beyond"] == pytest.approx([0.03] * 3)
    assert found["start"] == pytest.approx(7)
    assert found["share"] == pytest.approx(0.03 / 60)


# --- on paper


@pytest.mark.parametrize("rate", grit_scale.RATES)
def test_units_hold_all_pairs_and_files_follow_from_units(rate: int) -> None:
    found = grit_scale.layout(KNOWN, rate)
    assert (found.units - 1) * found.unit_pairs < grit_scale.PAIRS
    assert found.units * found.unit_pairs >= grit_scale.PAIRS
    assert found.inodes == 3 * found.units
    assert found.bytes_on_disk == grit_scale.PAIRS * 1000 + found.units * 1000


def test_time_falls_with_gpus_and_the_driver_gets_busier() -> None:
    runs = [grit_scale.run(KNOWN, 24, gpus) for gpus in grit_scale.GPUS]
    assert runs[0].looking == pytest.approx(runs[1].looking * 8)
    assert runs[0].looking == pytest.approx(1e8 / (8 * 24) * 1.001)
    assert runs[2].driver_busy == pytest.approx(512 * 0.06 / 60.06)


# --- the page


def sections() -> dict[str, Any]:
    base = {"stamp": STAMP, "others": 0.1, "command": "python -m benchmarks.grit"}
    share = {"rates": {"bare": 500, "ours": 460}, "share": [0.92, 0.9, 0.94], "rounds": 9,
             "captions": 256, "words": 10.0, "model": "sm"}  # fmt: skip
    driver = {"driver": "pool, 1 worker", "unit": 0.2, "plain": 0.1, "beyond": [0.1, 0.1, 0.1],
              "share": 0.03, "start": 4.0, "rounds": 5}  # fmt: skip
    select = {"pairs": 10, "seconds": 1.0, "peak": 0.2}
    disk = {"list": 300, "looked": 100, "records": 600, "marker": 300, "inodes": 3}
    row = {"pairs": 10, "records": 10, "units": 1, "seconds": 1, "used": 1, "peak": 0.4,
           "select": select, "disk": disk}  # fmt: skip
    quality = {**shares([Judged((entry(0, 5, 0.1),), (), ())]), "seconds": 1.0, "funnel": {}}
    sweep = [{"threshold": 0.5, "records": 1, **quality}]
    return {
        "language": {"sets": {"captions": share}, **base},
        "drivers": {"drivers": [driver], **base},
        "rate": {"wall": [90.0], "core": [100.0], "stages": {"parsing": 0.001},
                 "pictures": "JPEGs", "pairs": 100, **base},
        "memory": {"rows": [row, {**row, "pairs": 30, "peak": 0.5}],
                   "hash_bytes": {"0": 200.0, "4": 900.0}, **base},
        "quality": {"scenes": 1, "oracle": quality, "embedded": quality, "sweep": sweep,
                    "default": 0.5, **base},
    }  # fmt: skip


def test_the_page_says_plainly_what_was_met_and_what_was_missed() -> None:
    said = grit_page.page(sections())
    assert "| language step beside bare `nlp.pipe`, captions | ≥ 90% of its captions/s" in said
    language, driver, memory = (
        next(line for line in said.splitlines() if line.startswith(f"| {start}"))
        for start in ("language step", "framework", "peak memory of `grit build`")
    )
    assert language.endswith("| met |")
    assert driver.endswith("| 3.000% | **missed** |")
    assert memory.endswith("| +25.0% | **missed** |")


def test_a_page_of_some_parts_has_no_others() -> None:
    only = {"language": sections()["language"]}
    said = grit_page.page(only)
    assert "on paper" not in said and "threshold" not in said


def test_the_chart_leaves_out_thresholds_that_leave_no_pair() -> None:
    rows = [
        {"threshold": 0.5, "precision": 0.9, "recall": 0.8, "f1": 0.85, "said": 10},
        {"threshold": 0.9, "precision": 0.0, "recall": 0.0, "f1": 0.0, "said": 0},
    ]
    assert chart(rows).count("336.0,") == 3
    assert "563.2," not in chart(rows)


def test_the_best_threshold_has_the_highest_f1() -> None:
    rows = [{"f1": 0.2}, {"f1": 0.9}, {"f1": 0.5}]
    assert grit_quality.best(rows) == {"f1": 0.9}


# --- a GPU


def test_the_measurement_on_a_gpu_runs_over_a_toy() -> None:
    pytest.importorskip("transformers")
    said = "\n".join(grit_gpu.measure(grit_gpu.tiny(), "cpu", "fp32"))
    assert "| 2 |" in said and "GPU busy" in said
