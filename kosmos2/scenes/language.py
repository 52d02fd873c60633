"""Say what a scene shows: captions with spans, expressions, questions. Says only what is true."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from numpy.random import Generator

from kosmos2.boxes import Box
from kosmos2.grounding.spans import GroundedText, Phrase
from kosmos2.scenes.geometry import DOMINANCE, is_next_to, relation, zone
from kosmos2.scenes.nouns import NUMBER_WORDS, Noun, article
from kosmos2.scenes.scene import Question, Referring
from kosmos2.scenes.splits import Combination, relation_combination

Permits = Callable[[Combination], bool]
_CLEARLY_APART = 0.08
_ANYWHERE = Box(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Described:
    """A group with the words that are true of it."""

    noun: Noun
    colour: str | None
    size: str | None
    boxes: tuple[Box, ...]

    @property
    def count(self) -> int:
        return len(self.boxes)

    @property
    def is_or_are(self) -> str:
        return "is" if self.count == 1 else "are"

    def chunk(self) -> str:
        """Return the full noun phrase of the captions: "two small red cars"."""
        return self.with_words(self.size, self.colour)

    def with_words(self, *adjectives: str | None) -> str:
        words = self._words(adjectives)
        if self.count > 1:
            return f"{NUMBER_WORDS[self.count]} {words}"
        return f"{article(words)} {words}"

    def the(self, *adjectives: str | None) -> str:
        return f"the {self._words(adjectives)}"

    def single(self, *adjectives: str | None) -> str:
        """Return the words for one of the things: "red car"."""
        return " ".join([*filter(None, adjectives), self.noun.singular])

    def _words(self, adjectives: Sequence[str | None]) -> str:
        return " ".join([*filter(None, adjectives), self.noun.counted(self.count)])


@dataclass(frozen=True, slots=True)
class Relation:
    first: Described
    words: str
    second: Described


class _Writer:
    """Collect a text and the spans of its phrases."""

    def __init__(self) -> None:
        self.text = ""
        self.phrases: list[Phrase] = []

    def say(self, words: str) -> None:
        self.text += words

    def name(self, group: Described) -> None:
        """Write the group's noun phrase, capitalised where a sentence starts."""
        chunk = group.chunk()
        if not self.text or self.text.endswith(". "):
            chunk = chunk[0].upper() + chunk[1:]
        start = len(self.text)
        self.text += chunk
        self.phrases.append(Phrase(start=start, end=len(self.text), boxes=group.boxes, scores=()))

    def done(self) -> GroundedText:
        return GroundedText(text=self.text, phrases=tuple(self.phrases))


def relations(groups: Sequence[Described], permits: Permits) -> list[Relation]:
    """Return what may be said of where groups stand to each other, both ways round."""
    found = []
    for first, second in permutations(groups, 2):
        if words := relation(first.boxes, second.boxes):
            found.append(Relation(first, words, second))
        if first.count == second.count == 1 and is_next_to(first.boxes[0], second.boxes[0]):
            found.append(Relation(first, "next to", second))
    return [item for item in found if permits(_combination(item))]


def said_combinations(groups: Sequence[Described], said: Sequence[Relation]) -> set[Combination]:
    """Return the combinations that a caption of these groups and relations teaches or tests."""
    found: set[Combination] = {_combination(item) for item in said}
    for group in groups:
        found.add(("count", group.noun.singular, str(group.count)))
        if group.colour is not None:
            found.add(("colour", group.noun.singular, group.colour))
    return found


def brief_caption(
    groups: Sequence[Described], known: Sequence[Relation], rng: Generator
) -> tuple[GroundedText, tuple[int, ...], tuple[Relation, ...]]:
    """Return the caption, the end of each phrase's whole expression, and the relations said."""
    choice = rng.random()
    writer = _Writer()
    writer.say("An image of ")
    if len(groups) == 2 and choice < 0.3:
        fitting = [item for item in known if item.first is groups[0]]
        if fitting:
            return _brief_relation(writer, fitting[int(rng.integers(len(fitting)))])
    place = zone(groups[0].boxes) if len(groups) == 1 and choice < 0.3 else None
    if place is not None:
        writer.name(groups[0])
        writer.say(f" {place}")
        ends: tuple[int, ...] = (len(writer.text),)
    else:
        for number, group in enumerate(groups):
            if number:
                writer.say(" and " if number == len(groups) - 1 else ", ")
            writer.name(group)
        ends = tuple(phrase.end for phrase in writer.phrases)  # conjuncts are not expanded
    writer.say(".")
    return writer.done(), ends, ()


