"""What no code of the registry knows: where data comes from, how its files lie, what to type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_AS_PUBLISHED = "--model microsoft/kosmos-2-patch14-224 --dtype fp32 --set no_repeat=original"
OPENING = """
# Evaluation

`kosmos2 eval NAME --data DIR` asks a model the questions of a benchmark, keeps every answer, scores
them and writes `predictions.jsonl`, `results.json`, `results.md` and `gallery.html` (the worst
answers beside the truth). No data set comes with this project, and none was reachable where it was
made: the readers are proved on small files in the exact formats and on scenes written in them
([what these gave](results/evaluation.md)). The numbers in the column *published* are others'.
"""
PAPER = f"""
## How every run goes

The published numbers of Kosmos-2 are those of the instruction-tuned model in fp32, greedy unless
said otherwise, with no three tokens written twice. The commands below leave that out:

```bash
kosmos2 eval refcoco --data refcoco-data --split val {_AS_PUBLISHED}
```

A run that was stopped goes on where it was; a long one can be shared, and is scored when all parts
are there. An answer that is missing or there twice is an error. A run of few questions, of other
data or with other settings says so beside its numbers.

```bash
kosmos2 eval refcoco --data refcoco-data --split val --limit 200 --out first-look
kosmos2 eval refcoco --data refcoco-data --split val --shard 1/8          # ... to 8/8, then:
kosmos2 eval score eval/refcoco-val --data refcoco-data                   # without the model
kosmos2 scenes write scene-refs --as refcoco --recipe recipes/train/embedded.toml
kosmos2 eval refcoco --data scene-refs --split iid --own-data             # nothing of others needed
```

Scores come with n, a 95 % interval (a bootstrap over pictures) and slices. A change that can move a
score raises the version of the benchmark; predictions of another version are not scored. The
coordinates of answers are read in one way only, the one that the weights were trained with.
"""
BESIDE = """
## Beside these

The embedded model's own examination, on scenes that training never saw, with trivial answers beside
it ([results](results/embedded.md)):

```bash
kosmos2 eval scenes --recipe recipes/train/embedded.toml --out scenes-results
```
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """One benchmark's data."""

    shortly: str
    folder: str
    data: str
    files: tuple[str, ...]
    commands: tuple[str, ...]


_MDETR = (
    "`mdetr_annotations.tar.gz` of MDETR (Zenodo, record 4729015; the Hugging Face data set "
    "GLIPModel/GLIP has a copy)"
)
_COCO = "the pictures `train2014` of COCO"
_KARPATHY = "Karpathy's captions (`caption_datasets.zip`)"


def _refcoco(name: str, refs: str, splits: tuple[str, ...]) -> About:
    folder = "refcoco-data"
    mdetr = f"finetune_{name}_{splits[0]}.json"
    return About(
        shortly=f"`{refs}`, `instances.json` or MDETR's JSON; COCO train2014",
        folder=folder,
        data=f"{_COCO}, and either `{refs}` with `instances.json` of the refer data (its first "
        f"host is gone, mirrors have it) or `finetune_{name}_*.json` in {_MDETR}. Give a JSON "
        "file of MDETR's itself to --data, with --images for the pictures.",
        files=(
            f"{folder}/{name}/{refs}",
            f"{folder}/{name}/instances.json",
            f"{folder}/train2014/COCO_train2014_000000581857.jpg",
        ),
        commands=(
            *(f"kosmos2 eval {name} --data {folder} --split {split}" for split in splits),
            f"kosmos2 eval {name} --data {mdetr} --images train2014 --split {splits[0]}",
        ),
    )


ABOUT: Mapping[str, About] = {
    "refcoco": _refcoco("refcoco", "refs(unc).p", ("val", "testA", "testB")),
    "refcoco+": _refcoco("refcoco+", "refs(unc).p", ("val", "testA", "testB")),
    "refcocog": _refcoco("refcocog", "refs(umd).p", ("val", "test")),
    "flickr30k": About(
        shortly="Flickr30k Entities; Flickr30k's pictures",
        folder="flickr30k-data",
        data="the repository of Flickr30k Entities (`Annotations`, `Sentences`, lists of the "
        "splits); Flickr30k's pictures, which its authors give on request; "
        f"`final_flickr_separateGT_*.json` in {_MDETR} can be given instead of the folder, whose "
        "files must lie beside it in `flickr30k_entities`.",
        files=(
            "flickr30k-data/val.txt",
            "flickr30k-data/Annotations/1000092795.xml",
            "flickr30k-data/Sentences/1000092795.txt",
            "flickr30k-data/flickr30k-images/1000092795.jpg",
        ),
        commands=(
            "kosmos2 eval flickr30k --data flickr30k-data --split val",
            "kosmos2 eval flickr30k --data flickr30k-data --split test",
            "kosmos2 eval flickr30k --data final_flickr_separateGT_test.json --split test",
        ),
    ),
    "refcocog-reg": About(
        shortly="as RefCOCOg",
        folder="refcoco-data",
        data="that of RefCOCOg, above. METEOR needs Java; the rest does not.",
        files=("refcoco-data/refcocog/refs(umd).p", "refcoco-data/refcocog/instances.json"),
        commands=(
            "kosmos2 eval refcocog-reg --data refcoco-data --split val",
            "kosmos2 eval refcocog-reg --data refcoco-data --split test",
        ),
    ),
    "flickr30k-captions": About(
        shortly="`dataset_flickr30k.json`; Flickr30k's pictures",
        folder="flickr30k-data",
        data=f"`dataset_flickr30k.json` of {_KARPATHY}; Flickr30k's pictures.",
        files=(
            "flickr30k-data/dataset_flickr30k.json",
            "flickr30k-data/flickr30k-images/1007129816.jpg",
        ),
        commands=("kosmos2 eval flickr30k-captions --data flickr30k-data --split test",),
    ),
    "seed-bench": About(
        shortly="`SEED-Bench.json`, `SEED-Bench-image`",
        folder="seed-data",
        data="`SEED-Bench.json` and the pictures `SEED-Bench-image` of SEED-Bench (the Hugging "
        "Face data set AILab-CVC/SEED-Bench); questions about videos are not asked.",
        files=("seed-data/SEED-Bench.json", "seed-data/SEED-Bench-image/1454426_2591111986"),
        commands=("kosmos2 eval seed-bench --data seed-data --split image",),
    ),
    "pope": About(
        shortly="`coco_pope_*.json`; COCO val2014",
        folder="pope-data",
        data="`coco_pope_random.json`, `..._popular.json`, `..._adversarial.json` of POPE's "
        "repository (folder `output/coco`); the pictures `val2014` of COCO.",
        files=(
            "pope-data/coco_pope_random.json",
            "pope-data/val2014/COCO_val2014_000000310196.jpg",
        ),
        commands=(
            "kosmos2 eval pope --data pope-data --split random",
            "kosmos2 eval pope --data pope-data --split adversarial",
        ),
    ),
    "absent": About(
        shortly="as POPE",
        folder="pope-data",
        data="that of POPE, above.",
        files=("pope-data/coco_pope_random.json",),
        commands=(
            "kosmos2 eval absent --data pope-data --split random",
            "kosmos2 eval absent --data pope-data --split random --answer absent",
        ),
    ),
}
