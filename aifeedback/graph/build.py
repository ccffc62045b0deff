"""A recipe to its graph: what it names is looked up once, plug-in defaults are filled once, refusals are said once."""

from __future__ import annotations

from collections.abc import Sequence

from aifeedback import plugins
from aifeedback.graph.artifact import Graph
from aifeedback.graph.evaluation import evaluation_nodes
from aifeedback.graph.nodes import Nodes
from aifeedback.graph.sources import Named, Sources
from aifeedback.launch import VERBS, Launch
from aifeedback.recipe import Recipe


def build(recipe: Recipe, launch: Launch, verbs: Sequence[str] = VERBS, sources: Sources | None = None) -> Graph:
    """The nodes that some verbs play, and those that they are made of; the run directory is not looked at.

    Args:
        recipe: what to do.
        launch: `limit` and `allow_code` have an effect.
        verbs: out of `VERBS`.
        sources: where what the recipe names is looked up; None: on this machine and on the Hub.

    Raises:
        UsageError, WeightsError, MissingDependency: what one of the verbs could not do, or has not what it needs.
    """
    named = Named(recipe, sources or Sources(launch.offline, launch.allow_code))
    makers = Nodes(recipe, launch, named)
    last = max(VERBS.index(verb) for verb in verbs)
    if "generate" in verbs and "train" in verbs:
        named.check_enough(launch.limit)
    if set(verbs) - {"judge"}:
        plugins.load("models", recipe.model.family, launch.allow_code)
    if "train" in verbs:
        plugins.load("objectives", recipe.train.objective, launch.allow_code)
    nodes = [makers.candidates()]
    if last >= VERBS.index("judge"):
        nodes += [makers.scores(name, "candidates") for name in makers.judges] + [makers.pairs()]
    if last >= VERBS.index("encode"):
        nodes.append(makers.latents())
    if last >= VERBS.index("train"):
        nodes.append(makers.training())
    if last >= VERBS.index("eval"):
        nodes += evaluation_nodes(makers)
    return Graph({node.name: node for node in nodes})
