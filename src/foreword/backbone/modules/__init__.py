"""A model's own modules: its layers and sub-layers, and what is changed on them."""
