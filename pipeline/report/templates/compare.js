// Two entries side by side. The address keeps the choice: compare.html#first,second
const facts = JSON.parse(document.querySelector("#facts").textContent);
const names = Object.keys(facts.entries);
const [a, b] = [document.querySelector("#a"), document.querySelector("#b")];
const place = document.querySelector("#compared");

// Text alone, never markup: names and labels come from files.
const element = (tag, attributes = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
};

const row = (title, first, second, comparable) => {
  const sizes = comparable && [first, second].every((cell) => typeof cell?.[1] === "number" && !cell[2] && cell[1] > 0);
  const times = sizes ? `${Number((second[1] / first[1]).toPrecision(3))}\u00a0×` : "";
  const cells = [first, second].map((cell) => element("td", { className: cell?.[2] ?? "" }, cell?.[0] ?? "–"));
  return element("tr", {}, element("th", { scope: "row" }, title), ...cells, element("td", { className: "number" }, times));
};

const table = (head, rows, caption) => {
  const headings = head.map((title) => element("th", { scope: "col" }, title));
  const made = element("table", {}, element("caption", {}, caption), element("thead", {}, element("tr", {}, ...headings)), element("tbody", {}, ...rows));
  const scroll = element("div", { className: "scroll", role: "region", tabIndex: 0 }, made);
  scroll.setAttribute("aria-label", caption);
  return scroll;
};

// Chance that the rarer of two ways to differ is as rare as it is, or rarer, if both were equally likely (McNemar, exact).
const mcnemar = (one, other) => {
  const n = one + other;
  let term = 0.5 ** n, sum = 0;
  for (let k = 0; k <= Math.min(one, other); k++, term *= (n - k + 1) / k) sum += term;
  return Math.min(1, 2 * sum);
};

const answers = (first, second) => {
  const bits = (hex) => [...hex].flatMap((digit) => [8, 4, 2, 1].map((bit) => Boolean(parseInt(digit, 16) & bit)));
  const [x, y] = [bits(first.right), bits(second.right)].map((right) => right.slice(0, first.n));
  const count = (wanted) => x.filter((right, k) => wanted(right, y[k])).length;
  const [onlyA, onlyB] = [count((p, q) => p && !q), count((p, q) => !p && q)];
  const said = [["both correct", count((p, q) => p && q)], ["A only", onlyA], ["B only", onlyB], ["neither", count((p, q) => !p && !q)]];
  const chance = mcnemar(onlyA, onlyB);
  const verdict = chance < 0.05 ? "more than chance would explain" : "which chance alone explains";
  return [
    element("h2", {}, "Correct predictions"),
    table(["", ...said.map(([title]) => title)], [element("tr", {}, element("th", { scope: "row" }, "test images"), ...said.map(([, n]) => element("td", { className: "number" }, n)))], `${first.n} test images of ${first.set}`),
    element("p", {}, `They differ on ${onlyA + onlyB} images, ${onlyA} to ${onlyB}, ${verdict} (McNemar's exact test, p = ${chance.toPrecision(2)}).`),
  ];
};

const curves = async (pair) => {
  const values = pair.flatMap((name) => facts.entries[name].history.map(([epoch, train, validation]) => [{ name, epoch, split: "train", loss: train }, { name, epoch, split: "validation", loss: validation }]).flat());
  if (!values.length) return;
  const chart = element("div", { className: "chart" });
  place.append(element("h2", {}, "Learning curves"), element("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Learning curves" }, chart));
  const tooltip = ["name", "epoch", "split", "loss"].map((field) => ({ field }));
  await vegaEmbed(chart, {
    description: `Loss by epoch of ${pair.join(" and ")}`, width: 520, height: 280, data: { values }, config: facts.config,
    layer: [{ mark: "line", encoding: { strokeDash: { field: "split", type: "nominal", title: null } } }, { mark: { type: "circle", size: 40, opacity: 0.05 }, params: [{ name: "zoom", select: "interval", bind: "scales" }] }],
    encoding: {
      x: { field: "epoch", type: "quantitative" },
      y: { field: "loss", type: "quantitative", scale: { type: "log" }, axis: { format: "~g", tickCount: 6 } },
      color: { field: "name", type: "nominal", title: null, scale: { domain: pair, range: facts.palette }, legend: { symbolOpacity: 1 } },
      tooltip,
    },
  }, { mode: "vega-lite", renderer: "svg", actions: false });
};

const show = () => {
  const pair = [a.value, b.value];
  const [first, second] = pair.map((name) => facts.entries[name]);
  const link = (name) => element("a", { href: `${encodeURIComponent(name)}.html` }, name);
  const alike = (title) => first.set === second.set || !/metric|int8/.test(title); // what other data give says nothing
  const rows = Object.keys({ ...first.cells, ...second.cells }).map((title) => row(title, first.cells[title], second.cells[title], alike(title)));
  place.replaceChildren(table(["", link(pair[0]), link(pair[1]), "B / A"], rows, `${pair[0]} beside ${pair[1]}`));
  if (first.right && second.right && first.set === second.set && first.n === second.n) place.append(...answers(first, second));
  if (window.vegaEmbed) curves([...new Set(pair)]);
  history.replaceState(null, "", `#${pair.map(encodeURIComponent).join(",")}`);
};

const choose = () => {
  const asked = location.hash.slice(1).split(",").map(decodeURIComponent).filter((name) => names.includes(name));
  a.value = asked[0] ?? names[0];
  b.value = asked[1] ?? names.find((name) => name !== a.value && facts.entries[name].set === facts.entries[a.value].set) ?? names.find((name) => name !== a.value) ?? names[0];
  show();
};
for (const select of [a, b]) select.addEventListener("change", show);
document.querySelector("#swap").addEventListener("click", () => { [a.value, b.value] = [b.value, a.value]; show(); });
addEventListener("hashchange", choose);
addEventListener("load", choose);
