"""Publishing models: a folder that explains itself, on the Hugging Face hub or anywhere else."""

import tempfile
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.files import write_atomic
from mixerkit.checkpoint.hub import HUB, check_repository, put_on_hub
from mixerkit.checkpoint.load import load, save_model
from mixerkit.model.cost import cost
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import variant_of
from mixerkit.spec.preprocess import Preprocess, plain_preprocess


def from_pretrained(source: str | Path, **changes: Any) -> MlpMixer:
    """The model in a local folder, or else in the hub's repository `org/name[@revision]`.

    `changes` are those of `load`: image_size, num_classes, …
    """
    if isinstance(source, Path) or Path(source).exists() or source.startswith(HUB):
        return load(source, **changes)
    return load(f"{HUB}{source}", **changes)


def save_pretrained(model: MlpMixer, folder: str | Path, *, replace: bool = False) -> None:
    """Write a model folder (weights, configuration, preprocessing, manifest) with a model card."""
    preprocess = model.preprocess or plain_preprocess(model.config)
    path = Path(folder)
    save_model(path, model, preprocess, model.about, replace)
    # not in the manifest: a card may be edited without the weights being called damaged
    write_atomic(path / "README.md", model_card(model, preprocess, path.name).encode())


def push_to_hub(
    model: MlpMixer, repository: str, *, private: bool = False, message: str = "Add the model"
) -> str:
    """Publish a model as `org/name` on the Hugging Face hub; the address of the commit."""
    check_repository(repository)  # its name is that of the folder
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / repository.rpartition("/")[2]
        save_pretrained(model, folder)
        return put_on_hub(folder, repository, private=private, message=message)


def model_card(model: MlpMixer, preprocess: Preprocess, name: str) -> str:
    """README.md of a model: what it is, what it was trained on, how good it is, how to use it."""
    config, about, priced = model.config, model.about, cost(model.config)
    height, width = config.image_hw
    low, high = (
        min((0 - m) / s for m in preprocess.mean for s in preprocess.std),
        max((1 - m) / s for m in preprocess.mean for s in preprocess.std),
    )
    facts = [
        ("architecture", f"Mixer {variant_of(config)}, {config.depth} blocks"),
        ("parameters", f"{priced.parameters:,}"),
        ("multiply-adds per image", f"{priced.macs / 1e9:.3f} G"),
        (
            "images",
            f"{config.in_channels} × {height} × {width} px, values from {low:.3g} to {high:.3g}",
        ),
        ("resizing", f"{preprocess.resize}, {preprocess.interpolation}"),
        ("classes", f"{config.num_classes:,}"),
        ("GELU, LayerNorm epsilon", f"{config.gelu}, {config.norm_eps:g}"),
    ]
    trained_on = about.get("trained_on") or (about.get("data") or {}).get("source")
    if trained_on:
        facts.append(("trained on", str(trained_on)))
    for split in ("validation", "test"):
        figures = about.get(split)
        if isinstance(figures, dict) and "top1" in figures:
            facts.append((f"{split} accuracy", f"{100 * figures['top1']:.2f} %"))
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts)
    names, more = ", ".join(preprocess.class_names[:50]), len(preprocess.class_names) > 50
    classes = f"\nClasses: {names}{', …' if more else ''}\n" if names else ""
    return f"""---
library_name: mixerkit
pipeline_tag: image-classification
tags: [mlp-mixer, image-classification]
---

# {name}

An MLP-Mixer ([Tolstikhin et al., 2021](https://arxiv.org/abs/2105.01601)) for mixerkit.

| | |
|---|---|
{rows}
{classes}
```python
import mixerkit

model = mixerkit.from_pretrained("ORG/{name}")           # or the path of a folder with these files
larger = mixerkit.from_pretrained("ORG/{name}", image_size=({2 * height}, {2 * width}))
for prediction in mixerkit.predict_files(model, ["photo.jpg"]):
    print(prediction.classes[0])
```
"""
