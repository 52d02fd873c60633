"""How good a model is, in numbers that anybody can compute again.

metrics      matching, shares with intervals, ranking: pure functions
scenes       questions about illustrated scenes whose answers are known, put to a model
scores       saved answers → named numbers, beside those of trivial answers
report       what an evaluation leaves in its folder: answers, results.json, results.md

Benchmarks of others:

benchmark    what one is: questions with truth, prompt, judge, version; registry has them all
refcoco      its data, and flickr: annotations, plain_pickle are what their readers share
asking       questions put to a model, each picture encoded once
predictions  JSON lines that a run resumes from and that are scored without the model
shots        solved examples before each question, drawn by seed
captions     expressions for boxes and captions asked for; words: CIDEr, METEOR, BLEU;
             karpathy, coco_captions: files of captions
grounded     captions with boxes against Flickr30k Entities, by head nouns (heads) and boxes
round_trip   a box described, then found again by these words
vqa          VQAv2; vqa_answers: the official comparison of answers; submission: result.json
localisation one answer judged; bootstrap: means with intervals; slices: parts of the questions
published    what others report, with sources
scene_sets   scenes written as the files of these benchmarks; scene_words: captions, questions
results      all of it as results.json and results.md; gallery: the worst errors as a page
"""
