"""How large the models of keras.applications are, so that a batch can be planned without building them.

With the original 1000 classes and input size, in bytes; a test compares the table with Keras.
"""

from __future__ import annotations

from typing import NamedTuple


class Sizes(NamedTuple):
    """`activation_bytes` is what the largest activation adds to the memory that a verification needs."""

    largest_tensor_bytes: int
    weight_bytes: int
    activation_bytes: int


SIZES = {
    "ConvNeXtBase": Sizes(16_777_216, 354_365_856, 102_760_448),
    "ConvNeXtLarge": Sizes(37_748_736, 791_069_344, 154_140_672),
    "ConvNeXtSmall": Sizes(9_437_184, 200_894_752, 77_070_336),
    "ConvNeXtTiny": Sizes(9_437_184, 114_356_512, 77_070_336),
    "ConvNeXtXLarge": Sizes(67_108_864, 1_400_787_872, 205_520_896),
    "DenseNet121": Sizes(4_096_000, 32_250_016, 53_231_616),
    "DenseNet169": Sizes(6_656_000, 57_231_520, 53_231_616),
    "DenseNet201": Sizes(7_680_000, 80_971_936, 53_231_616),
    "EfficientNetB0": Sizes(5_120_000, 21_322_288, 78_452_736),
    "EfficientNetB1": Sizes(5_120_000, 31_424_960, 89_954_304),
    "EfficientNetB2": Sizes(5_632_000, 36_710_280, 105_437_184),
    "EfficientNetB3": Sizes(6_144_000, 49_282_144, 210_134_016),
    "EfficientNetB4": Sizes(7_168_000, 77_867_296, 336_208_896),
    "EfficientNetB5": Sizes(8_192_000, 122_250_112, 483_296_256),
    "EfficientNetB6": Sizes(9_216_000, 173_060_576, 862_924_800),
    "EfficientNetB7": Sizes(10_240_000, 266_634_752, 1_113_305_088),
    "EfficientNetV2B0": Sizes(5_120_000, 28_801_248, 25_690_112),
    "EfficientNetV2B1": Sizes(5_120_000, 32_848_496, 29_491_200),
    "EfficientNetV2B2": Sizes(5_632_000, 40_713_496, 34_611_200),
    "EfficientNetV2B3": Sizes(6_144_000, 57_870_488, 57_600_000),
    "EfficientNetV2L": Sizes(9_830_400, 476_111_392, 235_929_600),
    "EfficientNetV2M": Sizes(6_291_456, 217_725_552, 176_947_200),
    "EfficientNetV2S": Sizes(5_120_000, 86_449_440, 113_246_208),
    "InceptionResNetV2": Sizes(12_779_520, 223_494_944, 88_510_464),
    "InceptionV3": Sizes(8_192_000, 95_407_136, 88_510_464),
    "MobileNet": Sizes(4_194_304, 17_015_456, 52_301_824),
    "MobileNetV2": Sizes(5_120_000, 14_155_936, 78_452_736),
    "MobileNetV3Large": Sizes(5_120_000, 22_029_728, 1_006_632_960),
    "MobileNetV3Small": Sizes(4_096_000, 10_219_872, 603_979_776),
    "NASNetLarge": Sizes(16_128_000, 355_799_272, 179_656_704),
    "NASNetMobile": Sizes(4_224_000, 21_306_864, 28_035_072),
    "ResNet101": Sizes(9_437_184, 178_828_704, 53_231_616),
    "ResNet101V2": Sizes(9_437_184, 178_702_240, 53_231_616),
    "ResNet152": Sizes(9_437_184, 241_679_776, 53_231_616),
    "ResNet152V2": Sizes(9_437_184, 241_522_592, 53_231_616),
    "ResNet50": Sizes(9_437_184, 102_546_848, 53_231_616),
    "ResNet50V2": Sizes(9_437_184, 102_455_200, 53_231_616),
    "VGG16": Sizes(411_041_792, 553_430_176, 205_520_896),
    "VGG19": Sizes(411_041_792, 574_668_960, 205_520_896),
    "Xception": Sizes(12_582_912, 91_641_920, 177_020_928),
}
