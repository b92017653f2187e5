"use strict";
// Counts of a running study, updated every three seconds.
(() => {
  const fill = (id, rows) => {
    document.querySelector(`#${id} tbody`).replaceChildren(...rows.map(row => {
      const line = document.createElement("tr");
      line.append(...row.map(text => Object.assign(document.createElement("td"), {textContent: text})));
      return line;
    }));
  };
  const refresh = async () => {
    const live = document.getElementById("live");
    try {
      const answer = await fetch(`${location.pathname}/state`);
      if (!answer.ok) throw new Error(answer.status);
      const now = await answer.json();
      const facts = [[now.raters, "raters"], [now.active, "active now"], [now.finished, "finished"],
        [now.last_minute, "answers in the last minute"], [`${now.catches_right} of ${now.catches}`, "catch trials right"],
        [now.flagged, "flagged exposures"]];
      document.getElementById("facts").replaceChildren(...facts.map(([number, text]) => {
        const fact = document.createElement("li");
        fact.append(Object.assign(document.createElement("b"), {textContent: number}), ` ${text}`);
        return fact;
      }));
      fill("parts", Object.entries(now.parts).map(([name, part]) =>
        [name, part.answers, part.wanted, `${(100 * part.answers / Math.max(1, part.wanted)).toFixed(1)} %`]));
      fill("classes", now.classes.map(row => [row.category, row.answers]));
      live.textContent = `Live, last at ${new Date().toLocaleTimeString()}.`;
    } catch {
      live.textContent = "The server does not answer; trying again.";
    }
    setTimeout(refresh, 3000);
  };
  refresh();
})();
