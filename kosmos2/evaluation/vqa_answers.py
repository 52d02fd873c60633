"""Answers of VQAv2 compared: the official normalisation and accuracy, quirks and all.

As `vqaEval.py` of the data set's authors has them: the answer is always normalised; of what people
answered only the punctuation is, and only where they do not all say the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

PEOPLE = 10
"""Answers to each question."""
_ENOUGH = 3
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
# The original's pattern means to spare 3.5 by "(?!<=\d)", which is no look-behind: the points that
# stay are those before a digit, and at most 32 go (a flag given as the count).
_POINT = re.compile(r"\.(?!\d)")
_MOST_POINTS = 32
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = "zero one two three four five six seven eight nine ten"
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS.split())}
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
    might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
    you've
"""


def _one_apostrophe_less(word: str) -> list[str]:
    return [word[:place] + word[place + 1 :] for place, sign in enumerate(word) if sign == "'"]


_CONTRACTIONS = {less: word for word in _CONTRACTED.split() for less in _one_apostrophe_less(word)}
# The original has this one the wrong way round.
_CONTRACTIONS |= {"somebody'd": "somebodyd"}


def without_punctuation(text: str) -> str:
    """Return a text whose marks are gone, or blanks where they stood between letters.

    Which of the two is decided by the whole text: a mark with a blank beside it anywhere, or a
    comma inside a number, and it goes everywhere.
    """
    cleaned = text
    for mark in _MARKS:
        goes = f"{mark} " in text or f" {mark}" in text or _COMMA_IN_NUMBER.search(text)
        cleaned = cleaned.replace(mark, "" if goes else " ")
    return _POINT.sub("", cleaned, count=_MOST_POINTS)


def normal(answer: str) -> str:
    """Return an answer as it is compared: small letters, digits, no articles, no marks."""
    text = without_punctuation(answer.replace("\n", " ").replace("\t", " ").strip())
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def accuracy(answer: str, people: Sequence[str]) -> float:
    """Return the mean over people of min(n / 3, 1), n of the others giving this answer."""
    said = [without_punctuation(each) for each in people] if len(set(people)) > 1 else people
    ours = normal(answer)
    same = sum(each == ours for each in said)
    left_out = [same - (each == ours) for each in said]
    return sum(min(n / _ENOUGH, 1.0) for n in left_out) / len(people)
