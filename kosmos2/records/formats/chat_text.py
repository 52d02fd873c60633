"""What other models say and hear about boxes: each one's words and numbers, and back.

Sources: the grounding cookbook and the finetuning guide of Qwen3-VL (`bbox_2d`, 0 to 1000; Qwen2.5
used pixels of the resized picture, which are refused), the README of Qwen-VL (`<ref>`, `<box>`),
Florence-2's processor in transformers (1000 bins), LLaVA-1.5's training mix (its boxes count on
the picture padded to a square: haotian-liu/LLaVA issue 606).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.records.formats.carried import clipped_box
from kosmos2.records.formats.labels import NO_NAME

Phrases = Sequence[tuple[str, Sequence[Box]]]
Size = Callable[[], tuple[int, int]]
"""Returns width and height in pixels; asked only where the numbers depend on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A phrase with one of its boxes; `start` is its place in the caption, if the text shows it."""

    label: str
    box: Box
    start: int | None = None


Sayer = Callable[[str, Phrases, Size], dict[str, Any]]
"""(caption, phrases, size) -> the keys that hold the text."""
Hearer = Callable[[Mapping[str, Any], Size], tuple[str, list[Heard]]]

_DESCRIBE = "Describe the image."
_PICTURE = "<image>"
_HUMANS = ("human", "user")
_THOUSAND = 1000

_FENCE = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)
_QWEN2 = re.compile(r"<\|(?:object_)?(ref|box)_(start|end)\|>")
_CORNERS = r"\(\d+,\s*\d+\),\s*\(\d+,\s*\d+\)"
_REF = re.compile(rf"<ref>(.*?)</ref>((?:\s*<box>{_CORNERS}</box>)+)", re.DOTALL)
_IMG = re.compile(r"<img>(.*?)</img>")
_LOC = re.compile(r"([^<]*)((?:<loc_\d+>)+)")
_FLORENCE_TASK = re.compile(r"^<[A-Z_]+>")
_LLAVA_BOX = re.compile(r"\[\s*([01]?\.?\d*(?:\s*,\s*[01]?\.?\d*){3})\s*\]")
_LLAVA_FIND = "Please provide the bounding box coordinate of the region this sentence describes: "
_LLAVA_FOUND = re.compile(r"this sentence describes: (.+?)\.?$", re.DOTALL)
_LLAVA_REGION = re.compile(r"for this region: (\[[^\]]*\])")


def picture_of(item: Mapping[str, Any]) -> str | None:
    """Return the path or url of the one picture of a conversation."""
    name = item.get("image", item.get("images"))
    if isinstance(name, list):
        if len(name) != 1:
            raise RecordError(f"a record has one picture, the conversation {len(name)}")
        name = name[0]
    if name is None and (shown := _IMG.search(" ".join(text for _, text in _turns(item)))):
        name = shown[1]
    return None if name is None else str(name)


def say_qwen(caption: str, phrases: Phrases, size: Size) -> dict[str, Any]:
    """As Qwen3-VL: a list of {"bbox_2d", "label"}, whole thousandths of the picture."""
    asked = ", ".join(f'"{label}"' for label, _ in phrases)
    objects = [
        json.dumps(
            {"bbox_2d": [round(_THOUSAND * c) for c in box.corners], "label": label},
            ensure_ascii=False,
        )
        for label, boxes in phrases
        for box in boxes
    ]
    question = f"Locate in the image: {asked}. Report bbox coordinates in JSON format."
    answer = "```json\n[\n\t" + ",\n\t".join(objects) + "\n]\n```"
    return _conversation([(_DESCRIBE, caption), *([(question, answer)] if phrases else [])])


def hear_qwen(item: Mapping[str, Any], size: Size) -> tuple[str, list[Heard]]:
    """Return what a conversation says in the forms of Qwen3-VL, Qwen2-VL or Qwen-VL."""
    caption = ""
    heard: list[Heard] = []
    for who, text in _turns(item):
        if who in _HUMANS:
            continue
        if (objects := _qwen_json(text)) is not None:
            heard += [
                Heard(label=str(found.get("label", NO_NAME)), box=_thousandths(found["bbox_2d"]))
                for found in objects
                if "bbox_2d" in found
            ]
        elif not caption:
            caption, inline = _qwen_inline(_QWEN2.sub(_as_qwen1, text))
            heard += inline
    return caption, heard


def say_florence(caption: str, phrases: Phrases, size: Size) -> dict[str, Any]:
    """As Florence-2: the task and caption in front, phrases with location tokens behind."""
    if not phrases:
        return {"prefix": "<CAPTION>", "suffix": caption}
    if unclear := [label for label, _ in phrases if "<" in label]:
        raise RecordError(
            f"Florence-2 ends a phrase at the first '<', so it cannot learn {unclear[0]!r}"
        )
    suffix = "".join(
        label + "".join(f"<loc_{_bin(corner)}>" for box in boxes for corner in box.corners)
        for label, boxes in phrases
    )
    return {"prefix": f"<CAPTION_TO_PHRASE_GROUNDING>{caption}", "suffix": suffix}


def hear_florence(item: Mapping[str, Any], size: Size) -> tuple[str, list[Heard]]:
    """Return the caption and boxes of a pair of `prefix` and `suffix`."""
    task = _FLORENCE_TASK.match(item["prefix"])
    words, answer = item["prefix"][task.end() if task else 0 :], item["suffix"]
    if "<loc_" not in answer:
        return words or answer, []
    heard = []
    for label, tokens in _LOC.findall(answer):
        bins = [int(number) for number in re.findall(r"\d+", tokens)]
        if len(bins) % 4:
            raise RecordError(f"boxes need 4 location tokens each, {label!r} has {len(bins)}")
        for place in range(0, len(bins), 4):
            corners = [min(number, _THOUSAND - 1) + 0.5 for number in bins[place : place + 4]]
            heard.append(Heard(label=label.strip(), box=_of_thousand(corners)))
    return words, heard


def say_llava(caption: str, phrases: Phrases, size: Size) -> dict[str, Any]:
    """As LLaVA: a question for each phrase, its boxes as shares of the picture."""
    turns = [
        (f"{_LLAVA_FIND}{label}.", ", ".join(_llava_numbers(box.corners) for box in boxes))
        for label, boxes in phrases
    ]
    return _conversation([(_DESCRIBE, caption), *turns])


def hear_llava(item: Mapping[str, Any], size: Size) -> tuple[str, list[Heard]]:
    """Return what a conversation says, its boxes as shares of the picture."""
    caption, labelled = _llava_turns(item)
    return caption, [Heard(label=label, box=_of_one(found)) for label, found in labelled]


def say_llava_square(caption: str, phrases: Phrases, size: Size) -> dict[str, Any]:
    """As LLaVA-1.5: shares of the picture padded to a square."""
    width, height = size()
    padded = [(label, [_padded(box, width, height) for box in boxes]) for label, boxes in phrases]
    return say_llava(caption, padded, size)


def hear_llava_square(item: Mapping[str, Any], size: Size) -> tuple[str, list[Heard]]:
    """Return what a conversation says about the picture padded to a square."""
    caption, labelled = _llava_turns(item)
    if not labelled:
        return caption, []
    width, height = size()
    return caption, [
        Heard(label=label, box=_unpadded(found, width, height)) for label, found in labelled
    ]


def _conversation(turns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    said = []
    for number, (question, answer) in enumerate(turns):
        if _PICTURE in question + answer:
            raise RecordError(f"{answer!r} holds {_PICTURE}, which trainers take for a picture")
        shown = "" if number else f"{_PICTURE}\n"
        said.append({"from": "human", "value": shown + question})
        said.append({"from": "gpt", "value": answer})
    return {"conversations": said}


def _turns(item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (who, text): of `conversations` (from, value) or of `messages` (role, content)."""
    for turn in item.get("conversations", item.get("messages", ())):
        yield turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))


