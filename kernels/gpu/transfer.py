"""Arrays between numpy and mlx, bit for bit; bfloat16 is ml_dtypes' in numpy."""

from typing import Any

import ml_dtypes
import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def to_mlx(array: NDArray[Any]) -> mx.array:
    """An mlx array of the same bits; float32, float16, bfloat16 and whole numbers."""
    if array.dtype == BFLOAT16:
        return mx.array(array.view(np.uint16)).view(mx.bfloat16)
    return mx.array(array)


def to_numpy(array: mx.array) -> NDArray[Any]:
    """A numpy array of the same bits, evaluated."""
    if array.dtype == mx.bfloat16:
        return np.array(array.view(mx.uint16)).view(BFLOAT16)
    return np.array(array)


def mlx_dtype(dtype: Any) -> Any:
    """The mlx dtype of a numpy dtype of weights; raises TypeError for another."""
    names = {np.dtype(np.float32): mx.float32, np.dtype(np.float16): mx.float16, BFLOAT16: mx.bfloat16}
    if np.dtype(dtype) not in names:
        raise TypeError(f"[decode] dtype must be float32, float16 or bfloat16, got {np.dtype(dtype)}")
    return names[np.dtype(dtype)]
