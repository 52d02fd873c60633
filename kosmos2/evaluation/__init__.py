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
captions     expressions for boxes and captions asked for; words: CIDEr, METEOR, BLEU
localisation one answer judged; bootstrap: means with intervals; slices: parts of the questions
published    what others report, with sources
scene_sets   scenes written as the files of these benchmarks
results      all of it as results.json and results.md; gallery: the worst errors as a page
"""
