// Any number of entries side by side. The address keeps the choice, compare.html#first,second,third; the first is the reference.
const { entries, groups, metrics: METRICS } = comparison; // rows of METRICS are before those that compare with the reference
const names = Object.keys(entries);
const boxes = [...document.querySelectorAll(".choice [type=checkbox]")];
const find = document.querySelector("#find");
const reference = document.querySelector("#reference");
const place = document.querySelector("#compared");
const MOST_PICTURES = 48;
const MOST_LINES = 4; // entries that each have a line in the card of an image
const COSTS = /^(Parameters|MACs|File)|p50/; // rows whose values are divided by the reference's
let chosen = [];

// Text alone, never markup: names and labels come from files.
const element = (tag, attributes = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
};
const quiet = (text) => element("span", { className: "quiet" }, text);
const link = (name) => element("a", { href: `${encodeURIComponent(name)}.html` }, name);
const option = (name) => element("option", { value: name }, name);
const count = (n, one, several = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : several}`;
const significant = (value) => String(Number(value.toPrecision(3)));

const scroll = (label, content) => {
  const made = element("div", { className: "scroll", role: "region", tabIndex: 0 }, content);
  made.setAttribute("aria-label", label);
  return made;
};

// What is known of an entry beside another of its group: four counts, difference, low, high, p. The data hold each pair once.
const pairOf = (group, name, other) => {
  const [i, j] = [group.entries.indexOf(name), group.entries.indexOf(other)];
  const [a, b] = i < j ? [i, j] : [j, i];
  const [both, first, second, neither, difference, low, high, p] = group.pairs[(a * (2 * group.entries.length - a - 1)) / 2 + b - a - 1];
  if (i < j) return { both, only: first, other: second, neither, difference, low, high, p };
  return { both, only: second, other: first, neither, difference: -difference, low: -high, high: -low, p };
};

// Holm 1979, "A simple sequentially rejective multiple test procedure": p values of several comparisons, adjusted for their number.
const holm = (values) => {
  const order = values.map((_, k) => k).sort((a, b) => values[a] - values[b]);
  const adjusted = [];
  let largest = 0;
  order.forEach((k, rank) => { adjusted[k] = largest = Math.max(largest, Math.min(1, (values.length - rank) * values[k])); });
  return adjusted;
};

// The group that an entry shares with the reference, or a sentence that says why they cannot be compared.
const shared = (name) => {
  const [one, other] = [entries[name], entries[chosen[0]]];
  if (name !== chosen[0] && one.group !== null && one.group === other.group) return groups[one.group];
  if (name === chosen[0]) return "reference";
  if (one.set !== other.set) return "other data set";
  if (one.task !== other.task) return "other task";
  const waiting = [one, other].find((entry) => entry.group === null);
  return waiting ? `pending: ${waiting.pending}` : `other test ${one.samples}`;
};

// Table ---------------------------------------------------------------------------------------------------------------------------

const points = (share) => `${share < 0 ? "−" : "+"}${Math.abs(100 * share).toFixed(1)}`;

const differenceCell = (pair) => {
  const interval = `${points(pair.difference)} points [${points(pair.low)}, ${points(pair.high)}]`;
  return [interval, pair.low > 0 ? "✓ better" : pair.high < 0 ? "✗ worse" : "interval includes 0"];
};

const ratioCell = (ratio) => {
  if (!ratio) return ["–", "an error of 0"];
  const [value, low, high] = ratio.map(significant);
  return [`${value} × [${low}, ${high}]`, ratio[2] < 1 ? "✓ better" : ratio[1] > 1 ? "✗ worse" : "interval includes 1"];
};

// A cell: its value, the interval of it, which is never broken, and a second line; `state` is a class of style.css.
const cell = ([text, below, state]) => {
  const [value, interval] = text.split(/ (?=\[)/);
  const lines = [value, ...(interval ? [" ", element("span", { className: "whole" }, interval)] : []), ...(below ? [element("br"), quiet(below)] : [])];
  return element("td", { className: `number ${state ?? ""}` }, ...lines);
};

// Rows that compare with the reference; a row is left out where no chosen entry has it.
const comparisons = () => {
  const rows = [];
  const found = chosen.map(shared);
  const add = (title, get) => {
    const cells = found.map((group, k) => (typeof group === "string" ? null : get(group, k)));
    const reason = (k) => (k && !rows.length && typeof found[k] === "string" ? found[k] : "–"); // once, in the first row
    if (cells.some(Boolean)) rows.push([title, cells.map((made, k) => made ?? [reason(k)])]);
  };
  const pairs = found.map((group, k) => (group.pairs ? pairOf(group, chosen[k], chosen[0]) : null));
  const known = pairs.filter(Boolean);
  const adjusted = holm(known.map((pair) => pair.p));
  const p = pairs.map((pair) => (pair ? adjusted[known.indexOf(pair)] : null));
  add("Difference of accuracy [95 %]", (group, k) => pairs[k] && differenceCell(pairs[k]));
  add(known.length > 1 ? `McNemar p, Holm-adjusted for ${known.length}` : "McNemar p", (group, k) => pairs[k] && [p[k] < 0.001 ? "< 0.001" : p[k].toFixed(3), p[k] < 0.05 ? "below 0.05" : ""]);
  add("Right where the reference is wrong", (group, k) => pairs[k] && [count(pairs[k].only, "image")]);
  add("Wrong where the reference is right", (group, k) => pairs[k] && [count(pairs[k].other, "image")]);
  add("Ratio of MSE [95 %]", (group, k) => group.ratios && ratioCell(group.ratios[group.entries.indexOf(chosen[k])][group.entries.indexOf(chosen[0])]));
  return rows;
};

const factRow = (title) => {
  const base = entries[chosen[0]].cells[title];
  return [title, chosen.map((name, k) => {
    const [text, value, state, note] = entries[name].cells[title] ?? ["–"];
    const ratio = k && COSTS.test(title) && value > 0 && base?.[1] > 0 ? `${significant(value / base[1])} ×` : "";
    return [text, ratio || note, state];
  })];
};

const table = () => {
  const has = (title) => chosen.some((name) => (entries[name].cells[title]?.[0] ?? "–") !== "–");
  const titles = [...new Set(chosen.flatMap((name) => Object.keys(entries[name].cells)))].filter((title) => title !== "Data" && has(title));
  const [metrics, others] = [true, false].map((wanted) => titles.filter((title) => METRICS.includes(title) === wanted).map(factRow));
  const sets = ["Data set", chosen.map((name) => [entries[name].set])];
  const rows = [sets, ...metrics, ...comparisons(), ...others];
  const head = chosen.map((name, k) => element("th", { scope: "col", className: "number" }, link(name), element("br"), quiet(k ? "" : "reference")));
  const body = rows.map(([title, cells]) => element("tr", {}, element("th", { scope: "row" }, title), ...cells.map(cell)));
  const made = element("table", { className: "entries side-by-side" }, element("thead", {}, element("tr", {}, element("td"), ...head)), element("tbody", {}, ...body));
  return scroll("The chosen entries side by side", made);
};

const explanation = () => {
  const others = chosen.slice(1).map(shared);
  const sentences = [];
  if (others.some((group) => group.pairs)) sentences.push("Difference: accuracy minus that of the reference on the same test images, with the 95 % interval for paired proportions (Newcombe 1998, method 10). McNemar: exact test of the images on which one of the two is right.");
  const compared = others.filter((group) => group.pairs).length;
  if (compared > 1) sentences.push(`With ${compared} comparisons, one of the intervals leaves out 0 by chance more often than one time in twenty; the p values are adjusted for that (Holm 1979).`);
  if (others.some((group) => group.ratios)) sentences.push("Ratio of MSE: divided by that of the reference on the same windows; the 95 % interval is a bootstrap over blocks of windows. Below 1 is better.");
  const named = (wanted) => chosen.slice(1).filter((name, k) => typeof others[k] === "string" && others[k].startsWith(wanted));
  const [elsewhere, changed, waiting, apart] = ["other data set", "other test", "pending", "other task"].map(named);
  if (elsewhere.length) sentences.push(`${elsewhere.join(", ")}: other data than ${chosen[0]}, so metrics and losses cannot be compared. Costs can.`);
  if (apart.length) sentences.push(`${apart.join(", ")}: another task than ${chosen[0]}, so metrics and losses cannot be compared. Costs can.`);
  if (changed.length) sentences.push(`${changed.join(", ")}: the data set of ${chosen[0]}, but not the same test samples, so results are not paired: another horizon or stride, or an earlier version of the data.`);
  if (waiting.length) sentences.push(`${waiting.join(", ")}: not compared yet, ${others.find((group) => typeof group === "string" && group.startsWith("pending"))}.`);
  return sentences.map((sentence) => element("p", { className: "quiet" }, sentence));
};

// Images on which predictions differ -------------------------------------------------------------------------------------------------

const twoByTwo = (group) => {
  const [a, b] = chosen;
  const pair = pairOf(group, a, b);
  const head = element("tr", {}, element("td"), ...[`${b} right`, `${b} wrong`].map((text) => element("th", { scope: "col" }, text)));
  const row = (text, ...counts) => element("tr", {}, element("th", { scope: "row" }, text), ...counts.map((n) => element("td", { className: "number" }, n.toLocaleString("en"))));
  const made = element("table", {}, element("caption", {}, `${count(group.n, "test image")} of ${entries[a].set}`), element("thead", {}, head), element("tbody", {}, row(`${a} right`, pair.both, pair.only), row(`${a} wrong`, pair.other, pair.neither)));
  return scroll("Right and wrong predictions of the two entries", made);
};

// The picture of a row, cut out of the sprite: each tile is as large as the picture shows it.
const tile = (sprite, k, label) => {
  const width = sprite.width >= sprite.height ? 112 : Math.round((112 * sprite.width) / sprite.height);
  const height = Math.round((width * sprite.height) / sprite.width);
  const made = element("div", { className: "tile", role: "img" });
  made.setAttribute("aria-label", label);
  const [column, row] = [k % sprite.columns, Math.floor(k / sprite.columns)];
  Object.assign(made.style, {
    width: `${width}px`, height: `${height}px`, backgroundImage: `url("img/${sprite.file}")`,
    backgroundSize: `${width * sprite.columns}px ${height * sprite.rows}px`, backgroundPosition: `${-column * width}px ${-row * height}px`,
  });
  if (sprite.file.endsWith(".png")) made.style.imageRendering = "pixelated";
  return made;
};

// The number of the picture of group.rows[place], -1 without one.
const pictureOf = (group, place) => (group.places ??= new Map(group.pictured.map((row, k) => [row, k]))).get(place) ?? -1;

// Predictions of one image: a line for each entry; of many entries a line for each predicted class, which opens to name them.
const predictions = (group, members, place) => {
  const k = pictureOf(group, place);
  const mark = (label, text) => element("span", { className: label === group.truth[place] ? "good" : "bad" }, `${label === group.truth[place] ? "✓" : "✗"} ${group.labels[label]}${text}`);
  const chance = (member) => (k < 0 ? "" : ` (${group.percents[member][k]}\u00a0%)`);
  const lines = (some) => some.map((member) => element("li", {}, mark(group.classes[member][place], chance(member)), " ", quiet(group.entries[member])));
  const classes = new Map();
  for (const member of members) classes.set(group.classes[member][place], [...(classes.get(group.classes[member][place]) ?? []), member]);
  if (members.length <= MOST_LINES) return lines(members);
  const folded = ([label, some]) => element("li", {}, element("details", {}, element("summary", {}, mark(label, ""), " ", quiet(count(some.length, "entry", "entries"))), element("ul", { className: "answers" }, ...lines(some))));
  return [...classes].sort((a, b) => b[1].length - a[1].length).map((found) => (found[1].length > 1 ? folded(found) : lines(found[1])[0]));
};

const card = (group, members, place) => {
  const [row, k] = [group.rows[place], pictureOf(group, place)];
  const label = group.labels[group.truth[place]];
  const picture = k < 0 || !group.sprite ? [] : [tile(group.sprite, k, `Test image ${row}, class ${label}`)];
  const name = k < 0 ? `test image ${row}` : group.names[k];
  return element("li", {}, ...picture, element("strong", {}, `class ${label}`), element("br"), quiet(name), element("ul", { className: "answers" }, ...predictions(group, members, place)));
};

const disagreements = (group) => {
  const compared = chosen.filter((name) => entries[name].group === entries[chosen[0]].group);
  const members = compared.map((name) => group.entries.indexOf(name));
  const answers = (place) => members.map((member) => group.classes[member][place]);
  const apart = (place) => { // pairs of the chosen entries that predict different classes
    const seen = answers(place);
    return seen.reduce((sum, answer, k) => sum + seen.slice(0, k).filter((other) => other !== answer).length, 0);
  };
  const all = group.rows.map((_, k) => k).filter((k) => apart(k) > 0);
  const sure = (k) => members.reduce((sum, member) => sum + (group.percents[member][pictureOf(group, k)] ?? 0), 0);
  const order = new Map(all.map((k) => [k, [apart(k), sure(k)]]));
  all.sort((a, b) => order.get(b)[0] - order.get(a)[0] || order.get(b)[1] - order.get(a)[1] || a - b);
  const choices = () => [element("option", { value: "" }, "any entry"), ...compared.map(option)];
  const [right, wrong] = [element("select", { id: "right" }, ...choices()), element("select", { id: "wrong" }, ...choices())];
  const said = element("p", { role: "status" });
  const grid = element("ul", { className: "grid samples apart" });
  const is = (name, k, wanted) => !name || (group.classes[group.entries.indexOf(name)][k] === group.truth[k]) === wanted;
  const show = () => {
    const found = all.filter((k) => is(right.value, k, true) && is(wrong.value, k, false));
    const pictured = found.filter((k) => pictureOf(group, k) >= 0);
    const shown = (pictured.length ? pictured : found).slice(0, MOST_PICTURES);
    const kept = group.pictured.length < group.rows.length ? ` among the ${pictured.length.toLocaleString("en")} that have a picture (the report keeps ${group.pictured.length} of a data set, drawn evenly)` : "";
    const filtered = right.value || wrong.value ? ` ${count(found.length, "of these is", "of these are")} as chosen here.` : "";
    const part = found.length > shown.length ? ` The ${shown.length} with most disagreement${kept} are shown.` : "";
    said.textContent = `The predicted classes differ on ${count(all.length, "test image")} of ${group.n.toLocaleString("en")}.${filtered}${part}`;
    grid.replaceChildren(...shown.map((k) => card(group, members, k)));
  };
  for (const select of [right, wrong]) select.addEventListener("change", show);
  show();
  const filter = element("p", { className: "search" }, element("label", {}, "Right ", right), " ", element("label", {}, "Wrong ", wrong));
  return [element("h2", {}, "Images on which predictions differ"), ...(compared.length === 2 && chosen.length === 2 ? [twoByTwo(group)] : []), said, filter, grid];
};

// Learning curves: one chart for each data set, since losses of different data cannot be compared --------------------------------------

let drawing = 0; // the newest call of curves: an older one, which still waits for a chart, ends

const curves = async () => {
  const own = ++drawing;
  const sets = [...new Set(chosen.map((name) => entries[name].set))];
  const colours = comparison.palette;
  const dashes = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3]];
  const narrow = place.clientWidth < 700;
  const heading = element("h2", {}, "Learning curves");
  for (const set of sets) {
    const drawn = chosen.filter((name) => entries[name].set === set && entries[name].history.length);
    if (!drawn.length) continue;
    const values = drawn.flatMap((name) => entries[name].history.flatMap(([epoch, training, validation]) => [{ name, epoch, split: "training loss", loss: training }, { name, epoch, split: "validation loss", loss: validation }]));
    const chart = element("div", { className: "chart" });
    if (!heading.isConnected) place.append(heading);
    if (sets.length > 1) place.append(element("h3", {}, `Data set ${set}`));
    place.append(scroll(`Learning curves, data set ${set}`, chart));
    const at = (name) => chosen.indexOf(name);
    const legend = { orient: "bottom", columns: narrow ? 1 : 4, labelLimit: 260, symbolType: "stroke" };
    const colour = { field: "name", type: "nominal", title: null, scale: { domain: drawn, range: drawn.map((name) => colours[at(name) % colours.length]) } };
    const strokeDash = { ...colour, scale: { domain: drawn, range: drawn.map((name) => dashes[Math.floor(at(name) / colours.length) % dashes.length]) }, legend };
    await vegaEmbed(chart, {
      description: `Training and validation loss by epoch of ${drawn.join(", ")}`, data: { values }, config: comparison.config,
      facet: { field: "split", type: "nominal", title: null }, columns: narrow ? 1 : 2,
      spec: {
        width: narrow ? Math.max(200, place.clientWidth - 90) : Math.min(480, (place.clientWidth - 140) / 2), height: 240,
        layer: [
          { mark: "line", encoding: { color: { ...colour, legend }, strokeDash } },
          { mark: { type: "circle", size: 40, opacity: 0 }, params: [{ name: "zoom", select: "interval", bind: "scales" }] },
        ],
        encoding: {
          x: { field: "epoch", type: "quantitative", axis: { tickMinStep: 1 } },
          y: { field: "loss", type: "quantitative", title: null, scale: { type: "log" }, axis: { format: "~g", tickCount: 6 } },
          tooltip: ["name", "epoch", "split", "loss"].map((field) => ({ field })),
        },
      },
    }, { mode: "vega-lite", renderer: "svg", actions: false, tooltip: { theme: "report" } });
    if (own !== drawing) return;
  }
};

// Choice ------------------------------------------------------------------------------------------------------------------------------

const show = () => {
  for (const box of boxes) box.checked = chosen.includes(box.value);
  reference.replaceChildren(...chosen.map(option));
  document.querySelector("#chosen").textContent = `${chosen.length} chosen`;
  history.replaceState(null, "", `#${chosen.map(encodeURIComponent).join(",")}`);
  place.replaceChildren();
  if (!chosen.length) return place.append(element("p", {}, "Choose two or more entries."));
  place.append(table(), ...explanation());
  const group = groups[entries[chosen[0]].group];
  if (group?.pairs && chosen.some((name) => shared(name) === group)) place.append(...disagreements(group));
  if (window.vegaEmbed) curves();
};

