"""How bytes become the numbers that a network sees.

With x the byte of a pixel, from 0 to 255,

    unit            x / 255                     from 0 to 1
    symmetric       (x - 127.5) / 127.5         from -1 to 1
    standardized    (x - mean) / deviation      mean 0 and standard deviation 1

where mean and standard deviation are those of the pixel's channel, over all pixels of all training images of the data set, those
that are held out included. A channel without variation has no deviation to divide by; it is divided by 255.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_BYTE = 255


@dataclass(frozen=True, eq=False)
class Scale:
    """The map (x - shift) * factor of bytes x.

    Attributes:
        shift, factor: a number for all pixels, or float32 [feature], one for each value of a picture.
    """

    shift: float | Tensor
    factor: float | Tensor

    @property
    def keeps_zero(self) -> bool:
        """Whether black pixels become 0."""
        return not isinstance(self.shift, Tensor) and self.shift == 0

    def to(self, device: str) -> Scale:
        """The same scale on another device."""
        return Scale(*(value.to(device) if isinstance(value, Tensor) else value for value in (self.shift, self.factor)))

    def inputs(self, pixels: Tensor, order: Tensor | None = None) -> Tensor:
        """Pixels as inputs of a network, float32 [lane, image, feature].

        Args:
            pixels: uint8 [lane, image, feature].
            order: int64 [lane, feature]; feature j of the result is pixel `order[lane, j]`. None: pixels stay in place.
        """
        if order is not None:
            pixels = pixels.gather(2, order.unsqueeze(1).expand(pixels.shape))
        values = pixels.to(torch.float32)
        shift, factor = (self._moved(value, order) for value in (self.shift, self.factor))
        return (values if self.keeps_zero else values.sub_(shift)).mul_(factor)

    @staticmethod
    def _moved(value: float | Tensor, order: Tensor | None) -> float | Tensor:
        """Numbers for each pixel, moved as the pixels are."""
        return value[order].unsqueeze(1) if isinstance(value, Tensor) and order is not None else value


UNIT = Scale(0.0, 1 / LARGEST_BYTE)
SYMMETRIC = Scale(LARGEST_BYTE / 2, 2 / LARGEST_BYTE)


def scale_of(word: str, images: Tensor, channels: int) -> Scale:
    """The scale that `training/pixels` names.

    Args:
        word: "unit", "symmetric" or "standardized".
        images: the training images, uint8 [image, feature], channel after channel.
        channels: of a picture.
    """
    return {"unit": UNIT, "symmetric": SYMMETRIC}.get(word) or _standardized(images, channels)


def _standardized(images: Tensor, channels: int) -> Scale:
    values = torch.arange(LARGEST_BYTE + 1, dtype=torch.float64)
    shifts, factors = [], []
    for channel in images.unflatten(1, (channels, -1)).unbind(1):
        counts = channel.flatten().bincount(minlength=len(values)).cpu()  # exact, and no image becomes a float
        mean = float((counts * values).sum() / counts.sum())
        variance = float((counts * (values - mean).square()).sum() / counts.sum())
        shifts.append(mean)
        factors.append(variance**-0.5 if variance else 1 / LARGEST_BYTE)
    if channels == 1:
        return Scale(shifts[0], factors[0])
    repeats = images.shape[1] // channels
    shift, factor = (torch.tensor(each, dtype=torch.float32).repeat_interleave(repeats) for each in (shifts, factors))
    return Scale(shift, factor).to(str(images.device))