def detailed_caption(
    groups: Sequence[Described], known: Sequence[Relation], rng: Generator
) -> tuple[GroundedText, tuple[Relation, ...]]:
    """Return sentences that name every group once, and the relations they use."""
    writer = _Writer()
    said: list[Relation] = []
    open_groups = list(groups)
    while open_groups:
        group = open_groups.pop(0)
        if writer.text:
            writer.say(" ")
        fitting = [x for x in known if x.first is group and any(x.second is o for o in open_groups)]
        place = zone(group.boxes)
        if fitting and rng.random() < 0.7:
            chosen = fitting[int(rng.integers(len(fitting)))]
            _say_relation(writer, chosen, rng)
            said.append(chosen)
            open_groups = [other for other in open_groups if other is not chosen.second]
        elif place is not None:
            _say_place(writer, group, place, rng)
        else:
            _say_presence(writer, group, rng)
    return writer.done(), tuple(said)


def expressions(
    group: Described, groups: Sequence[Described], known: Sequence[Relation]
) -> tuple[str, ...]:
    """Return phrases that mean exactly this group, the chunk of the captions first."""
    least = _telling_adjectives(group, groups)
    found = [group.chunk(), group.with_words(*least), group.the(*least)]
    if group.count > 1:
        found.append(group.the(*least).removeprefix("the "))
    place = zone(group.boxes)
    if place is not None:
        found.append(f"{group.the(*least)} {place}")
    for item in known:
        if item.first is group:
            other = item.second.the(*_telling_adjectives(item.second, groups))
            found.append(f"{group.the(*least)} {item.words} {other}")
    return tuple(dict.fromkeys(found))


def referring(
    groups: Sequence[Described], expressions_of: Sequence[tuple[str, ...]]
) -> tuple[Referring, ...]:
    """Return expressions that single out one thing each."""
    found: list[Referring] = []
    for group, phrases in zip(groups, expressions_of, strict=True):
        if group.count == 1:
            found += [Referring(phrase, group.boxes[0]) for phrase in phrases]
        else:
            least = _telling_adjectives(group, groups)
            found += [Referring(words, box) for words, box in _one_of(group, least)]
    return tuple(found)


def questions(
    groups: Sequence[Described],
    known: Sequence[Relation],
    absent: Sequence[Noun],
    permits: Permits,
) -> tuple[Question, ...]:
    """Return questions with short answers: number, colour, presence, place, relation."""
    found = []
    for group in groups:
        least = _telling_adjectives(group, groups)
        name = group.the(*least)
        if permits(("count", group.noun.singular, str(group.count))):
            plural = " ".join([*filter(None, least), group.noun.plural])
            found.append(Question(f"How many {plural} are there?", NUMBER_WORDS[group.count]))
        if group.colour is not None and group.colour not in least:
            found.append(Question(f"What color {group.is_or_are} {name}?", group.colour))
        singular = group.noun.singular
        found.append(Question(f"Is there {article(singular)} {singular}?", "yes"))
        place = zone(group.boxes)
        if place is not None:
            found.append(Question(f"Where {group.is_or_are} {name}?", place))
    for noun in absent:
        found.append(Question(f"Is there {article(noun.singular)} {noun.singular}?", "no"))
    for item in known:
        if sum(x.words == item.words and x.second is item.second for x in known) == 1:
            other = item.second.the(*_telling_adjectives(item.second, groups))
            found.append(Question(f"What is {item.words} {other}?", item.first.chunk()))
    return tuple(dict.fromkeys(found))  # twins would be asked for twice


