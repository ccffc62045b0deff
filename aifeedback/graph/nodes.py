"""The nodes of a recipe up to its training. What a step needs of the recipe is taken here: steps know no recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aifeedback import plugins
from aifeedback.artifacts.run_dir import Folder
from aifeedback.data.prompts import PromptList
from aifeedback.errors import UsageError
from aifeedback.graph.artifact import Node, Use
from aifeedback.graph.sources import Named
from aifeedback.launch import Launch, pick_device
from aifeedback.pairing import Rules
from aifeedback.recipe import Generate, Recipe, Section
from aifeedback.scorers import shown_as
from aifeedback.steps import Available
from aifeedback.steps.encode import EncodeStep
from aifeedback.steps.evaluate import ALIGNED
from aifeedback.steps.generate import GenerateStep, ImportStep
from aifeedback.steps.pair import PairStep
from aifeedback.steps.score import ScoreStep
from aifeedback.steps.train import TrainedModel, TrainStep

Folders = Mapping[str, Folder]
Inputs = Mapping[str, Available]

_NO_SETTING = ("objectives", "trackers", "checkpoint_every", "gradient_checkpointing")
"""Keys of `train` that change no weight: how fast, how safe, who watches; `parameters` tells what `objectives` does."""


class Nodes:
    """Makes nodes. What a node's step needs of the recipe is taken here, so that steps know no recipe."""

    def __init__(self, recipe: Recipe, launch: Launch, named: Named) -> None:
        self.recipe, self.launch, self.named = recipe, launch, named
        self.judges = list(dict.fromkeys(recipe.judge.use))
        size = recipe.generate
        self._size = {"width": size.width, "height": size.height} if size else {"width": None, "height": None}

    @property
    def parameters(self) -> dict[str, Any]:
        """Of the objective, its defaults filled in."""
        train = self.recipe.train
        return plugins.settings_of("objectives", train.objective) | train.objectives.get(train.objective, {})

    # --- candidates and images

    def candidates(self) -> Node:
        """Sampled from the base model, or imported."""
        recipe, source = self.recipe, self.named.candidates
        if isinstance(source, PromptList):
            if recipe.generate is None:
                raise UsageError(f"recipe {recipe.name}: no generate section", hint="add one, or an import section")
            return self.sampled("candidates", "candidates", "generate", source, recipe.generate, "candidate")
        assert recipe.import_ is not None
        size = recipe.import_.shard_prompts

        def make(folders: Folders, inputs: Inputs) -> ImportStep:
            total = len(source.rows)
            return ImportStep(folders["candidates"], total, size, self.launch.limit, "generate", "new", source)

        return Node("candidates", "generate", "candidates", {"source": source.digest, "shard_prompts": size}, {}, make)

    def sampled(
        self, name: str, kind: str, verb: str, prompts: PromptList, section: Generate, purpose: str
    ) -> Node:
        """Images of prompts; those of the aligned model have the training as their input."""
        recipe, aligned = self.recipe, name.endswith(ALIGNED)

        def make(folders: Folders, inputs: Inputs) -> GenerateStep:
            trained = TrainedModel(inputs["training"].folder, recipe.train.method) if aligned else None
            return GenerateStep(
                folders[name], len(prompts.prompts), section.shard_prompts, self.launch.limit, verb,
                "new" if verb == "generate" else "new_images",
                prompts, section, recipe.seed, purpose, recipe.model, trained,
            )  # fmt: skip

        settings = {"prompts": prompts.digest, "model": self.named.model, "images": dump(section),
                    "seed": recipe.seed, "purpose": purpose}  # fmt: skip
        return Node(name, verb, kind, settings, {"training": "all"} if aligned else {}, make)

    # --- scores

    def scores(self, name: str, source: str) -> Node:
        """Scores by one scorer of the candidates, or of the images of a model (`source`)."""
        recipe, judging = self.recipe, source == "candidates"
        names = self.judges if judging else self.evaluating()
        section = (recipe.generate or recipe.import_) if judging else recipe.eval
        assert section is not None
        settings = {other: recipe.judge.scorers.get(other, {}) for other in names}
        rejected = "skip" if judging else "score"

        def make(folders: Folders, inputs: Inputs) -> ScoreStep:
            outputs = {node.rpartition("/")[2]: folder for node, folder in folders.items()}
            return ScoreStep(
                outputs, inputs[source], {other: settings[other] for other in outputs},
                frozenset(filter(plugins.is_stored, outputs)), rejected,
                section.shard_prompts, self.launch.limit, "judge" if judging else "eval scores",
            )  # fmt: skip

        verb = "judge" if judging else "eval"
        own = {"scorer": name, "identity": self.named.scorer(name), "rejected": rejected}
        return Node(f"scores/{source}/{name}", verb, "scores", own, {source: "each"}, make, f"scores/{source}")

    def evaluating(self) -> list[str]:
        """The scorers of the evaluation: `eval.use`, else those that judged."""
        return list(dict.fromkeys(self.recipe.eval.use or self.recipe.judge.use))

    # --- pairs to training

    def pairs(self) -> Node:
        """Preference sets of the scores."""
        recipe = self.recipe
        taus = {name: float(self.named.scorer(name).get("tau", 1.0)) for name in self.judges}
        rules = Rules(**recipe.judge.pairing.model_dump(), taus=taus, seed=recipe.seed)
        shown = {name: shown_as(self.named.scorer(name)) for name in self.judges}

        def make(folders: Folders, inputs: Inputs) -> PairStep:
            scores = {name: inputs[f"scores/candidates/{name}"] for name in self.judges}
            return PairStep(folders["pairs"], inputs["candidates"], scores, rules, shown)

        inputs: dict[str, Use] = {"candidates": "all", **{f"scores/candidates/{n}": "all" for n in self.judges}}
        shuffled = recipe.judge.pairing.labels == "shuffled"
        settings = {"pairing": dump(recipe.judge.pairing), "seed": recipe.seed if shuffled else None}
        return Node("pairs", "judge", "pairs", settings, inputs, make)

    def latents(self) -> Node:
        """The objective and all training settings are absent, so that changing them encodes nothing."""
        recipe = self.recipe

        def make(folders: Folders, inputs: Inputs) -> EncodeStep:
            return EncodeStep(
                folders["latents"], inputs["candidates"], inputs["pairs"], recipe.model, recipe.seed, **self._size
            )

        settings = {"model": self.named.model, "seed": recipe.seed}
        return Node("latents", "encode", "latents", settings, {"candidates": "each", "pairs": "each"}, make)

    def training(self) -> Node:
        """`validation` and `max_bad_steps` are settings: the curve is part of the result, and so is giving up."""
        recipe, train = self.recipe, self.recipe.train
        section = {key: value for key, value in dump(train).items() if key not in _NO_SETTING}
        if train.method == "full":
            del section["lora"]
        parameters, excluded = self.parameters, self.named.excluded

        def make(folders: Folders, inputs: Inputs) -> TrainStep:
            return TrainStep(
                folders["training"], inputs["pairs"], inputs["latents"], recipe.model, train, parameters, excluded,
                recipe.seed, **self._size,
            )  # fmt: skip

        def check(launch: Launch) -> None:
            from aifeedback.training.setup import check_precision, check_trackers

            check_trackers(train.trackers)
            check_precision(train.precision, pick_device(launch.device))

        settings = {
            "model": self.named.model, "train": section, "parameters": parameters, "seed": recipe.seed,
            **plugins.code_of("objectives", train.objective), "excluded": sorted(excluded),
        }  # fmt: skip
        inputs: dict[str, Use] = {"pairs": "all", "latents": "all"}
        return Node("training", "train", "training", settings, inputs, make, check=check)


def dump(section: Section) -> dict[str, Any]:
    """A section of the recipe as plain data."""
    return section.model_dump(mode="json", by_alias=True)
