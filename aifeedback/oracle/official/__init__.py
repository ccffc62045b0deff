"""The original packages at work, in the other interpreter: `python -m official JOB`, with its parent on the path.

Imports nothing of aifeedback. Takes `job.json` and images in the folder JOB, writes `answer.json` there.
"""
