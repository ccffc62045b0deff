"""Labels of people as scores: by rows, without an image; where they may stand in a recipe is refused in one place."""

from __future__ import annotations

from typing import Any

import pytest

from aifeedback import plugins, recipe_check
from aifeedback.records import Score
from aifeedback.scorers.human import load


def row(index: int, label: float | None, rejected: str | None = None) -> dict[str, Any]:
    return {"prompt_id": "p", "index": index, "image_digest": f"d{index}", "label": label, "rejected": rejected}


def test_of_rows() -> None:
    assert load(device="cpu").of_rows([row(0, 1.0), row(1, 0.0), row(2, None), row(3, 0.5, "no image")]) == [
        Score("p", 0, 1.0, None, "d0"),
        Score("p", 1, 0.0, None, "d1"),
        Score("p", 2, None, "no label", "d2"),
        Score("p", 3, None, "rejected: no image", "d3"),
    ]


def test_it_is_the_only_one_that_is_stored() -> None:
    assert [name for name in plugins.names("scorers") if plugins.is_stored(name)] == ["human"]


def problems(**sections: Any) -> list[str]:
    body = {
        "name": "t", "import": {"source": "p.parquet"}, "judge": {"use": ["human"]},
        "eval": {"prompts": {"source": "builtin:shapes/heldout"}, "use": ["shapes"]}, **sections,
    }  # fmt: skip
    return [f"{'.'.join(map(str, path))}: {message}" for path, message in recipe_check.build(body)[1]]


def test_imported_labels_need_nothing_else() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"judge": {"use": ["human", "shapes"], "pairing": {"aggregate": "z_mean"}}},
            "judge.use: human stands alone, got human, shapes",
        ),
        (
            {"eval": {"prompts": {"source": "builtin:shapes/heldout"}, "use": ["human"]}},
            "eval.use: human scores imported candidates only, it cannot evaluate new images",
        ),
        (
            {"import": None, "generate": {}, "prompts": {"source": "p.txt"}},
            "judge.use: human needs import: generated candidates carry no labels",
        ),
        (
            {"judge": {"use": ["human"], "pairing": {"labels": "given"}}},
            "judge.pairing.labels: labels that came with the pairs are scores of the scorer human: "
            "judge.use: [human]",
        ),
    ],
)  # fmt: skip
def test_where_labels_of_people_mean_nothing_is_refused(sections: dict[str, Any], said: str) -> None:
    assert said in problems(**sections)