const best = (from) => [...from].sort((a, b) => (entries[b].better ?? -Infinity) - (entries[a].better ?? -Infinity) || 0);
const alike = (name) => names.filter((other) => entries[other].set === entries[name].set && entries[other].task === entries[name].task);

// What the address says; beside a single entry the best other one of its data set; without one the two best of the largest group.
const read = () => {
  const asked = location.hash.slice(1).split(",").filter(Boolean).map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
  const unknown = asked.filter((name) => !names.includes(name));
  chosen = [...new Set(asked.filter((name) => names.includes(name)))];
  const notice = unknown.map((name) => element("p", { className: "notice" }, `The report has no entry ${name}, which the address of this page names.`));
  document.querySelector("#unknown").replaceChildren(...notice);
  if (!chosen.length) chosen = best(names.map(alike).sort((a, b) => b.length - a.length)[0] ?? []).slice(0, 2);
  else if (chosen.length === 1) chosen.push(...best(alike(chosen[0]).filter((name) => name !== chosen[0])).slice(0, 1));
  show();
};

for (const box of boxes) {
  box.addEventListener("change", () => {
    chosen = chosen.filter((name) => name !== box.value);
    if (box.checked) chosen.push(box.value);
    show();
  });
}
reference.addEventListener("change", () => {
  chosen = [reference.value, ...chosen.filter((name) => name !== reference.value)];
  show();
});
find.addEventListener("input", () => {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const set of document.querySelectorAll(".choice fieldset")) {
    const labels = [...set.querySelectorAll("label")];
    const title = set.querySelector("legend").textContent;
    for (const label of labels) label.hidden = !words.every((word) => `${title} ${label.textContent} ${label.title}`.toLowerCase().includes(word));
    set.hidden = labels.every((label) => label.hidden);
  }
  document.querySelector("#nothing").hidden = Boolean(document.querySelector(".choice fieldset:not([hidden])"));
});
document.querySelector("#all").addEventListener("click", () => {
  chosen = [...new Set([...chosen, ...boxes.filter((box) => !box.closest("[hidden]")).map((box) => box.value)])];
  show();
});
document.querySelector("#none").addEventListener("click", () => { chosen = []; show(); });
document.querySelector(".choice").addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", read);
addEventListener("load", read);
