// A paired difference in accuracy that the reader chooses, from the answers that the site ships.
// Stands where a page has <div class="recompute">.

const RESAMPLES = 2000;

/** The bits of a base64 text, the highest of each byte first: an array of 0 and 1. */
const bits = (text, length) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return Int8Array.from({ length }, (_, i) => (bytes[i >> 3] >> (7 - (i & 7))) & 1);
};

/** Numbers between 0 and 1, the same in each browser (mulberry32). */
export function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The runs of a method with so many labelled examples, by draw; zero-shot has one, and no size. */
const byDraw = (study, method, size) =>
  new Map(
    study.runs
      .filter((run) => run.method === method && (method === "zero-shot" || run.size === size))
      .map((run) => [run.draw, run]),
  );

/** The sizes at which two methods can be compared. */
export function sizes(study, a, b) {
  const of = (method) =>
    new Set(study.runs.filter((run) => run.method === method).map((run) => run.size));
  if (a === "zero-shot") return [...of(b)].sort((x, y) => x - y);
  if (b === "zero-shot") return [...of(a)].sort((x, y) => x - y);
  return [...of(a)].filter((size) => of(b).has(size)).sort((x, y) => x - y);
}

/** Right (1) minus right, of the same draw and pair: a row a draw, a column a pair. */
export function gaps(study, a, b, size, domain) {
  const [first, second] = [byDraw(study, a, size), byDraw(study, b, size)];
  const length = study.strata[domain].length;
  const other = (runs, draw) => runs.get(draw) ?? runs.get(""); // nothing drawn: with every draw
  const draws = [...new Set([...first.keys(), ...second.keys()])].filter(
    (draw) => other(first, draw) && other(second, draw) &&
      (draw !== "" || (first.has("") && second.has(""))),
  );
  return draws.map((draw) => {
    const [x, y] = [first, second].map((runs) => bits(other(runs, draw)[domain], length));
    return x.map((value, i) => value - y[i]);
  });
}

/**
 * The mean of the gaps, and the ends between which 95 % of its resamples lie.
 *
 * What is resampled: "draws", "pairs" (within their stratum), or "both" (Owen 2007: each by itself).
 */
export function bootstrap(rows, strata, what, uniform = random(0)) {
  const groups = new Map();
  strata.forEach((stratum, i) => groups.set(stratum, [...(groups.get(stratum) ?? []), i]));
  const share = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  // What stays as it is, is averaged once.
  const table = what === "pairs" ? [strata.map((_, i) => share(rows.map((row) => row[i])))]
    : what === "draws" ? rows.map((row) => [share(row)]) : rows;
  const columns = what === "draws" ? [[0]] : [...groups.values()];
  const any = (list) => list[Math.floor(uniform() * list.length)];
  const resample = () => {
    const draws = table.map(() => any(table));
    let sum = 0, count = 0;
    for (const group of columns)
      for (let n = 0; n < group.length; n++, count++) {
        const i = any(group);
        for (const draw of draws) sum += draw[i];
      }
    return sum / (count * draws.length);
  };
  const means = Array.from({ length: RESAMPLES }, resample).sort((x, y) => x - y);
  const at = (place) => means[Math.round(place * (RESAMPLES - 1))];
  return { mean: share(rows.map(share)), low: at(0.025), high: at(0.975) };
}

// --- the box -----------------------------------------------------------------------------------

/** A choice with its label. */
function choice(name, id, options, onchange) {
  const label = Object.assign(document.createElement("label"), { htmlFor: id, textContent: name });
  const select = Object.assign(document.createElement("select"), { id, onchange });
  fill(select, options);
  const both = document.createElement("span");
  both.append(label, select);
  return [both, select];
}

/** Put options into a choice; the one that was chosen stays, if it is there. */
function fill(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map((text) => new Option(text, text)));
  if (options.map(String).includes(before)) select.value = before;
}

/** A number with two digits, and a true minus. */
const shown = (value) => value.toFixed(2).replace(/^-(0\.00)$/, "$1").replace("-", "\u2212");

/** Put the box into its place on the page. */
async function start(place) {
  const answer = await fetch(new URL("answers.json", import.meta.url));
  if (!answer.ok) throw new Error(`answers.json: ${answer.status}`);
  const studies = await answer.json();
  const names = Object.keys(studies);
  const [ofStudy, study] = choice("Study", "rc-study", names, methods);
  const [ofFirst, first] = choice("Accuracy of", "rc-first", [], update);
  const [ofSecond, second] = choice("minus that of", "rc-second", [], update);
  const [ofSize, size] = choice("Labelled examples", "rc-size", [], result);
  const domains = Object.keys(studies[names[0]].strata);
  const [ofDomain, domain] = choice("Domain", "rc-domain", domains, result);
  const [ofWhat, what] = choice("Resample", "rc-what", ["both", "draws", "pairs"], result);
  const output = Object.assign(document.createElement("p"), { id: "rc-output" });
  output.setAttribute("aria-live", "polite");

  function methods() {
    const found = [...new Set(studies[study.value].runs.map((run) => run.method))];
    const begun = first.options.length;
    for (const select of [first, second]) fill(select, found);
    if (!begun) [first.value, second.value] = ["ICL", "zero-shot"];
    update();
  }

  function update() {
    fill(size, sizes(studies[study.value], first.value, second.value));
    result();
  }

  function result() {
    const own = studies[study.value];
    const rows = gaps(own, first.value, second.value, Number(size.value), domain.value);
    if (!rows.length) {
      output.textContent = "The two have no number of labelled examples in common.";
      return;
    }
    const strata = own.strata[domain.value];
    const { mean, low, high } = bootstrap(rows, strata, what.value);
    output.textContent =
      `${shown(mean)} [${shown(low)},\u00a0${shown(high)}], n\u00a0=\u00a0${rows.length} × ` +
      `${strata.length.toLocaleString("en")} (draws × pairs), ${RESAMPLES.toLocaleString("en")} ` +
      (what.value === "both" ? "resamples of draws and pairs." : `resamples of ${what.value}.`);
  }

  const boxes = document.createElement("div");
  boxes.className = "rc-choices";
  boxes.append(ofStudy, ofFirst, ofSecond, ofSize, ofDomain, ofWhat);
  place.replaceChildren(boxes, output);
  methods();
}

if (globalThis.document)
  for (const place of document.querySelectorAll(".recompute"))
    start(place).catch((error) => console.warn("nothing can be computed here:", error));
