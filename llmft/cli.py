"""The `llmft` command: run, check and render the book, and make the pocket world.

torch and papermill are imported only by the commands that need them, so `llmft check` is quick.
"""

import logging
import shlex
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from llmft import ROOT, LeftOutError, UserError, __version__, params
from llmft.book import freeze, gate, several, stamp
from llmft.book import render as renderer


STOPPED = "llmft: stopped; the frozen chapter is as it was; run again to resume"


def _path(_: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """An option's path, absolute: see `params.located`."""
    try:
        return None if value is None else str(params.located(value))
    except UserError as error:
        raise UserError(f"{option.opts[0]}: {error}") from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def cli() -> None:
    """A book about adapting small language models, which is also the program that measured it."""


@cli.command()
@click.argument("chapter", nargs=-1)
@click.option("-p", "pairs", metavar="NAME=VALUE", multiple=True, help="One parameter.")
@click.option("--force", is_flag=True, help="Measure again what the store holds already.")
@click.option("--out", metavar="DIR", callback=_path, help="Put the runs there, freeze nothing.")
@click.option("--jobs", type=click.IntRange(1), help="Chapters at once; by default two on a CPU.")
def run(
    chapter: tuple[str, ...], pairs: tuple[str, ...], force: bool, out: str | None, jobs: int | None
) -> None:
    """Run chapters and freeze what they show.

    Without a CHAPTER, those are run that are not current: whose code, data or parameters have
    changed since they were frozen (or put into --out), or that never ran. A chapter that is named
    is run in any case. Other parameters than the book's go with --out: -p studies=smoke.

    Every path, in options and parameters, starts at the current folder; `~` is the home folder.
    """
    values = freeze.assignments(pairs)
    paths = [freeze.chapter_path(name) for name in chapter] or gate.chapters()
    known = sorted({name for path in paths for name in stamp.declared(stamp.read(path))})
    for name in values:
        if name not in known:
            raise UserError(params.unknown(name, known))
    how: dict[str, Any] = {"values": values, "out": out, "is_alone": len(paths) == 1}
    always = bool(chapter or force or (values and not out))
    since = time.time_ns() if force else 0  # one time for all: what two chapters share is done once
    several.run(
        paths,
        partial(_is_needed, always=always, **how),
        partial(_run_chapter, since=since, **how),
        jobs or several.at_once(),
    )


def _own(path: Path, values: dict[str, str], out: str | None, *, is_alone: bool) -> dict[str, str]:
    """Those of the values that a chapter declares."""
    declared = stamp.declared(stamp.read(path))
    mine = {name: value for name, value in values.items() if name in declared}
    if out and not is_alone and "results" in declared:
        mine = {"results": out, **mine}  # those that the chapters before it leave there
    return mine


def _is_needed(
    path: Path, *, values: dict[str, str], out: str | None, is_alone: bool, always: bool
) -> bool:
    """Whether a chapter has to be run; a line if it is current."""
    mine = _own(path, values, out, is_alone=is_alone)
    if always or not freeze.is_current(path, values=mine, out=out):
        return True
    click.echo(f"{path.stem}: current", err=True)
    return False


def _run_chapter(
    path: Path, *, values: dict[str, str], out: str | None, is_alone: bool, since: int
) -> None:
    """Run a chapter, with a line before and after."""
    click.echo(f"{path.stem}: running ...", err=True)
    started = time.perf_counter()
    mine = _own(path, values, out, is_alone=is_alone)
    try:
        notebook = freeze.run(path.stem, values=mine, out=out, since=since)
    except LeftOutError as error:
        if not out or is_alone:
            raise
        click.echo(f"left out: {error}", err=True)  # the others have something to show
        return
    seconds = time.perf_counter() - started
    click.echo(f"{path.stem}: done in {seconds:.0f} s, {notebook}", err=True)


@cli.command()
@click.argument("study", nargs=-1, required=True)
@click.option(
    "--to", "folder", metavar="DIR", callback=_path, help="Put all of it there, not in HF_HOME."
)
@click.option("--data", metavar="DIR", callback=_path, help="A folder with MNLI and HANS.")
@click.option("--accept-terms", is_flag=True, help="You accept a model's terms of use.")
def fetch(
    study: tuple[str, ...], folder: str | None, data: str | None, *, accept_terms: bool
) -> None:
    """Download the models and data that each STUDY names, and check them.

    Afterwards no network is needed. What is complete is kept, so it can be interrupted and run
    again. The one line on the standard output is for the shell that runs the book later.
    """
    studies = [params.study(name) for name in study]
    from llmft.nli import hub
    from llmft.study import fetch as fetching  # which takes seconds

    home = Path(folder).resolve() if folder else None
    if home:
        hub.use(home)
    for it in fetching.fetch(studies, data or "", accept_terms=accept_terms):
        size = f"{it.size / 1e6:,.1f} MB"
        click.echo(f"  {it.name} {it.revision[:16]}: {size}, licence {it.licence}", err=True)
        click.echo(f"  {it.about}", err=True)
    exports = (f"{name}={shlex.quote(value)}" for name, value in hub.exports(home).items())
    click.echo(f"export {' '.join(exports)}")


@cli.command()
@click.argument("study", nargs=-1, required=True)
@click.option("--store", metavar="DIR", callback=_path, help="Take them from this store.")
def publish(study: tuple[str, ...], store: str | None) -> None:
    """Keep the finished runs of each STUDY in the book, under data/runs, and no others there.

    For studies whose runs take hours: a clone has them then, and does none of them again.
    """
    gate.listed()  # in the book's folder, or not at all
    studies = [params.study(name, {"store": store} if store else {}) for name in study]
    from llmft.study import runs  # which takes seconds

    number, finished, new = runs.publish(studies)
    click.echo(f"{finished} of {number} runs are in data/runs, {new} of them new")


@cli.command()
def check() -> None:
    """Say what is wrong with the frozen book; nothing is executed."""
    problems = gate.check()
    for problem in problems:
        click.echo(problem)
    number = len(gate.chapters())
    if problems:
        stale = any(problem.stale for problem in problems)
        hint = "; `llmft run` runs the chapters that are not current" if stale else ""
        raise UserError(f"{len(problems)} problems in {number} chapters{hint}")
    click.echo(f"{number} chapters, no problem")
    if note := gate.unverified():
        click.echo(f"llmft: {note}", err=True)


@cli.command()
@click.argument("study", nargs=-1)
@click.option("--sample", type=click.IntRange(1), default=10, show_default=True, help="Runs to do.")
@click.option("--seed", default=None, type=int, help="What draws them; by default the time.")
def verify(study: tuple[str, ...], sample: int, seed: int | None) -> None:
    """Do a random sample of the published runs again and compare every prediction.

    Of these STUDIES, by default of all. What was compared is kept in data/results/verified.json,
    beside what the same code was verified with before. A run that differs is an error.
    """
    from llmft.study import verify as verifying  # which takes seconds

    chapters = [ROOT / "data" / "results" / f"{path.stem}.csv" for path in gate.chapters()]
    stored = [file for file in chapters if file.with_suffix(".parquet").is_file()]
    studies = [params.study(name) for name in study or params.published()]
    number = time.time_ns() % 2**32 if seed is None else seed
    record = verifying.verify(stored, studies, sample, number)
    click.echo(verifying.write(record, ROOT))


@cli.command()
@click.argument("folder", nargs=-1)
@click.option("--plain", is_flag=True, help="Plain HTML pages, without Quarto.")
def render(folder: tuple[str, ...], plain: bool) -> None:
    """Render the frozen book into _book/; nothing is executed.

    And the book of each FOLDER that `llmft run --out FOLDER` filled, into _book/ by the folder's
    name: build/here into _book/here/.
    """
    folders = [params.located(name) for name in folder]
    pages, how = renderer.render(plain=plain, folders=folders)
    click.echo(f"rendered {how}", err=True)
    for page in pages:
        click.echo(page)


@cli.command()
@click.option("--students", is_flag=True, help="Instead the students that a page shows (a minute).")
@click.option("--seed", type=click.IntRange(1), help="Instead another checkpoint, from this seed.")
def pocket(students: bool, seed: int | None) -> None:
    """Make the pocket world again: its data sets and its pretrained checkpoint.

    A checkpoint takes 15 to 30 minutes of one core. That of seed 1 is the model `pocket-1`.
    """
    gate.listed()  # in the book's folder, or not at all
    if students:
        from llmft.pocket import students as distilled

        distilled.main(ROOT / "data" / "students")
        return
    from llmft.pocket import pretrain

    folder = ROOT / "data" / "pocket"
    if seed:
        pretrain.pretrain(folder, seed)
    else:
        pretrain.main(folder)


def main() -> None:
    """Run the command; an error that the user can put right is one line, without a traceback.

    The exit code is 1 then, and 128 and the signal's number for a command that was stopped.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, _stop)
    try:
        sys.exit(cli.main(standalone_mode=False))
    except UserError as error:
        click.echo(f"llmft: {error}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


def _stop(number: int, _: object) -> None:
    """Leave in order after Ctrl-C or a request to end: what was begun is put away."""
    click.echo(STOPPED, err=True)
    logging.disable()  # what the libraries say of a kernel that ends with us is no news
    sys.exit(128 + number)
