"""What makes a model ask about a text: a request for a question, or how a question begins.

The five kinds are those of self-study (Eyuboglu et al. 2025, "Cartridges"); the words are ours,
short enough for small models. A model that was not trained on conversations follows no request: it
goes on writing where the template lets the user speak, from a first word.
"""

from __future__ import annotations

from foreword.recipe.teacher import Kind

_ONLY = "Write nothing else."

ABOUT_TEXT: dict[Kind, tuple[str, ...]] = {
    "structuring": (
        "Write one request to arrange facts of the text above as a list, a table or JSON. Say"
        f" which facts, and in which form. {_ONLY}",
        "Write one request to sort some things that the text above names into groups, or in an"
        f" order. Say which things. {_ONLY}",
    ),
    "summarization": (
        "Write one request to summarize a part of the text above. Say which part, by its names and"
        f" numbers. {_ONLY}",
        "Write one request to say in a sentence or two what the text above tells of one thing. Name"
        f" the thing. {_ONLY}",
    ),
    "question": (
        "Write one question about a fact in the text above that has a short answer. Use the text's"
        f" own names. {_ONLY}",
        "Write one question about how, why, when or how many, that the text above answers. Use the"
        f" text's own names. {_ONLY}",
        "Write one question about two things that the text above names, and how they differ."
        f" {_ONLY}",
    ),
    "use-case": (
        "Think of somebody who needs the text above for their work. Write one message in which they"
        f" ask for help with what they want to do. {_ONLY}",
        "Write one question of somebody who wants to do something practical for which the text"
        f" above is needed. {_ONLY}",
    ),
    "creative": (
        "Write one question that begins a lively conversation about something in the text above."
        f" {_ONLY}",
        "Write one request for a short story, a rhyme or a letter that uses facts of the text"
        f" above. {_ONLY}",
    ),
}
"""Requests for a question about a text that is learned."""

ABOUT_PROMPT: dict[Kind, tuple[str, ...]] = {
    "structuring": (
        "Write one message of a user to you that has several parts, or a list, to which you would"
        f" answer as you are told above. {_ONLY}",
    ),
    "summarization": (
        "Write one long message of a user to you that you would answer as you are told above."
        f" {_ONLY}",
    ),
    "question": (
        "Write one short message of a user to you that you would answer as you are told above."
        f" {_ONLY}",
    ),
    "use-case": (
        "Write one message of a user to you, from a situation of their work, that you would answer"
        f" as you are told above. {_ONLY}",
    ),
    "creative": (
        "Write one unusual message of a user to you, that it is hard to answer as you are told"
        f" above. {_ONLY}",
    ),
}
"""Requests for an input to which an instruction applies."""

OPENINGS: dict[Kind, tuple[str, ...]] = {
    "structuring": ("List", "Name all", "Give me a table of"),
    "summarization": ("Summarize", "Tell me about", "In one sentence, what"),
    "question": ("What", "Who", "When", "Where", "How many", "Which", "Why"),
    "use-case": ("How can I", "I want to", "What should I do"),
    "creative": ("Imagine", "Write a story about", "Do you think"),
}
"""How the user begins, where a model is made to go on."""
