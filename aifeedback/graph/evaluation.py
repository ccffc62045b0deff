"""The nodes of an evaluation: images of both models, their scores by every scorer, and what follows from these."""

from __future__ import annotations

from typing import Any

from aifeedback.errors import UsageError
from aifeedback.graph.artifact import Node, Use
from aifeedback.graph.nodes import Folders, Inputs, Nodes
from aifeedback.recipe import Generate, Sampling
from aifeedback.scorers import perfect_of, shown_as
from aifeedback.seeds import derive_seed
from aifeedback.statistics.judging import SHUFFLED
from aifeedback.steps.evaluate import ALIGNED, BASE, Compared, EvaluateStep

MODELS = (BASE, ALIGNED)


def evaluation_nodes(nodes: Nodes) -> list[Node]:
    """Make them, each after its inputs.

    Raises:
        UsageError: a scorer whose numbers cannot be compared between two models.
    """
    recipe, section, names = nodes.recipe, nodes.recipe.eval, nodes.evaluating()
    for name in names:
        _check_evaluates(name, nodes.named.scorer(name))
    sampling = (section.sampling or recipe.generate or Sampling()).model_dump(include=set(Sampling.model_fields))
    each, size = section.images_per_prompt, section.shard_prompts
    images = Generate(**sampling, candidates=each, shard_prompts=size, keep_latents=False)
    parts = [nodes.sampled(f"images/{m}", "images", "eval", nodes.named.held_out, images, "eval") for m in MODELS]
    parts += [nodes.scores(name, f"images/{model}") for model in MODELS for name in names]
    settings: dict[str, Any] = {
        "recipe": recipe.name, "objective": recipe.train.objective, "images_per_prompt": each,
        "verdict": section.verdict, "bootstrap": section.bootstrap, "facts": _facts(nodes),
    }  # fmt: skip
    compared = {name: _compared(name, nodes) for name in names}

    def make(folders: Folders, inputs: Inputs) -> EvaluateStep:
        facts = settings["facts"] | {"trained model": f"training/{inputs['training'].folder.digest}/model"}
        return EvaluateStep(
            folders["evaluation"],
            {model: inputs[f"images/{model}"] for model in MODELS},
            {(model, name): inputs[f"scores/images/{model}/{name}"] for model in MODELS for name in names},
            compared,
            {**settings, "facts": facts},
        )

    in_loop = sorted(name for name, scorer in compared.items() if scorer.in_loop)
    own = {**settings, "in_loop": in_loop, "seed": recipe.seed}
    uses: dict[str, Use] = {"training": "all", **dict.fromkeys((part.name for part in parts), "all")}
    return [*parts, Node("evaluation", "eval", "evaluation", own, uses, make)]


def _check_evaluates(name: str, identity: dict[str, Any]) -> None:
    if identity.get("compares"):
        raise UsageError(
            f"eval.use: {name} compares the images of one prompt and model with one another; its numbers say "
            "nothing between two models",
            hint="evaluate by a scorer that gives each image a number of its own (vlm does with mode: point)",
        )


def _compared(name: str, nodes: Nodes) -> Compared:
    identity = nodes.named.scorer(name)
    weights = {nodes.named.scorer(judge).get("weights") for judge in nodes.judges} - {None}
    in_loop = name in nodes.judges or identity.get("weights") in weights
    seed = derive_seed(nodes.recipe.seed, "bootstrap", name)
    return Compared(shown_as(identity), in_loop, perfect_of(name, nodes.launch.allow_code), seed)


def _facts(nodes: Nodes) -> dict[str, str]:
    """What the report says was compared; no path, clock or host."""
    recipe, train, pairing = nodes.recipe, nodes.recipe.train, nodes.recipe.judge.pairing
    sampling = recipe.eval.sampling or recipe.generate or Sampling()
    judges = ", ".join(recipe.judge.use) + (f"; labels {SHUFFLED}" if pairing.labels == "shuffled" else "")
    return {
        "model": nodes.named.model["weights"],
        "judged by": f"{judges}; {pairing.strategy}",
        "objective": ", ".join([train.objective, *(f"{key} {value}" for key, value in nodes.parameters.items())]),
        "training": f"{train.method}, {train.steps} steps of {train.global_batch} preference sets",
        "sampling": f"{sampling.scheduler}, {sampling.steps} steps, guidance {sampling.guidance:g}",
        "prompts": recipe.eval.prompts.source,
        "seed": str(recipe.seed),
        "bootstrap": f"{recipe.eval.bootstrap:,} resamples of prompts",
    }
