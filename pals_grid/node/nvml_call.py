"""Calls into the ``nvidia-ml-py`` binding, with every return code turned into one typed error.

Only ``node.nvml`` uses this; nobody else imports ``pynvml``.
"""

from __future__ import annotations

from typing import Any

import pynvml

from pals_grid.core.errors import DeviceError, DeviceLost, DevicePermission, DeviceUnsupported

UNSUPPORTED = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_VGPU_ECC_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FREQ_NOT_SUPPORTED,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_DEPRECATED,
        pynvml.NVML_ERROR_RESET_TYPE_NOT_SUPPORTED,
    }
)
LOST = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_INSUFFICIENT_POWER,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        pynvml.NVML_ERROR_GPU_NOT_FOUND,
    }
)
# The rest passes or is our own mistake: the device is neither gone nor unable.
OTHER = frozenset(
    {
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        pynvml.NVML_ERROR_ALREADY_INITIALIZED,
        pynvml.NVML_ERROR_INSUFFICIENT_SIZE,
        pynvml.NVML_ERROR_TIMEOUT,
        pynvml.NVML_ERROR_IRQ_ISSUE,
        pynvml.NVML_ERROR_CORRUPTED_INFOROM,
        pynvml.NVML_ERROR_OPERATING_SYSTEM,
        pynvml.NVML_ERROR_IN_USE,
        pynvml.NVML_ERROR_MEMORY,
        pynvml.NVML_ERROR_NO_DATA,
        pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES,
        pynvml.NVML_ERROR_NOT_READY,
        pynvml.NVML_ERROR_INVALID_STATE,
        pynvml.NVML_ERROR_UNKNOWN,
    }
)
ERROR_TYPES: dict[int, type[DeviceError]] = {
    pynvml.NVML_ERROR_NO_PERMISSION: DevicePermission,
    **dict.fromkeys(UNSUPPORTED, DeviceUnsupported),
    **dict.fromkeys(LOST, DeviceLost),
    **dict.fromkeys(OTHER, DeviceError),
}


def translate(error: pynvml.NVMLError, name: str) -> DeviceError:
    """Turn an NVML error into this project's; a code that nobody knows is a DeviceError."""
    kind = ERROR_TYPES.get(error.value, DeviceError)
    return kind(f"{name}: {error} (NVML code {error.value})")


def call(name: str, *arguments: object) -> Any:  # noqa: ANN401 - the binding has no types
    """Call a function of the binding.

    Raises:
        DeviceError: translated from the return code.
    """
    try:
        return getattr(pynvml, name)(*arguments)
    except pynvml.NVMLError as error:
        raise translate(error, name) from error


def is_uninitialised(error: DeviceError) -> bool:
    """Whether NVML itself has to be started (again), not only the GPU looked up."""
    return getattr(error.__cause__, "value", None) in {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    }
