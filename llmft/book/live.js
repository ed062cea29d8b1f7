// What a reader can do with the pocket model (model.js): write a query and demonstrations, and see
// what the model answers. Stands where a page has <div class="pocket-model">; with the class
// "students", too, the students that were distilled from the first demonstrations answer beside it.
import { encode, get, load, read, student, words } from "./model.js";

const NEVER = "never";

/** An element with properties (an event by its name, such as `onclick`) and children. */
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** A pair in the pattern of the pocket study, and with its label's word. */
const query = (pair) => `${pair.premise} ${pair.hypothesis} ?`;
const demonstration = (pair) => `${query(pair)} ${pair.entailed ? "Yes" : "No"}`;

/** The probability of "Yes" against "No" after these tokens. */
function probability(model, ids, past) {
  const { logp } = read(model, ids, past);
  const { Yes, No } = model.vocabulary;
  return 1 / (1 + Math.exp(logp[No] - logp[Yes]));
}

/** So many pairs by chance, half of them entailed, in an order by chance. */
function draw(pairs, count) {
  const shuffled = (list) => {
    const copy = [...list];
    for (let i = copy.length - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1));
      [copy[i], copy[j]] = [copy[j], copy[i]];
    }
    return copy;
  };
  const half = (entailed) => shuffled(pairs.filter((p) => p.entailed === entailed));
  const both = [true, false].flatMap((label) => half(label).slice(0, count / 2));
  return shuffled(both).map((pair) => ({ ...pair }));
}

/** Eight of the training pairs, mixed. */
function first(pairs) {
  const half = [true, false].flatMap((l) => pairs.filter((p) => p.entailed === l).slice(0, 4));
  return [4, 0, 5, 1, 2, 6, 3, 7].map((i) => half[i]);
}

/** The students of a folder, and the demonstrations that their teacher had. */
async function loadStudents(model, folder) {
  const about = await (await get(`${folder}/students.json`)).json();
  const students = await Promise.all(
    about.students.map(async ({ file, round }) => ({
      name: round === 1 ? "distilled" : `recursive, round ${round}`,
      method: round === 1 ? "distillation" : "recursive distillation",
      model: await student(model, `${folder}/${file}`),
    })),
  );
  return { demonstrations: about.demonstrations, students };
}

