"""The recipe: what to do, one key per field. Frozen pydantic models; unknown keys are refused."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Dtype = Literal["float32", "float16", "bfloat16"]
SchedulerName = Literal["model", "ddim", "dpm++", "euler", "pndm", "sde-dpm++", "unipc"]


class Section(BaseModel):
    """Common to all sections: frozen, no unknown keys, no NaN or infinity, no true or false for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"must not be true or false, got {value}")
        return value


class Source(Section):
    """Where a recipe comes from and what to expect of it."""

    paper: str
    link: str
    deviations: list[str] = []
    expected: str = ""


class Prompts(Section):
    """A file (txt, csv, tsv, jsonl, parquet), `builtin:shapes/<align|validation|heldout>` or `hf:owner/name`."""

    source: str
    column: str | None = None
    split: str = "train"
    revision: str | None = None
    limit: int | None = Field(None, ge=1)


class Model(Section):
    """The generator that is to be aligned. `weights`: a folder, `builtin:shapes`, or a Hub id."""

    family: str = "sd"
    weights: str = "builtin:shapes"
    revision: str | None = None
    variant: str | None = None
    dtype: Dtype = "float32"


class Sampling(Section):
    """How images are sampled. `scheduler: model` keeps the model's own; sizes of None are the model's."""

    scheduler: SchedulerName = "ddim"
    steps: int = Field(50, ge=1, le=1000)
    guidance: float = Field(7.5, ge=0)
    negative_prompt: str = ""
    width: int | None = Field(None, ge=8)
    height: int | None = Field(None, ge=8)


class Generate(Sampling):
    """Sample K candidates per prompt."""

    candidates: int = Field(4, ge=1, le=1024)
    image_format: Literal["png", "jpeg", "webp"] = "png"
    keep_latents: bool = True
    safety: Literal["off", "reject"] = "off"
    shard_prompts: int = Field(32, ge=1)


class Import(Section):
    """Take candidates from a parquet of the Pick-a-Pic schema instead of generating them."""

    source: str
    shard_prompts: int = Field(32, ge=1)


class Pairing(Section):
    """How stored scores become preference sets.

    `labels: shuffled` draws the order of each set at random (a control that must not gain). `calibration` says what
    a set's scores in [0, 1] are: the share of the prompt's other candidates that are beaten, or the mean of
    sigma(difference / the scorer's tau).
    """

    strategy: Literal["best_worst", "all", "ranking"] = "best_worst"
    aggregate: Literal["single", "z_mean", "win_fraction", "unanimous"] = "single"
    min_margin: float = Field(0.0, ge=0)
    max_sets_per_prompt: int | None = Field(None, ge=1)
    labels: Literal["judged", "shuffled"] = "judged"
    calibration: Literal["win_fraction", "sigmoid"] = "win_fraction"

    @field_validator("labels", mode="before")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        if value == "given":
            raise ValueError("labels that came with the pairs are scores of the scorer human: judge.use: [human]")
        return value


class Judge(Section):
    """`use` names the scorers that rank; `scorers` holds settings for any scorer, used here or in `eval`."""

    use: list[str] = ["pickscore"]
    scorers: dict[str, dict[str, Any]] = {}
    pairing: Pairing = Pairing()


class LoRA(Section):
    """Low-rank adapters on the denoiser; `targets` of None are the family's."""

    rank: int = Field(8, ge=1)
    alpha: float | None = Field(None, gt=0)
    targets: list[str] | None = None


class Validation(Section):
    """A part of the pairs held out of training, by prompt, with frozen timesteps and noise."""

    fraction: float = Field(0.1, ge=0, lt=1)
    every: int = Field(50, ge=1)
    draws: int = Field(4, ge=1)


class Train(Section):
    """`objective` names the objective; `objectives` holds the parameters of any objective by name."""

    objective: str = "dpo"
    objectives: dict[str, dict[str, Any]] = {}
    method: Literal["lora", "full"] = "full"
    lora: LoRA = LoRA()
    steps: int = Field(100, ge=1)
    global_batch: int = Field(32, ge=1)
    learning_rate: float = Field(1e-5, gt=0)
    warmup_steps: int = Field(0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    ema: float | None = Field(None, gt=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0)
    precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_checkpointing: bool = False
    prompt_dropout: float = Field(0.0, ge=0, le=1)
    timesteps: tuple[float, float] = (0.0, 1.0)
    validation: Validation = Validation()
    checkpoint_every: int = Field(50, ge=1)
    keep: Literal["best", "last"] = "last"
    max_bad_steps: int = Field(10, ge=1)
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = []

    @field_validator("betas")
    @classmethod
    def _decays(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError(f"must be two numbers in [0, 1), got {list(value)}")
        return value

    @field_validator("timesteps")
    @classmethod
    def _window(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1] <= 1:
            raise ValueError(f"must be two rising fractions in [0, 1], got {list(value)}")
        return value


class Eval(Section):
    """Base against aligned on held-out prompts from the same initial noise.

    `sampling` of None is the generator's. `verdict` names the scorer that the verdict speaks of (None: the
    first of `use` that did not judge).
    """

    prompts: Prompts
    images_per_prompt: int = Field(1, ge=1)
    use: list[str] = []
    verdict: str | None = None
    sampling: Sampling | None = None
    bootstrap: int = Field(10_000, ge=100)
    gallery: int = Field(24, ge=0)
    shard_prompts: int = Field(32, ge=1)


class Recipe(Section):
    """A whole experiment. Exactly one of `generate` and `import` is given."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), populate_by_name=True
    )

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    source: Source | None = None
    seed: int = Field(0, ge=0)
    prompts: Prompts | None = None
    model: Model = Model()
    generate: Generate | None = None
    import_: Import | None = Field(None, alias="import")
    judge: Judge = Judge()
    train: Train = Train()
    eval: Eval