def _qwen_json(text: str) -> list[dict[str, Any]] | None:
    """Return the objects of an answer in JSON, None where the answer is words."""
    fenced = _FENCE.match(text.strip())
    bare = fenced[1] if fenced else text.strip()
    if "bbox_2d" not in bare or bare[:1] not in ("[", "{"):
        return None
    try:
        found = json.loads(bare)
    except json.JSONDecodeError as error:
        raise RecordError(f"the boxes are no JSON ({error}): {bare[:80]!r}") from error
    return found if isinstance(found, list) else [found]


def _qwen_inline(text: str) -> tuple[str, list[Heard]]:
    """Return the words of `<ref>..</ref><box>(x0,y0),(x1,y1)</box>`, and their boxes."""
    caption, heard, cursor = "", [], 0
    for found in _REF.finditer(text):
        caption += text[cursor : found.start()]
        label = found[1].strip()
        heard += [
            Heard(
                label=label,
                start=len(caption),
                box=_thousandths([int(number) for number in re.findall(r"\d+", corners)]),
            )
            for corners in re.findall(_CORNERS, found[2])
        ]
        caption += label
        cursor = found.end()
    return caption + text[cursor:], heard


def _as_qwen1(token: re.Match[str]) -> str:
    return f"<{'/' if token[2] == 'end' else ''}{token[1]}>"


