"""The layers that Keras's layers of image augmentation make inside.

Names and settings are those of each class's constructor in Keras 3.15; a test compares all of it with Keras. They have
no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.keras_reading import Config, Inner, Reading, made_entry

# What an augmentation hands on of its own settings, its name among them.
HANDED_ON = ("name", "trainable", "dtype", "data_format", "bounding_box_format")
WARPS = {"fill_mode": "reflect", "fill_value": 0.0}
FLOAT32 = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}
# The setting, the class, and the least factor that it takes.
JITTERS: tuple[tuple[str, str, float], ...] = (
    ("brightness", "RandomBrightness", -1),
    ("contrast", "RandomContrast", 0),
    ("saturation", "RandomSaturation", -1),
    ("hue", "RandomHue", 0),
)


def _warping(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    factor, seed = config["factor"], config.get("seed")
    shared = {**WARPS, "interpolation": config["interpolation"], "seed": seed}
    yield "RandomShear", {"x_factor": factor, "y_factor": factor, **shared}
    yield "RandomTranslation", {"height_factor": factor, "width_factor": factor, **shared}
    yield "RandomRotation", {"factor": factor, **shared}


def _colouring(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    shared = {key: config.get(key) for key in ("factor", "value_range", "seed")}
    for name in ("RandomBrightness", "RandomColorDegeneration", "RandomContrast", "RandomSharpness"):
        yield name, shared


def _levelling(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    factor = config["factor"]
    shared = {"value_range": config["value_range"], "seed": config.get("seed")}
    yield "Solarization", {"addition_factor": factor, "threshold_factor": factor, **shared}
    yield "RandomPosterization", {"factor": [1, max(1, int(8 * factor[1]))], **shared}
    yield "AutoContrast", {"value_range": config["value_range"]}
    yield "Equalization", {"value_range": config["value_range"], "bins": 256}


def augmenting_layers(class_name: str, config: Config, reading: Reading) -> list[Inner]:
    """Raises Unexplained."""
    if config["value_range"] != sorted(config["value_range"]):
        raise Unexplained("a range of values that is not in order")
    return list(AUGMENTING[class_name](config, reading))


def _rand_augment(config: Config, reading: Reading) -> Iterator[Inner]:
    for parts in (_warping, _colouring, _levelling):
        yield from _named_alike(config, parts(config))


def _aug_mix(config: Config, reading: Reading) -> Iterator[Inner]:
    for parts in (_warping, _levelling, *((_colouring,) if config.get("all_ops") else ())):
        yield from _named_alike(config, parts(config))


def _named_alike(config: Config, parts: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[Inner]:
    """Keras hands the name on, too, when it loads the layer."""
    handed_on = {key: config[key] for key in HANDED_ON if key in config}
    for class_name, settings in parts:
        yield Inner("", made_entry(class_name, {**settings, **handed_on}), is_made=True)


def _color_jitter(config: Config, reading: Reading) -> Iterator[Inner]:
    """Layers of the default dtype, named by Keras."""
    shared = {"value_range": config["value_range"], "seed": config.get("seed"), "dtype": FLOAT32}
    for setting, class_name, least in JITTERS:
        factor = config.get(f"{setting}_factor")
        if factor is not None:
            own = {"name": reading.name(f"random_{setting}"), "factor": _range(factor, least)}
            yield Inner("", made_entry(class_name, {**shared, **own, "data_format": "channels_last"}), is_made=True)


def _range(factor: Any, least: float) -> list[float]:
    """From the lowest to the highest factor, as Keras completes a single one (`_set_factor`)."""
    if isinstance(factor, list):
        return sorted(factor)
    if isinstance(factor, bool) or not isinstance(factor, (int, float)):
        raise Unexplained(f"a factor {factor}")
    return [max(-abs(factor), least), abs(factor)]


AUGMENTING: dict[str, Callable[[Config, Reading], Iterator[Inner]]] = {
    "AugMix": _aug_mix,
    "RandAugment": _rand_augment,
    "RandomColorJitter": _color_jitter,
}
