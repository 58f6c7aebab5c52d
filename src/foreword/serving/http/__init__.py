"""The HTTP server around the engine: OpenAI's addresses and fields."""
