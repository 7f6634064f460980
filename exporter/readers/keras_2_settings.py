"""The settings of layers in Keras 2's words, in those that Keras 3.15 has once it has loaded the file.

Keras 3 writes objects with their modules and policies as objects, leaves some settings out and adds others. Whatever is
not known for certain stays in the words of the file; a test compares what comes out with Keras.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.keras_quantised import policy_name

Config = Mapping[str, Any]


def _object_settings(*names: str) -> str:
    """An initializer, a regularizer and a constraint of each weight."""
    return " ".join(f"{name}_{kind}" for name in names for kind in ("initializer", "regularizer", "constraint"))


_BIASED = f"use_bias {_object_settings('bias')}"
_WINDOW = "kernel_size strides padding data_format dilation_rate activation activity_regularizer " + _BIASED
_AFFINE = f"axis epsilon center scale {_object_settings('beta', 'gamma')}"
_STEPS = "return_sequences return_state go_backwards stateful unroll zero_output_for_mask activity_regularizer dropout "
_RECURRENT = f"units activation recurrent_dropout {_STEPS} {_BIASED} {_object_settings('kernel', 'recurrent')}"
_STATISTICS = "moving_mean_initializer moving_variance_initializer renorm renorm_clipping renorm_momentum synchronized"
_POOLING = "data_format padding pool_size strides"
_TABLE = "activity_regularizer input_dim mask_zero output_dim quantization_config"
DIMENSIONS = ("1D", "2D", "3D")
# The settings of each class beside name, dtype and trainable.
SETTINGS: dict[str, str] = {
    **dict.fromkeys(("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"), ""),
    **{
        f"{kind}Pooling{size}": "data_format padding pool_size strides"
        for kind in ("Average", "Max")
        for size in DIMENSIONS
    },
    **{f"Global{kind}Pooling{size}": "data_format keepdims" for kind in ("Average", "Max") for size in DIMENSIONS},
    **{f"Conv{size}": f"filters groups {_WINDOW} {_object_settings('kernel')}" for size in DIMENSIONS},
    **{f"Conv{size}Transpose": f"filters output_padding {_WINDOW} {_object_settings('kernel')}" for size in DIMENSIONS},
    **{f"ZeroPadding{size}": "data_format padding" for size in DIMENSIONS},
    **dict.fromkeys(("Cropping2D", "Cropping3D"), "cropping data_format"),
    **dict.fromkeys(("SpatialDropout2D", "SpatialDropout3D"), "data_format rate seed"),
    **dict.fromkeys(("GaussianDropout", "SpatialDropout1D"), "rate seed"),
    **dict.fromkeys(("Concatenate", "Softmax"), "axis"),
    "Activation": "activation",
    "BatchNormalization": f"momentum {_AFFINE} {_STATISTICS}",
    "Cropping1D": "cropping",
    "Dense": f"units activation quantization_config {_BIASED} {_object_settings('kernel')}",
    "DepthwiseConv2D": f"depth_multiplier {_WINDOW} {_object_settings('depthwise')}",
    "Dot": "axes normalize",
    "Dropout": "noise_shape rate seed",
    "ELU": "alpha",
    "Embedding": f"{_TABLE} {_object_settings('embeddings')}",
    "Flatten": "data_format",
    "GRU": f"{_RECURRENT} recurrent_activation reset_after seed",
    "GaussianNoise": "seed stddev",
    "InputLayer": "batch_shape optional ragged sparse",
    "LSTM": f"{_RECURRENT} recurrent_activation seed unit_forget_bias",
    "LayerNormalization": f"{_AFFINE} rms_scaling",
    "LeakyReLU": "negative_slope",
    "Masking": "mask_value",
    "PReLU": f"shared_axes {_object_settings('alpha')}",
    "Permute": "dims",
    "ReLU": "max_value negative_slope threshold",
    "RepeatVector": "n",
    "Rescaling": "offset scale",
    "Reshape": "target_shape",
    "SeparableConv1D": f"filters depth_multiplier {_WINDOW} {_object_settings('depthwise', 'pointwise')}",
    "SeparableConv2D": f"filters depth_multiplier {_WINDOW} {_object_settings('depthwise', 'pointwise')}",
    "SimpleRNN": _RECURRENT,
    "UpSampling1D": "size",
    "UpSampling2D": "data_format interpolation size",
    "UpSampling3D": "data_format size",
}
# Settings that came later, as Keras 3 has them where a file does not say them.
ADDED: Config = {
    "data_format": "channels_last",
    "dtype": "float32",
    "groups": 1,
    "interpolation": "nearest",
    "keepdims": False,
    "optional": False,
    "quantization_config": None,
    "ragged": False,
    "renorm": False,
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
    "rms_scaling": False,
    "seed": None,
    "sparse": False,
    "synchronized": False,
    "trainable": True,
    "zero_output_for_mask": False,
}
# Settings of Keras 2 alone, and the values with which they change nothing; None stands for any.
DROPPED: dict[str, tuple[Any, ...] | None] = {
    "activity_regularizer": (None,),
    "batch_input_shape": None,
    "implementation": None,
    "input_length": None,
    "time_major": (False,),
}
_ACTIVATIONS = """
    elu exponential gelu hard_sigmoid leaky_relu linear log_softmax mish relu relu6 selu sigmoid silu softmax softplus
    softsign tanh
