"""safetensors files of floats, small enough to do without the package. Ref: huggingface/safetensors, README, Format"""

import json
import struct

import torch

DTYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.int64: "I64"}
SAVED_DTYPES = {word: dtype for dtype, word in DTYPES.items()}


def write_safetensors(path, state):
    header, at = {}, 0
    for name, value in state.items():
        size = value.numel() * value.element_size()
        header[name] = {"dtype": DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for value in state.values():
            file.write(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())


def read_safetensors(path):
    data = path.read_bytes()
    try:
        (size,) = struct.unpack_from("<Q", data)
        state = {}
        for name, entry in json.loads(data[8 : 8 + size]).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                values = bytearray(data[8 + size + begin : 8 + size + end])
                state[name] = torch.frombuffer(values, dtype=SAVED_DTYPES[entry["dtype"]]).view(entry["shape"])
        return state
    except (struct.error, ValueError, KeyError, RuntimeError):
        raise SystemExit(f"{path}: not a safetensors file of floats") from None
