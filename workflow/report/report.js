"use strict";
// Search, sort and filter the list of errors. Everything is in the page already.
const list = document.getElementById("list");
const cards = [...list.children];
const texts = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));
const search = document.getElementById("search");
const sort = document.getElementById("sort");
const filters = [...document.querySelectorAll(".filter")];

function compare(a, b) {
  const names = a.dataset.name.localeCompare(b.dataset.name);
  return sort.value === "name" ? names : b.dataset[sort.value] - a.dataset[sort.value] || names;
}

function update() {
  const wanted = search.value.toLowerCase();
  let shown = 0;
  for (const card of cards) {
    const fits = (select) => !select.value || card.dataset[select.dataset.key] === select.value;
    card.hidden = !(texts.get(card).includes(wanted) && filters.every(fits));
    shown += !card.hidden;
  }
  list.append(...cards.sort(compare));
  document.getElementById("count").textContent = `${shown} shown`;
}

search.addEventListener("input", update);
for (const select of [sort, ...filters]) select.addEventListener("change", update);
document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("open").addEventListener("change", (event) => {
  for (const card of cards) card.open = event.target.checked;
});
update();

// A figure is saved from the page itself, wherever that was sent to.
for (const link of document.querySelectorAll("figure a.svg")) {
  const svg = new XMLSerializer().serializeToString(link.closest("figure").querySelector("svg"));
  link.href = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
}
