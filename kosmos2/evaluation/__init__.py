"""How good a model is, in numbers that anybody can compute again.

metrics      matching, shares with intervals, ranking: pure functions
scenes       questions about illustrated scenes whose answers are known, put to a model
scores       saved answers → named numbers, beside those of trivial answers
report       what an evaluation leaves in its folder: answers, results.json, results.md
"""
