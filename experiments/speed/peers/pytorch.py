"""PyTorch, eager or compiled: channels last, fused Adam, a loop over batches on the device."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.speed.peers import Peer, Task

PREDICT_BATCH = 250  # a CPU allocates larger ones again each time


def make(task: Task, *, compiled: bool) -> Peer:
    """Make a net that a loop over batches trains.

    Args:
      task: its net and data.
      compiled: by torch.compile, for batches of one size.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":  # TF32, as in the other peers
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    model: Any = net(task.net)
    model.to(device, memory_format=torch.channels_last)
    forward = torch.compile(model, dynamic=False) if compiled else model
    x, test = (_to_device(images, device) for images in (task.train_images, task.test_images))
    y = torch.from_numpy(task.train_labels.astype(np.int64)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    steps = len(y) // task.batch_size

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def fit() -> None:
        model.train()
        order = torch.randperm(len(y), device=device)
        total = torch.zeros((), device=device)
        for batch in order.view(steps, task.batch_size):
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(forward(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        wait()

    def predict() -> None:
        model.eval()
        with torch.inference_mode():
            for i in range(0, len(test), PREDICT_BATCH):
                forward(test[i : i + PREDICT_BATCH])
        wait()

    def device_peak_bytes() -> int | None:
        return torch.cuda.max_memory_allocated() if device.type == "cuda" else None

    return Peer(fit, predict, device_peak_bytes)


def net(fields: Mapping[str, Any]) -> nn.Sequential:
    """A net by its fields: a module of images (n, 1, 28, 28) that gives logits (n, 10)."""
    layers: list[nn.Module] = []
    side, features = 28, 1
    for i, channels in enumerate(fields.get("channels", ())):
        kernel, pool = fields["kernels"][i], fields["pools"][i]
        layers += [nn.Conv2d(features, channels, kernel, padding=fields["padding"].lower())]
        layers += [nn.ReLU()] + ([nn.MaxPool2d(pool)] if pool > 1 else [])
        layers += [nn.Dropout(fields["conv_dropout"][i])] if fields["conv_dropout"][i] else []
        side = (side if fields["padding"] == "SAME" else side - kernel + 1) // pool
        features = channels
    layers += [nn.Flatten()]
    features *= side * side
    for width, rate in zip(fields.get("widths", ()), fields.get("dropout", ()), strict=True):
        layers += [nn.Linear(features, width), nn.ReLU()]
        layers += [nn.Dropout(rate)] if rate else []
        features = width
    return nn.Sequential(*layers, nn.Linear(features, 10))


def _to_device(images: np.ndarray, device: torch.device) -> torch.Tensor:
    x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    return x.contiguous(memory_format=torch.channels_last)
