"""What makes a model ask about a text: how a question begins, or a request for one.

The five kinds are those of self-study (Eyuboglu et al. 2025, "Cartridges"), which requests
questions; the words are ours. A small model, or one that was not trained on conversations, follows
no request. But it goes on with a question that was begun where the template lets the user speak (Xu
et al. 2024, "Magpie", without a beginning).
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

OPENINGS_ABOUT_TEXT: dict[Kind, tuple[str, ...]] = {
    "structuring": (
        "List what the text says about",
        "From the text, list all",
        "Make a table of what the text says about",
        "From the text, list in order of their size the",
    ),
    "summarization": (
        "Summarize what the text says about",
        "In one sentence, what does the text say about",
        "Tell me what the text says about",
    ),
    "question": (
        "According to the text, what",
        "According to the text, who",
        "According to the text, when",
        "According to the text, where",
        "According to the text, how many",
        "According to the text, why",
        "According to the text, is it true that",
        "What does the text say about",
    ),
    "use-case": (
        "How can I use what the text says about",
        "According to the text, what should I do if",
        "According to the text, what must I not",
        "From the text, what do I need to know about",
    ),
    "creative": (
        "Write a few lines about what the text says of",
        "Write a letter that tells what the text says about",
        "In the place that the text describes, what would happen if",
        "What is the most surprising thing that the text says about",
    ),
}
"""How a user begins to ask about a text that is learned."""

OPENINGS_ABOUT_PROMPT: dict[Kind, tuple[str, ...]] = {
    "structuring": ("Please list", "Give me a table of", "Sort these:"),
    "summarization": ("Summarize", "Tell me about", "Here is a text:"),
    "question": ("What", "Who", "When", "Where", "How many", "Which", "Why", "Is"),
    "use-case": ("How can I", "I need help with", "Can you", "My"),
    "creative": ("Write a", "Imagine", "Do you think"),
}
"""How a user begins to write to somebody who was given an instruction."""
