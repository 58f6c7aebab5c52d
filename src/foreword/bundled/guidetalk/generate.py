"""Write the bundled conversations, train.jsonl, dev.jsonl and test.jsonl: talk about a field guide.

A user shows an entry of the field guide and asks to have it told; the assistant tells it, and
answers one to three questions about it, one in five of them about what the entry does not hold.
The entries are those of `foreword.bundled.fieldguide`, each split's its own.

Run ``python -m foreword.bundled.guidetalk.generate [OUT_DIR] [--seed N]``. The output depends on
the seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foreword.bundled.fieldguide.describing import Dice, Record
from foreword.bundled.fieldguide.generate import build as build_guide
from foreword.bundled.splits import run, write_splits

SEED = 31
SIZES = {"train": 240, "dev": 30, "test": 60}
SYSTEM = "You answer from the field guide."
ABSENT = ("The guide does not say.", "That is not in the guide.")
SHOWN = ("Tell me about this one: {}.", "What is this? {}.", "Here is an entry: {}. Tell it to me.")

QUESTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "near": (("Near which place?", "What is it near?"), "Near {}."),
    "habitat": (("Where does it live?", "And its habitat?"), "In {}."),
    "season": (("When is it seen?", "In what season?"), "In {}."),
    "rarity": (("Is it rare?", "How often is it met?"), "It is {}."),
    "colour": (("What colour is it?", "And its colour?"), "It is {}."),
    "size": (("How large is it?", "And its size?"), "It is {}."),
    "length": (("How long is it?", "What does it measure?"), "{} long."),
    "height": (("How tall is it?", "How high does it grow?"), "{} tall."),
    "wingspan": (("How wide are its wings?", "And its wingspan?"), "{} across."),
    "food": (("What does it eat?", "And what is its food?"), "It eats {}."),
    "markings": (("Which markings has it?", "How is it marked?"), "It has {}."),
    "smell": (("What does it smell of?", "And its smell?"), "Of {}."),
    "taste": (("How does it taste?", "And the taste?"), "It tastes {}."),
    "song": (("How does it sing?", "And its song?"), "With a {}."),
}
"""Field -> questions about it, and how the answer is put."""


def conversation(dice: Dice, record: Record, description: str) -> list[dict[str, str]]:
    """A conversation about an entry, as messages."""
    shown = " | ".join(f"{name} : {value}" for name, value in record.items())
    messages = [{"role": "system", "content": SYSTEM}] if dice.chance(0.5) else []

    def exchange(question: str, answered: str) -> None:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answered})

    exchange(dice.pick(SHOWN).format(shown), description)
    held = dice.shuffled([name for name in QUESTIONS if name in record])
    missing = dice.shuffled([name for name in QUESTIONS if name not in record])
    for _ in range(1 + dice.below(3)):
        absent = dice.chance(0.2) or not held
        name = (missing if absent else held).pop()
        questions, answer = QUESTIONS[name]
        answer = dice.pick(ABSENT) if absent else answer.format(record[name])
        exchange(dice.pick(questions), answer)
    return messages


def build(seed: int = SEED) -> dict[str, list[dict[str, Any]]]:
    """All three splits, by name."""
    dice = Dice(seed)
    guide = build_guide()
    return {
        split: [
            {
                "id": f"{split}-{number:04d}",
                "messages": conversation(dice, row["record"], dice.pick(row["references"])),
            }
            for number, row in enumerate([row for row in guide[split] if row["seen"]][:size], 1)
        ]
        for split, size in SIZES.items()
    }


def write(out_dir: Path, seed: int = SEED) -> list[Path]:
    """Write the three files into the folder and return their paths."""
    return write_splits(build(seed), out_dir)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: write the files and name them."""
    what = "Write the three JSONL files of conversations."
    return run(argv, what, build, folder=Path(__file__).parent, seed=SEED)


if __name__ == "__main__":
    raise SystemExit(main())
