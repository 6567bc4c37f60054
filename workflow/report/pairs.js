// Any two rows side by side, utterance by utterance. Texts become text, whatever is in them.
function pairs(section) {
  const sets = JSON.parse(section.querySelector("script").textContent);
  const [set, left, right, kind] = ["set", "left", "right", "kind"].map((name) =>
    section.querySelector(`[name=${name}]`));
  const list = section.querySelector(".pairs");
  const cards = [...document.querySelectorAll("#list .error")];
  const make = (name, className, ...children) => {
    const element = document.createElement(name);
    element.className = className;
    element.append(...children);
    return element;
  };
  const fill = (select, names, chosen) => {
    select.replaceChildren(...names.map((name, number) => new Option(name, number)));
    select.value = chosen;
  };
  const alignment = (steps) => make("span", "alignment", ...steps.map(([operation, old, heard]) =>
    make("span", `step ${operation}`, make("span", "", old || "\u2013"), make("span", "", heard || "\u2013"))));

  function choose() {
    const rows = sets[set.value].rows;
    fill(left, rows, 0);
    fill(right, rows, Math.min(1, rows.length - 1));
    show();
  }

  function show() {
    const { utterances, alike, left_out: out } = sets[set.value];
    const [a, b] = [Number(left.value), Number(right.value)];
    const found = { left: [], right: [], even: [] };
    for (const one of utterances) {
      const [x, y] = [one.of[a], one.of[b]];
      if (x === y) continue;
      const more = one.errors[x] - one.errors[y];
      found[more < 0 ? "left" : more > 0 ? "right" : "even"].push([Math.abs(more), one, x, y]);
    }
    const counts = Object.fromEntries(Object.entries(found).map(([key, all]) => [key, all.length]));
    const same = alike + utterances.length - counts.left - counts.right - counts.even;
    section.querySelector("output").textContent =
      `Fewer word errors left: ${counts.left}, right: ${counts.right}; as many, but other words: ` +
      `${counts.even}; the same text: ${same}${out ? `; ${out} more are not in this page` : ""}.`;
    const wanted = kind.value ? found[kind.value] : Object.values(found).flat();
    wanted.sort((one, other) => other[0] - one[0]);
    list.replaceChildren(...wanted.slice(0, 500).map(([, one, x, y]) => {
      const card = cards.find(({ dataset }) =>
        dataset.name === one.id && dataset.set === sets[set.value].name);
      const title = make("b", "", one.id);
      const item = make("li", "error", title, make("div", "", alignment(one.steps[x])),
        make("div", "", alignment(one.steps[y])));
      if (card) {
        const hear = make("button", "", "Show with its sound");
        hear.type = "button";
        hear.addEventListener("click", () => {
          card.hidden = false;
          card.open = true;
          card.scrollIntoView();
        });
        title.after(" ", hear);
      }
      return item;
    }));
  }

  fill(set, sets.map((one) => one.name), 0);
  set.addEventListener("change", choose);
  for (const select of [left, right, kind]) select.addEventListener("change", show);
  section.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  choose();
}

const twoRows = document.getElementById("pairs");
if (twoRows) pairs(twoRows);
