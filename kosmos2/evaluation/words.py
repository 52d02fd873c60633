"""Sentences judged by their words: CIDEr, METEOR, BLEU, ROUGE-L, as pycocoevalcap counts them.

The official pipeline tokenizes with Stanford's PTBTokenizer, a Java program; `tokens` does the same
to captions without it, and is held against it by a test. The official METEOR is a Java program:
where there is no Java, NLTK's stands there under another name (the older formula, equal words and
equal stems, no synonyms), never beside it and never in its place.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from kosmos2.errors import MissingExtraError
from kosmos2.evaluation.benchmark import Judgement, Pair

WORD_TITLES = {
    "cider": "CIDEr",
    "meteor": "METEOR (1.5, official)",
    "meteor_nltk": "METEOR of NLTK without synonyms (NOT the official one)",
    **{f"bleu{n}": f"BLEU-{n}" for n in (1, 2, 3, 4)},
    "rouge_l": "ROUGE-L",
    "answered": "answers with words",
}
_PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""What the official pipeline leaves out; it means brackets too, but not in small letters."""
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}
_PLAIN = str.maketrans({"’": "'", "‘": "`", "“": "``", "”": "''", "…": "..."})
_TOKEN = re.compile(
    r"""
    [a-z]+(?=n't\b) | n't\b | '(?:s|m|d|ll|re|ve)\b   # doesn't -> does n't, it's -> it 's
    | can(?=not\b) | (?:gon|wan)(?=na\b) | got(?=ta\b) | 'n'
    | (?:mr|mrs|ms|dr|st|jr|sr|vs|etc|no)\.                    # abbreviations keep their point
    | (?:[a-z]\.){2,}                                          # u.s.
    | \d+(?:[.,:/]\d+)*(?:st|nd|rd|th|s)?\b(?:-\w+)*           # 1,000 3.5 1st 1980s 3-year-old
    | \w+(?:(?:'(?!(?:s|m|d|ll|re|ve)\b)|[-/@.](?=\w))\w+)*
    | @\w+
    | \.\.\. | -- | `` | '' | [?!]{2,} | \S
    """,
    re.VERBOSE,
)


def tokens(sentence: str) -> list[str]:
    """Return the words of a sentence in small letters, without punctuation."""
    small = sentence.lower().translate(_PLAIN)
    found = (_BRACKETS.get(token, token) for token in _TOKEN.findall(small))
    return [token for token in found if token not in _PUNCTUATION and token != '"']


def check_installed() -> None:
    """Refuse to begin where the library of the metrics is missing."""
    _library()


def judge_words(pairs: Sequence[Pair]) -> Judgement:
    """Return the metrics of each sentence against its references, and BLEU and METEOR over all."""
    cider, bleu, rouge = _library()
    references = {
        problem.id: [" ".join(tokens(text)) for text in problem.references] for problem, _ in pairs
    }
    said = {problem.id: [" ".join(tokens(answer.text))] for problem, answer in pairs}
    columns: dict[str, Sequence[float]] = {}
    whole: dict[str, float] = {}
    columns["cider"] = cider().compute_score(references, said)[1].tolist()
    if shutil.which("java"):
        whole["meteor"], columns["meteor"] = meteor(references, said)
    elif find_spec("nltk"):
        columns["meteor_nltk"] = meteor_nltk(references, said)
    over_all, each = bleu(4).compute_score(references, said, verbose=0)
    for n in range(4):
        whole[f"bleu{n + 1}"], columns[f"bleu{n + 1}"] = over_all[n], each[n]
    columns["rouge_l"] = rouge().compute_score(references, said)[1].tolist()
    columns["answered"] = [float(bool(words[0])) for words in said.values()]
    names = [name for name in WORD_TITLES if name in columns]
    rows = zip(*(columns[name] for name in names), strict=True)
    judged = tuple(dict(zip(names, map(float, row), strict=True)) for row in rows)
    return Judgement(judged, whole)


def meteor(
    references: Mapping[str, list[str]], said: Mapping[str, list[str]]
) -> tuple[float, list[float]]:
    """Return METEOR over all sentences, which is no mean, and of each. Needs Java."""
    from pycocoevalcap.meteor.meteor import Meteor  # type: ignore[import-untyped]

    scorer = Meteor()
    # Its errors go to a pipe that nobody reads: unread, they would block it in the end.
    threading.Thread(target=scorer.meteor_p.stderr.read, daemon=True).start()
    score, scores = scorer.compute_score(references, said)
    return float(score), [float(each) for each in scores]


class _NoSynonyms:
    """In place of WordNet, which has to be downloaded: no word means the same as another."""

    def synsets(self, _word: str) -> list[Any]:
        return []


def meteor_nltk(references: Mapping[str, list[str]], said: Mapping[str, list[str]]) -> list[float]:
    """Return METEOR as NLTK counts it, of equal words and equal stems alone, of each sentence."""
    from nltk.translate.meteor_score import meteor_score  # type: ignore[import-untyped]

    without = _NoSynonyms()
    return [
        float(
            meteor_score([text.split() for text in references[id]], words.split(), wordnet=without)
        )
        for id, (words,) in said.items()
    ]


def _library() -> tuple[Any, Any, Any]:
    try:
        from pycocoevalcap.bleu.bleu import Bleu  # type: ignore[import-untyped]
        from pycocoevalcap.cider.cider import Cider  # type: ignore[import-untyped]
        from pycocoevalcap.rouge.rouge import Rouge  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(
            'CIDEr, METEOR and BLEU are counted by pycocoevalcap: pip install "kosmos2[eval]"'
        ) from error
    return Cider, Bleu, Rouge
