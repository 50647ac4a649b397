"""The verb group of every class, from the classes' names: what a first layer can tell already."""

from __future__ import annotations

from collections.abc import Sequence

from tca.errors import UsageError


def verb_of_name(name: str) -> str:
    """Return the verb of a class name: its first word in -ing, or else its first word.

    Something-Something's names begin with it ("Pushing [something] from left to right") or with
    what it happens to ("[Something] falling like a rock").
    """
    words = [word.strip("[](),.'\"").lower() for word in name.split()]
    verbs = [w for w in words if w.endswith("ing") and w not in ("something", "nothing", "thing")]
    return (verbs or words or [""])[0]


def verb_groups(classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the verbs in alphabetical order, and the index of each class's verb.

    Raises:
        UsageError: fewer than two groups.
    """
    verbs = [verb_of_name(name) for name in classes]
    names = sorted(set(verbs))
    if len(names) < 2:
        raise UsageError(
            f"model.progressive has layer 1 tell verbs apart, and all {len(classes)} classes have "
            f"the same, {names[0] if names else ''!r}; set it to false."
        )
    return names, [names.index(verb) for verb in verbs]
