"""Prompts for vLLM, through the plug-in foreword-vllm."""

from foreword.compat.vllm.exporting import ForVLLM, export_vllm, name_of

__all__ = ["ForVLLM", "export_vllm", "name_of"]
