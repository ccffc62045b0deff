"""The graph of a recipe: what moves an artifact's digest and what does not, and what is refused once, at the start."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aifeedback.artifacts.run_dir import Marker
from aifeedback.artifacts.tables import candidates_to_table, scores_to_table
from aifeedback.data.prompts import prompt_of
from aifeedback.errors import RecipeError, UsageError, WeightsError
from aifeedback.graph.artifact import Artifact, Graph, Input, resolve
from aifeedback.graph.build import build
from aifeedback.graph.sources import Sources
from aifeedback.launch import VERBS, Launch
from tests.runs import LAUNCH, NoModel, fill, player, tiny_recipe

ALL_IN_ORDER = [
    "candidates", "scores/candidates/jpeg_size", "pairs", "latents", "training", "images/base", "images/aligned",
    "scores/images/base/jpeg_size", "scores/images/base/shapes", "scores/images/aligned/jpeg_size",
    "scores/images/aligned/shapes", "evaluation",
]  # fmt: skip


def whole(name: str, artifact: Artifact) -> tuple[tuple[int, ...] | None, str | None]:
    """Everything is there; a training's model is always the same."""
    return None, "model@1" if artifact.kind == "training" else None


def digests(graph: Graph) -> dict[str, str]:
    return {name: resolve(graph, name, whole).digest for name in graph.nodes}


def moved(tmp_path: Path, **sections: Any) -> set[str]:
    """Nodes whose digest is another one with these keys than without."""
    recipes = [tiny_recipe(tmp_path, "w", **keys) for keys in ({}, sections)]
    before, after = (digests(build(recipe, LAUNCH, sources=NoModel())) for recipe in recipes)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def from_node(name: str, tmp_path: Path) -> set[str]:
    """A node and all that is made of it."""
    found = {name}
    for node in build(tiny_recipe(tmp_path, "w"), LAUNCH, sources=NoModel()).nodes.values():
        if found & node.inputs.keys():
            found.add(node.name)
    return found


def test_nodes_stand_after_their_inputs(tmp_path: Path) -> None:
    graph = build(tiny_recipe(tmp_path, "w"), LAUNCH, sources=NoModel())
    assert list(graph.nodes) == ALL_IN_ORDER
    for place, node in enumerate(graph.nodes.values()):
        assert set(node.inputs) <= set(ALL_IN_ORDER[:place])
    assert [node.name for node in graph.of("judge")] == ["scores/candidates/jpeg_size", "pairs"]


@pytest.mark.parametrize(("verb", "count"), zip(VERBS, (1, 3, 4, 5, 12), strict=True))
def test_a_verb_builds_its_nodes_and_what_they_are_made_of(verb: str, count: int, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "w")
    assert list(build(recipe, LAUNCH, [verb], NoModel()).nodes) == ALL_IN_ORDER[:count]
    alone, all_verbs = (build(recipe, LAUNCH, verbs, NoModel()) for verbs in ([verb], VERBS))
    assert digests(alone).items() <= digests(all_verbs).items(), "the same artifacts, whoever asks"


# --- what moves a digest


@pytest.mark.parametrize(
    ("sections", "first"),
    [
        ({"generate": {"steps": 7}}, "candidates"),
        ({"generate": {"candidates": 2}}, "candidates"),
        ({"generate": {"shard_prompts": 4}}, "candidates"),
        ({"prompts": {"limit": 4}}, "candidates"),
        ({"judge": {"scorers": {"jpeg_size": {"quality": 7}}}}, "scores/candidates/jpeg_size"),
        ({"judge": {"pairing": {"strategy": "all"}}}, "pairs"),
        ({"judge": {"pairing": {"labels": "shuffled"}}}, "pairs"),
        ({"train": {"steps": 7}}, "training"),
        ({"train": {"objective": "sft"}}, "training"),
        ({"train": {"objectives": {"dpo": {"beta": 7.0}}}}, "training"),
        ({"train": {"validation": {"fraction": 0.25, "every": 7}}}, "training"),
        ({"train": {"validation": {"fraction": 0.2, "every": 3}}}, "training"),
        ({"train": {"max_bad_steps": 7}}, "training"),
        ({"train": {"ema": 0.9}}, "training"),
        ({"train": {"lora": {"rank": 4}}}, "training"),
        ({"eval": {"bootstrap": 200}}, "evaluation"),
        ({"eval": {"verdict": "jpeg_size"}}, "evaluation"),
    ],
)
def test_a_key_moves_what_it_determines_and_all_that_follows(
    sections: dict[str, Any], first: str, tmp_path: Path
) -> None:
    expected = from_node(first, tmp_path)
    if "generate" in sections:  # the evaluation samples as candidates were sampled, where it says nothing else
        same = {"candidates", "shard_prompts"} & sections["generate"].keys()
        assert moved(tmp_path, **sections) == expected | (set() if same else from_node("images/base", tmp_path))
    elif "scorers" in sections.get("judge", {}):  # the same scorer evaluates
        assert moved(tmp_path, **sections) == expected | {"scores/images/base/jpeg_size"}
    else:
        assert moved(tmp_path, **sections) == expected


@pytest.mark.parametrize(
    "sections",
    [
        {"train": {"checkpoint_every": 7}},
        {"train": {"gradient_checkpointing": True}},
        {"train": {"trackers": ["tensorboard"]}},
        {"train": {"objectives": {"sft": {}}}},  # not used
        {"eval": {"gallery": 3}},
        {"judge": {"scorers": {"clip": {"weights": "elsewhere"}}}},  # not used
    ],
)
def test_what_changes_no_number_moves_nothing(sections: dict[str, Any], tmp_path: Path) -> None:
    assert moved(tmp_path, **sections) == set()


def test_the_seed_moves_all_but_what_draws_nothing(tmp_path: Path) -> None:
    """Pairs follow their candidates; by themselves they draw random numbers only where labels are shuffled."""
    recipe = tiny_recipe(tmp_path, "w")
    one, two = (build(recipe.model_copy(update={"seed": seed}), LAUNCH, sources=NoModel()) for seed in (0, 1))
    assert not set(digests(one).values()) & set(digests(two).values())
    assert one.nodes["pairs"].settings == two.nodes["pairs"].settings
    shuffled = tiny_recipe(tmp_path, "w", judge={"pairing": {"labels": "shuffled"}})
    assert build(shuffled, LAUNCH, sources=NoModel()).nodes["pairs"].settings["seed"] == 0


def test_lora_settings_do_not_move_a_full_training(tmp_path: Path) -> None:
    full = [
        digests(build(tiny_recipe(tmp_path, "w", train={"method": "full", "lora": {"rank": rank}}), LAUNCH,
                      sources=NoModel()))["training"]
        for rank in (2, 4)
    ]  # fmt: skip
    assert full[0] == full[1]


def test_launch_options_move_nothing(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "w")
    fast = Launch(device="cpu", workers=3, worker=1, micro_batch=7, compile=True, residency="one_by_one", limit=6)
    assert digests(build(recipe, fast, sources=NoModel())) == digests(build(recipe, LAUNCH, sources=NoModel()))


def test_prompts_of_the_evaluation_are_excluded_from_training(tmp_path: Path) -> None:
    """They are the same prompt also where whitespace differs."""
    recipe = tiny_recipe(tmp_path, "w")
    with (tmp_path / "heldout.txt").open("a") as file:
        file.write("\n  a blue  circle left of a blue star on a gray background\n")
    graph = build(recipe, LAUNCH, sources=NoModel())
    shared = prompt_of("a blue circle left of a blue star on a gray background").id
    assert graph.nodes["training"].settings["excluded"] == [shared]
    before = digests(build(tiny_recipe(tmp_path, "w"), LAUNCH, sources=NoModel()))
    assert before["training"] != digests(graph)["training"]


# --- inputs as they were


def test_an_unfinished_input_is_named_by_its_shards(tmp_path: Path) -> None:
    nodes = build(tiny_recipe(tmp_path, "w"), LAUNCH, sources=NoModel())

    def look(name: str, artifact: Artifact) -> tuple[tuple[int, ...] | None, str | None]:
        return ((0, 3), None) if name == "candidates" else (None, None)

    scores, pairs = (resolve(nodes, name, look) for name in ("scores/candidates/jpeg_size", "pairs"))
    assert "shards" not in scores.about["inputs"]["candidates"], "shard n of the scores is of shard n alone"
    assert pairs.about["inputs"]["candidates"]["shards"] == [0, 3]
    assert scores.is_whole and not pairs.is_whole
    assert not resolve(nodes, "latents", look).is_whole, "nor what is made of a part"
    assert pairs.digest != resolve(nodes, "pairs", whole).digest
    assert resolve(nodes, "pairs", whole).is_whole


