// What a page does beyond showing: sort and search its tables, and draw its charts where pictures stood.

// Tables of class "sortable": each heading becomes a button that sorts each group of rows by its column, pending cells
// always last. A link to the heading's explanation stays beside the button.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...[...heading.childNodes].filter((node) => node.className !== "what"));
    heading.prepend(button);
    button.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        const order = heading.classList.contains("number") ? x - y : x.localeCompare(y, undefined, { numeric: true });
        return up ? order : -order;
      };
      for (const body of table.tBodies) body.append(...[...body.rows].filter((row) => row.className !== "group").sort(compare));
    });
  });
}

// The search box hides every row of the tables, and every small curve and card, whose text lacks one of the words; a
// row is also found by the title of its group, which is hidden when all of its rows are.
const search = document.querySelector("#search");
if (search) {
  const found = document.querySelector("#found");
  const items = [...document.querySelectorAll("table.sortable tbody tr:not(.group), ul.searched li")];
  const titles = [...document.querySelectorAll("table.sortable tr.group")];
  const text = (item) => `${item.parentElement.querySelector("tr.group")?.textContent ?? ""} ${item.textContent}`.toLowerCase();
  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of items) {
      item.hidden = !words.every((word) => text(item).includes(word));
      shown += !item.hidden && item.matches(".entries tr, .cards li");
    }
    for (const title of titles) title.hidden = !title.parentElement.querySelector("tr:not(.group):not([hidden])");
    found.textContent = words.length ? `${shown} found` : "";
  };
  search.closest("[hidden]").hidden = false;
  search.addEventListener("input", show);
  show(); // a browser keeps what was typed when it comes back to the page
}

// Charts: the picture stays until the library has drawn the same specification, and where it cannot.
const draw = async (figure) => {
  const place = document.createElement("div");
  const spec = JSON.parse(figure.querySelector("script").textContent);
  await vegaEmbed(place, spec, { mode: "vega", renderer: "svg", actions: false, tooltip: { theme: "report" } });
  place.className = "chart";
  figure.querySelector("img").replaceWith(place);
  figure.dataset.drawn = "";
};
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    draw(target);
  }
}, { rootMargin: "300px" });
addEventListener("load", () => {
  if (window.vegaEmbed) document.querySelectorAll("figure.read").forEach((figure) => near.observe(figure));
});
