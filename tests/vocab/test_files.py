"""Tokenizer folders: what we write transformers reads, and what it writes we read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast, XLMRobertaTokenizer

from kosmos2.errors import VocabularyError
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Tokenizer, parse_markup_string

MARKUP = (
    "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0011>"
    "<patch_index_0063></object> warming himself by<phrase> a fire </phrase><object>"
    "<patch_index_0000><patch_index_0009></delimiter_of_multi_objects/><patch_index_0010>"
    "<patch_index_0020></object>.",
    "plain text  with ﬁne ½ numbers 123, dots... and ☃☃ 中文",
    "",
    "</doc><image></image></chunk></line>",
)


def ids_of(tokenizer: Tokenizer, markup: str) -> list[int]:
    ids = tokenizer.encode(parse_markup_string(markup), num_latents=4).ids
    return [*ids, tokenizer.vocabulary.eos]


def check_same(ours: Tokenizer, theirs: PreTrainedTokenizerFast) -> None:
    assert len(theirs) == ours.vocabulary.size
    for markup in MARKUP:
        assert theirs(markup).input_ids == ids_of(ours, markup)
    for id, token in ours.vocabulary.special_tokens():
        assert theirs.convert_tokens_to_ids(token) == id


def test_transformers_loads_a_small_tokenizer_with_the_same_ids(
    tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tiny_tokenizer.save(tmp_path)
    check_same(tiny_tokenizer, AutoTokenizer.from_pretrained(tmp_path))
    check_same(tiny_tokenizer, PreTrainedTokenizerFast.from_pretrained(tmp_path))


def test_transformers_keeps_tags_and_cells_when_it_skips_special_tokens(
    tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tiny_tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = theirs.decode(theirs(MARKUP[3]).input_ids, skip_special_tokens=True)
    assert text == "</doc><image></image></chunk></line>"
    assert theirs.decode(theirs("<patch_index_0003>").input_ids) == "<s><patch_index_0003></s>"


@pytest.fixture(scope="module")
def saved(real_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    real_tokenizer.save(folder)
    return folder


@pytest.mark.parametrize("loader", [AutoTokenizer, XLMRobertaTokenizer])
def test_transformers_loads_the_released_tokenizer_with_the_same_ids(
    real_tokenizer: Tokenizer, saved: Path, loader: Any
) -> None:
    check_same(real_tokenizer, loader.from_pretrained(saved))


def test_what_transformers_writes_we_read(
    real_tokenizer: Tokenizer, shared_data: Path, tmp_path: Path
) -> None:
    # XLM-RoBERTa's own conversion: pieces and <mask> only, the tags are ours to add.
    source = str(shared_data / "kosmos2-tokenizer" / "sentencepiece.bpe.model")
    XLMRobertaTokenizer.from_pretrained(Path(source).parent).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "tokenizer.json").read_text())
    assert "<phrase>" not in {token["content"] for token in written["added_tokens"]}

    read = Tokenizer.from_folder(tmp_path)
    assert read.vocabulary == real_tokenizer.vocabulary
    for markup in MARKUP:
        assert ids_of(read, markup) == ids_of(real_tokenizer, markup)


def test_saving_and_reading_give_an_equal_tokenizer(
    tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tiny_tokenizer.save(tmp_path / "once")
    read = Tokenizer.from_folder(tmp_path / "once")
    read.save(tmp_path / "twice")
    assert (read.vocabulary, read.grid) == (tiny_tokenizer.vocabulary, tiny_tokenizer.grid)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        once, twice = (tmp_path / folder / name for folder in ("once", "twice"))
        assert once.read_bytes() == twice.read_bytes()


def test_the_released_pair_survives_saving(real_tokenizer: Tokenizer, saved: Path) -> None:
    read = Tokenizer.from_folder(saved)
    assert (read.vocabulary, read.grid) == (real_tokenizer.vocabulary, real_tokenizer.grid)
    assert ids_of(read, MARKUP[0]) == ids_of(real_tokenizer, MARKUP[0])


def test_a_tokenizer_file_is_preferred_to_a_sentencepiece_pair(
    tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tiny_tokenizer.save(tmp_path)
    for name in ("sentencepiece.bpe.model", "dict.txt"):
        (tmp_path / name).write_bytes(b"not looked at")
    assert Tokenizer.from_folder(tmp_path).vocabulary == tiny_tokenizer.vocabulary


@pytest.mark.parametrize("present", [[], ["sentencepiece.bpe.model"], ["dict.txt"]])
def test_a_folder_without_tokenizer_is_refused_with_the_way_out(
    tmp_path: Path, present: list[str]
) -> None:
    for name in present:
        (tmp_path / name).touch()
    with pytest.raises(VocabularyError, match=r"needs tokenizer\.json, or both") as refusal:
        Tokenizer.from_folder(tmp_path)
    assert all(name in str(refusal.value) for name in present)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="no such folder"):
        Tokenizer.from_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("first", "added", "message"),
    [
        (0, ["quux 1"], r"1 dictionary lines name no piece \['quux'\], 0 pieces have no line"),
        (1, [], r"0 dictionary lines name no piece \[\], 1 pieces have no line \['\.'\]"),
        (0, [". 1"], "1 lines repeat"),
    ],
)
def test_a_dictionary_of_another_model_is_refused(
    shared_data: Path, tmp_path: Path, first: int, added: list[str], message: str
) -> None:
    released = shared_data / "kosmos2-tokenizer"
    (tmp_path / "sentencepiece.bpe.model").write_bytes(
        (released / "sentencepiece.bpe.model").read_bytes()
    )
    lines = (released / "dict.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path / "dict.txt").write_text("\n".join([*lines[first:], *added]), encoding="utf-8")
    with pytest.raises(VocabularyError, match=message):
        Tokenizer.from_folder(tmp_path)


Document = dict[str, Any]


def use_bpe(document: Document) -> None:
    document["model"]["type"] = "BPE"


def swap_pad_and_bos(document: Document) -> None:
    vocab = document["model"]["vocab"]
    vocab[0], vocab[1] = vocab[1], vocab[0]


def lose_a_location(document: Document) -> None:
    document["added_tokens"].pop()


def swap_two_tags(document: Document) -> None:
    first, second = (token for token in document["added_tokens"] if "phrase>" in token["content"])
    first["content"], second["content"] = second["content"], first["content"]


def add_a_token(document: Document) -> None:
    document["added_tokens"].append({"content": "<mine>", "id": 99_999})


def lose_a_piece(document: Document) -> None:
    del document["model"]["vocab"][50]


def lose_the_model(document: Document) -> None:
    del document["model"]


def use_an_unknown_rule(document: Document) -> None:
    document["normalizer"] = {"type": "Quux"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (use_bpe, "model of type 'BPE'"),
        (swap_pad_and_bos, "starts with"),
        (lose_a_location, "63 location tokens, which is no square grid"),
        (swap_two_tags, "2 added tokens outside the layout"),
        (add_a_token, "'<mine>' is 99999"),
        (lose_a_piece, "outside the layout"),
        (lose_the_model, "is no tokenizer file"),
        (use_an_unknown_rule, "refuses these rules"),
    ],
)
def test_the_tokenizer_of_another_model_is_refused(
    tiny_tokenizer: Tokenizer,
    tmp_path: Path,
    change: Callable[[Document], None],
    message: str,
) -> None:
    tiny_tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(VocabularyError, match=message):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 3}', '{"model": {}}', "\x00"])
def test_a_damaged_tokenizer_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(VocabularyError, match=r"tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)


def test_pieces_without_added_tokens_get_the_released_grid(
    tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tiny_tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["added_tokens"] = []
    path.write_text(json.dumps(document), encoding="utf-8")
    read = Tokenizer.from_folder(tmp_path)
    assert read.grid.bins == 32
    assert read.vocabulary.tag(Tag.PHRASE) == tiny_tokenizer.vocabulary.tag(Tag.PHRASE)
