"""YAML as recipes mean it."""

from __future__ import annotations

import pytest

from aifeedback import recipe_yaml
from aifeedback.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-8", 1e-8),
        ("2.048e-5", 2.048e-5),
        ("1E+3", 1000.0),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("7", 7),
        ("0x10", 16),
        ("010", "010"),
        ("off", "off"),
        ("no", "no"),
        ("true", True),
        ("null", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ("1e", "1e"),
        ("e5", "e5"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    found = recipe_yaml.parse(f"x: {text}", "f").data["x"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value", [1e-8, 1e-5, 0.1, 3, "1e-8", "off", "010", "1:30", "true", "", None, [1, 2], ["a: b"]]
)
def test_what_is_written_is_read_back(value: object) -> None:
    data = {"x": {"y": value}}
    found = recipe_yaml.parse(recipe_yaml.write(data), "f").data
    assert found == data
    assert type(found["x"]["y"]) is type(value)


def test_places() -> None:
    document = recipe_yaml.parse("a: 1\nb:\n  c:\n  - x\n  - y\n", "r.yaml")
    assert document.place(("b", "c", 1)) == "r.yaml:5"
    assert document.place(("b", "missing")) == "r.yaml:2"
    assert document.place(()) == "r.yaml:1"
    recipe_yaml.override(document, "b.c=[z]")
    assert document.place(("b", "c", 0)) == "override b.c=[z]"
    recipe_yaml.override(document, "new.section.key=1")
    for path in (("new",), ("new", "missing"), ("new", "section", "key")):
        assert document.place(path) == "override new.section.key=1", "nothing of it stands in the file"


def test_overrides_reach_every_key() -> None:
    document = recipe_yaml.parse("a: {b: [1, 2]}\nn: null", "f")
    for text in ("a.b.1=5", "n.deep.er=1e-8", 'q."x.y:Z".w=v', "t=a=b"):
        recipe_yaml.override(document, text)
    assert document.data == {"a": {"b": [1, 5]}, "n": {"deep": {"er": 1e-8}}, "q": {"x.y:Z": {"w": "v"}}, "t": "a=b"}


@pytest.mark.parametrize("text", ["novalue", "=1", "a=[", "a.b.9=1", "a.b.x=1", "s.t=1", "a..b=1", ".a=1"])
def test_bad_overrides(text: str) -> None:
    document = recipe_yaml.parse("a: {b: [1, 2]}\ns: 5", "f")
    with pytest.raises(RecipeError, match="override"):
        recipe_yaml.override(document, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "got nothing"),
        ("- 1", "keys and values"),
        ("a: 1\na: 2", r"a: given twice \[f:2\]"),
        ("a: [", r"not YAML.*\[f:1\]"),
        ("a: !!python/object/apply:os.system [x]", "not YAML"),
        ("a: &x [*x]", "nested more than"),
    ],
)
def test_bad_files(text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe_yaml.parse(text, "f")
