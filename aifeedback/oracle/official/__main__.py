"""`python -m official JOB` answers the job in the folder JOB; `python -m official --versions` tries the imports."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

from . import clip_family, hps, image_reward, repairs
from .job import Answer, Job

JUDGES = {"hpsv2": hps, "imagereward": image_reward}
PACKAGES = ("torch", "torchvision", "transformers", "hpsv2", "image-reward", "open-clip-torch")


def versions() -> dict[str, str]:
    """Versions of the original packages."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def try_imports() -> None:
    """Import what every judge needs."""
    repairs.torchvision()
    repairs.turtle()
    repairs.vocabulary()
    repairs.image_reward()
    import hpsv2.img_score  # noqa: F401
    from ImageReward.ImageReward import ImageReward  # noqa: F401


def main(words: list[str]) -> None:
    if words == ["--versions"]:
        try_imports()
        print(json.dumps(versions()))
        return
    job = Job.read(Path(words[0]))
    found = JUDGES.get(job.judge, clip_family).answer(job)
    Answer(found.scores, found.notes, versions()).write(job.folder)


if __name__ == "__main__":
    main(sys.argv[1:])
