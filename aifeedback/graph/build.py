"""A recipe to its graph: what it names is looked up once, plug-in defaults are filled once, refusals are said once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aifeedback import plugins
from aifeedback.artifacts.run_dir import Folder
from aifeedback.data.prompts import PromptList
from aifeedback.errors import UsageError
from aifeedback.graph.artifact import Graph, Node, Use
from aifeedback.graph.sources import Found, Sources
from aifeedback.launch import VERBS, Launch, pick_device
from aifeedback.pairing import Rules
from aifeedback.recipe import Generate, Recipe, Sampling, Section
from aifeedback.scorers import perfect_of, shown_as
from aifeedback.seeds import derive_seed
from aifeedback.statistics.judging import SHUFFLED
from aifeedback.steps import Available
from aifeedback.steps.encode import EncodeStep
from aifeedback.steps.evaluate import ALIGNED, BASE, Compared, EvaluateStep
from aifeedback.steps.generate import GenerateStep, ImportStep
from aifeedback.steps.pair import PairStep
from aifeedback.steps.score import ScoreStep
from aifeedback.steps.train import TrainedModel, TrainStep

Folders = Mapping[str, Folder]
Inputs = Mapping[str, Available]

_NO_SETTING = ("objectives", "trackers", "checkpoint_every", "gradient_checkpointing")
"""Keys of `train` that change no weight: how fast, how safe, who watches; `parameters` tells what `objectives` does."""


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
    found = Found(recipe, sources or Sources(launch.offline, launch.allow_code))
    builder = _Builder(recipe, launch, found)
    last = max(VERBS.index(verb) for verb in verbs)
    if "generate" in verbs and "train" in verbs:
        found.check_enough(launch.limit)
    if set(verbs) - {"judge"}:
        plugins.load("models", recipe.model.family, launch.allow_code)
    if "train" in verbs:
        plugins.load("objectives", recipe.train.objective, launch.allow_code)
    nodes = [builder.candidates()]
    if last >= VERBS.index("judge"):
        nodes += [builder.scores(name, "candidates") for name in builder.judges] + [builder.pairs()]
    if last >= VERBS.index("encode"):
        nodes.append(builder.latents())
    if last >= VERBS.index("train"):
        nodes.append(builder.training())
    if last >= VERBS.index("eval"):
        nodes += builder.evaluation()
    return Graph({node.name: node for node in nodes})


class _Builder:
    """Makes nodes. What a node's step needs of the recipe is taken here, so that steps know no recipe."""

    def __init__(self, recipe: Recipe, launch: Launch, found: Found) -> None:
        self.recipe, self.launch, self.found = recipe, launch, found
        self.judges = list(dict.fromkeys(recipe.judge.use))
        size = recipe.generate
        self._size = {"width": size.width, "height": size.height} if size else {"width": None, "height": None}

    # --- candidates and images

    def candidates(self) -> Node:
        """Sampled from the base model, or imported."""
        recipe, source = self.recipe, self.found.candidates
        if isinstance(source, PromptList):
            if recipe.generate is None:
                raise UsageError(f"recipe {recipe.name}: no generate section", hint="add one, or an import section")
            return self._sampled("candidates", "candidates", "generate", source, recipe.generate, "candidate")
        assert recipe.import_ is not None
        size = recipe.import_.shard_prompts

        def make(folders: Folders, inputs: Inputs) -> ImportStep:
            total = len(source.rows)
            return ImportStep(folders["candidates"], total, size, self.launch.limit, "generate", "new", source)

        return Node("candidates", "generate", "candidates", {"source": source.digest, "shard_prompts": size}, {}, make)

    def _sampled(
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

        settings = {"prompts": prompts.digest, "model": self.found.model, "images": dump(section),
                    "seed": recipe.seed, "purpose": purpose}  # fmt: skip
        return Node(name, verb, kind, settings, {"training": "all"} if aligned else {}, make)

    # --- scores

    def scores(self, name: str, source: str) -> Node:
        """Scores by one scorer of the candidates, or of the images of a model (`source`)."""
        recipe, judging = self.recipe, source == "candidates"
        names = self.judges if judging else self._evaluating()
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
        own = {"scorer": name, "identity": self.found.scorer(name), "rejected": rejected}
        return Node(f"scores/{source}/{name}", verb, "scores", own, {source: "each"}, make, f"scores/{source}")

    def _evaluating(self) -> list[str]:
        """The scorers of the evaluation: `eval.use`, else those that judged."""
        return list(dict.fromkeys(self.recipe.eval.use or self.recipe.judge.use))

    # --- pairs to training

    def pairs(self) -> Node:
        """Preference sets of the scores."""
        recipe = self.recipe
        taus = {name: float(self.found.scorer(name).get("tau", 1.0)) for name in self.judges}
        rules = Rules(**recipe.judge.pairing.model_dump(), taus=taus, seed=recipe.seed)
        shown = {name: shown_as(self.found.scorer(name)) for name in self.judges}

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

        settings = {"model": self.found.model, "seed": recipe.seed}
        return Node("latents", "encode", "latents", settings, {"candidates": "each", "pairs": "each"}, make)

    def training(self) -> Node:
        """`validation` and `max_bad_steps` are settings: the curve is part of the result, and so is giving up."""
        recipe, train = self.recipe, self.recipe.train
        section = {key: value for key, value in dump(train).items() if key not in _NO_SETTING}
        if train.method == "full":
            del section["lora"]
        parameters = plugins.settings_of("objectives", train.objective) | train.objectives.get(train.objective, {})
        excluded = self.found.excluded

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
            "model": self.found.model, "train": section, "parameters": parameters, "seed": recipe.seed,
            **plugins.code_of("objectives", train.objective), "excluded": sorted(excluded),
        }  # fmt: skip
        inputs: dict[str, Use] = {"pairs": "all", "latents": "all"}
        return Node("training", "train", "training", settings, inputs, make, check=check)

    # --- evaluation

    def evaluation(self) -> list[Node]:
        """Images of both models, their scores by every scorer, and what follows from these."""
        recipe, section = self.recipe, self.recipe.eval
        names = self._evaluating()
        for name in names:
            self._check_evaluates(name)
        sampling = (section.sampling or recipe.generate or Sampling()).model_dump(include=set(Sampling.model_fields))
        each, size = section.images_per_prompt, section.shard_prompts
        images = Generate(**sampling, candidates=each, shard_prompts=size, keep_latents=False)
        nodes = [
            self._sampled(f"images/{model}", "images", "eval", self.found.held_out, images, "eval")
            for model in (BASE, ALIGNED)
        ]
        nodes += [self.scores(name, f"images/{model}") for model in (BASE, ALIGNED) for name in names]
        inputs: dict[str, Use] = {"training": "all", **dict.fromkeys((node.name for node in nodes), "all")}
        settings: dict[str, Any] = {
            "recipe": recipe.name, "objective": recipe.train.objective, "images_per_prompt": section.images_per_prompt,
            "verdict": section.verdict, "bootstrap": section.bootstrap, "facts": self._facts(),
        }  # fmt: skip
        compared = {name: self._compared(name) for name in names}

        def make(folders: Folders, inputs: Inputs) -> EvaluateStep:
            facts = settings["facts"] | {"trained model": f"training/{inputs['training'].folder.digest}/model"}
            return EvaluateStep(
                folders["evaluation"],
                {model: inputs[f"images/{model}"] for model in (BASE, ALIGNED)},
                {(m, name): inputs[f"scores/images/{m}/{name}"] for m in (BASE, ALIGNED) for name in names},
                compared,
                {**settings, "facts": facts},
            )

        in_loop = sorted(name for name, scorer in compared.items() if scorer.in_loop)
        own = {**settings, "in_loop": in_loop, "seed": recipe.seed}
        return [*nodes, Node("evaluation", "eval", "evaluation", own, inputs, make)]

    def _check_evaluates(self, name: str) -> None:
        if self.found.scorer(name).get("compares"):
            raise UsageError(
                f"eval.use: {name} compares the images of one prompt and model with one another; its numbers say "
                "nothing between two models",
                hint="evaluate by a scorer that gives each image a number of its own (vlm does with mode: point)",
            )

    def _compared(self, name: str) -> Compared:
        identity = self.found.scorer(name)
        weights = {self.found.scorer(judge).get("weights") for judge in self.judges} - {None}
        in_loop = name in self.judges or identity.get("weights") in weights
        seed = derive_seed(self.recipe.seed, "bootstrap", name)
        return Compared(shown_as(identity), in_loop, perfect_of(name, self.launch.allow_code), seed)

    def _facts(self) -> dict[str, str]:
        """What the report says was compared; no path, clock or host."""
        recipe, train, pairing = self.recipe, self.recipe.train, self.recipe.judge.pairing
        sampling = recipe.eval.sampling or recipe.generate or Sampling()
        parameters = plugins.settings_of("objectives", train.objective) | train.objectives.get(train.objective, {})
        judges = ", ".join(recipe.judge.use) + (f"; labels {SHUFFLED}" if pairing.labels == "shuffled" else "")
        return {
            "model": self.found.model["weights"],
            "judged by": f"{judges}; {pairing.strategy}",
            "objective": ", ".join([train.objective, *(f"{key} {value}" for key, value in parameters.items())]),
            "training": f"{train.method}, {train.steps} steps of {train.global_batch} preference sets",
            "sampling": f"{sampling.scheduler}, {sampling.steps} steps, guidance {sampling.guidance:g}",
            "prompts": recipe.eval.prompts.source,
            "seed": str(recipe.seed),
            "bootstrap": f"{recipe.eval.bootstrap:,} resamples of prompts",
        }


def dump(section: Section) -> dict[str, Any]:
    """A section of the recipe as plain data."""
    return section.model_dump(mode="json", by_alias=True)
