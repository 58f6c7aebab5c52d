"""A long text becomes a prompt: the backbone reads it and teaches itself without it.

The teacher and the student are one frozen backbone with two prompts: keys and values of the text,
and virtual tokens (Snell et al. 2022, context distillation; Mu et al. 2023, gist tokens; Eyuboglu
et al. 2025, "Cartridges").
"""