"""
ACTIVATIONS = frozenset(_ACTIVATIONS.split())
_FANS = {"input_axes": None, "output_axes": None}
# The settings of objects, with those that came later.
OBJECTS: dict[str, tuple[set[str], Config]] = {
    **{f"{kind}{how}": ({"seed"}, _FANS) for kind in ("Glorot", "He", "Lecun") for how in ("Normal", "Uniform")},
    **dict.fromkeys(("NonNeg", "Ones", "Zeros"), (set(), {})),
    **dict.fromkeys(("RandomNormal", "TruncatedNormal"), ({"mean", "stddev", "seed"}, {})),
    "Constant": ({"value"}, {}),
    "L1": ({"l1"}, {}),
    "L1L2": ({"l1", "l2"}, {}),
    "L2": ({"l2"}, {}),
    "MaxNorm": ({"axis", "max_value"}, {}),
    "Orthogonal": ({"gain", "seed"}, {}),
    "RandomUniform": ({"minval", "maxval", "seed"}, {}),
    "UnitNorm": ({"axis"}, {}),
    "VarianceScaling": ({"distribution", "mode", "scale", "seed"}, _FANS),
}


def as_in_keras_3(class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The settings as Keras 3 has them, or those of the file where that is not certain."""
    try:
        return _renewed(class_name, config) if class_name in SETTINGS else config
    except (Unexplained, LookupError, TypeError):
        return config


def _renewed(class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    given = {**config}
    if class_name == "LeakyReLU" and "alpha" in given:
        given["negative_slope"] = given.pop("alpha")
    base = ("name", "dtype") if class_name == "InputLayer" else ("name", "dtype", "trainable")
    names = {*base, *SETTINGS[class_name].split()}
    for name in given.keys() - names:
        allowed = DROPPED[name]
        if allowed is not None and given[name] not in allowed:
            raise Unexplained(f"the setting {name}")
    found = {name: given[name] if name in given else ADDED[name] for name in names}
    return {name: _value(class_name, name, value) for name, value in found.items()}


def _value(class_name: str, name: str, value: Any) -> Any:
    if name == "dtype":
        return value if class_name == "InputLayer" else _policy(value)
    kind = name.rpartition("_")[2]
    if kind in ("initializer", "regularizer", "constraint") and value is not None:
        return value if "module" in value else _object(kind, value)
    if name in ("activation", "recurrent_activation"):
        if value != "swish" and value not in ACTIVATIONS:
            raise Unexplained(f"the activation {value}")
        return "silu" if value == "swish" else value
    if isinstance(value, dict):
        raise Unexplained(f"the setting {name}")
    if name == "axis" and class_name == "LayerNormalization":
        return value if isinstance(value, list) else [value]
    if name == "axis" and isinstance(value, list) and len(value) == 1:
        return int(value[0])
    if class_name.endswith("Pooling1D") and name in ("pool_size", "strides") and isinstance(value, int):
        return [value]
    return value


def _policy(value: Any) -> Any:
    if isinstance(value, dict) and "module" in value:
        return value
    name = (
        value["config"]["name"] if isinstance(value, dict) and value["class_name"] == "Policy" else policy_name(value)
    )
    return {"module": "keras", "class_name": "DTypePolicy", "config": {"name": name}, "registered_name": None}


def _object(kind: str, value: Any) -> dict[str, Any]:
    """Raises LookupError and Unexplained."""
    class_name, given = value["class_name"], dict(value["config"])
    names, added = OBJECTS[class_name]
    if given.keys() != names:
        raise Unexplained(f"settings of {class_name}")
    if given.get("distribution") == "normal":
        given["distribution"] = "truncated_normal"
    module = f"keras.{kind}s"
    return {"module": module, "class_name": class_name, "config": {**given, **added}, "registered_name": None}
