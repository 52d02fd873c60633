"""The benchmark's arithmetic and its fairness: nothing here depends on how fast anything is."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import exactness, footprint, growth, process_ours, process_peer, prompts, work
from benchmarks.__main__ import NAMES, main
from benchmarks.contest import Entry, Lane, Race, race
from benchmarks.limits import Limits
from benchmarks.lineup import Lineup
from benchmarks.machine import Clocks, others_share
from benchmarks.page import page, terminal
from benchmarks.requirements import Memory, Share, Speed, Verdict, judged
from benchmarks.samples import fit, predict, ratios, spread
from benchmarks.tables import TABLES, Setup
from benchmarks.work import Work
from kosmos2.kernels.kind import Precision
from kosmos2.model import ModelConfig, TextConfig, VisionConfig

SMALL = ModelConfig(
    text=TextConfig(vocab_size=4000, width=128, feedforward_width=256, num_layers=2, num_heads=4),
    vision=VisionConfig(
        width=128, feedforward_width=256, num_layers=1, num_heads=4, image_size=28, patch_size=14
    ),
    num_latents=4,
)
NUMBERS = st.floats(0.1, 1000)
RATES = ("fp32", "bf16", "int8")
SIDES = ("transformers fp32", "ours fp32")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Keep two threads from waiting for each other where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lineup() -> Lineup:
    return Lineup(SMALL)


# --- numbers


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert spread([4.0, 1.0, 3.0, 2.0, 5.0]) == spread([1.0, 2.0, 3.0, 4.0, 5.0])
    found = spread([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.low, found.median, found.high, found.count) == (2, 3, 4, 5)
    assert spread([7.0]).median == spread([7.0]).low == 7


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=9), NUMBERS)
def test_a_slow_minute_for_both_changes_no_ratio(
    rounds: list[tuple[float, float]], slowness: float
) -> None:
    peer, ours = zip(*rounds, strict=True)
    slow_peer, slow_ours = [slowness * peer[0], *peer[1:]], [slowness * ours[0], *ours[1:]]
    assert ratios(slow_peer, slow_ours) == pytest.approx(ratios(peer, ours))


@given(st.tuples(NUMBERS, NUMBERS, NUMBERS))
def test_a_fit_finds_the_line_that_made_the_points(terms: tuple[float, float, float]) -> None:
    rows = [[1.0, n, n * past] for n in (1, 2, 8) for past in (10, 100)]
    found = fit(rows, [predict(row, terms) for row in rows])
    assert found == pytest.approx(list(terms), rel=1e-6, abs=1e-6)


def test_points_that_cannot_tell_the_terms_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="apart"):
        fit([[1.0, 2.0], [1.0, 2.0]], [3.0, 3.0])


def test_held_out_points_do_not_change_the_line() -> None:
    kind = growth.PHRASES
    straight = {point: 10.0 + 2 * point[0] for point in (*kind.fitted, *kind.held_out)}
    bent = straight | {point: 1000.0 for point in kind.held_out}
    line = growth.line(kind, "ours", bent)
    assert line.terms == pytest.approx(growth.line(kind, "ours", straight).terms)
    predicted = {each.point: each.predicted for each in line.points if each.held_out}
    assert predicted == pytest.approx({point: straight[point] for point in kind.held_out})


def test_only_what_others_did_counts_as_their_share() -> None:
    before = Clocks(wall=0, busy=100, own=50)
    assert others_share(before, Clocks(wall=10, busy=120, own=70), cores=2) == 0
    assert others_share(before, Clocks(wall=10, busy=120, own=60), cores=2) == 0.5


# --- limits


def test_the_work_of_the_full_size_is_that_of_the_specification() -> None:
    full = ModelConfig()
    gigabytes = {p: work.decode(full, p, 1, 0).bytes_read / 1e9 for p in ("fp32", "bf16", "int8")}
    assert gigabytes == pytest.approx({"fp32": 5.37, "bf16": 2.68, "int8": 1.34}, abs=0.01)
    assert work.prefill(full, "bf16", 1, 71).operations / 1e9 == pytest.approx(172, abs=1)
    assert work.encode(full, "bf16", 1).operations / 1e9 == pytest.approx(162 + 7.6, abs=1)


def test_a_limit_is_the_longer_of_reading_and_calculating_of_each_stage() -> None:
    limits = Limits(bandwidth=10, rates={"bf16": 100})
    reading, calculating = Work(20, 100, "bf16"), Work(10, 300, "bf16")
    assert limits.seconds((reading,)) == 2
    assert limits.seconds((calculating,)) == 3
    assert limits.seconds((reading, calculating)) == 5
    assert Limits(bandwidth=10, rates={}).seconds((calculating,)) == 1


# --- races


def test_every_contestant_runs_in_every_round_and_none_is_always_first() -> None:
    order: list[str] = []

    def entry(name: str) -> Entry:
        def sample() -> float:
            order.append(name)
            return 1.0

        return Entry(name, sample, (Work(1, 1, "fp32"),))

    found = race([entry(name) for name in "abc"], 3, lambda: 1.0, dict)
    assert order == [*"abc", *"bca", *"cab"]
    assert [lane.seconds for lane in found.lanes] == [(1.0, 1.0, 1.0)] * 3


def made_race(**seconds: tuple[float, ...]) -> Race:
    lanes = tuple(
        Lane(
            name=name.replace("_", " "),
            seconds=values,
            bandwidths=(1e9,) * len(values),
            work=(Work(1e9, 0, "int8"),),
        )
        for name, values in seconds.items()
    )
    return Race(lanes=lanes, rates={}, others=0.0)


def test_a_race_survives_json() -> None:
    before = made_race(ours_int8=(1.0, 2.0), transformers_bf16=(3.0, 4.0))
    assert Race.from_dict(json.loads(json.dumps(before.to_dict()))) == before


def test_a_share_is_the_least_time_over_the_time_taken() -> None:
    found = made_race(ours_int8=(2.0, 4.0, 5.0))
    assert found.share(found.lanes[0]).median == 0.25


# --- requirements


SPEED = Speed(text="s", section="t", ours="ours int8", peer="transformers bf16", factor=3)


@pytest.mark.parametrize(
    ("peer", "verdict"), [((6.0, 6.0), Verdict.MET), ((5.0, 5.0), Verdict.MISSED)]
)
def test_a_speed_is_met_from_its_factor_on(peer: tuple[float, ...], verdict: Verdict) -> None:
    heat = made_race(ours_int8=(2.0, 2.0), transformers_bf16=peer)
    sections = {"t": {"races": [heat.to_dict()]}}
    assert SPEED.judge(sections)[2] is verdict


def test_what_was_not_measured_is_not_met() -> None:
    share = Share(text="s", section="t", ours="ours int8", share=0.9)
    memory = Memory(text="m", setting="ours int8", gigabytes=2)
    others_only = {"t": {"races": [made_race(ours_bf16=(1.0,)).to_dict()]}}
    for sections in ({}, others_only):
        rows = judged(sections, [SPEED, share, memory])
        assert [row[-1] for row in rows] == ["not measured"] * 3


def test_a_peer_of_another_heat_is_no_peer() -> None:
    heats = [made_race(ours_int8=(2.0,)), made_race(transformers_bf16=(9.0,))]
    assert SPEED.judge({"t": {"races": [h.to_dict() for h in heats]}})[2] is Verdict.UNKNOWN


# --- both sides


def test_both_sides_hold_the_same_numbers_in_the_same_memory(lineup: Lineup) -> None:
    (peer,) = lineup.get(["transformers fp32"])
    theirs = peer.model.text_model.model.layers[1].ffn.fc1.weight
    assert lineup.network.decoder.blocks[1].expand.weight.data_ptr() == theirs.data_ptr()


def test_weights_are_the_same_in_every_run(lineup: Lineup) -> None:
    again = dict(Lineup(SMALL).network.named_parameters())
    for name, parameter in lineup.network.named_parameters():
        assert torch.equal(parameter, again[name]), name


def test_both_sides_give_the_same_vectors_logits_and_tokens(lineup: Lineup) -> None:
    peer, ours = lineup.get(SIDES)
    pixels_NCYX, asked = prompts.pictures(SMALL, 2), prompts.captions(SMALL, 2)
    theirs_NQD, ours_NQD = peer.encode(pixels_NCYX), ours.encode(pixels_NCYX)
    torch.testing.assert_close(ours_NQD, theirs_NQD, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        ours.score(asked, ours_NQD), peer.score(asked, theirs_NQD), rtol=1e-3, atol=1e-3
    )
    texts = ours.caption(pixels_NCYX, asked, 12)
    assert texts == peer.caption(pixels_NCYX, asked, 12)
    assert len(set(texts[0])) > 3  # not one token again and again, which would prove little

    phrases = prompts.phrases(SMALL, 5)
    assert ours.answer(phrases, ours_NQD[0], 3) == peer.answer(phrases, theirs_NQD[0], 3)


def test_bare_steps_write_what_generate_writes(lineup: Lineup) -> None:
    peer, ours = lineup.get(SIDES)
    pixels_NCYX, asked = prompts.pictures(SMALL, 1), prompts.captions(SMALL, 1)
    expected = peer.caption(pixels_NCYX, asked, 6)[0]
    theirs_rows = peer.prefill(asked, peer.encode(pixels_NCYX))
    our_rows = ours.prefill(asked, ours.encode(pixels_NCYX))
    written: list[tuple[int, int]] = []
    for _ in expected:
        written.append((int(theirs_rows.next_B1), our_rows.next_ids[0]))
        peer.step(theirs_rows)
        ours.step(our_rows)
    assert written == [(id, id) for id in expected]


@pytest.mark.parametrize("name", SIDES)
def test_a_rewound_row_steps_as_before(lineup: Lineup, name: str) -> None:
    (contestant,) = lineup.get([name])
    asked = prompts.captions(SMALL, 2)
    latents_NQD = contestant.encode(prompts.pictures(SMALL, 2))
    rows, kept = (contestant.prefill(asked, latents_NQD) for _ in range(2))
    first = "next_B1" if hasattr(rows, "next_B1") else "next_ids"
    contestant.step(rows)
    after = [getattr(rows, first)]
    contestant.rewind(rows, asked.length)
    setattr(rows, first, getattr(kept, first))
    contestant.step(rows)
    assert torch.equal(torch.as_tensor(after[0]), torch.as_tensor(getattr(rows, first)))


def test_a_caption_has_71_tokens_at_full_size() -> None:
    asked = prompts.captions(ModelConfig(), 1)
    assert asked.length == 71
    assert prompts.vocabulary(ModelConfig()).size == 65037
    assert int(asked.image_mask_BT.sum()) == 64


# --- memory


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_saved_network_writes_what_it_wrote_before(
    lineup: Lineup, tmp_path: Path, precision: str
) -> None:
    folder = tmp_path / "saved"
    pixels_NCYX, asked = prompts.pictures(SMALL, 1), prompts.captions(SMALL, 1)
    loaders = {f"ours {precision}": process_ours.load}
    if precision == "int8":
        footprint.save_few_bits(lineup.network, folder, Precision.INT8)
    else:
        footprint.save_floats(lineup.network, folder)
        loaders[f"transformers {precision}"] = process_peer.load
    for name, load in loaders.items():
        (kept,), loaded = lineup.get([name]), load(folder, precision)
        assert loaded.caption(pixels_NCYX, asked, 6) == kept.caption(pixels_NCYX, asked, 6)


def test_a_process_of_its_own_tells_seconds_and_gigabytes(lineup: Lineup, tmp_path: Path) -> None:
    footprint.save_floats(lineup.network, tmp_path / "saved")
    found = footprint.in_a_process("ours bf16", tmp_path / "saved")
    assert found["name"] == "ours bf16"
    assert found["file"] > 0
    assert 0.05 < found["peak"] < 3


# --- exactness


def test_a_model_agrees_with_itself_whatever_is_added_to_all_its_logits() -> None:
    logits_MV = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    same = exactness.compare("same", logits_MV, logits_MV + 3)
    assert (same.top1, same.top5, same.worst_rank) == (1, 1, 1)
    assert same.error == pytest.approx(0, abs=1e-6)
    assert same.divergence == pytest.approx(0, abs=1e-9)


def test_the_rank_is_where_the_first_choice_of_the_reference_fell_to() -> None:
    reference_MV = torch.tensor([[9.0, 1, 2, 3, 4, 5, 6], [9.0, 1, 2, 3, 4, 5, 6]])
    logits_MV = torch.tensor([[9.0, 1, 2, 3, 4, 5, 6], [0.0, 1, 2, 3, 4, 5, 6]])
    found = exactness.compare("x", reference_MV, logits_MV)
    assert (found.top1, found.top5, found.worst_rank) == (0.5, 0.5, 7)


def test_texts_are_compared_up_to_the_first_difference() -> None:
    assert exactness.equal_start([1, 2, 3, 4], [1, 2, 9, 4]) == 2
    assert exactness.equal_start([1, 2], [1, 2]) == 2


# --- the whole run, in small


@pytest.fixture(scope="module")
def sections(lineup: Lineup) -> dict[str, Any]:
    """What a run leaves behind, from a model that takes no time."""
    setup = Setup(lineup, lambda: 1e9, lambda: dict.fromkeys(RATES, 1e9), quick=True)
    names = (*SIDES, "transformers bf16", "ours bf16", "ours int8")
    stamp = {
        "commit": "abc", "date": "today", "processor": "one", "cores": 2, "memory_gb": 24,
        "features": ("avx2",), "threads": 2, "torch": "2", "transformers": "5", "python": "3",
        "native": "none", "settings": (),
    }  # fmt: skip
    tables = [replace(table, rounds=1, quick_rounds=1) for table in TABLES]
    found: dict[str, Any] = {}
    for table in tables:
        heat = table.run(names, setup)
        assert heat is not None
        found[table.name] = {"races": [heat.to_dict()], "stamp": stamp}
    lines, others = growth.measure(["ours int8"], setup)
    found["growth"] = {"lines": lines, "others": others, "stamp": stamp}
    found["exactness"] = {
        "agreement": exactness.Exam(setup).agreement(names),
        "tokens": [exactness.same_tokens("ours fp32", "transformers fp32", setup)],
        "stamp": stamp,
    }
    return found


def test_in_float32_ours_is_transformers(sections: dict[str, Any]) -> None:
    exact = sections["exactness"]
    found = {row["name"]: row for row in exact["agreement"]}
    assert found["ours fp32"]["top1"] == 1
    assert found["ours fp32"]["error"] < 1e-4
    assert exact["tokens"][0]["same"] == exact["tokens"][0]["of"]


def test_the_page_follows_from_the_json_alone(sections: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "performance.json"
    path.write_text(json.dumps({"sections": sections}))
    assert main(["--render", "--results", str(path)]) == 0
    text = path.with_suffix(".md").read_text()
    assert text == page(json.loads(path.read_text()))
    for table in TABLES:
        assert f"## {table.title}" in text
        assert table.title in terminal(table.name, sections)
    assert "**ours int8**" in text
    assert " nan" not in text


def test_every_requirement_names_a_section_that_exists() -> None:
    from benchmarks.requirements import REQUIREMENTS

    assert {each.section for each in REQUIREMENTS if not isinstance(each, Memory)} <= set(NAMES)


def test_an_unknown_section_is_refused_with_those_that_exist() -> None:
    with pytest.raises(SystemExit, match="decode-1"):
        main(["--only", "decode-1,speed"])
