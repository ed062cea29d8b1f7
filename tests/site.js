// What is wrong with the page that is shown, as it is laid out now: a list of lines; and its links.
(async () => {
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

  // Boxes that cut off what is in them, tables that scroll away from their first column, text that
  // a float has swallowed, intervals that may break, tick labels that lie over each other.
  for (const e of main.querySelectorAll("*")) {
    if (!shown(e) || e.closest("svg") || !e.textContent.trim() || e.clientWidth < 2) continue;
    if (e.closest("math")) continue; // its box is smaller than its ink
    const style = getComputedStyle(e), hides = (value) => ["hidden", "clip"].includes(value);
    if (hides(style.overflowX) && e.scrollWidth > e.clientWidth + 1) say(`${name(e)} is cut off`);
    if (hides(style.overflowY) && e.scrollHeight > e.clientHeight + 4)
      say(`${name(e)} is cut off below`);
  }
  for (const e of main.querySelectorAll("table")) {
    let box = e;
    while (box !== main && box.scrollWidth <= box.clientWidth + 1) box = box.parentElement;
    const cell = e.querySelector("th, td");
    if (box !== main && cell && getComputedStyle(cell).position !== "sticky")
      say(`${name(e)} scrolls, and its first column with it`);
  }
  for (const e of main.querySelectorAll("figure p, figure li")) {
    const last = [...e.closest("figure").querySelectorAll("table, img, svg")].at(-1);
    const heads = last?.tagName === "TABLE" && // what stands before a table heads it
      e.compareDocumentPosition(last) & Node.DOCUMENT_POSITION_FOLLOWING;
    if (!e.closest("figcaption, table, pre") && !e.querySelector("img, svg") && !heads)
      say(`${name(e)} is text within a figure: "${e.textContent.trim().slice(0, 24)}"`);
  }
  const texts = document.createTreeWalker(main, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const at = texts.currentNode, found = at.data.match(/\[[-\u2212]?[\d.,]+, [-\u2212]?[\d.]+\]/);
    if (found && !at.parentElement.closest("pre, code, script, style, svg, math"))
      say(`${name(at.parentElement)} has an interval that may break: ${found[0]}`);
  }

  // Words in figures, also in those that are images: over each other, nearly touching, cut off.
  const drawings = [...main.querySelectorAll("svg")].filter((e) => !e.parentElement.closest("svg"))
    .map((svg) => [svg, svg]);
  for (const img of main.querySelectorAll("img")) {
    const source = img.currentSrc || img.src;
    if (!/svg/.test(source) || !shown(img)) continue;
    const answer = await fetch(source).catch(() => null);
    if (!answer?.ok) continue;
    const svg = new DOMParser().parseFromString(await answer.text(), "image/svg+xml").documentElement;
    svg.style.cssText = "position: absolute; top: 0; left: 0; max-width: none";
    drawings.push([document.body.appendChild(svg), img]);
  }
  for (const [svg, where] of drawings) {
    const frame = svg.getBoundingClientRect();
    const slanted = /rotate\((?!-?(90|180|270)?0?\))/; // their boxes overlap, they do not
    const words = [...svg.querySelectorAll("text")]
      .filter((e) => e.textContent.trim() && shown(e) && !slanted.test(e.getAttribute("transform")))
      .map((e) => [e.getBoundingClientRect(), e.textContent.trim().slice(0, 24), e.closest(".role-axis-label")]);
    for (const [i, [a, first, axis]] of words.entries()) {
      if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.bottom > frame.bottom + 1)
        say(`${name(where)} cuts off "${first}"`);
      for (const [b, second, other] of words.slice(i + 1)) {
        const apart = axis && axis === other ? 2 : -1; // labels of one axis may not even touch
        if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > -apart &&
            Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4)
          say(`${name(where)} has words that lie over each other: "${first}" and "${second}"`);
      }
    }
    if (svg !== where) svg.remove();
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

  // White cards on a dark page: boxes, and images by the colour of their corner.
  const dark = light(behind(document.body) ?? canvas) < 0.2;
  const corner = (img) => {
    const drawn = new OffscreenCanvas(8, 8).getContext("2d");
    drawn.drawImage(img, 0, 0);
    const [r, g, b, a] = drawn.getImageData(4, 4, 1, 1).data;
    const under = behind(img) ?? canvas;
    return over([r, g, b, a / 255], under);
  };
  if (dark)
    for (const e of main.querySelectorAll("*")) {
      const box = e.getBoundingClientRect();
      if (box.width * box.height < 20000 || !shown(e) || e.parentElement.closest("svg")) continue;
      if (e.tagName === "IMG") await e.decode().catch(() => 0);
      const colour = e.tagName === "IMG" && e.naturalWidth ? corner(e) : behind(e);
      if (colour && light(colour) > 0.8) say(`${name(e)} is a white card on a dark page`);
    }

  // What the page loads or announces from elsewhere, even where no request was made yet.
  for (const e of document.querySelectorAll("link[href], [src]"))
    if (!["canonical", "license"].includes(e.rel) && /^https?:/.test(e.href ?? e.src) &&
        new URL(e.href ?? e.src).host !== location.host) say(`${name(e)} is from ${e.href ?? e.src}`);

  return {
    wrong,
    dark,
    links: [...document.querySelectorAll("a[href]")].map((a) => a.href),
    ids: [...document.querySelectorAll("[id], a[name]")].flatMap((e) => [e.id, e.name].filter(Boolean)),
  };
})()
