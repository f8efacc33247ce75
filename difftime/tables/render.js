// A search box above every table of the page, and sorting by a click on a column's head.
"use strict";

function searchable(table) {
  const box = document.createElement("input"), count = document.createElement("span");
  Object.assign(box, { type: "search", placeholder: "search: words in any order", className: "search" });
  box.setAttribute("aria-label", "search the table");
  const rows = () => [...table.tBodies[0].rows];
  const text = (row, k) => row.cells[k].textContent.trim();
  const number = (word) => (/^[-−+]?[\d.]/.test(word) ? parseFloat(word.replace("−", "-")) : NaN);
  const show = () => {
    const words = box.value.toLowerCase().split(/\s+/);
    for (const row of rows()) {
      const said = row.textContent.toLowerCase();
      row.hidden = row.dataset.out === "1" || !words.every((word) => said.includes(word));
    }
    const shown = rows().filter((row) => !row.hidden).length;
    count.textContent = ` ${shown} of ${rows().length} rows`;
  };
  const sort = (head) => {
    const k = head.cellIndex, down = head.getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const order = (a, b) => {
      if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1); // what is empty stands last, whichever way
      const difference = number(a) - number(b);
      return sign * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
    };
    table.tBodies[0].append(...rows().sort((a, b) => order(text(a, k), text(b, k))));
  };
  for (const head of table.tHead.rows[0].cells) {
    head.tabIndex = 0;
    head.onclick = () => sort(head);
    head.onkeydown = (event) => event.key === "Enter" && sort(head);
  }
  box.oninput = show;
  (table.closest(".scroll") ?? table).before(box, count);
  show();
  return show;
}
