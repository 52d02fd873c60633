"""Small data sets of questions with few answers, in the exact formats of their benchmarks."""

import json
from pathlib import Path

from PIL import Image


def paint(file: Path, colour: tuple[int, int, int] = (90, 120, 60)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), colour).save(file, format="PNG")


def write_seed_bench(folder: Path) -> Path:
    """Write four questions about pictures and one about a video; names without an ending."""
    kinds = {"Scene Understanding": 1, "Instances Counting": 5, "Action Recognition": 10}
    rows = [
        ("101", "1454426_2591111986", "How many towels\nare in the image?", 5, "A", "image"),
        ("102", "1454426_2591111986", "What is this place?", 1, "D", "image"),
        ("103", "2145", "What is shown?", 1, "A", "image"),
        ("104", "2145", "Who is there? Answer: nobody?", 1, "B", "image"),
        ("105", "v.webm", "What happens?", 10, "C", "video"),
    ]
    questions = [
        {
            "answer": answer,
            "choice_a": "One" if type == 5 else "a dog",
            "choice_b": 2 if type == 5 else "a cat",
            "choice_c": "Three",
            "choice_d": "a river\nbelow",
            "data_id": picture,
            "data_type": kind,
            "question": question,
            "question_id": id,
            "question_type_id": type,
            "segment": [0, 1],
        }
        for id, picture, question, type, answer, kind in rows
    ]
    for picture in ("1454426_2591111986", "2145"):
        paint(folder / "SEED-Bench-image" / picture)
    text = json.dumps({"questions": questions, "question_type": kinds})
    (folder / "SEED-Bench.json").write_text(text, encoding="utf-8")
    return folder


def write_pope(folder: Path) -> Path:
    """Write the questions about two pictures: three things there, three not."""
    things = [("a.jpg", "a dog", "yes"), ("a.jpg", "an apple", "no"), ("a.jpg", "a car", "no")]
    things += [("b.jpg", "a cat", "yes"), ("b.jpg", "a river", "yes"), ("b.jpg", "a hat", "no")]
    rows = [
        {
            "question_id": number,
            "image": f"COCO_val2014_{picture}",
            # Some of the published questions are misspelt.
            "text": f"Is there {thing} in the {'imange' if 'apple' in thing else 'image'}?",
            "label": label,
        }
        for number, (picture, thing, label) in enumerate(things, start=1)
    ]
    for picture in ("a.jpg", "b.jpg"):
        paint(folder / "val2014" / f"COCO_val2014_{picture}")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "coco_pope_random.json").write_text(lines, encoding="utf-8")
    return folder


BIRDS = {
    "downy": ("downy woodpecker", "woodpecker", "It has white spots on its black wings."),
    "royal": ("royal penguin", "penguin", "It has yellow feathers."),
    "three_toed": ("three-toed woodpecker", "woodpecker", "It has stripes and a yellow crown."),
    "gentoo": ("Gentoo penguin", "penguin", "It has a white stripe."),
}


def write_birds(folder: Path) -> Path:
    """Write two pictures of each of four birds, two groups."""
    for bird in BIRDS:
        for number in range(2):
            paint(folder / "test" / bird / f"{number}.png")
        (folder / "test" / bird / "notes.txt").write_text("no picture", encoding="utf-8")
    told = {
        bird: {"name": name, "group": group, "description": words}
        for bird, (name, group, words) in BIRDS.items()
    }
    (folder / "classes.json").write_text(json.dumps(told), encoding="utf-8")
    return folder


def write_raven(folder: Path) -> Path:
    """Write two rows of three and four pictures with two and three candidates."""
    rows = [
        {"id": "1", "images": ["a", "b", "c"], "candidates": ["x", "y"], "answer": 1},
        {"id": "2", "images": ["a", "b", "c", "d"], "candidates": ["x", "y", "z"], "answer": 0},
    ]
    for number, name in enumerate("abcdxyz"):
        paint(folder / name, (30 * number, 90, 60))
    (folder / "raven.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder
