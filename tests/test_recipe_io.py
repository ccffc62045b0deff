"""Recipes: loading, every problem at once, resolving, dumping, copying."""

from __future__ import annotations

from pathlib import Path

import pytest

from aifeedback import recipe_check, recipe_io
from aifeedback.errors import RecipeError, UsageError

GOOD = """\
name: tiny
prompts:
  source: p.txt
generate:
  candidates: 2
judge:
  use: [jpeg_size]
train:
  objective: dspo
  objectives:
    dspo: {beta: 100.0, gamma: 0.5}
    dpo: {beta: 7.5}
  eps: 1e-8
eval:
  prompts: {source: e.txt}
  use: [jpeg_size, shapes]
"""


def problems(*overrides: str, text: str = GOOD) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe_io.loads(text, "r.yaml", overrides)
    return str(caught.value)


def test_loads_and_resolves() -> None:
    recipe = recipe_io.loads(GOOD, "r.yaml", ["train.learning_rate=2e-6"])
    assert recipe.train.eps == 1e-8
    assert recipe.train.learning_rate == 2e-6
    assert recipe.train.objectives["dspo"]["gradient"] in ("attached", "weight_detached", "target_detached")
    assert recipe.train.objectives["dpo"] == {"beta": 7.5}  # unused: as given


def test_dump_keeps_every_plug_in_parameter() -> None:
    recipe = recipe_io.loads(GOOD, "r.yaml")
    text = recipe_io.dump(recipe)
    assert recipe_io.loads(text, "again") == recipe
    assert recipe_io.dump(recipe_io.loads(text, "again")) == text
    assert "gamma: 0.5" in text
    assert "import" not in text.splitlines()


def test_all_errors_at_once_with_file_and_line() -> None:
    """Those of single keys first; across keys and plug-ins once each key is right."""
    text = GOOD.replace("candidates: 2", "candidates: 1").replace("[jpeg_size]", "[jpg_size]")
    text = text.replace("gamma: 0.5", "gamm: 0.5")
    across = [
        "generate.candidates: must be >= 2: dspo learns from a pair of candidates, got 1 [r.yaml:5]",
        "judge.use.0: unknown scorer 'jpg_size'; did you mean \"jpeg_size\"? [r.yaml:7]",
        'train.objectives.dspo.gamm: unknown setting; did you mean "gamma"? [r.yaml:11]',
    ]
    assert problems(text=text).splitlines() == across
    text = text.replace("candidates: 1", "candidates: 1\n  guidence: 3").replace("eps: 1e-8", "eps: -1")
    assert problems(text=text).splitlines() == [
        'generate.guidence: unknown key; did you mean "guidance"? [r.yaml:6]',
        "train.eps: must be > 0, got -1 [r.yaml:14]",
    ]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["judge.pairing.min_margin=-0.1"], "judge.pairing.min_margin: must be >= 0, got -0.1 [override"),
        (["generate=null"], "generate: exactly one of generate and import must be given, got neither"),
        (["import.source=x.parquet"], "got both"),
        (["prompts=null"], "prompts: required with generate"),
        (["generate=null", "import.source=x"], "prompts: has no effect with import"),
        (["judge.pairing.labels=given"], "scores of the scorer human: judge.use: [human]"),
        (["judge.use=[human]"], "judge.use: human needs import"),
        (["judge.use=[human, jpeg_size]"], "judge.use: human stands alone, got human, jpeg_size"),
        (["eval.use=[human]"], "eval.use: human scores imported candidates only"),
        (["judge.use=[]"], "judge.use: must name at least one scorer"),
        (["judge.use=[jpeg_size, jpeg_size]"], "judge.use.1: 'jpeg_size' is named twice"),
        (["judge.use=[jpeg_size, shapes]"], "`single` takes one scorer, got 2"),
        (["judge.pairing.aggregate=win_fraction", "judge.pairing.min_margin=2"], "must be <= 1"),
        (["judge.scorers.jpeg_size.qualty=3"], "judge.scorers.jpeg_size.qualty: unknown setting"),
        (["eval.use=[]"], "eval.use: must name at least one scorer"),
        (["eval.verdict=clip"], "eval.verdict: must be one of eval.use (jpeg_size, shapes), got 'clip'"),
        (["train.objective=dopo"], "train.objective: unknown objective 'dopo'; did you mean \"dpo\"?"),
        (["train.objectives.dspo.gamma=1"], "train.objectives.dspo.gamma: must be < 1 with gradient: attached"),
        (["train.objectives.dspo.beta=much"], "train.objectives.dspo.beta: must be a valid number, got 'much'"),
        (["train.objectives.dspo.gradient=atached"], "train.objectives.dspo.gradient: must be 'attached'"),
        (["model.family=sdd"], 'did you mean "sd"?'),
        (["generate.width=65"], "generate.width: must be a multiple of 8, got 65"),
        (["train.objectives.dspo={betta: 1, gamma: 1}"], "train.objectives.dspo.gamma: must be < 1"),
        (["train.objectives.dspo.beta=true"], "train.objectives.dspo.beta: must not be true or false"),
        (["judge.use=[http]", "judge.scorers.http.url=5"], "judge.scorers.http.url: must be"),
        (["seed=true"], "seed: must not be true or false, got True"),
        (["train.betas=[2, -1]"], "train.betas: must be two numbers in [0, 1), got [2.0, -1.0]"),
        (["train.betas=0.9"], "train.betas: must be a list of two numbers"),
        (["train.steps=1.5"], "train.steps: must be a whole number, got 1.5"),
        (["judge.use=pickscore"], "judge.use: must be a list: [one, two], got 'pickscore'"),
        (["train.steps=many"], "train.steps: must be a valid integer, got 'many'"),
        (["train=3"], "train: must be a section of keys and values, got 3"),
        (["train.timesteps=[0.5, 0.1]"], "train.timesteps: must be two rising fractions"),
        (["train.learning_rate=.inf"], "train.learning_rate: must be a finite number, got inf"),
        (["name=../x"], "name: must match pattern"),
        (["eval=null"], "eval: must be a section"),
        (["train.batch=3"], "train.batch: unknown key"),
    ],
)
def test_problems(overrides: list[str], said: str) -> None:
    assert said in problems(*overrides)


