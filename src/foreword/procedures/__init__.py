"""Training that takes several models one after another, such as PET."""
