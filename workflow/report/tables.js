"use strict";
// Tables that are explored: sorted, filtered, with columns hidden, copied, saved. They are complete
// without this. What is shown of a table stands in the address: #name?sort=2&down=1&find=int8&hide=3.4
function explore(table) {
  const [head, body] = [table.tHead.rows[0], table.tBodies[0]];
  const rows = [...body.rows];
  const titles = [...head.cells].map((cell) => cell.textContent);
  const name = table.closest("[id]").id;
  const state = { sort: null, down: false, find: "", hide: new Set() };
  const text = (row, column) => row.cells[column].textContent.trim();
  const make = (kind, values, ...children) => {
    const element = Object.assign(document.createElement(kind), values);
    element.append(...children);
    return element;
  };

  const find = make("input", { type: "search" });
  const count = make("output", {});
  const boxes = titles.map((title, column) => {
    const box = make("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      state.hide[box.checked ? "delete" : "add"](column);
      show();
    });
    return box;
  });
  const choice = make("details", { className: "columns" }, make("summary", { textContent: "Columns" }),
    ...boxes.map((box, column) => make("label", {}, box, ` ${titles[column]}`)));
  const button = (label, action) => {
    const made = make("button", { type: "button", textContent: label });
    made.addEventListener("click", action);
    return made;
  };
  const bar = make("div", { className: "bar" }, make("label", {}, "Find ", find), choice,
    button("Copy", (event) => copy(event.target)), button("CSV", save), count);
  count.setAttribute("aria-live", "polite");
  table.closest(".wide").before(bar);
  find.addEventListener("input", () => {
    state.find = find.value;
    show();
  });

  [...head.cells].forEach((cell, column) => {
    const sorter = button(titles[column], () => {
      const first = state.sort !== column;
      state.down = first ? isNumeric(column) && column > 0 : !state.down;
      state.sort = column;
      show();
    });
    cell.replaceChildren(sorter);
  });

  function isNumeric(column) {
    return rows.every((row) => /^(-?[\d.]+|$)/.test(text(row, column)));
  }

  function sorted() {
    const { sort: column, down } = state;
    if (column === null) return rows;
    const numeric = isNumeric(column);
    return [...rows].sort((one, other) => {
      const [a, b] = [text(one, column), text(other, column)];
      if (!a || !b) return !a - !b; // what is missing comes last
      const order = numeric ? parseFloat(a) - parseFloat(b) : a.localeCompare(b);
      return down ? -order : order;
    });
  }

  function show() {
    const words = state.find.toLowerCase().split(/\s+/);
    let shown = 0;
    for (const row of rows) {
      const said = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => said.includes(word));
      shown += !row.hidden;
    }
    body.append(...sorted());
    for (const row of [head, ...rows]) {
      [...row.cells].forEach((cell, column) => (cell.hidden = state.hide.has(column)));
    }
    [...head.cells].forEach((cell, column) => {
      if (column !== state.sort) cell.removeAttribute("aria-sort");
      else cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    });
    count.textContent = shown < rows.length ? `${shown} of ${rows.length} rows` : "";
    const address = new URLSearchParams();
    if (state.sort !== null) address.set("sort", state.sort);
    if (state.down) address.set("down", 1);
    if (state.find) address.set("find", state.find);
    if (state.hide.size) address.set("hide", [...state.hide].join("."));
    const all = address.toString();
    if (all || location.hash.startsWith(`#${name}?`)) {
      history.replaceState(null, "", all ? `#${name}?${all}` : `#${name}`);
    }
  }

  function lines() {
    const columns = titles.map((_, column) => column).filter((column) => !state.hide.has(column));
    const shown = [...body.rows].filter((row) => !row.hidden);
    return [columns.map((column) => titles[column]),
      ...shown.map((row) => columns.map((column) => text(row, column)))];
  }

  async function copy(from) {
    const all = lines().map((cells) => cells.join("\t")).join("\n");
    try {
      await navigator.clipboard.writeText(all);
    } catch { // pages of a file may not, in some browsers
      const area = make("textarea", { value: all });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    from.textContent = "Copied";
    setTimeout(() => (from.textContent = "Copy"), 1500);
  }

  function save() {
    // A spreadsheet must not take a text for a formula.
    const safe = (value) => (/^[=+@\t\r-]/.test(value) && isNaN(value) ? `'${value}` : value);
    const quoted = (value) => `"${safe(value).replaceAll('"', '""')}"`;
    const all = lines().map((cells) => cells.map(quoted).join(",")).join("\r\n");
    const link = make("a", { download: `${name}.csv` });
    link.href = URL.createObjectURL(new Blob([`${all}\r\n`], { type: "text/csv" }));
    link.click();
    URL.revokeObjectURL(link.href);
  }

  function read() {
    if (!location.hash.startsWith(`#${name}?`)) return;
    const given = new URLSearchParams(location.hash.slice(name.length + 2));
    const numbers = (key) => (given.get(key) || "").split(".").filter((n) => /^\d+$/.test(n)).map(Number);
    const known = (key) => numbers(key).filter((column) => column < titles.length);
    state.sort = known("sort")[0] ?? null;
    state.down = given.get("down") === "1";
    state.find = find.value = given.get("find") || "";
    state.hide = new Set(known("hide"));
    boxes.forEach((box, column) => (box.checked = !state.hide.has(column)));
    show();
    table.closest("[id]").scrollIntoView();
  }
  read();
  addEventListener("hashchange", read);
}

for (const table of document.querySelectorAll("table.explore")) explore(table);
