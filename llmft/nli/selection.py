"""Which rows of MNLI and HANS a study uses: chosen once, written down without their text.

A row is named by the digest of its pair, so that it is found again in GLUE from the Hub and in any
other copy of the raw text, and then kept in the user's cache. A tokenised copy has other digests.
"""

import hashlib
import unicodedata
from pathlib import Path

import pandas as pd

from llmft import ROOT, UserError, files
from llmft.nli import hub, sources


ROWS_FILE = ROOT / "data" / "mnli-hans" / "rows.csv"
"""The published rows; `choose.py` beside them says how they were drawn."""

COLUMNS = ("set", "size", "label", "digest", "pair", "subcase")
"""A row's set, the smallest size of this set that it is in (sets of several sizes are nested), its
label in words, its digest, and of HANS the pair's id and subcase."""

ORIGIN = {
    "mixed": "hans",
    "train": "train",
    "validation": "train",
    "in-domain": "matched",
    "out-of-domain": "hans",
}
"""Where the rows of a set stand: validation pairs are training pairs that are held out, and mixed
ones, which a table may lack, are HANS pairs to train on."""

FAMILIES = {
    "conjunction": "le_conjunction ln_conjunction se_conjunction ce_conjunction cn_disjunction",
    "passive, swap": "le_passive ln_passive ln_subject/object_swap",
    "since, if": "ce_after_since_clause cn_after_if_clause ce_embedded_under_since "
    "cn_embedded_under_if",
    "verb's object": "se_understood_object sn_NP/S sn_NP/Z",
    "adjective": "se_adjective",
    "prepositional phrase": "le_around_prepositional_phrase ln_preposition se_PP_on_obj "
    "sn_PP_on_subject",
    "relative clause": "le_around_relative_clause le_relative_clause ln_relative_clause "
    "se_relative_clause_on_obj sn_relative_clause_on_subject sn_past_participle",
    "clause under a verb": "ce_embedded_under_verb cn_embedded_under_verb",
    "adverb": "ce_adverb cn_adverb",
}
"""HANS's 30 subcases by what they are made with. (A past participle, "the judge seen by the actor
ran", is a relative clause without its pronoun.)"""

SEEN = frozenset(" ".join([*FAMILIES.values()][:5]).split())
"""The subcases that mixed pairs are of; the other families are of constructions that none is.

A family is whole on one side: with its entailed half seen and the other one not, the construction
itself would say the wrong label. As in the pocket task, prepositional phrases and relative clauses
are unseen; the rest makes labels equal on both sides, 8 and 7 subcases each."""

LABELS = ("entailment", "not entailment")
_HANS_FILES = ("heuristics_evaluation_set.txt", "heuristics_evaluation_set.txt.gz")


def plain(text: str) -> str:
    """The text as it is compared and shown: composed characters (NFC), single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def digest(premise: str, hypothesis: str) -> str:
    """What names a pair: 16 hex digits of the SHA-256 of its two plain texts."""
    text = f"{plain(premise)}\0{plain(hypothesis)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load(path: Path, data: str = "") -> pd.DataFrame:
    """The rows that `path` names, with their texts.

    Args:
        path: a CSV file with `COLUMNS`.
        data: a folder with `mnli/train`, `mnli/validation` (in a format of `sources.SUFFIXES`) and
            HANS's own file in `hans/`; "" for the Hub and HANS's own site. Not read where the rows
            are in the cache.

    Returns:
        `set`, `size`, `id` (HANS's, or the digest), `premise`, `hypothesis`, `label` (in words),
        `heuristic`, `subcase`, in the file's order: the same from every source.

    Raises:
        UserError: the file is damaged; rows are in no source.
    """
    rows = sources.read(path)
    damaged = not {*COLUMNS} <= {*rows} or {*rows["set"], "mixed"} != {*ORIGIN}
    if damaged or {*rows["label"]} - {*LABELS} or not rows["size"].str.isdecimal().all():
        raise UserError(f"{path} lacks a column or set, or has another label or size: restore it")
    name = hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()[:16]
    cached = hub.cache() / f"rows-{name}.parquet"
    if cached.is_file():
        table = pd.read_parquet(cached)
        if _digests(table) == rows["digest"].tolist():
            return table
    table = find(rows, pools_of(data), data or "GLUE and HANS")
    files.write(cached, table.to_parquet(index=False))
    return table


def pools_of(data: str = "") -> dict[str, pd.DataFrame]:
    """The pairs of MNLI's training and matched sets and of HANS, with their plain texts.

    Returns:
        "train", "matched" and "hans", as `sources.parse` gives them, with `digest`.

    Raises:
        UserError: a file is missing, damaged or cannot be downloaded.
    """
    if data:
        folder = Path(data).expanduser()
        hans = [folder / "hans" / name for name in _HANS_FILES]
        paths = {
            "train": sources.find(folder / "mnli", ("train",)),
            "matched": sources.find(folder / "mnli", ("validation", "validation_matched")),
            "hans": next(filter(Path.is_file, hans), None),
        }
        if absent := [name for name, path in paths.items() if path is None]:
            needed = f"mnli/train, mnli/validation ({', '.join(sources.SUFFIXES)}) and {hans[0]}"
            raise UserError(f"{folder} has no {' and '.join(absent)} file: it needs {needed}")
        tables = {name: sources.read(path) for name, path in paths.items() if path}
    else:
        tables = sources.glue() | {"hans": sources.read(sources.hans_file())}
    pools = {}
    for name, table in tables.items():
        pairs, _ = sources.parse(table, name)
        pairs = pairs.assign(**{part: pairs[part].map(plain) for part in ("premise", "hypothesis")})
        pools[name] = pairs.assign(digest=_digests(pairs))
    return pools


def find(rows: pd.DataFrame, pools: dict[str, pd.DataFrame], where: str) -> pd.DataFrame:
    """The rows with their texts, as `load` gives them, from the pools.

    Raises:
        UserError: rows that are in no pool with their label; how many, and the first.
    """
    key = ["set", "digest", "label"]
    pool = pd.concat([pools[origin].assign(set=name) for name, origin in ORIGIN.items()])
    pool["label"] = pool["label"].map(dict(enumerate(LABELS)))
    pool = pool[[*key, "premise", "hypothesis", "heuristic"]].drop_duplicates(key)
    table = rows.merge(pool, on=key, how="left")  # in the order of `rows`
    table["id"] = table["pair"].where(table["pair"] != "", table["digest"])
    absent = table.loc[table["premise"].isna(), "id"]
    if len(absent):
        what = f"{len(absent)} of {len(table)} rows are not in {where}, the first of them"
        raise UserError(f"{what} {absent.iloc[0]}: it needs the raw text, with its labels")
    table["heuristic"] = table["heuristic"].fillna("")
    words = ["set", "id", "premise", "hypothesis", "label", "heuristic", "subcase"]
    table = table.astype(dict.fromkeys(words, "str") | {"size": "int64"})
    return table[["set", "size", *words[1:]]]


def _digests(pairs: pd.DataFrame) -> list[str]:
    return [digest(p, h) for p, h in zip(pairs["premise"], pairs["hypothesis"], strict=True)]
