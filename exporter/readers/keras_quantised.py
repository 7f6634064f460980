"""The weights of layers that Keras has quantised, or given adapters (LoRA), and where a file has them.

The lists are each class's `variable_serialization_spec` in Keras 3.15, the order in a file; the catalogue has what is
trained first, in the order in which each class's `build` makes it. A test compares them with Keras.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from exporter.readers import Unexplained

Config = Mapping[str, Any]
# Where a weight is that no file has: Keras adds adapters to the weight that they adapt before it saves.
NOT_STORED = -1


class OwnWeight(NamedTuple):
    """A weight's name, whether training changes it, and its number in the file where that is not its place here.

    `is_of_inside` says that the layer inside has made it, whose name is in its path.
    """

    name: str
    changes: bool
    number: int | None = None
    is_of_inside: bool = False


DENSE, EMBEDDING = ("Dense", "EinsumDense"), ("Embedding", "ReversibleEmbedding")
ADAPTED = {**dict.fromkeys((*DENSE, "Conv1D", "Conv2D", "Conv3D"), "kernel"), "Embedding": "embeddings"}
# In the order of a file; the bias is there where the layer has one.
STORED_KERNEL = {
    "int8": ("kernel", "bias", "kernel_scale"),
    "int4": ("kernel", "bias", "kernel_scale", "kernel_zero", "g_idx"),
    "gptq": ("bias", "kernel", "kernel_scale", "g_idx"),
    "awq": ("bias", "kernel", "kernel_scale", "awq_scales", "g_idx"),
}
# Of these Keras 3.15 leaves the zero points out of the file, and cannot load it then.
INCOMPLETE = ("gptq", "awq")
STORED_EMBEDDINGS = {
    "int8": ("embeddings", "embeddings_scale"),
    "int4": ("embeddings", "embeddings_scale", "embeddings_zero", "g_idx"),
}
REVERSE = {"int8": ("reverse_embeddings", "reverse_embeddings_scale")}
# Of groups of inputs; one scale for each output needs neither.
OF_GROUPS = ("kernel_zero", "embeddings_zero", "g_idx")
FLOAT8 = tuple(f"{each}_{kind}" for each in ("inputs", "kernel", "outputs_grad") for kind in ("scale", "amax_history"))
POLICIES = (
    *("QuantizedDTypePolicy", "QuantizedFloat8DTypePolicy", "Int4DTypePolicy", "GPTQDTypePolicy", "AWQDTypePolicy"),
)


def policy_name(policy: Any) -> str:
    """The dtype policy by which a layer computes: `float32`, `mixed_bfloat16` and so on. Raises Unexplained."""
    if not isinstance(policy, Mapping):
        name = str(policy).partition("_from_")
        return name[2] or name[0]
    if policy.get("class_name") not in ("DTypePolicy", *POLICIES):
        raise Unexplained(f"a {policy.get('class_name')}")
    return str(policy["config"]["name" if policy["class_name"] == "DTypePolicy" else "source_name"])


def _mode(policy: Any) -> list[str]:
    """`["int4", "128"]`; empty for a layer that is not quantised."""
    if isinstance(policy, Mapping):
        return str(policy["config"]["mode"]).split("/") if policy.get("class_name") in POLICIES else []
    mode, found, _ = str(policy).partition("_from_")
    return mode.split("/") if found else []


def is_incomplete(config: Config) -> bool:
    return _mode(config.get("dtype"))[:1] in ([mode] for mode in INCOMPLETE)


def as_loaded(class_name: str, config: Config) -> Config:
    """The settings that Keras 3.15 has of a layer that it has loaded: two classes lose how much an adapter counts.

    It counts nothing then: what it has learnt is in the weight that it adapts, and its own are zeros.
    """
    rank = config.get("lora_rank")
    return {**config, "lora_alpha": rank} if rank and class_name in ("Dense", "Embedding") else config


def is_plain(config: Config) -> bool:
    """Neither quantised nor adapted."""
    return not _mode(config.get("dtype")) and not config.get("lora_rank")


def changed_weights(class_name: str, config: Config, plain: list[OwnWeight]) -> list[OwnWeight]:
    """Those of a layer that is quantised or has adapters; `plain` are those that it would have. Raises Unexplained."""
    mode = _mode(config.get("dtype"))
    weights = _quantised(class_name, config, mode, plain) if mode else plain
    if not config.get("lora_rank"):
        return weights
    if class_name not in ADAPTED or (mode and mode[0] != "int8"):
        raise Unexplained(f"a {class_name} of {mode[0] if mode else 'no mode'} with lora_rank")
    kernel = ADAPTED[class_name]
    adapters = [OwnWeight(f"lora_{kernel}_{end}", True, NOT_STORED) for end in "ab"]
    numbered = [_numbered(weight, place) for place, weight in enumerate(weights)]
    trained = [weight for weight in numbered if weight.changes]
    frozen = [weight for weight in numbered if not weight.changes]
    return [*(weight._replace(changes=weight.name != kernel) for weight in trained), *adapters, *frozen]


def _numbered(weight: OwnWeight, place: int) -> OwnWeight:
    return weight if weight.number is not None else weight._replace(number=place)


def _quantised(class_name: str, config: Config, mode: list[str], plain: list[OwnWeight]) -> list[OwnWeight]:
    kind, is_dense = mode[0], class_name in DENSE
    if kind == "float8" and is_dense:
        scales = [OwnWeight(name, True, len(plain) + place) for place, name in enumerate(FLOAT8)]
        return [*scales, *(_numbered(weight, place) for place, weight in enumerate(plain))]
    known = STORED_KERNEL if is_dense else STORED_EMBEDDINGS if class_name in EMBEDDING else {}
    if kind not in known:
        raise Unexplained(f"a {class_name} quantised to {kind}")
    stored = list(known[kind])
    if class_name == "ReversibleEmbedding" and not config.get("tie_weights", True):
        if kind not in REVERSE:
            raise Unexplained(f"an untied {class_name} quantised to {kind}")
        stored += REVERSE[kind]
    if is_dense and len(plain) == 1:
        stored.remove("bias")
    if kind == "int4" and not _has_groups(mode, config):
        stored = [name for name in stored if name not in OF_GROUPS]
    weights = [OwnWeight(name, name == "bias", number) for number, name in enumerate(stored)]
    return sorted(weights, key=lambda weight: not weight.changes)


def _has_groups(mode: list[str], config: Config) -> bool:
    """Whether int4 weights have a scale for each group of inputs (`get_block_size_for_layer`)."""
    settings = config.get("quantization_config")
    size = settings["config"].get("block_size") if isinstance(settings, Mapping) else None
    if size is None and len(mode) > 1:
        size = int(mode[1])
    return size is not None and int(size) > 0


def adapter_shape(name: str, rank: int, adapted: tuple[int, ...]) -> tuple[int, ...]:
    """Of `lora_…_a` or `lora_…_b`, from the shape of the weight that they are added to."""
    return (*adapted[:-1], rank) if name.endswith("_a") else (rank, adapted[-1])
