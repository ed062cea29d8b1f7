"""The figures, tables and paragraphs of the appendix on cost, hardware and reproducing.

`every` has the stored runs, a row a run and chapter (`read`); `rows` each run once, with what it
took (`costs.count`). `large` are studies whose cost is predicted.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from llmft import ROOT, UserError, inert, params
from llmft.engine import models
from llmft.nli import sources
from llmft.params import Study
from llmft.report import costs, figures, sections, tables
from llmft.study import grids, results


METHODS = {
    "zero-shot": "zero-shot",
    "icl": "ICL",
    "fine-tuning": "full fine-tuning",
    "lora": "LoRA",
    "bitfit": "BitFit",
    "rslora": "rsLoRA",
    "dora": "DoRA",
    "vera": "VeRA",
    "ia3": "IA3",
    "probe": "linear probe",
    "distillation": "distillation",
}
"""The methods of runs, and their names in the book."""

SMALLER = {"limit": 1000, "repeats": 3}
"""The parameters of the smaller study that the prediction is compared with."""

SPEEDS = {
    "CPU": "cpu_tflops",
    "small GPU": "small_gpu_tflops",
    "large GPU": "large_gpu_tflops",
}
"""The devices of the prediction, and the parameters that have their peaks."""


def read(files: Sequence[str], studies: Sequence[Study]) -> pd.DataFrame:
    """The studies' runs in the chapters' results, with `chapter` and the `method`'s name here.

    Raises:
        UserError: a file cannot be read, or there is no run of a study.
    """
    found = [
        results.read([path]).rows.assign(chapter=path.stem)
        for path in sections.result_files(files, studies)
    ]
    every = pd.concat(found, ignore_index=True).drop_duplicates(["study", "chapter", "key"])
    for study in studies:
        if study.study not in set(every["study"]):
            raise UserError(f"no stored run is of study {study.study}: run its chapters first")
    every = every[every["study"].isin([study.study for study in studies])]
    return every.assign(method=every["method"].map(METHODS)).reset_index(drop=True)


def once(every: pd.DataFrame) -> pd.DataFrame:
    """Each study's runs with what they took; a run of two chapters is the first one's."""
    parts = [
        costs.count(sections.own_costs(own.drop_duplicates("key")))
        for _, own in every.groupby("study", sort=False)
    ]
    return pd.concat(parts, ignore_index=True)


# --- what the book cost ------------------------------------------------------------------------


def cost_table(rows: pd.DataFrame) -> None:
    """What the runs of each chapter took, by method, and all of them."""
    by, single = ["study", "chapter", "method"], rows.drop_duplicates("key")
    single = single.assign(read=single["read"] / 1e6, flops=single["flops"] / 1e12)
    names = single["study"].unique()
    whole = single.assign(study=names[0] if len(names) == 1 else "all", chapter="all", method="all")
    totals = pd.concat(
        frame.groupby(by, sort=False).agg(
            **{
                "runs": ("key", "size"),
                "training (s)": ("train_seconds", "sum"),
                "scoring (s)": ("eval_seconds", "sum"),
                "most memory (MiB)": ("peak_memory_mib", "max"),
                "tokens (10⁶)": ("read", "sum"),
                "TFLOP": ("flops", "sum"),
            }
        )
        for frame in (single, whole)
    )
    formats = dict.fromkeys(["training (s)", "scoring (s)", "most memory (MiB)"], ",.0f")
    sections.table(totals.reset_index(), formats | {"tokens (10⁶)": ",.1f", "TFLOP": ",.3g"})


def cost(rows: pd.DataFrame) -> None:
    """Say on what machines the runs were done, and how fast these were."""
    single = rows.drop_duplicates("key")
    for (machine, threads, dtype), part in single.groupby(
        ["device_name", "threads", "dtype"], sort=False
    ):
        tables.say(
            f"Machine: {inert.escape(machine)}; {threads} thread(s), {dtype}, memory counted as "
            f"{part['memory_kind'].iloc[0]}: {len(part):,} runs."
        )
    spent, flops = single["train_seconds"].sum() + single["eval_seconds"].sum(), single["flops"]
    tables.say(
        f"In all {len(single):,} runs took {spent / 60:,.1f} minutes of training and scoring and "
        f"{flops.sum():.3g} operations, so {flops.sum() / spent / 1e9:,.1f} GFLOP/s were reached. "
        "Loading, drawing figures and computing intervals come on top."
    )
    if "cuda" not in set(single["device"]):
        tables.say(
            "All runs were made on CPUs. The book has no GPU timings yet; what it says of GPUs is "
            "predicted."
        )


def time_figure(rows: pd.DataFrame) -> Any:
    """Seconds of training and of scoring, by chapter and by method."""
    single = rows.drop_duplicates("key")
    taken = {"train_seconds": "training", "eval_seconds": "scoring"}
    seconds = single[["chapter", "method", *taken]].rename(columns=taken)
    seconds = seconds.melt(
        ["chapter", "method"], list(taken.values()), var_name="what", value_name="seconds"
    )
    charts = [
        figures.bars(
            seconds.groupby([x, "what"], sort=False)["seconds"].sum().reset_index(),
            x,
            "seconds",
            "what",
            y_title="seconds",
            height=200,
            width=560,
        )
        for x in ("chapter", "method")
    ]
    devices = ", ".join(single["device_name"].unique())
    names = ", ".join(single["study"].unique())
    return figures.stack(charts, note=f"{names}; {len(single):,} runs; {devices}")


# --- the count, put to the test ----------------------------------------------------------------


def check(rows: pd.DataFrame, studies: Sequence[Study]) -> None:
    """The count from parameters beside that from the rows, by method."""
    both = {study.study: _both_counts(rows, study) for study in studies}

    def lines(study: Study) -> pd.DataFrame:
        foreseen, own = (
            frame.groupby("method", sort=False)["flops"].agg(["size", "sum"])
            for frame in both[study.study]
        )
        columns = {
            "runs in the grids": foreseen["size"],
            "runs stored": own["size"],
            "predicted (TFLOP)": foreseen["sum"] / 1e12,
            "counted (TFLOP)": own["sum"] / 1e12,
            "ratio": foreseen["sum"] / own["sum"],
        }
        return pd.concat(columns, axis=1, join="inner").reset_index(names="method")

    def text(study: Study) -> str:
        foreseen, own = both[study.study]
        same = (
            ", for the same number of runs."
            if len(foreseen) == len(own)
            else f", for {len(foreseen):,} runs in the grids and {len(own):,} stored: the stored "
            "runs that no grid has were made with other parameters than the study's."
        )
        ratio = foreseen["flops"].sum() / own["flops"].sum()
        return f"In all the prediction is {ratio:.2f} times the count{same}"

    formats = {"predicted (TFLOP)": ".3g", "counted (TFLOP)": ".3g"}
    sections.table(sections.each(studies, lines), formats)
    sections.headed(studies, text)


def _both_counts(rows: pd.DataFrame, study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the runs of the study's grids are predicted to take, and its stored ones."""
    own = rows[rows["study"] == study.study]
    there = set(own["chapter"])
    specs = [s for name, some in grids.every(study).items() if name in there for s in some]
    foreseen = costs.count(costs.predict(specs, costs.texts_of(own)))
    return foreseen.assign(method=foreseen["method"].map(METHODS)), own


