"""Judging images and pairs that lie about: no recipe, no run directory.

images.py, pairs.py   what there is to judge, as a `Work`
kept.py               scores by content, beside the output: nothing is scored twice
work.py               a Work and scorers to entries (as `aifeedback.pairing` takes them)
labels.py             entries of pairs to labels
accuracy.py           labels of people against scores
summary.py, files.py  what is printed, what is written
"""
