"""How the commands are told to answer: one option, checked, and what is absent is said."""

import json
from pathlib import Path

import pytest
from PIL import Image
from tiny_model import save_tiny_model
from typer.testing import CliRunner

from kosmos2 import ConfigError, config
from kosmos2.api.decoding import Decoding
from kosmos2.api.replies import Found, Trace
from kosmos2.cli import app
from kosmos2.cli.showing import why_no_boxes
from kosmos2.engine import Beam, Greedy, NoRepeat, Sampling, StopReason
from kosmos2.grounding.spans import GroundedText
from kosmos2.vocab.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> list[str]:
    folder = tmp_path_factory.mktemp("model")
    photo = folder / "photo.png"
    Image.effect_mandelbrot((120, 80), (-2, -1, 1, 1), 20).convert("RGB").save(photo)
    model: Path = save_tiny_model(folder / "model", tiny_tokenizer)
    return [str(photo), "--model", str(model), "--json", "--dtype", "fp32"]


def answers(*arguments: str) -> list[dict[str, object]]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    found: list[dict[str, object]] = json.loads(result.stdout)["answers"]
    return found


def test_words_mean_settings() -> None:
    assert Decoding().settings().sampling == Greedy()
    drawn = config.from_overrides(
        Decoding, ["temperature=0.7", "seed=3", "min_p=0.1", "best_of=2", "no_repeat=off"]
    ).settings()
    assert drawn.sampling == Sampling(seed=3, temperature=0.7, min_p=0.1)
    assert (drawn.best_of, drawn.rules.no_repeat) == (2, NoRepeat.OFF)
    searched = config.from_overrides(Decoding, ["beams=4", "length_penalty=0.5"]).settings()
    assert searched.sampling == Beam(width=4, length_penalty=0.5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("beam=4", "Did you mean 'beams'"),
        ("beams=four", "must be of type int, got 'four'"),
        ("no_repeat=always", "must be one of words, original, transformers, off"),
        ("top_k", "wants a.b=value, got 'top_k'"),
    ],
)
def test_wrong_words_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.from_overrides(Decoding, [override])


def test_answers_are_drawn_or_searched_for_not_both() -> None:
    with pytest.raises(ConfigError, match="not both"):
        Decoding(beams=2, temperature=1.0).settings()


def test_a_command_answers_as_it_is_told(arguments: list[str]) -> None:
    def markup(*overrides: str) -> object:
        told = [word for each in overrides for word in ("--set", each)]
        return answers("caption", *arguments, *told)[0]["markup"]

    hot = ("temperature=5", "max_new_tokens=8")
    assert markup(*hot, "seed=1") == markup(*hot, "seed=1")
    assert markup(*hot, "seed=1") != markup(*hot, "seed=2")
    assert len(str(markup("max_new_tokens=2"))) < len(str(markup("max_new_tokens=20")))


def test_a_wrong_word_costs_one_line(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["caption", *arguments, "--set", "beam=4"])
    assert result.exit_code == 2
    assert "Did you mean 'beams'" in result.stderr


def test_absence_comes_with_its_probability_when_it_is_asked_for(arguments: list[str]) -> None:
    (asked,) = answers("find", *arguments, "-p", "a fire", "--allow-absent")
    assert 0 <= float(str(asked["absent"])) <= 1
    (sure,) = answers("find", *arguments, "-p", "a fire")
    assert "absent" not in sure


def test_what_is_not_there_is_said_with_its_probability() -> None:
    trace = Trace(width=9, height=9, mean_logprob=0.0, stop=StopReason.EOS, markup="")
    reply = Found(grounded=GroundedText(text="a fire"), trace=trace, phrase="a fire", absent=0.83)
    assert why_no_boxes(None, reply).endswith("0.83")  # type: ignore[arg-type]
