"""One file per PEFT's method: its configuration, its tensors in, its tensors out.

A further one is a file here, and its line below, which registers it in `adapter.ADAPTERS`.
"""

from foreword.compat.adapters.adaption import AdaptionAdapter as AdaptionAdapter
from foreword.compat.adapters.cartridge import CartridgeAdapter as CartridgeAdapter
from foreword.compat.adapters.cpt import CPTAdapter as CPTAdapter
from foreword.compat.adapters.low_rank import LowRankAdapter as LowRankAdapter
from foreword.compat.adapters.multitask import MultitaskAdapter as MultitaskAdapter
from foreword.compat.adapters.p_tuning import PTuningAdapter as PTuningAdapter
from foreword.compat.adapters.prefix import PrefixAdapter as PrefixAdapter
from foreword.compat.adapters.prompt import PromptAdapter as PromptAdapter
