"use strict";
// The session of one rater. Pictures are decoded into canvases before they are shown, so that exposures are exact: an
// exposure starts and ends with a frame of the screen, and the time between these two frames is sent.
(() => {
  const byId = id => document.getElementById(id);
  const wait = ms => new Promise(done => setTimeout(done, ms));
  const stage = byId("stage"), sides = ["left", "right"];
  const buttons = sides.flatMap(side => [byId(side), byId(`choose-${side}`)]);
  const embedded = byId("trials");  // the layout for crowd platforms contains its trials
  const source = embedded ? fromPage() : fromServer();
  const loading = new Map();

  // ---- source of the trials and target of the answers ----

  function fromServer() {
    const base = document.body.dataset.base, csrf = document.body.dataset.csrf, kept = `answer of ${base}`;
    // Repeat a request until it succeeds: nothing is lost if the server is restarted.
    async function ask(path, options = {}) {
      for (let pause = 500; ; pause = Math.min(2 * pause, 5000)) {
        try {
          const answer = await fetch(base + path, options);
          if (answer.ok) {
            note("");
            if (options.method) sessionStorage.removeItem("renewed");
            return answer;
          }
          if (answer.status === 403 && !sessionStorage.getItem("renewed")) {  // the cookie is lost: get another one, once
            sessionStorage.setItem("renewed", "yes");
            location.reload();
            await wait(60000);
          }
          if (answer.status !== 429 && answer.status < 500) throw new Refused(answer.status);
        } catch (error) {
          if (error instanceof Refused) throw error;
        }
        note("No connection. Your answers are safe; trying again …");
        await wait(pause);
      }
    }
    const post = async answer => {
      const headers = {"Content-Type": "application/json", "X-Study-Token": csrf};
      return (await ask("/answer", {method: "POST", headers, body: JSON.stringify(answer)})).json();
    };
    return {
      async begin() {
        const left = localStorage.getItem(kept);  // of a page that was closed before the server replied
        if (left) {
          try { await post(JSON.parse(left)); } catch { /* the server refuses it: ask again */ }
          localStorage.removeItem(kept);
        }
        return (await ask("/state")).json();
      },
      async send(answer) {
        localStorage.setItem(kept, JSON.stringify(answer));
        const state = await post(answer);
        localStorage.removeItem(kept);
        return state;
      },
      picture: async (trial, side) => (await ask(`/${trial.n}/${side}`)).blob(),
      // Survives a reload, so that a second view of a limited trial is noticed.
      look(n) {
        const key = `looks ${n} of ${base}`, looks = 1 + Number(localStorage.getItem(key));
        localStorage.setItem(key, looks);
        return looks;
      },
      finish() {
        for (const key of Object.keys(localStorage)) if (key.endsWith(` of ${base}`)) localStorage.removeItem(key);
        location.assign(`${base}/thanks`);
      },
    };
  }

  function fromPage() {
    const trials = JSON.parse(embedded.textContent), answers = [], looks = new Map();
    const state = () => {
      const ahead = trials.slice(answers.length, answers.length + 3);
      const count = list => list.filter(trial => !trial.practice).length;
      return {answered: count(trials.slice(0, answers.length)), total: count(trials), ahead};
    };
    return {
      begin: async () => state(),
      async send(answer) { answers.push(answer); return state(); },
      // An image element, because the pictures are on another host, which may not allow scripts to read them.
      async picture(trial, side) {
        const image = new Image();
        image.src = trial[side];
        await image.decode();
        return image;
      },
      look(n) { looks.set(n, 1 + (looks.get(n) || 0)); return looks.get(n); },
      finish() {
        const field = byId("answers"), query = new URLSearchParams(location.search);
        field.value = JSON.stringify(answers);
        if (query.get("assignmentId")) byId("assignmentId").value = query.get("assignmentId");
        // On the page of the platform our form is inside its form, which has an action already.
        if (query.get("turkSubmitTo") && field.form.id === "ours")
          field.form.action = `${query.get("turkSubmitTo")}/mturk/externalSubmit`;
        say("Thank you!", "One last step: hand in your answers.", "", "Submit").then(() => field.form.submit());
      },
    };
  }

  class Refused extends Error {}

  // ---- messages ----

  function note(text) {
    if (byId("note").textContent !== text) byId("note").textContent = text;
  }

  async function say(heading, said, more, button = "Go on") {
    byId("trial").hidden = true;
    byId("words").hidden = false;
    byId("heading").textContent = heading;
    byId("said").textContent = said;
    byId("more").textContent = more;
    byId("go").firstChild.textContent = `${button} `;
    byId("heading").focus();
    await pressed(byId("go"));
    byId("words").hidden = true;
    byId("trial").hidden = false;
  }

  // A click, or the space bar or Enter anywhere.
  function pressed(button) {
    return new Promise(done => {
      const end = () => { removeEventListener("keydown", key); button.onclick = null; done(); };
      const key = event => {
        if (event.repeat || ![" ", "Enter"].includes(event.key) || event.target.id === "copy") return;
        event.preventDefault();
        end();
      };
      addEventListener("keydown", key);
      button.onclick = end;
    });
  }

  // ---- one trial ----

  // Both pictures of a trial, decoded.
  function pictures(trial) {
    if (!loading.has(trial.n)) {
      loading.set(trial.n, Promise.all(sides.map(async side => createImageBitmap(await source.picture(trial, side)))));
      loading.get(trial.n).catch(() => loading.delete(trial.n));
    }
    return loading.get(trial.n);
  }

  function paint(bitmaps) {
    sides.forEach((side, i) => {
      const canvas = byId(side).firstElementChild;
      canvas.width = bitmaps[i].width;
      canvas.height = bitmaps[i].height;
      canvas.getContext("2d").drawImage(bitmaps[i], 0, 0);
    });
  }

  const enable = on => buttons.forEach(button => { button.disabled = !on; });
  const frame = () => new Promise(requestAnimationFrame);

  // Show the pictures for a time in ms and return how long it was, between the first frame with and the first without.
  async function expose(ms) {
    await frame();
    const first = await frame();
    stage.classList.add("seen");
    for (let last = first; ;) {
      const now = await frame();
      if (now - first + (now - last) / 2 >= ms) {
        stage.classList.remove("seen");
        return now - first;
      }
      last = now;
    }
  }

  function choice() {
    return new Promise(done => {
      const keys = {ArrowLeft: "left", ArrowUp: "left", ArrowRight: "right", ArrowDown: "right"};
      const end = side => {
        removeEventListener("keydown", key);
        buttons.forEach(button => { button.onclick = null; });
        done(side);
      };
      const key = event => {
        if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || !(event.key in keys)) return;
        event.preventDefault();
        end(keys[event.key]);
      };
      addEventListener("keydown", key);
      sides.forEach(side => [byId(side), byId(`choose-${side}`)].forEach(b => { b.onclick = () => end(side); }));
    });
  }

  async function ask(trial) {
    paint(await pictures(trial));
    enable(false);
    stage.classList.remove("seen");
    let shown = 0, views = 1, begun;
    if (trial.exposure) {
      byId("question").textContent = "Which looked more natural?";
      byId("show").hidden = false;
      byId("show").focus({preventScroll: true});
      await pressed(byId("show"));
      byId("show").hidden = true;
      byId("cross").hidden = false;
      await wait(500);
      byId("cross").hidden = true;
      views = source.look(trial.n);
      begun = performance.now();
      shown = await expose(trial.exposure);
    } else {
      byId("question").textContent = "Which picture looks more real?";
      begun = await frame();
      stage.classList.add("seen");
    }
    enable(true);
    const width = byId("left").getBoundingClientRect().width;
    const side = await choice();
    const answered = performance.now() - begun;
    enable(false);
    byId(side).classList.add("chosen");
    await wait(180);
    byId(side).classList.remove("chosen");
    stage.classList.remove("seen");
    return {n: trial.n, side, shown_ms: shown, answer_ms: answered, width, views};
  }

  // ---- the session ----

  function introduce(trial, before) {
    if (!before && trial.practice)
      return say("Practice", "Some pairs to get used to it. Choose the picture that looks more real with the arrow keys, or touch it.",
        "Take all the time you need.");
    if (trial.exposure && (!before || !before.exposure || before.practice !== trial.practice))
      return say(trial.practice ? "Now only for a moment" : "Pictures shown for a moment",
        "When you are ready, press the button. Look at the cross: two pictures appear at once, and vanish. " +
        "Then choose the one that looked more natural.", "If you are not sure, follow your feeling.");
    if (!before || before.practice !== trial.practice)
      return say(before ? "Practice is over" : "Welcome back", "Which of the two pictures looks more real?",
        "Take all the time you need.");
    return Promise.resolve();
  }

  async function run() {
    let state = await source.begin(), before = null;
    while (state.ahead.length) {
      const trial = state.ahead[0];
      byId("count").textContent = trial.practice ? "Practice" : `${state.answered + 1} of ${state.total}`;
      byId("bar").max = state.total;
      byId("bar").value = state.answered;
      state.ahead.forEach(next => { pictures(next).catch(() => {}); });
      await introduce(trial, before);
      before = trial;
      const answer = await ask(trial);
      loading.get(trial.n).then(bitmaps => bitmaps.forEach(bitmap => bitmap.close()));
      loading.delete(trial.n);
      state = await source.send(answer);
      if (trial.practice && state.result)
        await say(state.result === "practice right" ? "That is it" : "Look again",
          state.result === "practice right" ? "The other picture had coloured blots, so it is not a real photo."
            : "The picture you chose had coloured blots, so it is not a real photo. Most pairs are harder than this one.", "");
    }
    byId("bar").value = byId("bar").max;
    source.finish();
  }

  if (byId("copy")) byId("copy").onclick = async () => {
    const link = location.href.split(/[?#]/)[0];
    try { await navigator.clipboard.writeText(link); note("Copied. Keep it to yourself."); } catch { note(link); }
  };
  run().catch(() => note("Something went wrong. Please allow cookies for this page and load it again."));
})();