def test_missing_sections_are_named_together_with_bad_keys() -> None:
    lines = problems(text="prompts: {source: x}\ngenerate: {candidates: 0}\ntrain: {objective: dspo}\n")
    assert "name: required, but not given [r.yaml:1]" in lines
    assert "eval: required, but not given" in lines
    assert "generate.candidates: must be >= 1" in lines


def test_objective_that_sees_one_candidate_takes_one() -> None:
    assert recipe_io.loads(GOOD, "r", ["train.objective=sft", "generate.candidates=1"]).train.objective == "sft"


def test_gamma_of_one_is_allowed_where_the_target_is_detached() -> None:
    overrides = ["train.objectives.dspo.gamma=1", "train.objectives.dspo.gradient=target_detached"]
    assert recipe_io.loads(GOOD, "r", overrides).train.objectives["dspo"]["gamma"] == 1


def test_users_own_plug_ins_pass_unseen() -> None:
    recipe = recipe_io.loads(GOOD, "r", ["train.objective='mine.losses:Best'", "eval.use=[shapes, 'a.b:C']"])
    assert recipe.train.objectives["mine.losses:Best"] == {}


def test_sugar_is_overrides() -> None:
    assert recipe_io.sugar(["a", "b"], "dpo") == ['judge.use=["a", "b"]', 'train.objective="dpo"']
    assert recipe_io.sugar() == []


def test_warns_of_an_in_loop_verdict() -> None:
    assert recipe_check.warnings(recipe_io.loads(GOOD, "r")) == []
    assert "in-loop" in recipe_check.warnings(recipe_io.loads(GOOD, "r", ["eval.use=[jpeg_size]"]))[0]


def test_warns_of_a_learning_rate_that_is_never_reached() -> None:
    found = recipe_check.warnings(recipe_io.load("shapes/dspo", ["train.warmup_steps=200"]))
    assert found == ["train.warmup_steps: 200 of 120 steps: the learning rate is never reached"]


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe_io.find("shapes/dspo") == recipe_io.find("recipes/shapes/dspo.yaml")
    with pytest.raises(UsageError, match='did you mean "shapes/dspo"'):
        recipe_io.find("shapes/dsop")


def test_unreadable_files(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"name: \xff\xfe")
    with pytest.raises(RecipeError, match="not UTF-8 at byte 6"):
        recipe_io.load(bad)
    with pytest.raises(UsageError, match="is a folder"):
        recipe_io.load(tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        recipe_io.load(tmp_path / "none.yaml")


def test_copy_keeps_comments_and_never_overwrites(tmp_path: Path) -> None:
    made = recipe_io.copy("shapes/dspo", tmp_path)
    assert made == tmp_path / "dspo.yaml"
    assert "# The quickstart" in made.read_text()
    with pytest.raises(UsageError, match="is there already"):
        recipe_io.copy("shapes/dspo", tmp_path)


def test_an_anchored_recipe_names_the_same_files_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("a cat")
    (tmp_path / "weights").mkdir()
    overrides = ["prompts.source=mine.txt", "model.weights=weights", "judge.scorers.pickscore.weights=owner/name"]
    recipe = recipe_io.load("shapes/dspo", overrides)
    found = recipe_io.anchored(recipe)
    assert (found.prompts and found.prompts.source, found.model.weights) == (
        str(tmp_path / "mine.txt"),
        str(tmp_path / "weights"),
    )
    assert found.judge == recipe.judge and found.eval == recipe.eval, "what is no file here is left alone"
