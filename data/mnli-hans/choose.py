"""How `rows.csv` was drawn; `python data/mnli-hans/choose.py DIR` does it again, byte for byte."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from llmft import UserError
from llmft.nli import selection, sources
from llmft.nli.selection import ORIGIN


SIZES = {
    "mixed": (640,),
    "train": (6_000,),
    "validation": (400,),
    "in-domain": (400, 560),
    "out-of-domain": (450, 900),
}
"""How many rows each set has: what `tasks.load` takes, and what there is for whoever has a GPU.
(560 is what the copy that they were chosen from can balance without using a premise twice.) The
first came last: the others were there when it was drawn, and have not changed."""


def choose(
    pools: dict[str, pd.DataFrame], seed: int, sizes: dict[str, tuple[int, ...]]
) -> pd.DataFrame:
    """Draw the rows of all sets: labels (of HANS subcases) balanced, no premise in two rows.

    `pools` are as `selection.pools_of` gives them. Returns a row a pair, with `COLUMNS`, in the
    order of `sizes`, then of size and digest.

    Raises:
        UserError: a pool is too small.
    """
    rng = np.random.default_rng(seed)
    used: set[str] = set()
    parts = []
    for name in reversed(sizes):  # what is reported has the first choice, training pairs the last
        pool = pools[ORIGIN[name]]
        pool = pool[~pool["digest"].duplicated(keep=False)]  # some pairs have both labels
        if name == "mixed":
            pool = pool[pool["subcase"].isin(selection.SEEN)]
        groups = [*pool.groupby("subcase" if ORIGIN[name] == "hans" else "label")]
        groups.sort(key=lambda group: len(group[1]))  # the scarcest first: premises are shared
        ends = [size // len(groups) for size in sizes[name]]
        for group, rows in groups:
            shuffled = rows.iloc[rng.permutation(len(rows))]
            premise = shuffled["premise"].str.lower()
            drawn = shuffled[~premise.duplicated() & ~premise.isin(used)][: ends[-1]]
            if len(drawn) < ends[-1]:
                raise UserError(f"{name}: {len(drawn)} pairs of {group}, not {ends[-1]}")
            used |= {*premise[drawn.index]}
            size = np.array(sizes[name])[np.searchsorted(ends, np.arange(len(drawn)), "right")]
            parts.append(drawn.assign(set=name, size=size))
    table = pd.concat(parts, ignore_index=True)
    is_hans = table["set"].map(ORIGIN) == "hans"
    table["pair"] = table["id"].str.removeprefix("hans-").where(is_hans, "")
    table["subcase"] = table["subcase"].where(is_hans, "")
    table["label"] = table["label"].map(dict(enumerate(selection.LABELS)))
    table["order"] = table["set"].map({name: at for at, name in enumerate(sizes)})
    table = table.sort_values(["order", "size", "digest"], ignore_index=True)
    return pd.DataFrame(table[[*selection.COLUMNS]])


def main() -> None:
    """Choose the published rows again from the data in the folder that the command line names.

    The raw validation rows there are of MultiNLI's matched and mismatched sets. Only the matched
    set is in-domain; which rows are of it is told by a tokenised copy, compared by its letters.
    """
    folder = sys.argv[1]
    pools = selection.pools_of(folder)
    tokenised, _ = sources.parse(
        sources.read(Path(folder, "mnli", "validation_matched_tokenised.jsonl.gz")), "matched"
    )
    is_matched = _letters(pools["matched"]).isin(_letters(tokenised))
    table = choose(pools | {"matched": pools["matched"][is_matched]}, seed=0, sizes=SIZES)
    selection.ROWS_FILE.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(selection.ROWS_FILE, index=False, lineterminator="\n")


def _letters(pairs: pd.DataFrame) -> pd.Series:
    """The pairs' letters and digits: what a tokeniser leaves, but for its names of brackets."""
    texts = pairs["premise"] + "|" + pairs["hypothesis"]
    return texts.str.lower().str.replace(r"-[lr]rb-|[^a-z0-9|]", "", regex=True)


if __name__ == "__main__":
    main()