# --- a large study -----------------------------------------------------------------------------


def large_studies(files: Sequence[str], namespace: Mapping[str, object]) -> list[Study]:
    """The studies of these files of the book, with the parameters that the notebook was given."""
    given = {
        name: namespace[name] for name in Study.model_fields if namespace.get(name) is not None
    }
    return [params.study(str(ROOT / file), given) for file in files]


def foresee(study: Study, changes: dict[str, Any] | None = None) -> pd.DataFrame:
    """The runs of all chapters with the study's parameters, but for `changes`, and what they take.

    A row a run, with its `chapter`; a run that several chapters do is the first one's.
    """
    changed = params.parse(study.model_dump() | (changes or {}))
    texts = costs.Texts(
        study.pair_tokens + study.pattern_tokens,
        study.out_of_domain_tokens + study.pattern_tokens,
        *costs.MNLI_HANS,
    )
    frames = [
        costs.predict(specs, texts).assign(chapter=name)
        for name, specs in grids.every(changed).items()
        if specs
    ]
    return costs.count(pd.concat(frames, ignore_index=True))


def hours(large: Sequence[Study]) -> pd.DataFrame:
    """A row a study and chapter: runs, PFLOP, score (PFLOP of it), hours on each device.

    The column `smaller` is the same for the study with `SMALLER` parameters.
    """
    lines = []
    for study, smaller in itertools.product(large, (False, True)):
        runs = foresee(study, SMALLER if smaller else None)
        for chapter, part in runs.groupby("chapter", sort=False):
            flops = part["flops"].sum()
            line = {
                "study": study.study,
                "chapter": chapter,
                "smaller": smaller,
                "runs": len(part),
                "PFLOP": flops / 1e15,
                "score": part["score"].sum() / 1e15,
            }
            for device, name in SPEEDS.items():
                peak = getattr(study, name)
                line[f"{device} (h)"] = costs.hours(flops, peak, study.utilisation)
            lines.append(line)
    return pd.DataFrame(lines)


