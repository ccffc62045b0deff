"""Plays a graph in a run directory: fixes each artifact, has its step make what is lacking, and reports.

Damage is mended here and nowhere else: a shard whose bytes are not those that were written is set aside and made again
by its own step, once, whichever node met it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from aifeedback.artifacts.run_dir import Folder, RunDir
from aifeedback.artifacts.shards import DamagedShard
from aifeedback.errors import StoreError, UsageError
from aifeedback.execution import Executor, Tally
from aifeedback.graph.artifact import Artifact, Graph, Node, resolve
from aifeedback.launch import Launch, StageReport, is_collective, rank
from aifeedback.steps import Available, CollectiveStep, ShardStep, Summary

log = logging.getLogger("aifeedback")
_ALSO = {"train": ("encode", "train")}  # training makes the latents that it lacks; no other verb makes its inputs
_NEW = {"generate": "new", "judge": "newly_scored", "encode": "newly_encoded", "train": "trained_sets",
        "eval": "new_images"}  # fmt: skip
"""What the speed of a verb is of."""
_SHOWN = {"new", "newly_scored", "new_images"}
_UNFINISHED = {"pairs": "not all pairs are there", "training": "this training is not finished"}
"""Kinds of which a part is of no use."""
_WAIT_SECONDS = 0.5


class Player:
    """Plays verbs of one graph in one run directory.

    Args:
        graph: of the recipe.
        run: where.
        launch: how.
        executor: who makes which shard.
    """

    def __init__(self, graph: Graph, run: RunDir, launch: Launch, executor: Executor) -> None:
        self.graph, self.run, self.launch, self.executor = graph, run, launch, executor
        self._artifacts: dict[str, Artifact] = {}
        self._available: dict[str, Available] = {}
        self._tally = Tally()
        self._mended: set[tuple[str, int]] = set()

    def check(self, verbs: Sequence[str]) -> None:
        """Refuse, before the first node is played, what could not be made on this machine; what is made is not asked.

        Raises:
            UsageError, MissingDependency: see the `check` of each node.
        """
        for node in self.graph.nodes.values():
            if node.verb in verbs and node.check and not self._is_made(node.name):
                node.check(self.launch)

    def play(self, verb: str) -> StageReport:
        """Bring about what a verb makes.

        Raises:
            UsageError: an input that another verb makes is not there.
            AIFeedbackError: of a step.
        """
        began = time.monotonic()
        self._tally.counts = Counter()
        nodes = [node for name in _ALSO.get(verb, (verb,)) for node in self.graph.of(name)]
        for _, group in groupby(nodes, key=self._pass_of):
            summary = self._bring_about(list(group))
        return self._report(verb, nodes[-1].name, summary, time.monotonic() - began)

    def folder(self, name: str) -> Folder:
        """The folder of a node, whose inputs are there."""
        artifact = self.artifact(name)
        return self.run.folder(artifact.kind, artifact.digest)

    def artifact(self, name: str) -> Artifact:
        """The artifact of a node, its inputs as they are; fixed when it is first asked for."""
        return resolve(self.graph, name, self._look, self._artifacts)

    def _look(self, name: str, artifact: Artifact) -> tuple[tuple[int, ...] | None, str | None]:
        seen = self.available(name)
        marker = seen.folder.marker()
        return None if seen.whole else seen.shards, marker.model if marker else None

    def available(self, name: str) -> Available:
        """A node as it is when this is first asked, which is before anything is made of it.

        Raises:
            UsageError: it is not there, or a part of it that is of no use.
        """
        if name not in self._available:
            folder, node = self.folder(name), self.graph.nodes[name]
            # in this order: what another process adds in between is then not taken for all
            marker, shards = folder.marker(), folder.numbers()
            if not folder.exists() or (node.kind == "candidates" and not marker and not shards):
                raise self._missing(node)
            if node.kind in _UNFINISHED and not folder.is_complete():
                raise UsageError(f"{folder}: {_UNFINISHED[node.kind]}", hint=f"run first: aifb {node.verb}")
            whole = marker is not None  # whatever was lost of it since: reading it says so
            self._available[name] = Available(folder, tuple(marker.numbers() if marker else shards), whole)
        return self._available[name]

    def _missing(self, node: Node) -> UsageError:
        others = len([folder for folder in self.run.folders(node.kind) if folder.exists()])
        other = f" ({others} of another recipe there)" if others else ""
        message = f"{self.run.path}: no {node.kind} of this recipe yet{other}"
        return UsageError(message, hint=f"run first: aifb {node.verb}")

    def _is_made(self, name: str) -> bool:
        """Whether an artifact is complete already; nothing is made or begun to find out."""
        try:
            return self.folder(name).is_complete()
        except (UsageError, StoreError):  # something before it is not there
            return False
        finally:  # what was looked at may change before it is used
            self._artifacts.clear()
            self._available.clear()

    # --- making

    def _pass_of(self, node: Node) -> str:
        """Nodes of one pass are made by one step; with residency one_by_one each scorer has a pass of its own."""
        return node.name if self.launch.residency == "one_by_one" else node.together or node.name

    def _bring_about(self, nodes: Sequence[Node]) -> Summary:
        """Make nodes that one step makes; the summary is of the last."""
        while True:
            try:
                step = self._step(nodes)
                folders = [self.folder(node.name) for node in nodes]
                if isinstance(step, CollectiveStep):
                    return self._make_whole(nodes[-1], step)
                return self._make_shards(nodes, folders, step)
            except DamagedShard as error:
                self._mend(error, nodes)

    def _step(self, nodes: Sequence[Node]) -> ShardStep | CollectiveStep:
        inputs = {name: self.available(name) for node in nodes for name in node.inputs}
        return nodes[0].make({node.name: self.folder(node.name) for node in nodes}, inputs)

    def _make_shards(self, nodes: Sequence[Node], folders: Sequence[Folder], step: ShardStep) -> Summary:
        shards, everything = step.shards(), step.everything()
        if rank():  # of the processes that torchrun started, the first alone writes
            will_be_complete = everything is not None and set(everything) <= set(shards)  # not with a `--limit`
            while not all(
                folder.is_complete() if will_be_complete else set(shards) <= set(folder.numbers()) for folder in folders
            ):
                time.sleep(_WAIT_SECONDS)
        else:
            for node, folder in zip(nodes, folders, strict=True):
                folder.begin(self.artifact(node.name).about)
            self.executor.shards(step, shards, self.launch, self._tally)
        for output, folder in step.outputs.items():
            summary = step.summary(output)
            if everything is not None and set(everything) <= set(folder.numbers()) and not rank():
                folder.complete(summary.marker)
        return summary

    def _make_whole(self, node: Node, step: CollectiveStep) -> Summary:
        folder = step.output
        if folder.is_complete() and not step.is_sound():
            log.warning("%s is damaged: written again", folder)
            folder.reopen()
        if not folder.is_complete():
            step.prepare()
            if not rank():
                folder.begin(self.artifact(node.name).about)
        if not folder.is_complete() or is_collective():  # where there are others, all go and ask the main process
            self._tally.counts += self.executor.collective(step, self.launch)
        return step.summary()

    def _mend(self, error: DamagedShard, nodes: Sequence[Node]) -> None:
        """Set a damaged shard aside; make it again at once where it is an input, else the next try does."""
        shard = (error.artifact, error.number)
        owner = next((name for name, artifact in self._artifacts.items() if artifact.digest == error.artifact), None)
        if shard in self._mended or owner is None or rank():
            raise error
        self._mended.add(shard)
        self.folder(owner).set_aside(error.number)
        node = self.graph.nodes[owner]
        if node not in nodes:
            log.warning("%s", error.message)
            step = self._step([node])
            assert not isinstance(step, CollectiveStep)
            try:
                self.executor.shards(step, [error.number], self.launch, self._tally)
            except DamagedShard as other:
                self._mend(other, [node])
                self.executor.shards(step, [error.number], self.launch, self._tally)

    def _report(self, verb: str, name: str, summary: Summary, seconds: float) -> StageReport:
        for warning in summary.warnings:
            log.warning("%s", warning)
        folder, counts = self.folder(name), self._tally.counts
        new = {_NEW[verb]: counts[_NEW[verb]]} if _NEW[verb] in _SHOWN else {}
        cut = {reason: count for reason, count in counts.items() if reason.startswith("prompts cut short")}
        return StageReport(
            stage=verb,
            counts={**summary.marker.counts, **new},
            rejected={**summary.marker.rejected, **cut},
            seconds=seconds,
            per_second=counts[_NEW[verb]] / max(seconds, 1e-9),
            complete=folder.is_complete() and self.artifact(name).is_whole,
            path=str(folder),
            lines=summary.lines,
        )