def _thousandths(corners: Sequence[float]) -> Box:
    if max(corners) > _THOUSAND:
        raise RecordError(
            f"Qwen-VL counts thousandths of the picture, 0 to 1000, got {list(corners)}. Are these "
            "the pixels of Qwen2.5-VL's resized picture? Convert them to 0..1000 first"
        )
    return _of_thousand(corners)


def _of_thousand(corners: Sequence[float]) -> Box:
    return clipped_box("text", corners, (_THOUSAND, _THOUSAND))


def _bin(corner: float) -> int:
    return min(int(corner * _THOUSAND), _THOUSAND - 1)


def _llava_numbers(corners: Sequence[float]) -> str:
    return "[" + ", ".join(f"{corner:.3f}" for corner in corners) + "]"


def _llava_turns(item: Mapping[str, Any]) -> tuple[str, list[tuple[str, list[float]]]]:
    caption, question = "", ""
    found: list[tuple[str, list[float]]] = []
    for who, text in _turns(item):
        if who in _HUMANS:
            question = text
        elif asked := _LLAVA_FOUND.search(question):
            found += [(asked[1], numbers) for numbers in _llava_boxes(text)]
        elif region := _LLAVA_REGION.search(question):
            found += [(text.strip(), numbers) for numbers in _llava_boxes(region[1])]
        elif not caption:
            caption = text
    return caption, found


def _of_one(corners: Sequence[float]) -> Box:
    if max(corners) > 1:
        raise RecordError(f"LLaVA counts shares of the picture, 0 to 1, got {list(corners)}")
    return clipped_box("text", corners, (1, 1))


def _llava_boxes(text: str) -> list[list[float]]:
    return [[float(number) for number in box.split(",")] for box in _LLAVA_BOX.findall(text)]


def _padding(width: int, height: int) -> tuple[int, int, int]:
    """Return the square's side and where the picture's corner is in it, as LLaVA rounds it."""
    side = max(width, height)
    return side, (side - width) // 2, (side - height) // 2


def _padded(box: Box, width: int, height: int) -> Box:
    side, left, top = _padding(width, height)
    x0, y0, x1, y1 = box.to_pixels(width=width, height=height)
    return Box((x0 + left) / side, (y0 + top) / side, (x1 + left) / side, (y1 + top) / side)


def _unpadded(corners: Sequence[float], width: int, height: int) -> Box:
    side, left, top = _padding(width, height)
    x0, y0, x1, y1 = corners
    # Rounded numbers may lie in the padding by half a thousandth, and then mean the border.
    xs = [min(max((x * side - left) / width, 0.0), 1.0) for x in (x0, x1)]
    ys = [min(max((y * side - top) / height, 0.0), 1.0) for y in (y0, y1)]
    return Box(xs[0], ys[0], xs[1], ys[1])
