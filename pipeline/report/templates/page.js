// What a page does beyond showing: sort and search its tables, and draw its charts where pictures stood.

// Tables of class "sortable": each heading becomes a button that sorts by its column, pending cells always last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
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
      body.append(...[...body.rows].sort(compare));
    });
  });
}

// The search box hides every row of the tables, and every small curve, whose text lacks one of the words.
const search = document.querySelector("#search");
if (search) {
  const found = document.querySelector("#found");
  const items = [...document.querySelectorAll("table.sortable tbody tr, ul.curves li")];
  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of items) {
      item.hidden = !words.every((word) => item.textContent.toLowerCase().includes(word));
      shown += !item.hidden && item.matches(".entries tr");
    }
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
