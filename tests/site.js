// What is wrong with the page that is shown, as it is laid out now: a list of lines; and its links.
(() => {
  const wrong = [];
  const say = (what) => wrong.includes(what) || wrong.push(what);
  const shown = (e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const name = (e) => {
    const id = e.id || e.closest("[id]")?.id;
    return `<${e.tagName.toLowerCase()}>` + (id ? ` in #${id}` : "");
  };

  // Width: nothing may reach out of the page, nor out of the column of text, unless it scrolls.
  const view = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > view)
    say(`the page is ${document.documentElement.scrollWidth} px wide`);
  const main = document.querySelector("main") ?? document.body;
  const scrolls = (e) => {
    for (let up = e.parentElement; up && up !== main; up = up.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(up).overflowX)) return true;
    return false;
  };
  const edge = Math.min(view, main.getBoundingClientRect().right) + 1;
  for (const e of main.querySelectorAll("*")) {
    const box = e.getBoundingClientRect(), outer = e.parentElement.getBoundingClientRect();
    const first = e.parentElement === main || outer.right <= edge; // what is in it is not said again
    if (box.right > edge && first && box.width > 1 && shown(e) && !scrolls(e) && !e.closest("svg *"))
      say(`${name(e)} ends at ${Math.round(box.right)} px, past ${Math.round(edge - 1)}`);
  }

  // Images and figures.
  for (const e of document.querySelectorAll("img, svg[role=img], figure svg")) {
    const words = e.getAttribute("alt") ?? e.getAttribute("aria-label");
    if (e.matches("svg svg")) continue;
    if (!words?.trim() && e.getAttribute("aria-hidden") !== "true") say(`${name(e)} has no alt text`);
    if (e.tagName === "IMG" && (!e.complete || !e.naturalWidth)) say(`${name(e)} shows no image`);
  }

  // Headings: a first level, and none that leaves a level out.
  const levels = [...document.querySelectorAll("h1,h2,h3,h4,h5,h6")]
    .filter((e) => (main.contains(e) || e.tagName === "H1") && shown(e))
    .map((e) => [+e.tagName[1], e.textContent.trim()]);
  if (!levels.some(([level]) => level === 1)) say("no heading of the first level");
  levels.forEach(([level, words], i) => {
    if (i && level > levels[i - 1][0] + 1) say(`heading "${words}" leaves out a level`);
  });
  if (!document.title.trim()) say("no title");
  if (!document.documentElement.lang) say("no language");

  // Contrast of text (WCAG 2.2, 1.4.3), where the colours are plain.
  const rgba = (text) => {
    const found = text.match(/^rgba?\(([\d., ]+)\)$/)?.[1].split(",").map(Number);
    return found && [...found.slice(0, 3), found[3] ?? 1];
  };
  const over = (top, under) => under.map((c, i) => top[i] * top[3] + c * (1 - top[3]));
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const probe = document.documentElement.appendChild(document.createElement("i"));
  probe.style.background = "Canvas"; // what the browser paints under the page in this theme
  const canvas = rgba(getComputedStyle(probe).backgroundColor);
  probe.remove();
  const behind = (e) => {
    const layers = [];
    for (let up = e; up; up = up.parentElement) {
      const style = getComputedStyle(up);
      const colour = rgba(style.backgroundColor);
      if (!colour || style.backgroundImage !== "none") return null;
      layers.unshift(colour);
    }
    return layers.reduce((under, top) => over(top, under), canvas.slice(0, 3));
  };
  for (const e of document.body.querySelectorAll("*")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !shown(e) || e.closest("svg, [disabled], .visually-hidden")) continue;
    const style = getComputedStyle(e), colour = rgba(style.color), under = behind(e);
    if (!colour || !under) continue;
    let opacity = 1;
    for (let up = e; up; up = up.parentElement) opacity *= +getComputedStyle(up).opacity;
    colour[3] *= opacity;
    const [a, b] = [light(over(colour, under)), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
    const pair = `${style.color} on rgb(${under.map(Math.round)})`;
    if (ratio < (large ? 3 : 4.5) && !wrong.some((line) => line.includes(pair)))
      say(`contrast ${ratio.toFixed(1)} of ${pair}, as in "${e.textContent.trim().slice(0, 24)}" ${name(e)}`);
  }

  // What the page loads or announces from elsewhere, even where no request was made yet.
  for (const e of document.querySelectorAll("link[href], [src]"))
    if (!["canonical", "license"].includes(e.rel) && /^https?:/.test(e.href ?? e.src) &&
        new URL(e.href ?? e.src).host !== location.host) say(`${name(e)} is from ${e.href ?? e.src}`);

  return {
    wrong,
    dark: light(behind(document.body) ?? canvas) < 0.2,
    links: [...document.querySelectorAll("a[href]")].map((a) => a.href),
    ids: [...document.querySelectorAll("[id], a[name]")].flatMap((e) => [e.id, e.name].filter(Boolean)),
  };
})()
