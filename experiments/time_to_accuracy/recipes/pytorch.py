"""PyTorch's MNIST example, and tuomaso's train_mnist_fast."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import nn
from torch.optim import lr_scheduler

from experiments.time_to_accuracy.recipes import Data, Training

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def mnist(data: Data, seed: int) -> Training:
    """PyTorch's example: Adadelta, whose rate shrinks by 0.7 an epoch, 14 epochs.

    On a CPU the original does not shuffle; here it does, as on other devices.
    """
    torch.manual_seed(seed)
    model = mnist_net().to(DEVICE)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    epoch = _epoch(model, optimizer, data, batch_size=64)

    def train_epoch() -> None:
        epoch()
        schedule.step()

    return _training(model, 14, train_epoch)


def mnist_net() -> nn.Module:
    """Images (n, 1, 28, 28) to logits (n, 10), by convolutions of 32 and 64 and 128 units."""
    convolutions = nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()
    hidden = nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5)
    pooled = nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten()
    return nn.Sequential(*convolutions, *pooled, *hidden, nn.Linear(128, 10))


def mnist_fast(data: Data, seed: int) -> Training:
    """The last of train_mnist_fast's notebooks: one epoch of one-cycle Adam at 0.01."""
    torch.manual_seed(seed)
    model = mnist_fast_net().to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.7, 0.9))
    steps = -(-len(data.train_labels) // 256)
    schedule = lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.01, total_steps=steps, cycle_momentum=False
    )
    train_epoch = _epoch(model, optimizer, data, batch_size=256, after_step=schedule.step)
    return _training(model, 1, train_epoch)


def mnist_fast_net() -> nn.Module:
    """Images (n, 1, 28, 28) to logits (n, 10), by convolutions of 24 and 32 and 256 units."""
    first = nn.Conv2d(1, 24, 5), nn.MaxPool2d(2), nn.ReLU()
    second = nn.Conv2d(24, 32, 3), nn.MaxPool2d(2), nn.ReLU()
    hidden = nn.Flatten(), nn.Linear(800, 256), nn.ReLU()
    return nn.Sequential(*first, *second, *hidden, nn.Linear(256, 10))


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Data,
    *,
    batch_size: int,
    after_step: Callable[[], None] = lambda: None,
) -> Callable[[], None]:
    """Return a function that trains an epoch in a new order, with a smaller last batch."""
    x = _pixels(data.train_images)
    y = torch.from_numpy(data.train_labels.astype(np.int64)).to(DEVICE)

    def epoch() -> None:
        model.train()
        for batch in torch.randperm(len(y), device=DEVICE).split(batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            after_step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return epoch


def _training(model: nn.Module, epochs: int, train_epoch: Callable[[], None]) -> Training:
    def predict(images: UInt8[np.ndarray, "n 28 28 1"]) -> Int[np.ndarray, " n"]:
        model.eval()
        with torch.inference_mode():
            chunks = [model(chunk).argmax(1) for chunk in _pixels(images).split(250)]
        return torch.cat(chunks).cpu().numpy()

    num_params = sum(p.numel() for p in model.parameters())
    return Training(epochs, num_params, 0.0, train_epoch, predict)


def _pixels(images: np.ndarray) -> torch.Tensor:
    """Normalise images as both recipes do, by the mean and deviation of MNIST's pixels."""
    pixels = torch.from_numpy(images).to(DEVICE).permute(0, 3, 1, 2).float() / 255
    return ((pixels - 0.1307) / 0.3081).contiguous()
