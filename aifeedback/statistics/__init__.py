"""Statistics of scores, pure: numbers in, numbers out.

winrate.py     two models on the same prompts: win rate, difference, intervals, sign test
comparing.py   several scorers on the same candidates: one value per candidate, agreement, quantiles
accuracy.py    scorers against the labels of people
"""