def hours_table(predicted: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Runs, operations and hours by study and chapter, with their sums; also stored as CSV."""
    own = predicted[~predicted["smaller"]].drop(columns=["smaller", "score"])
    parts = []
    for study, part in own.groupby("study", sort=False):
        parts += [part, _sum(part, str(study))]
    whole = pd.concat([*parts, _sum(own, "all")], ignore_index=True)
    formats = {"PFLOP": ",.0f", "CPU (h)": ",.0f", "small GPU (h)": ",.1f", "large GPU (h)": ",.1f"}
    tables.table(whole, formats)
    whole.to_csv(studies[0].folder / "reproducing.csv", index=False)


def _sum(part: pd.DataFrame, study: str) -> pd.DataFrame:
    numbers = part.drop(columns=["study", "chapter"]).sum()
    line = pd.DataFrame([{"study": study, "chapter": "all", **numbers}])
    return line.astype({"runs": int})


def hours_text(predicted: pd.DataFrame, large: Sequence[Study]) -> None:
    """Say what the prediction assumes, and what a smaller study would take."""
    own, smaller = (predicted[predicted["smaller"] == is_smaller] for is_smaller in (False, True))
    changes = " ".join(f"-p {name}={value}" for name, value in SMALLER.items())
    share = own["score"].sum() / own["PFLOP"].sum()
    tables.say(
        f"{' '.join(dict.fromkeys(map(_assumed, large)))} Scoring takes {share:.0%} of the "
        f"operations, since each run is scored on all {sum(costs.MNLI_HANS):,} pairs: with "
        f"`{changes}` it would be {smaller['PFLOP'].sum() / own['PFLOP'].sum():.0%} of them, "
        f"{smaller['CPU (h)'].sum():,.0f} h on the CPU and {smaller['small GPU (h)'].sum():,.1f} h "
        "on the small GPU."
    )


def _assumed(study: Study) -> str:
    peaks = [f"{getattr(study, name):g} TFLOP/s for a {device}" for device, name in SPEEDS.items()]
    return (
        f"Assumed: {study.pair_tokens:g} tokens a pair of MultiNLI, "
        f"{study.out_of_domain_tokens:g} of HANS, {study.pattern_tokens:g} for the pattern; "
        f"{', '.join(peaks)}, of which {study.utilisation:.0%} is reached."
    )


def memory(large: Sequence[Study]) -> None:
    """Memory for weights, and for a teacher's targets."""
    jobs = {
        "scoring": "zero-shot",
        "LoRA": "lora",
        "full fine-tuning or distillation": "fine-tuning",
    }
    lines: list[dict[str, Any]] = []
    for study, (what, method) in itertools.product(large, jobs.items()):
        shape = costs.outline(study.model)
        changed = costs.trainable(grids.spec(study, method), shape)
        lines.append(
            {
                "model": study.model,
                "to do": what,
                "weights": shape.parameters,
                "trained": changed,
                "GiB": costs.memory(shape.parameters, changed),
            }
        )
    tables.table(pd.DataFrame(lines))
    most = max(lines, key=lambda line: line["GiB"])
    tables.say(
        f"The most is {most['GiB']:.1f} GiB, for {most['to do']} of {inert.escape(most['model'])}. "
        "What is left of a GPU's memory holds activations: a batch that does not fit is "
        "accumulated from smaller parts by itself, and `token_budget` sets how many tokens go "
        "through the model at once; both change memory and, where a model has dropout, what is "
        "dropped in training."
    )
    tables.say(_targets(large[0]))


def _targets(study: Study) -> str:
    texts = costs.Texts(study.pair_tokens + study.pattern_tokens, 0, *costs.MNLI_HANS)
    vocabulary = costs.outline(study.model).model.config.vocab_size
    most = max(study.queries)
    own, query = (
        costs.teacher_targets(
            grids.spec(study, "distillation", queries=most, objective=objective), texts, vocabulary
        )
        for objective in (study.distill_objective, "query")
    )
    return (
        f"Distillation also keeps its teacher's targets in main memory. With {most:,} queries and "
        f"the objective “{study.distill_objective}” of {inert.escape(study.study)} they are "
        f"{own:,.1f} GiB a run; the objective “query” would keep {query:,.0f} GiB a run at least."
    )


# --- what the runs were made with --------------------------------------------------------------


def versions(rows: pd.DataFrame) -> None:
    """Versions, devices and dates of the stored runs."""
    columns = {
        "commit": "commit",
        "protocol": "protocol",
        "device": "device_name",
        "threads": "threads",
        "number type": "dtype",
    }
    facts = {
        **costs.versions(rows),
        **{name: ", ".join(map(str, rows[column].unique())) for name, column in columns.items()},
        "made": f"{rows['created'].min()} to {rows['created'].max()}",
    }
    tables.table(pd.DataFrame({"what": facts.keys(), "value": facts.values()}))


def pinned() -> None:
    """What a study on OPT downloads, and which version of it."""
    revisions = {
        **models.REVISIONS,
        sources.GLUE[0]: sources.GLUE[1],
        "HANS, commit": sources.HANS_URL.split("/")[-2],
        "HANS, SHA-256 of the file": sources.HANS_SHA256,
    }
    table = pd.DataFrame({"what": revisions.keys(), "revision": revisions.values()})
    tables.table(table, {"revision": inert.code})


def digests(rows: pd.DataFrame) -> None:
    """Digests of the data and the models of the stored runs."""
    single = rows.drop_duplicates("key")
    lines = [
        {"what": what, "name": Path(str(name)).name, "digest": digest, "runs": len(part)}
        for what in ("task", "model")
        for (name, digest), part in single.groupby([what, f"{what}_digest"], sort=False)
    ]
    tables.table(pd.DataFrame(lines), {"digest": inert.code})


def seeds(every: pd.DataFrame) -> None:
    """The seeds that the chapters used, by method and split."""
    groups = every.groupby(["study", "chapter", "method", "split"], sort=False)
    used = groups.agg(
        draws=("data_seed", costs.spans),
        orders=("order_seed", costs.spans),
        initialisation=("init_seed", costs.spans),
        runs=("key", "size"),
    )
    sections.table(used.reset_index())
