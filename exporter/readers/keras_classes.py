"""What is known of Keras's own layers without Keras: their weights.

`keras_inner` has the layers inside of them, `keras_shapes` and `keras_sequences` the shapes of what they give. The
names and the order of weights are those of each class's `build`, in Keras 3.15; a test compares all of it with Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.keras_quantised import OwnWeight, changed_weights, is_plain

Config = Mapping[str, Any]
# A weight's name and whether training changes it.
Named = tuple[str, bool]


def _dense(config: Config) -> list[Named]:
    return [("kernel", True), *_if(config.get("use_bias", True), "bias")]


def _einsum(config: Config) -> list[Named]:
    return [("kernel", True), *_if(config.get("bias_axes"), "bias")]


def _separable(config: Config) -> list[Named]:
    return [("depthwise_kernel", True), ("pointwise_kernel", True), *_if(config.get("use_bias", True), "bias")]


def _affine(config: Config) -> list[Named]:
    return [*_if(config.get("scale", True), "gamma"), *_if(config.get("center", True), "beta")]


def _batch_norm(config: Config) -> list[Named]:
    statistics = ["moving_mean", "moving_variance"]
    if config.get("renorm"):
        statistics += ["moving_stddev", "renorm_mean", "renorm_stddev"]
    return [*_affine(config), *((name, False) for name in statistics)]


def _if(present: Any, name: str) -> list[Named]:
    return [(name, True)] if present else []


def _recurrent(config: Config) -> list[Named]:
    return [("kernel", True), ("recurrent_kernel", True), *_if(config.get("use_bias", True), "bias")]


def _attention(config: Config) -> list[Named]:
    return [*_if(config.get("use_scale"), "scale"), *_if(config.get("score_mode") == "concat", "concat_score_weight")]


def _normalisation(config: Config) -> list[Named]:
    """Statistics that were adapted to data; those that are given as settings are no weights."""
    given = config.get("mean") is not None or config.get("invert") is None
    return [] if given else [("mean", False), ("variance", False), ("count", False)]


def _reversible(config: Config) -> list[Named]:
    return [("embeddings", True), *_if(not config.get("tie_weights", True), "reverse_embeddings")]


def _spectrogram(config: Config) -> list[Named]:
    mode = config.get("mode")
    return [*_if(mode != "imag", "real_kernel"), *_if(mode != "real", "imag_kernel")]


def _none(config: Config) -> list[Named]:
    return []


DIMENSIONS = ("1D", "2D", "3D")
PLAIN = """
    Activation ActivityRegularization AlphaDropout Dropout ELU GaussianDropout GaussianNoise Identity LeakyReLU Masking
    ReLU Rescaling Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D UnitNormalization
    Add Average Concatenate Dot Maximum Minimum Multiply Subtract
    CenterCrop Flatten InputLayer Permute RepeatVector Reshape Resizing
    Bidirectional ConvLSTM1D ConvLSTM2D ConvLSTM3D GRU GroupQueryAttention LSTM MultiHeadAttention RNN SimpleRNN
    StackedRNNCells TimeDistributed
    AutoContrast CategoryEncoding ContrastLimitedAdaptiveHistogramEqualization CutMix Discretization Equalization
    HashedCrossing Hashing MixUp RandomBrightness RandomColorDegeneration RandomContrast RandomCrop
    RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert
    RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear
    RandomTranslation RandomZoom Solarization
    AugMix MaxNumBoundingBoxes RandAugment RandomColorJitter
    IntegerLookup Pipeline StringLookup TextVectorization MelSpectrogram
"""
# Layers whose class has another name than what the file says.
RENAMED = {"GroupQueryAttention": "GroupedQueryAttention"}
WEIGHTS: dict[str, Callable[[Config], list[Named]]] = {
    **dict.fromkeys(PLAIN.split(), _none),
    **{
        f"{name}{size}": _none
        for name in (
            *("AdaptiveAveragePooling", "AdaptiveMaxPooling", "AveragePooling", "Cropping", "GlobalAveragePooling"),
            *("GlobalMaxPooling", "MaxPooling", "UpSampling", "ZeroPadding"),
        )
        for size in DIMENSIONS
    },
    **{f"Conv{size}{kind}": _dense for size in DIMENSIONS for kind in ("", "Transpose")},
    **dict.fromkeys(("Dense", "DepthwiseConv1D", "DepthwiseConv2D"), _dense),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    **dict.fromkeys(("GroupNormalization", "LayerNormalization"), _affine),
    **dict.fromkeys(("ConvLSTMCell", "GRUCell", "LSTMCell", "SimpleRNNCell"), _recurrent),
    **dict.fromkeys(("AdditiveAttention", "Attention"), _attention),
    "BatchNormalization": _batch_norm,
    "EinsumDense": _einsum,
    "Embedding": lambda config: [("embeddings", True)],
    "Normalization": _normalisation,
    "PReLU": lambda config: [("alpha", True)],
    "ReversibleEmbedding": _reversible,
    "RMSNormalization": lambda config: [("scale", True)],
    "STFTSpectrogram": _spectrogram,
    "SpectralNormalization": lambda config: [("vector_u", False)],
}


def own_weights(class_name: str, config: Config) -> list[OwnWeight]:
    """The layer's own weights in the order of the catalogue. Raises Unexplained."""
    if class_name not in WEIGHTS:
        raise Unexplained(f"layers of class {class_name}")
    plain = [OwnWeight(*each) for each in WEIGHTS[class_name](config)]
    return plain if is_plain(config) else changed_weights(class_name, config, plain)
