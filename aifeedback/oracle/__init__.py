"""`aifb verify`: the original packages in an environment of their own, as reference for our scorers.

The files here run in our interpreter. Those of `official` run in the other one: they import the original packages,
never this package, and meet us only in files (`official.job`).
"""
