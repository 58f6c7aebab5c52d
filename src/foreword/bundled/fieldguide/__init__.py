"""The bundled sample task: records of an invented field guide of nature, with descriptions."""