def test_images_of_other_weights_are_other_images(tmp_path: Path) -> None:
    nodes = build(tiny_recipe(tmp_path, "w"), LAUNCH, sources=NoModel())
    other = resolve(nodes, "images/aligned", lambda *_: (None, "model@2"))
    assert other.digest != resolve(nodes, "images/aligned", whole).digest
    assert other.inputs["training"].content == "model@2"


def test_a_player_sees_what_lies_there(tmp_path: Path) -> None:
    """Shards of an artifact that was never complete are named; a complete one is all there is."""
    recipe = tiny_recipe(tmp_path, "w")
    for marker, shards in ((None, [3]), (Marker(counts={}), None)):
        of = player(recipe, tmp_path / "run", sources=NoModel())
        fill(of, "candidates", {3: candidates_to_table([])}, marker)
        fill(of, "scores/candidates/jpeg_size", {3: scores_to_table([])}, marker)
        inputs = of.artifact("pairs").about["inputs"]
        assert [about.get("shards") for about in inputs.values()] == [shards, shards]


def test_the_digest_is_of_format_kind_settings_and_inputs() -> None:
    """Written out by hand: other files for the same words need another FORMAT."""
    candidates = Artifact("candidates", {"seed": 0})
    assert candidates.about == {"format": 2, "kind": "candidates", "settings": {"seed": 0}, "inputs": {}}
    text = b'{"format":2,"inputs":{},"kind":"candidates","settings":{"seed":0}}'
    assert candidates.digest == hashlib.blake2b(text, digest_size=6).hexdigest()
    scores = Artifact("scores", {"scorer": "x"}, {"candidates": Input(candidates, (1, 2), "c")})
    assert scores.about["inputs"]["candidates"] == {
        "kind": "candidates", "digest": candidates.digest, "shards": [1, 2], "content": "c"
    }  # fmt: skip


# --- code of one's own


def test_own_objectives_and_families_are_known_by_their_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_training", raising=False)
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "config.json").write_text("{}")
    file, allowed = tmp_path / "own_training.py", replace(LAUNCH, allow_code=True)
    family = tiny_recipe(tmp_path, "w", model={"family": "own_training:load"})
    plain, objective = (tiny_recipe(tmp_path, "w", train={"objective": o}) for o in ("dpo", "own_training:loss"))
    found = []
    for code in ("raise SystemExit('judging runs no model')", "def loss(): ..."):
        file.write_text(code)
        found.append([digests(build(family, LAUNCH, ["judge"]))["candidates"], digests(build(plain, LAUNCH))])
    assert found[0][0] != found[1][0]
    assert found[0][1] == found[1][1] and "own_training" not in sys.modules
    with pytest.raises(UsageError, match="own_training:loss: is code of your own"):
        build(objective, LAUNCH)
    trained = []
    for code in ("def loss(): ...", "def loss(): return 1"):
        file.write_text(code)
        trained.append(digests(build(objective, allowed)))
    assert {name for name in trained[0] if trained[0][name] != trained[1][name]} == from_node("training", tmp_path)


# --- who judged


def in_loop(tmp_path: Path, sources: Sources | None = None, **sections: Any) -> list[str]:
    recipe = tiny_recipe(tmp_path, "w", **sections)
    settings = build(recipe, LAUNCH, sources=sources or NoModel()).nodes["evaluation"].settings
    found: list[str] = settings["in_loop"]
    return found


def test_who_judged(tmp_path: Path) -> None:
    assert in_loop(tmp_path) == ["jpeg_size"]
    assert in_loop(tmp_path, judge={"pairing": {"labels": "shuffled"}}) == ["jpeg_size"]
    assert in_loop(tmp_path, judge={"use": ["shapes"]}) == ["shapes"]


