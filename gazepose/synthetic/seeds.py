"""Seeds: every chance of the world is keyed by (seed, split, number), so it is the same in any order and process."""

import numpy as np

SPLITS = ("train", "val", "test", "stills")      # a split's place here is its number in every seed


def generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def random_name(rng: np.random.Generator, letters: int) -> str:
    """A name of letters alone: the published scripts look frames up by searching names for five digits."""
    return "".join(rng.choice(list("abcdefghjkmnpqrstuvwxyz"), letters))


def clip_names(seed: int, split: str, number: int) -> tuple[str, str]:
    """uid of the clip and of the video it is cut from."""
    rng = generator(seed, SPLITS.index(split), number, 0)
    return tuple("-".join([random_name(rng, 8), random_name(rng, 4), f"{split}{number:03d}"]) for _ in range(2))  # type: ignore
