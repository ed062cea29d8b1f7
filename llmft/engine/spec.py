"""A run's specification: everything that decides its numbers, checked before the run begins."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from llmft import UserError
from llmft.nli import prompts


ADAPTERS = {
    "lora": ("rank", "alpha", "targets"),
    "rslora": ("rank", "alpha", "targets"),
    "dora": ("rank", "alpha", "targets"),
    "vera": ("rank", "targets"),
    "ia3": ("targets",),
}
"""The methods that put new weights beside those of some linear layers, and the fields they need."""

TRAINED = ("fine-tuning", *ADAPTERS, "bitfit", "probe", "distillation")
"""The methods that change weights. All but the last learn from labels, and change all weights, new
ones beside a few (`ADAPTERS`), the biases, or nothing but a new head (a linear probe); distillation
learns from a teacher, and changes all, with a `rank` a low-rank correction, or with a `prefix`
nothing but keys and values before the prompt."""

METHODS = ("zero-shot", "icl", *TRAINED)

OBJECTIVES = ("label words", "vocabulary", "query", "head")
"""What the cross-entropy at the answer position runs over: the label words (as predictions do), the
whole vocabulary, the vocabulary with the mean cross-entropy of the query's own tokens added
(language modelling of its text), or the classes of a new head."""

DISTILLATION_OBJECTIVES = ("query", "vocabulary", "label words")
"""What a teacher and its student are compared over: the vocabulary at the answer position and the
query's own tokens, the vocabulary at the answer alone, or the label words there."""

DIVERGENCES = ("", "reverse", "jsd")
"""How far a student is from its teacher: KL(teacher ‖ student), KL(student ‖ teacher), or the
Jensen-Shannon divergence, which is symmetric."""

TEACHERS = ("", "first", "average")
"""Of a later round: the last round's student, the first model, or an average of all until then."""

PLACEBOS = ("shuffled", "other task", "filler")
"""Contexts that are like demonstrations of the task, and hold nothing of it (`nli/placebo.py`)."""

CONTEXTS = ("", "explained", *PLACEBOS)

SELECTIONS = ("last", "best")
"""Which weights a run ends with: the last, or those of the lowest validation loss."""

_OF_TRAINING = "learning_rate updates batch_size objective selection".split()
_OF_DISTILLATION = "queries rounds temperature".split()
_MAY_BE_OF_DISTILLATION = "divergence teacher fresh context_share scoring".split()
_OF_SOME = [*_OF_TRAINING, "init_seed", *ADAPTERS["lora"], *_OF_DISTILLATION]
"""The fields that not every method has, and those that distillation alone may have."""


_T = TypeVar("_T")


def later(default: _T) -> _T:
    """A field that was added after runs were published.

    At its default it stands in no run's key or row, so the keys of published runs do not change.
    """
    declaration: Any = field(default=default, metadata={"later": True})
    return declaration  # type: ignore[no-any-return]  # `dataclass` takes the default out of it


