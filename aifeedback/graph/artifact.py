"""Artifacts: what a step makes, named by the digest of what determines it. Nothing else computes such a digest.

    candidates -> scores (one per scorer) -> pairs -> latents -> training -> images -> scores -> evaluation

A node is an artifact whose digest is not known yet, for three facts come late: which shards of an unfinished input are
there, the digest of a trained model, and what was lost. `resolve` fixes it when the node is played.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from aifeedback.artifacts.run_dir import Folder
from aifeedback.launch import Launch
from aifeedback.seeds import digest
from aifeedback.steps import Available, CollectiveStep, ShardStep

FORMAT = 2  # raise it when the same settings and inputs would give other files

Use = Literal["each", "all"]
"""How an artifact uses an input: its shard n needs shard n alone; or any of it needs all of the input."""


@dataclass(frozen=True)
class Input:
    """An artifact as another one uses it.

    Args:
        artifact: which.
        shards: the very shards that were there, where it was unfinished and all of it is used; else None.
        content: the digest of its content, where that came after its own digest: a trained model.
    """

    artifact: Artifact
    shards: tuple[int, ...] | None = None
    content: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether this is all of it, and it was itself made of all."""
        return self.shards is None and self.artifact.is_whole


@dataclass(frozen=True)
class Artifact:
    """A kind, the settings that determine it besides its inputs (JSON), and its inputs by name."""

    kind: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Input] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """The name of its folder."""
        return digest(self.about)

    @cached_property
    def about(self) -> dict[str, Any]:
        """What its digest is taken of, and what `artifact.json` holds."""
        inputs = {
            name: {"kind": i.artifact.kind, "digest": i.artifact.digest}
            | ({} if i.shards is None else {"shards": list(i.shards)})
            | ({} if i.content is None else {"content": i.content})
            for name, i in self.inputs.items()
        }
        return {"format": FORMAT, "kind": self.kind, "settings": dict(self.settings), "inputs": inputs}

    @cached_property
    def is_whole(self) -> bool:
        """Whether it was made of all there is, not of what a `--limit` had left."""
        return all(i.is_whole for i in self.inputs.values())


Make = Callable[[Mapping[str, Folder], Mapping[str, Available]], ShardStep | CollectiveStep]
"""(folders of the nodes to make, inputs by node) -> the step that makes them."""


@dataclass(frozen=True)
class Node:
    """An artifact to be made.

    Args:
        name: of the node: `scores/pickscore`.
        verb: which verb plays it.
        kind, settings: of the artifact.
        inputs: nodes, and how each is used.
        make: the step; nodes with an equal `together` are made by one step, in one pass over their common input.
        together: see `make`; None: by itself.
        check: refuses, before the first node of a call is played, what could not be made on this machine.
    """

    name: str
    verb: str
    kind: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Use]
    make: Make
    together: str | None = None
    check: Callable[[Launch], None] | None = None


@dataclass(frozen=True)
class Graph:
    """Nodes by name, each after its inputs."""

    nodes: Mapping[str, Node]

    def of(self, verb: str) -> list[Node]:
        """The nodes that a verb plays, in order."""
        return [node for node in self.nodes.values() if node.verb == verb]


Look = Callable[[str, Artifact], tuple[tuple[int, ...] | None, str | None]]
"""(name of a node, its artifact) -> the shards that are there (None: all of them) and the digest of its content."""


def resolve(graph: Graph, name: str, look: Look, known: dict[str, Artifact] | None = None) -> Artifact:
    """The artifact of a node, its inputs as `look` finds them; those in `known` are fixed, and new ones are added."""
    known = {} if known is None else known
    if name not in known:
        node, inputs = graph.nodes[name], {}
        for source, use in node.inputs.items():
            artifact = resolve(graph, source, look, known)
            shards, content = look(source, artifact)
            inputs[source] = Input(artifact, shards if use == "all" else None, content)
        known[name] = Artifact(node.kind, node.settings, inputs)
    return known[name]
