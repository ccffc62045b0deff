"""Which sets a step sees and what is drawn for them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler

from aifeedback.artifacts.latents import LatentStore, latent_bytes
from aifeedback.errors import UsageError
from aifeedback.models._process import Ddpm
from aifeedback.records import PreferenceSet
from aifeedback.training.batches import Batcher, Visit, hold_out, visits_of_step
from tests.training.tiny import PROMPTS, SETS, shard


@pytest.fixture
def store(tmp_path: Path) -> LatentStore:
    (tmp_path / "shard").write_bytes(latent_bytes(shard(), "a", 0))
    return LatentStore({0: tmp_path / "shard"}, "a")


def batcher(store: LatentStore, dropout: float = 0.0, arity: str = "pair") -> Batcher:
    return Batcher(store, 7, Ddpm(DDPMScheduler(), "m"), (0.2, 0.9), dropout, arity)


def test_batches_run_on_across_epochs_and_visit_every_set_equally_often() -> None:
    visits = [visit for step in range(8) for visit in visits_of_step(SETS, 0, step, 5)]
    assert Counter((v.set.id, v.number) for v in visits) == {(s.id, epoch): 1 for s in SETS for epoch in range(5)}
    assert [v.set.id for v in visits[:8]] != [v.set.id for v in visits[8:16]]
    assert visits_of_step(SETS, 0, 3, 5) == visits[15:20]


def test_a_draw_depends_on_the_set_and_the_visit_alone(store: LatentStore) -> None:
    whole = batcher(store).training([Visit(SETS[0], 0), Visit(SETS[1], 0), Visit(SETS[0], 1)])
    alone = batcher(store).training([Visit(SETS[1], 0)])
    assert torch.equal(whole.noise[1:2], alone.noise) and torch.equal(whole.t[1:2], alone.t)
    assert not torch.equal(whole.noise[0], whole.noise[2])
    assert whole.latents.shape == (3, 2, 4, 8, 8) and whole.noise.shape == (3, 1, 4, 8, 8)
    assert whole.scores[0].tolist() == pytest.approx([0.9, 0.1])
    # column 0 is the preferred candidate, whose index is 1
    assert torch.equal(whole.latents[0, 0], store.latents([(PROMPTS[0], 1)])[0])


def test_timesteps_stay_in_the_window_and_validation_spreads_them(store: LatentStore) -> None:
    drawn = batcher(store).training([Visit(s, n) for s in SETS for n in range(40)]).t
    assert 200 <= drawn.min() < 240 and 860 < drawn.max() < 900
    frozen = batcher(store).validation([Visit(s, d) for s in SETS for d in range(4)], draws=4).t.reshape(-1, 4)
    edges = torch.tensor([200, 375, 550, 725, 900])
    assert ((frozen >= edges[:-1]) & (frozen < edges[1:])).all()


def test_dropout_shows_the_empty_prompt(store: LatentStore) -> None:
    visits = [Visit(s, n) for s in SETS for n in range(25)]
    shown = batcher(store, dropout=0.3).training(visits).conditioning["prompt_embeds"]
    empty = (shown == store.conditioning([""])["prompt_embeds"]).flatten(1).all(1)
    assert 0.15 < empty.float().mean() < 0.45


def test_the_arity_chooses_the_columns(store: LatentStore) -> None:
    ranking = PreferenceSet("p", "p", (2, 0, 3), (1.0, 0.5, 0.0), 1.0)
    columns = {arity: batcher(store, arity=arity).columns(ranking) for arity in ("first", "pair", "list")}
    assert columns == {"first": [0], "pair": [0, 2], "list": [0, 1, 2]}
    with pytest.raises(UsageError, match="holds 1 candidate"):
        batcher(store).columns(PreferenceSet("p", "p", (2,), (1.0,), 0.0))


def test_imported_rows_of_a_prompt_are_held_out_together() -> None:
    """Rows of one prompt have the ids p, p-1, p-2 ...; which prompts are held out does not depend on them."""
    rows = [PreferenceSet(s.prompt_id + n, s.prompt, (0, 1), (0.9, 0.1), 0.5) for s in SETS for n in ("", "-1", "-2")]
    training, held = hold_out(rows, 0, 0.25)
    trained, validated = ({s.prompt_id.partition("-")[0] for s in side} for side in (training, held))
    assert trained.isdisjoint(validated)
    assert len(held) == 6 and validated == {s.prompt_id for s in hold_out(SETS, 0, 0.25)[1]}


def test_prompts_are_held_out_whole_and_by_their_name() -> None:
    twice = [*SETS, *(PreferenceSet(s.prompt_id, s.prompt, (1, 2), (0.9, 0.1), 0.5) for s in SETS)]
    training, held = hold_out(twice, 0, 0.25)
    assert len(held) == 4 and len(training) == 12
    assert {s.prompt_id for s in training}.isdisjoint(s.prompt_id for s in held)
    assert hold_out(twice[::-1], 0, 0.25)[1] == held[::-1]
    assert hold_out(SETS, 0, 0.0) == (SETS, [])
    assert len(hold_out(SETS, 0, 0.01)[1]) == 1
    assert hold_out(SETS[:1], 0, 0.5) == (SETS[:1], [])
