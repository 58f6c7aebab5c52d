"""Prompts put together of others: made when they are added, and anew when a part is replaced.

A composition is written as an artifact to a folder of the server's own, as `foreword compose`
writes it, so that it is served, and read again, like any other prompt, whatever becomes of its
parts.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foreword.artifacts.composing import Composed, check_parts, put_together
from foreword.artifacts.joined import JOIN
from foreword.errors import ForewordError, UserError
from foreword.serving.prompts import Registered
from foreword.serving.versions import Versions

Part = str | Path
"""The name of a prompt that is served, or the folder of an artifact or a run."""
_log = logging.getLogger("foreword.serving")


@dataclass(eq=False)
class _Made:
    """A composition, and what it was made of.

    Attributes:
        parts: in the order in which they stand.
        own: the composition.
        of: those of its parts that are served, as they were.
    """

    parts: tuple[Part, ...]
    own: Registered
    of: dict[str, Registered]


class Compositions:
    """The compositions of a server. Every method may be called from several threads.

    Args:
        versions: where they are kept; their parts are prompts of its store.
    """

    def __init__(self, versions: Versions) -> None:
        self.versions, self.store = versions, versions.store
        self._made: dict[str, _Made] = {}
        self._changing = threading.Lock()

    def add(self, name: str, parts: Sequence[Part]) -> Registered:
        """Put prompts together, one behind the other, and register them as one.

        Args:
            name: by which it is asked for; a prompt of this name is replaced.
            parts: two or more, in the order in which they stand before the text. That which is
                named is followed: see `renew`. A folder is read now.

        Raises:
            UserError: the name is none that a prompt may have, or that of a part; there is no part
                of such a name, or it is a composition.
            ArtifactError: one is damaged, or they do not go together.
            BackboneError: the backbone's keys cannot be moved.
        """
        self.store.check_name(name)
        with self._changing:
            self._forget_others()
            self._check_named(name, [part for part in parts if isinstance(part, str)])
            self._made[name] = self._make(name, tuple(parts))
            return self._made[name].own

    def _check_named(self, name: str, named: Sequence[str]) -> None:
        for part in named:
            if part == name:
                raise UserError(f"parts: '{name}' cannot be a part of itself; give it another name")
            if part in self._made:
                raise UserError(f"parts: '{part}' is put together itself; name its parts instead")
            if part not in self.store:
                raise UserError(f"parts: there is no prompt '{part:.128}' here")
        if any(name in made.of for made in self._made.values()):
            raise UserError(
                f"name: '{name}' is a part of another prompt, which parts that are put together "
                "cannot be; choose another name"
            )

    def _make(self, name: str, parts: tuple[Part, ...]) -> _Made:
        of = {part: self.store.registered(part) for part in parts if isinstance(part, str)}
        composed = []
        for part in parts:
            loaded = self.store.get(part) if isinstance(part, str) else self.store.read(part)
            composed.append(Composed(Path(part), loaded.manifest, loaded.model))
        check_parts(
            [one.where for one in composed],
            [one.manifest for one in composed],
            other_backbone=self.store.other_backbone,
        )
        whole = put_together(composed, None)
        key = hashlib.sha256(whole.manifest.model_dump_json().encode()).hexdigest()[:16]
        new = self.versions.new()
        try:
            whole.save(new)
            return _Made(parts, self.versions.add(name, key, new, JOIN.join(map(str, parts))), of)
        finally:
            self.versions.drop(new)

    def renew(self) -> None:
        """Make those anew of which a named part was replaced. One whose part is gone stays as it
        was made, and so does one that cannot be made of the new part, which is said."""
        with self._changing:
            self._forget_others()
            for name, made in self._made.items():
                now = {part: self.store.find(part) for part in made.of}
                replaced = {
                    part: entry
                    for part, entry in now.items()
                    if entry is not None and entry is not made.of[part]
                }
                if not replaced:
                    continue
                try:
                    self._made[name] = self._make(name, made.parts)
                except ForewordError as error:
                    made.of.update(replaced)
                    _log.warning("the prompt '%s' stays as it was: %s", name, error)
                else:
                    _log.info("made the prompt '%s' anew of %s", name, ", ".join(replaced))

    def parts(self, name: str) -> tuple[str, ...] | None:
        """What a prompt was put together of: names of prompts, and of artifacts that were given as
        folders; None where it is no composition."""
        made = self._made.get(name)  # without the lock, which is held while one is made
        if made is None or self.store.find(name) is not made.own:
            return None
        names = [one["name"] for one in made.own.manifest.recipe["composed"]["parts"]]
        return tuple(
            part if isinstance(part, str) else own
            for part, own in zip(made.parts, names, strict=True)
        )

    def _forget_others(self) -> None:
        """Forget those whose names were removed, or are another prompt's now."""
        self._made = {
            name: made for name, made in self._made.items() if self.store.find(name) is made.own
        }