@dataclass(frozen=True, order=True)
class Spec:
    """One run, complete: two runs with equal specifications give equal numbers.

    Raises:
        UserError: a field out of range, or fields that do not go together.
    """

    task: str = "pocket"
    rows: str = ""  # of mnli-hans: a table that says which (`selection`), in the book; "" is all
    labels: str = ""  # what its labels mean, where that is not the usual (`sources.meanings`)
    model: str = "pocket"
    revision: str = ""  # of a model on the Hub; "" is the pinned one
    method: str = "icl"
    pattern: str = "minimal"  # a name, or a template of one's own (`prompts.pattern_named`)
    verbalizer: str = ""  # label words, "Yes, No", if not the pattern's
    shots: int = 8  # labelled examples: ICL's demonstrations, training examples of the others
    data_seed: int = 0  # draws the examples
    # ICL: 0 = demonstrations in the order of the draw; others shuffle them.
    # Training: the order of the examples.
    order_seed: int = 0
    limit: int = 0  # evaluation examples a domain, 0 = all
    dtype: str = "float32"
    split: str = "test"  # what is scored: "test", both domains; "validation", training pairs
    # of training; at 0 and "" for methods that train nothing
    learning_rate: float = 0.0
    updates: int = 0
    batch_size: int = 0  # examples an update, at most; all of them where there are fewer
    objective: str = ""
    selection: str = ""
    init_seed: int = 0  # draws new weights and what dropout drops
    # of LoRA and its like (`ADAPTERS`)
    rank: int = 0
    alpha: float = 0.0  # the correction is scaled by alpha / rank; rsLoRA's by alpha / sqrt(rank)
    targets: str = ""  # names of linear layers, with commas between
    # of ICL and distillation: "" = demonstrations, "explained" = with an instruction and reasons;
    # or a placebo: "shuffled", "other task", "filler"
    context: str = ""
    # of distillation
    queries: int = 0  # unlabelled
    rounds: int = 0  # 1: a frozen teacher; more: the student becomes the teacher
    temperature: float = 0.0
    prefix: int = later(0)  # positions of trained keys and values, at first the context's
    divergence: str = later("")  # "" = KL(teacher ‖ student), "reverse", "jsd"
    teacher: str = later("")  # of later rounds: "" = the last student, "first", "average"
    fresh: int = later(0)  # 1: each round has another draw of demonstrations
    context_share: float = later(0.0)  # of the loss: on queries behind the context
    scoring: str = later("")  # "context": the student, too, is asked behind the context
    # of the labelled examples (`tasks.labelled`): the share, in each label, on which negation in
    # the hypothesis is right (0: as the pool has it), and that of pairs from the task's set `mixed`
    purity: float = later(0.0)
    mixed: float = later(0.0)

    def __post_init__(self) -> None:
        for one in fields(self):
            value, kind = getattr(self, one.name), type(one.default)
            if type(value) is not kind:
                raise UserError(f"run: {one.name} = {value!r} must be of type {kind.__name__}")
            if isinstance(value, int | float) and not 0 <= value < float("inf"):
                raise UserError(f"run: {one.name} = {value} is not a number from 0 up")
        distils = self.method == "distillation"
        allowed = {
            "method": METHODS,
            "split": ("test", "validation"),
            "objective": ("", *(DISTILLATION_OBJECTIVES if distils else OBJECTIVES)),
            "context": CONTEXTS,
            "selection": ("", *SELECTIONS),
            "divergence": DIVERGENCES,
            "teacher": TEACHERS,
            "fresh": (0, 1),
            "scoring": ("", "context"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                names = ", ".join(str(value) for value in values if value)
                raise UserError(f"unknown {name} {getattr(self, name)!r}: use one of {names}")
        if (self.method == "zero-shot") != (self.shots == 0):
            raise UserError(f"run: method {self.method} does not go with shots = {self.shots}")
        for name in ("purity", "mixed"):
            if getattr(self, name) > (self.method != "zero-shot"):
                raise UserError(f"run: {name} is a share of the labelled examples: 0 to 1 of some")
        needed, may = [*ADAPTERS.get(self.changes, ())], []
        if self.method in TRAINED:
            needed, may = [*needed, *_OF_TRAINING], ["init_seed"]
        if distils:
            needed, may = [*needed, *_OF_DISTILLATION], [*may, *_MAY_BE_OF_DISTILLATION]
        for name in [*_OF_SOME, *_MAY_BE_OF_DISTILLATION]:
            if getattr(self, name) and name not in (*needed, *may):
                raise UserError(f"run: method {self.method} has no {name}: leave it out")
            if name in needed and not getattr(self, name):
                raise UserError(f"run: method {self.method} needs {name}")
        if self.method == "probe" and self.objective != "head":
            raise UserError("run: method probe learns a new head alone: use objective 'head'")
        if self.context_share > 1:
            raise UserError(f"run: context_share = {self.context_share} is not a share from 0 to 1")
        if self.context in PLACEBOS and self.shots % 4:
            raise UserError(
                f"run: a placebo ({self.context}) has as many demonstrations of each label, half "
                f"of them changed: {self.shots} shots cannot be, use a multiple of 4"
            )
        other = self.rank or self.rounds > 1 or self.context_share or self.scoring
        if self.prefix and (not distils or other or self.prefix == 1):
            raise UserError(
                f"run: prefix = {self.prefix}: a prefix is trained by distillation of one round, "
                "without a rank or the context, and has 2 positions or more"
            )
        if self.context and not (distils or self.method == "icl"):
            raise UserError(f"run: method {self.method} has no context to be {self.context}")
        # One spelling of one run: "" for the pattern's own label words.
        words = self.wording.verbalizer
        usual = prompts.pattern_named(self.pattern).verbalizer
        object.__setattr__(self, "verbalizer", "" if words == usual else ", ".join(words))

    def record(self) -> dict[str, Any]:
        """The run's fields by name, without those that came `later` and are at their default."""
        left_out = {f.name for f in fields(self) if "later" in f.metadata}
        left_out = {name for name in left_out if not getattr(self, name)}
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @property
    def changes(self) -> str:
        """What a method that trains changes: its own name, of distillation that of another."""
        if self.method == "distillation":
            return "prefix" if self.prefix else "lora" if self.rank else "fine-tuning"
        return self.method

    @property
    def wording(self) -> prompts.Pattern:
        """The pattern with the label words of this run."""
        return prompts.pattern_named(self.pattern, self.verbalizer)

    def __str__(self) -> str:
        """What tells this run from its neighbours in a grid."""
        parts = {
            f"{self.method} of {self.model}": True,
            f"{self.shots} shots, draw {self.data_seed}": self.shots,
            f"purity {self.purity:g}": self.purity,
            f"{self.mixed:.0%} mixed": self.mixed,
            f"order {self.order_seed}": self.order_seed,
            f"init {self.init_seed}": self.init_seed,
            f"{self.queries} queries, {self.rounds} round(s)": self.rounds,
            f"{self.teacher} teacher": self.teacher,
            "fresh contexts": self.fresh,
            f"{self.context_share:.0%} behind the context": self.context_share,
            f"{self.divergence} divergence": self.divergence,
            f"context: {self.context}": self.context,
            "asked behind the context": self.scoring,
            f"learning rate {self.learning_rate:g}": self.learning_rate,
            f"rank {self.rank}": self.rank,
            f"prefix of {self.prefix} positions": self.prefix,
            f"pattern {self.wording.name}": True,
            f"label words {self.verbalizer}": self.verbalizer,
        }
        return ", ".join(part for part, is_there in parts.items() if is_there)
