"""Sizes of layers: the numbers of channels that are valid, and the sides of outputs, worked out."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Width = Annotated[int, Field(ge=1)]  # channels of a layer


def conv_output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Pixels along one side of a convolution's or pooling's output, as torch.nn.Conv2d's documentation has it.

    A kernel whose points are `dilation` apart covers dilation * (kernel - 1) + 1 pixels; the output has one value for
    each place, `stride` apart, at which it fits into the padded image. Pooling strides by its kernel: stride=kernel.

    Raises:
        ValueError: the kernel does not fit, or a number is out of its range.
    """
    if min(size, kernel, stride, dilation) < 1 or padding < 0:
        raise ValueError("size, kernel, stride and dilation must be 1 or more, padding 0 or more")
    covered = dilation * (kernel - 1) + 1
    if covered > size + 2 * padding:
        raise ValueError(f"a kernel that covers {covered} pixels does not fit into {size + 2 * padding}")
    return (size + 2 * padding - covered) // stride + 1
