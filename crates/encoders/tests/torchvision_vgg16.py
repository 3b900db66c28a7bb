#!/usr/bin/env python3
"""torchvision's VGG16 with seeded random weights: the weights as users get them, pictures, and what it makes of them.

usage: crates/encoders/tests/torchvision_vgg16.py OUT

Writes OUT/vgg16.safetensors and OUT/reference.safetensors. The test `vgg16::rows_are_those_of_torchvision` reads both if
AMS_VGG16_REFERENCE says OUT. Needs torch, torchvision, safetensors; 1.2 GB of disk, of which half are kept.
"""
import pathlib
import sys

import torch
import torchvision
from safetensors.torch import save_file


def convert(source, target):
    """A .pth file to safetensors: as docs/images.md shows."""
    state = torch.load(source, map_location="cpu", weights_only=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, target)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(3)
    network = torchvision.models.vgg16(weights=None).eval()
    torch.save(network.state_dict(), out / "vgg16.pth")
    convert(out / "vgg16.pth", out / "vgg16.safetensors")
    (out / "vgg16.pth").unlink()

    # Noise, and a picture with areas.
    noise = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    rows = torch.arange(224).view(1, 224, 1).expand(3, 224, 224)
    areas = ((rows // 37 * 60 + rows.transpose(1, 2) // 50 * 35 + torch.arange(3).view(3, 1, 1) * 20) % 256).to(torch.uint8)
    pictures = torch.cat([noise, areas[None]])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    seen = torchvision.transforms.functional.normalize(pictures.float() / 255, mean, std)
    with torch.no_grad():
        pooled = torch.flatten(network.avgpool(network.features(seen)), 1)
        raw = network.classifier[0](pooled)
        fc8 = network(seen)
    reference = {"pictures": pictures.permute(0, 2, 3, 1), "fc6-raw": raw, "fc6": torch.relu(raw), "fc8": fc8}
    save_file({name: tensor.contiguous() for name, tensor in reference.items()}, out / "reference.safetensors")


if __name__ == "__main__":
    main()
