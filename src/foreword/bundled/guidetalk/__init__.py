"""The second bundled sample task: conversations about entries of the field guide."""
