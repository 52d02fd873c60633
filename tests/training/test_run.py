"""A run from a recipe to a model folder, stopped and gone on with."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from own_cases import record, squares, write
from PIL import Image
from run_cases import RECIPE, changed
from scene_shapes import shapes
from torch.distributed.checkpoint import state_dict_saver

from kosmos2 import Kosmos2, config
from kosmos2.errors import Kosmos2Error, TrainingError
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.records.store import Writer
from kosmos2.scenes import Sprites
from kosmos2.training import build, checkpoint
from kosmos2.training.evaluate import Evaluation
from kosmos2.training.meter import Progress
from kosmos2.training.recipe import ScenesRecipe, SourceRecipe, TrainRecipe
from kosmos2.training.run import resume, run
from kosmos2.vocab.tokenizer import Tokenizer

News = Progress | Evaluation
CPU = torch.device("cpu")
LONGER = changed(RECIPE, "optimizer", steps=7)


class KilledError(Exception):
    """What a test stops a run with."""


@pytest.fixture(scope="module", autouse=True)
def few_words() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(build, "VOCABULARY_SCENES", 15)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of seven steps that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    start(LONGER, out)
    return out


def start(recipe: TrainRecipe, out: Path) -> list[News]:
    news: list[News] = []
    run(recipe, out, shapes(), CPU, report=news.append)
    return news


def go_on(recipe: TrainRecipe, out: Path) -> list[News]:
    news: list[News] = []
    resume(recipe, out, shapes(), CPU, report=news.append)
    return news


def start_and_kill(recipe: TrainRecipe, out: Path, last: type[News], step: int) -> None:
    """Run until this kind of news of this step comes, and end there as a kill would."""

    def report(news: News) -> None:
        if isinstance(news, last) and news.step == step:
            raise KilledError

    with pytest.raises(KilledError):
        run(recipe, out, shapes(), CPU, report=report)


def lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_times(path: Path) -> list[dict[str, float]]:
    timed = ("pictures_per_second", "tokens_per_second", "waiting_share", "mfu")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines(path)]


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = (checkpoint.weights(folder, checkpoint.last(folder)) for folder in (one, other))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_a_run_leaves_all_that_it_promises(tmp_path: Path) -> None:
    news = start(RECIPE, tmp_path / "run")

    out = tmp_path / "run"
    stored = json.loads((out / "recipe.json").read_text())
    assert config.build(TrainRecipe, stored, where="stored") == RECIPE
    assert Tokenizer.from_folder(out).vocabulary.bins == 8
    assert checkpoint.last(out) == 3
    log, exams = lines(out / "log.jsonl"), lines(out / "evaluation.jsonl")
    assert [line["step"] for line in log] == [1, 2, 3]
    assert [line["step"] for line in exams] == [2, 3]
    assert [dataclasses.asdict(each) for each in news if isinstance(each, Progress)] == log
    assert [dataclasses.asdict(each) for each in news if isinstance(each, Evaluation)] == exams
    for step in (2, 3):
        with Image.open(out / f"preview-{step:06d}.png") as preview:
            preview.load()
    assert not list(out.glob("*.partial"))

    model = Kosmos2.load(out / "model")
    scene = build.scene_maker(RECIPE, RECIPE.sources[0], shapes(), split="iid").scene(0)
    assert model.find(Image.fromarray(scene.image), scene.groups[0].expressions[0]).phrase


def test_a_run_refuses_to_overwrite_another_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    tmp_path.joinpath("recipe.json").write_text("theirs")
    (tmp_path / checkpoint.OLD_FILE).write_bytes(b"theirs")
    with pytest.raises(TrainingError, match=r"holds a run already\. Pass --resume"):
        start(RECIPE, tmp_path)
    assert tmp_path.joinpath("recipe.json").read_text() == "theirs"


@pytest.mark.parametrize(
    ("last", "step"),
    [(Progress, 5), (Evaluation, 6)],
    ids=["between checkpoints", "during an evaluation"],
)
def test_a_killed_run_goes_on_to_the_files_of_the_uninterrupted_one(
    tmp_path: Path, whole: Path, last: type[News], step: int
) -> None:
    killed = tmp_path / "killed"
    start_and_kill(LONGER, killed, last, step)
    go_on(LONGER, killed)

    assert_same_weights(killed, whole)
    assert without_times(killed / "log.jsonl") == without_times(whole / "log.jsonl")
    assert lines(killed / "evaluation.jsonl") == lines(whole / "evaluation.jsonl")
    one, other = (folder / "model" / "model.safetensors" for folder in (whole, killed))
    assert one.read_bytes() == other.read_bytes()


def test_the_same_recipe_gives_the_same_run_whatever_ran_before_it(
    tmp_path: Path, whole: Path
) -> None:
    torch.rand(7)
    start(LONGER, tmp_path)
    assert_same_weights(tmp_path, whole)
    assert without_times(tmp_path / "log.jsonl") == without_times(whole / "log.jsonl")


def test_a_kill_in_the_last_evaluation_still_ends_in_a_model(tmp_path: Path) -> None:
    recipe = changed(RECIPE, "run", evaluate_every=100)
    start_and_kill(recipe, tmp_path / "run", Evaluation, 3)
    assert not (tmp_path / "run/model").exists()

    go_on(recipe, tmp_path / "run")
    assert Kosmos2.load(tmp_path / "run/model")


def test_a_run_killed_before_its_first_checkpoint_starts_again_with_new_logs(
    tmp_path: Path,
) -> None:
    start_and_kill(RECIPE, tmp_path / "run", Progress, 1)
    start(RECIPE, tmp_path / "run")
    assert [line["step"] for line in lines(tmp_path / "run/log.jsonl")] == [1, 2, 3]


def test_a_kill_inside_a_checkpoint_goes_on_from_the_one_before(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "killed"
    save = state_dict_saver.save

    def half(tensors: dict[str, torch.Tensor], **settings: object) -> None:
        save(tensors, **settings)  # type: ignore[arg-type]
        if len(checkpoint.steps(killed)) == 1:
            raise KilledError  # whole, but not yet renamed

    with monkeypatch.context() as patched:
        patched.setattr(state_dict_saver, "save", half)
        with pytest.raises(KilledError):
            start(LONGER, killed)
    assert checkpoint.last(killed) == 2

    go_on(LONGER, killed)
    assert_same_weights(killed, whole)
    assert without_times(killed / "log.jsonl") == without_times(whole / "log.jsonl")
    assert not list(killed.rglob("*.partial"))


def test_a_finished_run_has_nothing_left_and_a_lengthened_one_goes_on(tmp_path: Path) -> None:
    start(RECIPE, tmp_path)
    assert go_on(RECIPE, tmp_path) == []

    news = go_on(LONGER, tmp_path)
    assert [each.step for each in news if isinstance(each, Progress)] == [4, 5, 6, 7]
    stored = json.loads((tmp_path / "recipe.json").read_text())
    assert config.build(TrainRecipe, stored, where="stored") == LONGER
    with pytest.raises(TrainingError, match=r"step 7, behind the end .*steps is 3"):
        go_on(RECIPE, tmp_path)


def test_a_second_stage_takes_the_weights_and_the_vocabulary_of_the_first(tmp_path: Path) -> None:
    start(RECIPE, tmp_path / "first")
    # A rate of nearly nothing shows the weights that the second stage begins with.
    recipe = changed(RECIPE, "optimizer", learning_rate=1e-30, weight_decay=0.0)
    recipe = dataclasses.replace(recipe, seed=6, start_from=str(tmp_path / "first"))
    start(recipe, tmp_path / "second")

    assert_same_weights(tmp_path / "first", tmp_path / "second")
    first, second = (tmp_path / name / "tokenizer.json" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert checkpoint.last(tmp_path / "second") == 3


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"start_from": "nowhere"}, "no file or folder 'nowhere'"),
        ({"bins": 16}, "has 8 bins, this recipe 16"),
        ({"scenes": dataclasses.replace(RECIPE.scenes, nouns=("dog", "car"))}, "another size"),
    ],
    ids=["missing", "bins", "nouns"],
)
def test_a_first_stage_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    start(changed(RECIPE, "optimizer", steps=1), tmp_path / "first")
    recipe = dataclasses.replace(
        RECIPE,
        **{"start_from": str(tmp_path / "first"), **changes},  # type: ignore[arg-type]
    )
    with pytest.raises(Kosmos2Error, match=complaint):
        start(recipe, tmp_path / "second")


def test_scenes_of_which_nothing_can_be_found_are_refused_before_the_first_step(
    tmp_path: Path,
) -> None:
    crowds = SourceRecipe(kind="scenes", max_groups=1, max_instances=5, single_share=0.0)
    recipe = dataclasses.replace(changed(RECIPE, "run", evaluation_scenes=1), sources=(crowds,))
    maker = build.scene_maker(recipe, crowds, shapes(), split="iid")
    assert maker.scene(0).groups[0].count > 1  # or the seed must change
    with pytest.raises(TrainingError, match="evaluation_scenes"):
        start(recipe, tmp_path)


def test_records_train_the_same_way_and_teach_the_vocabulary_their_words(tmp_path: Path) -> None:
    caption = "a zyzzyva on a quokka"
    with Writer(tmp_path / "train.jsonl") as writer:
        for number in range(3):
            Image.new("RGB", (40, 30), (90 * number, 50, 50)).save(tmp_path / f"{number}.png")
            span = Grounded(0, 9, 0.1, 0.1, 0.6, 0.7, 1.0)
            writer.write(
                GroundedRecord(
                    id=number,
                    image=f"{number}.png",
                    caption=caption,
                    noun_chunks=None,
                    ref_exps=(span,),
                )
            )
    source = SourceRecipe(kind="records", path=str(tmp_path / "train.jsonl"))
    news = start(dataclasses.replace(RECIPE, sources=(source,)), tmp_path / "run")

    losses = [each for each in news if isinstance(each, Progress)]
    assert all(0 < each.text_loss < 20 and 0 < each.location_loss < 20 for each in losses)
    assert all(each.patch_loss == 0 for each in losses)  # nobody has said what patches show
    tokenizer = Tokenizer.from_folder(tmp_path / "run")
    assert tokenizer.vocabulary.unk not in tokenizer.encode_text(caption)


def test_records_alone_need_no_artwork_and_are_asked_about_where_the_recipe_says(
    tmp_path: Path,
) -> None:
    learnt = squares(tmp_path / "own", 4)
    asked = squares(tmp_path / "asked", 3, first=40)
    recipe = dataclasses.replace(
        changed(RECIPE, "run", evaluation_scenes=2),
        scenes=ScenesRecipe(),
        sources=(SourceRecipe(kind="records", path=str(learnt)),),
    )
    news: list[News] = []
    run(recipe, tmp_path / "silent", Sprites({}), CPU, report=news.append)
    assert not any(isinstance(each, Evaluation) for each in news)
    assert Kosmos2.load(tmp_path / "silent/model")

    recipe = changed(recipe, "run", evaluation_records=str(asked))
    run(recipe, tmp_path / "asked/run", Sprites({}), CPU, report=news.append)
    exams = [each for each in news if isinstance(each, Evaluation)]
    assert [(each.step, each.phrases) for each in exams] == [(2, 2), (3, 2)]
    assert (tmp_path / "asked/run/preview-000003.png").exists()


def test_records_of_which_nothing_can_be_found_are_refused(tmp_path: Path) -> None:
    learnt = squares(tmp_path / "own", 2)
    empty = write(tmp_path, [{**record(tmp_path, 0), "ref_exps": []}, {"caption": ""}])
    recipe = changed(RECIPE, "run", evaluation_records=str(empty))
    recipe = dataclasses.replace(
        recipe, sources=(SourceRecipe(kind="records", path=str(learnt)),), scenes=ScenesRecipe()
    )
    with pytest.raises(TrainingError, match=r"evaluation_records: .*nothing to find .*no caption"):
        run(recipe, tmp_path / "run", Sprites({}), CPU, report=lambda news: None)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", checkpoint.NOTE])
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, name: str) -> None:
    start(changed(RECIPE, "optimizer", steps=1), tmp_path)
    path = checkpoint.place(tmp_path, 1) / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Kosmos2Error, match=r"step-00000001 is damaged") as caught:
        go_on(RECIPE, tmp_path)
    assert "\n" not in str(caught.value)