def absent(
    nouns: Sequence[Noun], colours: Collection[str], permits: Permits, rng: Generator
) -> tuple[str, ...]:
    """Return one phrase for each noun, worded as `expressions` words things that are shown."""
    found = []
    for noun in nouns:
        fitting = [each for each in colours if permits(("colour", noun.singular, each))]
        colour = None
        if noun.recolourable and fitting and rng.random() < 0.5:
            colour = fitting[int(rng.integers(len(fitting)))]
        wording = int(rng.integers(3))
        if wording < 2:
            named = Described(noun, colour, None, boxes=(_ANYWHERE,))
            found.append(named.chunk() if wording else named.the(colour))
            continue
        count = 2 if permits(("count", noun.singular, "2")) else 1
        found.append(Described(noun, colour, None, boxes=(_ANYWHERE,) * count).chunk())
    return tuple(found)


def _combination(item: Relation) -> Combination:
    return relation_combination(item.first.noun.singular, item.words, item.second.noun.singular)


def _brief_relation(
    writer: _Writer, item: Relation
) -> tuple[GroundedText, tuple[int, ...], tuple[Relation, ...]]:
    writer.name(item.first)
    writer.say(f" {item.words} ")
    writer.name(item.second)
    end = len(writer.text)
    writer.say(".")
    return writer.done(), (end, end), (item,)


def _say_relation(writer: _Writer, item: Relation, rng: Generator) -> None:
    template = int(rng.integers(3))
    if template == 0:
        writer.say(f"There {item.first.is_or_are} ")
        writer.name(item.first)
        writer.say(f" {item.words} ")
        writer.name(item.second)
    elif template == 1:
        writer.name(item.first)
        writer.say(f" {item.first.is_or_are} {item.words} ")
        writer.name(item.second)
    else:
        writer.say(item.words[0].upper() + item.words[1:] + " ")
        writer.name(item.second)
        writer.say(f" there {item.first.is_or_are} ")
        writer.name(item.first)
    writer.say(".")


def _say_place(writer: _Writer, group: Described, place: str, rng: Generator) -> None:
    template = int(rng.integers(3))
    if template == 0:
        writer.name(group)
        writer.say(f" {group.is_or_are} {place}.")
    elif template == 1:
        writer.say(f"There {group.is_or_are} ")
        writer.name(group)
        writer.say(f" {place}.")
    else:
        writer.say(f"{place[0].upper()}{place[1:]} there {group.is_or_are} ")
        writer.name(group)
        writer.say(".")


def _say_presence(writer: _Writer, group: Described, rng: Generator) -> None:
    also = "also " if writer.text else ""
    if rng.random() < 0.5:
        writer.say(f"There {group.is_or_are} {also}")
    else:
        writer.say(f"The picture {also}shows ")
    writer.name(group)
    writer.say(".")


def _telling_adjectives(group: Described, groups: Sequence[Described]) -> tuple[str, ...]:
    """Return the fewest adjectives that tell the group from others of its noun."""
    twins = [x for x in groups if x is not group and x.noun.singular == group.noun.singular]
    if not twins:
        return ()
    # A colour tells apart only from another painted thing: one left as drawn may look like it.
    if group.colour and all(twin.colour not in (None, group.colour) for twin in twins):
        return (group.colour,)
    assert group.size and all(twin.size not in (None, group.size) for twin in twins)
    return (group.size,)


def _one_of(group: Described, least: tuple[str, ...]) -> Iterator[tuple[str, Box]]:
    """Yield expressions for things within a group by their place and size."""
    name = f"the {group.single(*least)}"
    for axis, words in ((0, ("on the left", "on the right")), (1, ("at the top", "at the bottom"))):
        ordered = sorted(group.boxes, key=lambda box: box.center[axis])
        first, last = ordered[0], ordered[-1]
        spread = last.center[axis] - first.center[axis]
        other = abs(last.center[1 - axis] - first.center[1 - axis])
        if group.count == 2 and spread < DOMINANCE * other:
            continue
        if ordered[1].center[axis] - first.center[axis] >= _CLEARLY_APART:
            yield f"{name} {words[0]}", first
        if last.center[axis] - ordered[-2].center[axis] >= _CLEARLY_APART:
            yield f"{name} {words[1]}", last
    by_area = sorted(group.boxes, key=lambda box: box.area)
    if by_area[1].area >= 1.4 * by_area[0].area:
        yield f"the smallest {group.single(*least)}", by_area[0]
    if by_area[-1].area >= 1.4 * by_area[-2].area:
        yield f"the largest {group.single(*least)}", by_area[-1]
