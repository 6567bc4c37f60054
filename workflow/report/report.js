"use strict";
// Search, sort and filter the list of errors. Everything is in the page already.
const list = document.getElementById("list");
const cards = [...list.children].map((card) =>
  ({ ...card.dataset, card, said: card.textContent.toLowerCase() }));
const search = document.getElementById("search");
const sort = document.getElementById("sort");
const filters = [...document.querySelectorAll(".filter")];
const { compare } = new Intl.Collator();

function filter() {
  const wanted = search.value.toLowerCase();
  const chosen = filters.filter((select) => select.value);
  let shown = 0;
  for (const one of cards) {
    one.card.hidden = !(one.said.includes(wanted) &&
      chosen.every((select) => one[select.dataset.key] === select.value));
    shown += !one.card.hidden;
  }
  document.getElementById("count").textContent = `${shown} shown`;
}

function order() {
  const key = sort.value;
  cards.sort((a, b) => (key === "name" ? 0 : b[key] - a[key]) || compare(a.name, b.name));
  const { parentNode, nextSibling } = list;
  list.remove();
  list.replaceChildren(); // a browser takes a millisecond to move a card, and less for all of these
  for (const one of cards) list.append(one.card);
  parentNode.insertBefore(list, nextSibling);
}

search.addEventListener("input", filter);
for (const select of filters) select.addEventListener("change", filter);
sort.addEventListener("change", order);
document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("open").addEventListener("change", (event) => {
  for (const one of cards) one.card.open = event.target.checked;
});
order();
filter();

// A figure is saved from the page itself, wherever that was sent to.
for (const link of document.querySelectorAll("figure a.svg")) {
  const svg = new XMLSerializer().serializeToString(link.closest("figure").querySelector("svg"));
  link.href = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
}
