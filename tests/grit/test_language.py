"""spaCy's documents as plain values: all that the tokens say, and no memory of rare words."""

import pytest

from kosmos2.grit import language
from kosmos2.grit.language import Parser
from kosmos2.grit.recipe import Language

spacy = pytest.importorskip("spacy", reason='needs pip install "kosmos2[grit]"')

CAPTIONS = [
    "a red dog and two cats on the street . next to it a house",
    "  two\n\nblank lines, and 🐶 a dog's tail\t",
    "Timelapse: sunset on the cloudy sky over city, Turkey, Istanbul",
    "dog dog dog dog dog , ; ! dog",
    "",
]


@pytest.fixture(scope="module")
def parser() -> Parser:
    return Parser(Language())


def test_a_parse_says_what_each_token_says(parser: Parser) -> None:
    docs = parser._pipeline.pipe(CAPTIONS)
    for doc, parse in zip(docs, parser.parse(CAPTIONS), strict=True):
        assert parse.text == doc.text
        for token, ours in zip(doc, parse.tokens, strict=True):
            assert (ours.text, ours.start, ours.lemma) == (token.text, token.idx, token.lemma_)
            assert (ours.pos, ours.dep, ours.head) == (token.pos_, token.dep_, token.head.i)
            assert ours.is_mark == (token.is_punct or token.is_space)
            assert parse.edges(token.i) == (token.left_edge.i, token.right_edge.i)


def test_words_kept_or_forgotten_change_no_parse(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = list(parser.parse(CAPTIONS * 2))
    monkeypatch.setattr(language, "WORDS_KEPT", 0)
    assert list(parser.parse(CAPTIONS * 2)) == kept


def test_a_parser_forgets_new_words_once_it_knows_enough(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(parser.parse(["a zorbling", "a quuxery"]))
    known = len(parser._pipeline.vocab.strings)
    list(parser.parse(["a blargenheim", "a fnordling"]))
    assert len(parser._pipeline.vocab.strings) > known
    known = len(parser._pipeline.vocab.strings)
    monkeypatch.setattr(language, "WORDS_KEPT", 0)
    list(parser.parse(["a wibblet", "a plughorn"]))
    assert len(parser._pipeline.vocab.strings) == known


def test_two_lists_of_captions_can_be_parsed_in_turns(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language, "WORDS_KEPT", 0)
    alone = list(parser.parse(CAPTIONS))
    turns = zip(parser.parse(CAPTIONS), parser.parse(CAPTIONS), strict=True)
    assert [one for pair in turns for one in pair] == [each for each in alone for _ in range(2)]
