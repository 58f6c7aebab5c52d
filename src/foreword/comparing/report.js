"use strict";
(function () {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  function colours() {
    const style = getComputedStyle(document.documentElement);
    const text = style.getPropertyValue("--text"), line = style.getPropertyValue("--line");
    return { background: "transparent", view: { stroke: line },
      axis: { labelColor: text, titleColor: text, gridColor: line, domainColor: line, tickColor: line },
      legend: { labelColor: text, titleColor: text, orient: "bottom", columns: 2, labelLimit: 320 },
      text: { color: text, fill: text }, rule: { color: text } };
  }
  function draw() {
    specs.forEach((spec, i) => {
      const place = document.getElementById("plot-" + i);
      window.vegaEmbed(place, { ...spec, config: colours() }, { actions: false, renderer: "svg" })
        .then(() => place.querySelectorAll("svg").forEach((svg) => {
          svg.setAttribute("aria-hidden", "true"); svg.removeAttribute("tabindex"); }));
    });
  }
  if (specs.length) { draw(); dark.addEventListener("change", draw); }
  document.querySelectorAll("table.sorts").forEach((table) => {
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        table.querySelectorAll("thead th[aria-sort]").forEach((h) => h.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const key = (row) => { const cell = row.cells[column]; return "key" in cell.dataset
          ? (cell.dataset.key === "" ? NaN : Number(cell.dataset.key)) : cell.textContent.trim(); };
        const rows = [...body.rows].sort((a, b) => {
          const x = key(a), y = key(b);
          const sign = up ? 1 : -1;
          if (typeof x === "string") return sign * x.localeCompare(y, undefined, { numeric: true });
          if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
          return sign * (x - y); });
        body.append(...rows);
      });
    });
  });
})();