class SameWeights(NoModel):
    """pickscore and clip under the same weights, shapes without any."""

    def scorer(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        weights = {"clip": "one@1", "pickscore": "one@1", "aesthetic": "other@1", "shapes": None}
        return {"name": name, "weights": weights[name]}


def test_the_same_weights_under_another_name_judged_too(tmp_path: Path) -> None:
    sections = {"judge": {"use": ["pickscore"]}, "eval": {"use": ["clip", "aesthetic", "shapes"]}}
    assert in_loop(tmp_path, SameWeights(), **sections) == ["clip"]


class Compares(NoModel):
    """A scorer that compares images with one another."""

    def scorer(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, "compares": name == "vlm"}


# --- refusals


def test_a_scorer_that_compares_evaluates_nothing(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "w", judge={"use": ["vlm"]}, eval={"use": ["vlm"]})
    assert build(recipe, LAUNCH, ["judge"], Compares()).nodes
    with pytest.raises(UsageError, match="eval.use: vlm compares the images"):
        build(recipe, LAUNCH, sources=Compares())


def test_an_empty_list_of_evaluation_prompts_is_refused(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "w")
    (tmp_path / "heldout.txt").write_text("\n  \n")
    with pytest.raises(UsageError, match=r"eval.prompts.source: .*holds no prompt"):
        build(recipe, LAUNCH, sources=NoModel())
    assert build(recipe, LAUNCH, ["judge"], NoModel()).nodes, "judging asks for no evaluation prompts"


@pytest.mark.parametrize(
    ("sections", "error", "said"),
    [
        ({"prompts": {"source": "nowhere.txt"}}, UsageError, "prompts.source: nowhere.txt"),
        ({"eval": {"prompts": {"source": "nowhere.txt"}}}, UsageError, "eval.prompts.source: nowhere.txt"),
        ({"judge": {"use": ["clip"], "scorers": {"clip": {"weights": "./nowhere"}}}}, WeightsError, "nowhere"),
        ({"eval": {"use": ["own:scorer"]}}, UsageError, "own:scorer"),
        ({"train": {"objective": "own:loss"}}, UsageError, "own:loss"),
        ({"model": {"family": "own:family"}}, UsageError, "own:family"),
        ({"judge": {"use": ["nobody"]}}, RecipeError, "unknown scorer 'nobody'"),
        ({"train": {"global_batch": 9}}, UsageError, "9 is larger than the 8 preference sets that 8 prompts can give"),
    ],
)
def test_what_a_verb_lacks_is_said_when_the_graph_is_built(
    sections: dict[str, Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        build(tiny_recipe(tmp_path, "w", **sections), LAUNCH, sources=NoModel())


def test_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="./nowhere"):
        build(tiny_recipe(tmp_path, "./nowhere"), LAUNCH)


def test_a_verb_refuses_only_what_its_own_nodes_lack(tmp_path: Path) -> None:
    missing = {"train": {"objective": "own:loss"}, "eval": {"use": ["own:scorer"]}}
    recipe = tiny_recipe(tmp_path, "w", **missing)
    for verb in ("generate", "judge", "encode"):
        assert build(recipe, LAUNCH, [verb], NoModel()).nodes
    for verb in ("train", "eval"):
        with pytest.raises(UsageError, match="own:"):
            build(recipe, LAUNCH, [verb], NoModel())


@pytest.mark.parametrize(
    ("limit", "pairing", "most"), [(None, {}, 8), (3, {}, 4), (None, {"strategy": "all"}, 24),
                                   (None, {"strategy": "all", "max_sets_per_prompt": 2}, 16)],
)  # fmt: skip
def test_too_large_a_batch_is_refused_before_hours_of_sampling(
    limit: int | None, pairing: dict[str, Any], most: int, tmp_path: Path
) -> None:
    launch = replace(LAUNCH, limit=limit)
    build(tiny_recipe(tmp_path, "w", judge={"pairing": pairing}, train={"global_batch": most}), launch,
          sources=NoModel())  # fmt: skip
    recipe = tiny_recipe(tmp_path, "w", judge={"pairing": pairing}, train={"global_batch": most + 1})
    with pytest.raises(UsageError, match=f"larger than the {most} preference sets"):
        build(recipe, launch, sources=NoModel())
    assert build(recipe, launch, ["train"], NoModel()).nodes, "what is there already may be more: training says so"
