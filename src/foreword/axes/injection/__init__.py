"""Where virtual tokens enter the backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.common.lazily import names_of

if TYPE_CHECKING:
    from foreword.axes.injection.base import Injection as Injection
    from foreword.axes.injection.embeddings import Embeddings as Embeddings
    from foreword.axes.injection.keys_values import KeysValues as KeysValues
    from foreword.axes.injection.text import Text as Text

_HOMES = {
    "Embeddings": "embeddings",
    "Injection": "base",
    "KeysValues": "keys_values",
    "Text": "text",
}
__getattr__ = names_of(__name__, _HOMES)
