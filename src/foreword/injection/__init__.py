"""Where virtual tokens enter the backbone."""

from foreword.injection.base import Injection
from foreword.injection.embeddings import Embeddings
from foreword.injection.keys_values import KeysValues
from foreword.injection.text import Text

__all__ = ["Embeddings", "Injection", "KeysValues", "Text"]
