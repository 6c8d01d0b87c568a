"""Writes gguf_blocks.gguf with the PyPI packages gguf and numpy, which are independent of this project.

For each tensor type T the file holds a tensor "T" of that type and "T.expected", f32: what the package's
dequantize() makes of it. Where the package can quantise T, "T" is quantised normal noise; the "k" types are
random bytes with scales that are finite. The metadata has a key of every type.

usage: make_gguf_blocks.py gguf_blocks.gguf
"""

import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

random = np.random.default_rng(20)


def halves(count):
    """Finite scales as bytes: of usual size, negative, tiny (subnormal) and zero."""
    values = random.normal(0, 0.01, count).astype(np.float16)
    values[count // 3] = np.float16(3e-7)
    values[count // 2] = 0
    return values.view(np.uint8).reshape(count, 2)


def random_blocks(block_bytes, scale_offsets, count):
    blocks = random.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    for offset in scale_offsets:
        blocks[:, offset : offset + 2] = halves(count)
    return blocks


def main(path):
    writer = gguf.GGUFWriter(path, "test")
    writer.add_uint8("test.u8", 255)
    writer.add_int8("test.i8", -128)
    writer.add_uint16("test.u16", 65535)
    writer.add_int16("test.i16", -32768)
    writer.add_uint32("test.u32", 4294967295)
    writer.add_int32("test.i32", -2147483648)
    writer.add_uint64("test.u64", 18446744073709551615)
    writer.add_int64("test.i64", -9223372036854775808)
    writer.add_float32("test.f32", 0.1)
    writer.add_float64("test.f64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "two\nlines, \u00fc")
    writer.add_array("test.integers", [1, -2, 3])
    writer.add_array("test.numbers", [0.5, -1.5])
    writer.add_array("test.strings", ["a", "", "\u00fc"])
    writer.add_array("test.booleans", [True, False])
    writer.add_array("test.nested", [[1, 2], [3]])

    noise = random.normal(0, 1, (3, 64)).astype(np.float32)
    for kind in (T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0):
        add(writer, kind, gguf.quantize(noise, kind))
    add(writer, T.Q4_K, random_blocks(144, (0, 2), 4).reshape(2, 288))
    add(writer, T.Q5_K, random_blocks(176, (0, 2), 4).reshape(2, 352))
    add(writer, T.Q6_K, random_blocks(210, (208,), 4).reshape(2, 420))

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add(writer, kind, data):
    name = kind.name.lower()
    writer.add_tensor(name, data, raw_dtype=kind)
    writer.add_tensor(name + ".expected", gguf.dequantize(data, kind).astype(np.float32))


main(sys.argv[1])
