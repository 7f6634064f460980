"""The pictures in docs/gallery, with those of `keras.utils.plot_model` beside them, and what both cost.

python benchmarks/gallery.py --output docs/gallery
python benchmarks/gallery.py --output /tmp/gallery --only ResNet101,u_net

Needs `pip install pydot` and the program `dot`, for plot_model. Each picture is made by a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gallery_models
from PIL import Image

# Pictures that show the options, beside the default one of each model.
VARIANTS = {
    "ResNet101": {"dark": ("--theme", "dark"), "macs": ("--color-by", "macs")},
    "EfficientNetB0": {"print": ("--theme", "print"), "params": ("--color-by", "params")},
    "whisper_base": {"right": ("--direction", "right")},
    "NASNetLarge": {"depth0": ("--depth", "0")},
}
TITLES = {
    "ResNet101": "ResNet101",
    "EfficientNetB0": "EfficientNetB0",
    "InceptionV3": "InceptionV3",
    "NASNetLarge": "NASNetLarge",
    "MobileNetV3Large": "MobileNetV3Large",
    "ConvNeXtTiny": "ConvNeXtTiny",
    "u_net": "U-Net",
    "bert_base": "BERT base",
    "whisper_base": "Whisper base, an encoder with a decoder",
    "siamese": "Siamese network of two towers",
    "transformer_400": "Transformer of 400 layers",
}
PLOT_SECONDS = 300
# Of plot_model's pictures the top is shown, so high at most for its width, and so wide at most in pixels.
HEIGHT_TO_WIDTH, THUMBNAIL_WIDTH = 3, 420
COLUMNS = (
    "model",
    "layers",
    "export-model, CPU s",
    "SVG, kB",
    "points",
    "plot_model, CPU s",
    "of it drawing",
    "PNG, kB",
    "pixels",
)


@dataclass(frozen=True)
class Made:
    """A finished picture: CPU seconds of the process with its children, bytes, width and height."""

    seconds: float
    nbytes: int
    size: tuple[int, int]
    layers: int = 0
    drawing_seconds: float = 0.0


def cpu_seconds(who: int = resource.RUSAGE_CHILDREN) -> float:
    """Of children that have ended; less than wall time on a busy machine, and more on one with idle cores."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def ours(source: str, target: Path, options: Sequence[str]) -> Made:
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--to", "svg", "--weights", "random", "--no-verify", "--quiet", "-o", folder, *options]
        before = cpu_seconds()
        subprocess.run([sys.executable, "-m", "exporter", source, *flags], check=True)
        seconds = cpu_seconds() - before
        (made,) = Path(folder).iterdir()
        manifest = json.loads((made / "manifest.json").read_text(encoding="utf-8"))
        data = (made / "model.svg").read_bytes()
    target.write_bytes(data)
    box = data[: data.index(b"width=")].split(b'viewBox="0 0 ')[1].split(b'"')[0].split()
    return Made(seconds, len(data), (int(box[0]), int(box[1])), manifest["layers"])


def theirs(name: str, thumbnail: Path) -> Made | str:
    """Or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.png")
        before = cpu_seconds()
        try:
            printed = in_time([sys.executable, __file__, "--plot", name, "--output", str(path)], PLOT_SECONDS)
        except subprocess.TimeoutExpired:
            return f"not within {PLOT_SECONDS} s"
        except subprocess.CalledProcessError as error:
            ended = re.search(r"returned code: -?\d+", error.stderr)
            return f"failed: dot {ended[0]}" if ended else "failed"
        seconds = cpu_seconds() - before
        Image.MAX_IMAGE_PIXELS = None
        with Image.open(path) as image:
            size = image.size
            top = image.crop((0, 0, image.width, min(image.height, HEIGHT_TO_WIDTH * image.width))).convert("RGB")
            width = min(THUMBNAIL_WIDTH, image.width)
            small = top.resize((width, round(top.height * width / top.width)), Image.Resampling.LANCZOS)
            small.quantize(64).save(thumbnail, optimize=True)
        return Made(seconds, path.stat().st_size, size, drawing_seconds=float(printed.split()[-1]))


def in_time(command: list[str], seconds: float) -> str:
    """What the command prints; when the time is up, its own children (`dot`) end with it."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        try:
            printed, complaint = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            raise
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command, printed, complaint)
    return printed


def plot(name: str, path: Path) -> None:
    """In a child: the model, and plot_model's picture of it with shapes and nested models, as people call it."""
    import keras

    if name in gallery_models.BUILDERS:
        gallery_models.hollow()
        model = gallery_models.BUILDERS[name]()
    else:
        model = getattr(keras.applications, name)(weights=None)
    before = cpu_seconds() + cpu_seconds(resource.RUSAGE_SELF)
    keras.utils.plot_model(model, to_file=str(path), show_shapes=True, show_layer_names=True, expand_nested=True)
    print(cpu_seconds() + cpu_seconds(resource.RUSAGE_SELF) - before)


def page(rows: dict[str, tuple[Made, Made | str]], variants: dict[str, Sequence[str]]) -> str:
    lines = [
        "# Gallery",
        "",
        "Made by `python benchmarks/gallery.py --output docs/gallery`. Each picture is what",
        "`export-model MODEL --to svg` writes; options stand above those that have any. Beside it is the picture of",
        "`keras.utils.plot_model(model, show_shapes=True, show_layer_names=True, expand_nested=True)`, scaled down.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    for name, (own, other) in rows.items():
        cells = [TITLES[name], f"{own.layers:,}", *cells_of(own)]
        cells += [other, "–", "–", "–"] if isinstance(other, str) else cells_of(other, f"{other.drawing_seconds:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    for name, (_, other) in rows.items():
        lines += ["", f"## {TITLES[name]}", "", f"![{TITLES[name]}]({name}.svg)"]
        if isinstance(other, Made):
            size = "×".join(f"{length:,}" for length in other.size)
            share = min(1.0, HEIGHT_TO_WIDTH * other.size[0] / other.size[1])
            lines += ["", f"plot_model: {size} pixels; here are the first {share:.0%} of it, scaled down", ""]
            lines += [f"![{TITLES[name]} by plot_model]({name}.plot_model.png)"]
        for variant, flags in variants.items():
            if variant.startswith(f"{name}."):
                lines += ["", f"`{' '.join(flags)}`", "", f"![{TITLES[name]}, {' '.join(flags)}]({variant}.svg)"]
    return "\n".join(lines) + "\n"


def cells_of(made: Made, *more: str) -> list[str]:
    size = "×".join(f"{length:,}" for length in made.size)
    return [f"{made.seconds:.1f}", *more, f"{made.nbytes / 1000:,.0f}", size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--plot", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.plot:
        plot(asked.plot, asked.output)
        return
    gallery_models.hollow()
    asked.output.mkdir(parents=True, exist_ok=True)
    rows: dict[str, tuple[Made, Made | str]] = {}
    shown: dict[str, Sequence[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.only.split(",") if asked.only else TITLES:
            source = gallery_models.saved(name, Path(folder))
            own = ours(source, asked.output / f"{name}.svg", ())
            for variant, flags in VARIANTS.get(name, {}).items():
                ours(source, asked.output / f"{name}.{variant}.svg", flags)
                shown[f"{name}.{variant}"] = flags
            rows[name] = own, theirs(name, asked.output / f"{name}.plot_model.png")
            print(name, rows[name], flush=True)
            (asked.output / "README.md").write_text(page(rows, shown), encoding="utf-8")


if __name__ == "__main__":
    main()