/** Put the live model into its place on the page, after the reader has asked for it. */
async function start(place, folder) {
  const withStudents = place.classList.contains("students");
  const [model, pairs] = await Promise.all([
    load(`${folder}/model`),
    get(`${folder}/pairs.json`).then((answer) => answer.json()),
  ]);
  const { demonstrations, students } = withStudents
    ? await loadStudents(model, `${folder}/students`)
    : { demonstrations: first(pairs.train), students: [] };
  const beginning = [model.vocabulary["</s>"]];
  // The first demonstrations are everybody's; later ones are drawn by chance.
  const begin = () => demonstrations.map((pair) => ({ ...pair }));
  const state = { demonstrations: begin(), pair: pairs["in-domain"][0] };
  let context = null; // what the model has read before the query, until the demonstrations change

  const premise = element("input", { id: "pm-premise", oninput: changed });
  const hypothesis = element("input", { id: "pm-hypothesis", oninput: changed });
  const never = element("button", { type: "button", onclick: turn });
  const unknown = element("p", { className: "pm-note pm-unknown" });
  const answers = element("div", { className: "pm-answers" });
  answers.setAttribute("aria-live", "polite");
  const shown = demonstrations.length;
  const count = element(
    "select",
    { id: "pm-count", onchange: redraw },
    ...[2, 4, 8, 16, 32].map((n) => element("option", { value: n, selected: n === shown }, `${n}`)),
  );
  const list = element("ol", { className: "pm-list" });

  /** Another pair of a test set as the query. */
  function take(domain) {
    const set = pairs[domain];
    state.pair = set[Math.floor(Math.random() * set.length)];
    [premise.value, hypothesis.value] = [state.pair.premise, state.pair.hypothesis];
    show();
  }

  /** The reader wrote a query: its true label is not known. */
  function changed() {
    state.pair = null;
    show();
  }

  /** Negate the hypothesis with "never", or take it out. */
  function turn() {
    const own = hypothesis.value.split(" ");
    const at = own.indexOf(NEVER);
    if (at >= 0) own.splice(at, 1);
    else own.splice(behind(own), 0, NEVER);
    hypothesis.value = own.join(" ");
    changed();
  }

  /** Where "never" goes: behind "was", or before the last verb, as everywhere in that world. */
  function behind(own) {
    if (own.includes("was")) return own.lastIndexOf("was") + 1;
    const { helped, arrived } = model.vocabulary; // the first and the last of its verbs
    const ids = own.map((word) => encode(model, word)[0]);
    return Math.max(0, ids.findLastIndex((id) => id >= helped && id <= arrived));
  }

  function redraw() {
    state.demonstrations = draw(pairs.train, Number(count.value));
    showDemonstrations();
  }

  /** The list of demonstrations; a label is a button that flips it. */
  function showDemonstrations() {
    const items = state.demonstrations.map((pair) => {
      const label = element("button", { type: "button" });
      const name = () => {
        label.textContent = pair.entailed ? "Yes" : "No";
        label.title = "Flip this label";
      };
      label.onclick = () => {
        pair.entailed = !pair.entailed;
        name();
        context = null;
        show();
      };
      name();
      return element("li", {}, `${query(pair)} `, label);
    });
    list.replaceChildren(...items);
    context = null;
    show();
  }

  /** Ask the model, without the demonstrations and behind them. */
  function show() {
    never.textContent = hypothesis.value.split(" ").includes(NEVER)
      ? "Take “never” out of the hypothesis"
      : "Put “never” into the hypothesis";
    const own = { premise: premise.value, hypothesis: hypothesis.value };
    const strange = words(`${own.premise} ${own.hypothesis}`).filter(
      (word) => !(word in model.vocabulary),
    );
    unknown.textContent = strange.length
      ? `The pocket model has never seen: ${[...new Set(strange)].join(", ")}.`
      : "";
    if (!context) {
      const text = state.demonstrations.map(demonstration).join("\n\n");
      context = read(model, [...beginning, ...encode(model, text)]).past;
    }
    const ids = [...beginning, ...encode(model, query(own))];
    const after = encode(model, `\n\n${query(own)}`);
    const negated = [own.premise, own.hypothesis].filter((text) => words(text).includes(NEVER));
    const rows = [
      ["zero-shot", probability(model, ids), "zero-shot"],
      [`after ${state.demonstrations.length} demonstrations`, probability(model, after, context), "ICL"],
      ...students.map((one) => [one.name, probability(one.model, ids), one.method]),
      ["the rule “No if exactly one sentence has never”", negated.length === 1 ? 0 : 1],
    ];
    if (state.pair) rows.push(["the true answer", state.pair.entailed ? 1 : 0]);
    answers.replaceChildren(...rows.map(bar));
  }

  /** A line of the answer: a name, a bar of the probability of "Yes", and the number. */
  function bar([name, yes, method = ""]) {
    const sure = yes === 0 || yes === 1;
    const fill = element("span", { className: "pm-fill" });
    fill.style.inlineSize = `${100 * yes}%`;
    fill.dataset.method = method;
    const answer = yes >= 0.5 ? "Yes" : "No";
    const text = sure ? answer : `${answer}, ${Math.max(yes, 1 - yes).toFixed(2)}`;
    return element(
      "div",
      { className: "pm-row" },
      element("span", { className: "pm-name" }, name),
      element("span", { className: "pm-bar", ariaHidden: "true" }, fill),
      element("span", { className: "pm-number" }, text),
    );
  }

  const button = (text, onclick) => element("button", { type: "button", onclick }, text);
  place.replaceChildren(
    element(
      "p",
      { className: "pm-note" },
      "A bar is the probability of “Yes”, the words are the likelier answer and its probability.",
    ),
    element("label", { htmlFor: "pm-premise" }, "Premise"),
    premise,
    element("label", { htmlFor: "pm-hypothesis" }, "Hypothesis: does it follow?"),
    hypothesis,
    element(
      "div",
      { className: "pm-buttons" },
      never,
      button("Another pair, in-domain", () => take("in-domain")),
      button("Another pair, out-of-domain", () => take("out-of-domain")),
    ),
    unknown,
    answers,
    element(
      "div",
      { className: "pm-buttons" },
      element("label", { htmlFor: "pm-count" }, "Demonstrations"),
      count,
      button("Other demonstrations", redraw),
      button("Flip all labels", () => {
        for (const pair of state.demonstrations) pair.entailed = !pair.entailed;
        showDemonstrations();
      }),
      button("The first demonstrations again", () => {
        state.demonstrations = begin();
        count.value = shown;
        showDemonstrations();
      }),
    ),
    element(
      "p",
      { className: "pm-note" },
      withStudents
        ? "The students were distilled from the demonstrations that stood here first, and have " +
            "none in their prompts: other demonstrations change the answer after demonstrations alone."
        : "",
      " A label is a button that flips it.",
    ),
    list,
    element(
      "details",
      {},
      element("summary", {}, "The words that it knows"),
      Object.keys(model.vocabulary).filter((word) => /^\w+$/.test(word)).join(", "),
    ),
  );
  [premise.value, hypothesis.value] = [state.pair.premise, state.pair.hypothesis];
  showDemonstrations();
}

for (const place of document.querySelectorAll(".pocket-model")) {
  const folder = new URL("pocket", import.meta.url).href;
  const what = place.classList.contains("students")
    ? "Run the model and its two students here (4.6 MB)"
    : "Run the pocket model here (2.3 MB)";
  const ask = element("button", { type: "button" }, what);
  ask.onclick = async () => {
    ask.disabled = true;
    ask.textContent = "Loading …";
    try {
      await start(place, folder);
      place.classList.add("pm-live");
      place.querySelector("input").focus();
    } catch (error) {
      ask.textContent = `The model could not be loaded: ${error.message}`;
    }
  };
  place.append(ask);
}
