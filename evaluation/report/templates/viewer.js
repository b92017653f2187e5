"use strict";
const pairs = JSON.parse(document.getElementById("data").textContent);
const all = (query, from = document) => [...from.querySelectorAll(query)];
const tabs = all(".tabs button");
for (const tab of tabs) tab.onclick = () => {
  for (const other of tabs) {
    other.setAttribute("aria-selected", other === tab);
    document.getElementById(other.dataset.of).hidden = other !== tab;
  }
};
for (const shot of all(".shot")) {
  const [pair, name] = shot.dataset.of.split("/");
  shot.firstChild.src = pairs[pair].pictures[name];
  shot.onclick = () => { location.hash = shot.dataset.of; };
}
const page = document.getElementById("page"), compare = page.querySelector(".compare");
const [choice, slider] = [page.querySelector("select"), page.querySelector("input")];
let before = null;
function show() {
  const [id, name] = decodeURIComponent(location.hash.slice(1)).split("/"), pair = pairs[id];
  page.hidden = !pair;
  document.body.style.overflow = pair ? "hidden" : "";
  if (!pair) { if (before) before.focus(); before = null; return; }
  before = before || document.activeElement;
  const methods = Object.keys(pair.pictures).filter(key => key !== "truth");
  const shown = methods.includes(name) ? name : methods.find(key => key !== "input");
  page.querySelector("b").textContent = `Pair ${id}, ${pair.category}`;
  choice.replaceChildren(...methods.map(key => new Option(key, key, false, key === shown)));
  page.querySelector(".under").src = pair.pictures[shown];
  page.querySelector(".over").src = pair.pictures.truth;
  page.querySelector("span").textContent = shown;
  choice.onchange = () => { location.replace(`#${id}/${choice.value}`); };
  const head = `<tr><th></th>${pair.metrics.map(key => `<th>${key}</th>`).join("")}</tr>`;
  const table = document.createElement("table");
  table.innerHTML = `<thead>${head}</thead><tbody></tbody>`;
  for (const [method, scores] of Object.entries(pair.scores)) {
    const row = table.tBodies[0].insertRow(), label = document.createElement("th");
    label.textContent = method;
    row.append(label);
    for (const score of scores) row.insertCell().textContent = score;
  }
  page.querySelector(".scroll").replaceChildren(table);
  slider.focus({ preventScroll: true });
  page.scrollTop = 0;
}
slider.oninput = () => compare.style.setProperty("--at", slider.value + "%");
page.querySelector("button").onclick = () => { history.replaceState(null, "", location.pathname + location.search); show(); };
addEventListener("keydown", event => { if (event.key === "Escape" && !page.hidden) page.querySelector("button").click(); });
addEventListener("hashchange", show);
show();
