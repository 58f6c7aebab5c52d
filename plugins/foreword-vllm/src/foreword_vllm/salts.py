"""Which requests may share cached blocks.

vLLM finds a block again by its tokens and by its request's salt. A prompt's blocks begin with
tokens that stand for virtual ones, so that without a salt of its own every other request with these
tokens would meet them. The salts here are made in the scheduler, after whatever a client sent, and
no two kinds of them are ever the same text:

- a prompt's: `foreword:<sha256 of its file>:<the client's salt>`;
- a refused request's: `foreword:refused:<its id>`, so that its blocks are nobody's but its own;
- a request's without a prompt: the client's as it is, unless that begins as one of ours does.
"""

from __future__ import annotations

_OURS = ("foreword:", "client:")


def of_prompt(sha256: str, client: str | None) -> str:
    """The salt of a request with a prompt."""
    return f"foreword:{sha256}:{client or ''}"


def of_refused(request_id: str) -> str:
    """The salt of a request that is not served."""
    return f"foreword:refused:{request_id}"


def of_bare(client: str | None) -> str | None:
    """The salt of a request without a prompt."""
    if client is not None and client.startswith(_OURS):
        return f"client:{client}"
    return client
