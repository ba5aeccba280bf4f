"""All-CNN-C in PyTorch, as its users write it: writes state dicts, and the logits of images. For torch.test.ts."""

import json
import sys

import numpy
import torch
from torch import nn

WIDTH = 0.125


def network(batch_norm):
    def block(inputs, outputs, kernel=3, stride=1):
        layers = [nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=not batch_norm)]
        return layers + ([nn.BatchNorm2d(outputs)] if batch_norm else []) + [nn.ReLU()]

    a, b = round(96 * WIDTH), round(192 * WIDTH)
    return nn.Sequential(
        *block(3, a), *block(a, a), *block(a, a, 3, 2), nn.Dropout(0.5),
        *block(a, b), *block(b, b), *block(b, b, 3, 2), nn.Dropout(0.5),
        *block(b, b), *block(b, b, 1), nn.Conv2d(b, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def safetensors(tensors, file):
    """The format's own few lines, so that the test needs no package of it."""
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64"}
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    with open(file, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text + data)


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (self.mark, "w"))


def main(folder, images):
    torch.manual_seed(1)
    pixels = torch.from_numpy(numpy.fromfile(images, "<f4").reshape(-1, 32, 32, 3)).permute(0, 3, 1, 2)
    for batch_norm in (False, True):
        net = network(batch_norm).eval()
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
                layer.weight.data.uniform_(0.5, 1.5)
                layer.bias.data.normal_()
        name = "norm" if batch_norm else "plain"
        with torch.no_grad():
            net(pixels).numpy().astype("<f4").tofile(f"{folder}/{name}.logits")
        for kind in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            state = {key: value.to(kind) if value.is_floating_point() else value for key, value in net.state_dict().items()}
            if kind == torch.float64:
                # As data-parallel training writes it, in a checkpoint, in another layout.
                state = {f"module.{key}": value for key, value in state.items()}
                state = {key: value.to(memory_format=torch.channels_last) if value.dim() == 4 else value for key, value in state.items()}
                optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
                optimizer.step()
                torch.save({"epoch": 3, "state_dict": state, "optimizer": optimizer.state_dict()}, f"{folder}/{name}-float64.pt")
            else:
                torch.save(state, f"{folder}/{name}-{str(kind)[6:]}.pt")
            safetensors(state, f"{folder}/{name}-{str(kind)[6:]}.safetensors")
    torch.save(net, f"{folder}/whole.pt")
    torch.save({"weights": Evil(f"{folder}/ran")}, f"{folder}/evil.pt")


main(*sys.argv[1:])
