"""Keeps torchao out of a program until it is asked for.

Where torchao is installed, transformers imports it with its first model, for one function that
saves quantised weights. That costs about a second and prints warnings at every start. Importing
this module before any model makes transformers import torchao when a backbone is quantised by it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

PACKAGE = "torchao"
_QUANTIZER = "transformers.quantizers.quantizer_torchao"
_FUNCTION = "flatten_tensor_state_dict"


def defer() -> None:
    """Import transformers' quantisers as if torchao were not installed; from then on it is."""
    if PACKAGE in sys.modules or _QUANTIZER in sys.modules or find_spec(PACKAGE) is None:
        return
    modules = cast(dict[str, Any], sys.modules)
    modules[PACKAGE] = None  # Python's own mark of a package that cannot be imported
    try:
        quantizer = import_module(_QUANTIZER)
    finally:
        del modules[PACKAGE]
        import_module("transformers.utils.import_utils").is_torchao_available.cache_clear()
    if not hasattr(quantizer, _FUNCTION):
        setattr(quantizer, _FUNCTION, _flattened)


def _flattened(*given: Any, **named: Any) -> Any:
    module = import_module("torchao.prototype.safetensors.safetensors_support")
    return getattr(module, _FUNCTION)(*given, **named)


defer()
