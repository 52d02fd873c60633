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

What the scores of boxes are worth, and a score from which a thing counts as there, from runs that
are done:

```bash
kosmos2 eval calibration eval/refcoco-val --data refcoco-data
kosmos2 eval calibration eval/refcoco-val eval/flickr30k-val --data refcoco-data --data flickr-data
kosmos2 eval threshold eval/absent-random --data pope-data --recall 0.95
```

Language without pictures (the paper's table 6) through lm-evaluation-harness, its tasks, prompts
and metrics; it downloads the data, or reads copies of it:

```bash
kosmos2 eval language --tasks hellaswag,winogrande,piqa,boolq,cb,copa --data language-data
```

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


def _classes(data: str, command: str) -> About:
    return About(
        shortly="a folder of pictures for each class; `classes.json`",
        folder="classes",
        data=data,
        files=("classes/val/n01440764/ILSVRC2012_val_00000293.JPEG", "classes/classes.json"),
        commands=(command,),
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
            "kosmos2 eval refcocog-reg --data refcoco-data --split val --shots 2 --seed 0",
            "kosmos2 eval refcocog-reg --data refcoco-data --split val --shots 4 --seed 0",
        ),
    ),
    "refcocog-round-trip": About(
        shortly="as RefCOCOg",
        folder="refcoco-data",
        data="that of RefCOCOg, above.",
        files=("refcoco-data/refcocog/refs(umd).p", "refcoco-data/refcocog/instances.json"),
        commands=("kosmos2 eval refcocog-round-trip --data refcoco-data --split val",),
    ),
    "flickr30k-captions": About(
        shortly="`dataset_flickr30k.json`; Flickr30k's pictures",
        folder="flickr30k-data",
        data=f"`dataset_flickr30k.json` of {_KARPATHY}; Flickr30k's pictures.",
        files=(
            "flickr30k-data/dataset_flickr30k.json",
            "flickr30k-data/flickr30k-images/1007129816.jpg",
        ),
        commands=(
            "kosmos2 eval flickr30k-captions --data flickr30k-data --split test",
            "kosmos2 eval flickr30k-captions --data flickr30k-data --split test --shots 4",
        ),
    ),
    "coco-captions": About(
        shortly="`dataset_coco.json` or `coco_karpathy_test.json`; COCO val2014",
        folder="coco-data",
        data=f"`dataset_coco.json` of {_KARPATHY}, or BLIP's `coco_karpathy_test.json` of the same "
        "split; the pictures `val2014` of COCO (and `train2014` for examples).",
        files=(
            "coco-data/dataset_coco.json",
            "coco-data/val2014/COCO_val2014_000000391895.jpg",
        ),
        commands=(
            "kosmos2 eval coco-captions --data coco-data --split test",
            "kosmos2 eval coco-captions --data coco-data --split test --shots 4",
        ),
    ),
    "flickr30k-grounded": About(
        shortly="as Flickr30k Entities",
        folder="flickr30k-data",
        data="that of Flickr30k Entities, above.",
        files=("flickr30k-data/test.txt", "flickr30k-data/Annotations/1000092795.xml"),
        commands=("kosmos2 eval flickr30k-grounded --data flickr30k-data --split test",),
    ),
    "vqav2": About(
        shortly="VQAv2's questions and answers; COCO val2014, test2015",
        folder="vqa-data",
        data="the questions and annotations of VQAv2 (visualqa's downloads); COCO's pictures of "
        "the same split. The answers of the tests are secret: a run on `test-dev` writes the file "
        "for the evaluation server instead of a score.",
        files=(
            "vqa-data/v2_OpenEnded_mscoco_val2014_questions.json",
            "vqa-data/v2_mscoco_val2014_annotations.json",
            "vqa-data/val2014/COCO_val2014_000000262148.jpg",
        ),
        commands=(
            "kosmos2 eval vqav2 --data vqa-data --split val",
            "kosmos2 eval vqav2 --data vqa-data --split test-dev",
            "kosmos2 eval vqav2 --data vqa-data --split val --shots 4",
        ),
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
        "repository (folder `output/coco`; an earlier file of that name has 2,910 random ones: "
        "`--own-data`); the pictures `val2014` of COCO.",
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
    "classify": _classes(
        "ImageNet's validation pictures in a folder for each class, and `classes.json` with their "
        "names.",
        "kosmos2 eval classify --data classes --split val",
    ),
    "classify-asked": _classes(
        "any pictures in a folder for each class; `classes.json` names the group of each class.",
        "kosmos2 eval classify-asked --data classes --split val --own-data",
    ),
    "classify-described": _classes(
        "as above, and `classes.json` has a description of each class too. The three pairs of "
        "birds of the Kosmos-1 paper were never released.",
        "kosmos2 eval classify-described --data classes --split val --own-data",
    ),
    "raven": About(
        shortly="IQ50 is not to be had; a format of our own",
        folder="raven-data",
        data="rows of pictures with candidates, in the format that `kosmos2/evaluation/raven.py` "
        "shows; the paper's IQ50 can no longer be had.",
        files=("raven-data/raven.json", "raven-data/1/a.png"),
        commands=("kosmos2 eval raven --data raven-data --split test --own-data",),
    ),
}
