"use strict";
(function () {
  // Ages: the page holds absolute times, so it does not grow stale by itself.
  const units = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
  function ages() {
    const now = Date.now() / 1000;
    for (const time of document.querySelectorAll("time[data-epoch]")) {
      const age = Math.max(0, now - Number(time.dataset.epoch));
      const unit = units.find((u) => age >= u[0]) || units[3];
      const n = Math.floor(age / unit[0]);
      const span = time.nextElementSibling;
      if (span) span.textContent = " (" + n + " " + unit[1] + (n === 1 ? "" : "s") + " ago)";
    }
  }
  ages();
  setInterval(ages, 30000);

  // Tables: a click on a column's head sorts by it, another one the other way.
  function key(row, column) {
    const cell = row.cells[column];
    const text = cell.dataset.sort !== undefined ? cell.dataset.sort : cell.textContent.trim();
    const number = Number(text);
    return text !== "" && !Number.isNaN(number) ? number : text.toLowerCase();
  }
  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    if (typeof b === "number") return 1;
    return a < b ? -1 : a > b ? 1 : 0;
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const rows = Array.from(body.rows).map((row, i) => [key(row, column), i, row]);
        rows.sort((a, b) => (up ? 1 : -1) * compare(a[0], b[0]) || a[1] - b[1]);
        for (const row of rows) body.appendChild(row[2]);
      });
    });
  }
})();
