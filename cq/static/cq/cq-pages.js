/*
 * cq's own pages, made live. The page is whole without this file; here the parts marked
 * data-live are patched every few seconds with what the server says is new.
 *
 * A patch changes texts and attributes of what is there. It never replaces a control that has
 * the focus, and rows that are hovered, focused or ticked do not move: what is new then waits
 * behind a pill. A hidden tab asks nothing. Nothing from the server is ever run.
 */

const LIVE = "X-CQ-Live";
const SOON_MS = 2000;
const SLOWEST_MS = 10000;
const PAUSED = "cq:paused";
const LOGGED_OUT = "logged out";

// --- words ---------------------------------------------------------------------------------

/** A length of time as the server writes it too (cq/web/pages/words.py). */
function span(seconds) {
  const whole = Math.floor(Math.max(seconds, 0));
  for (const [size, unit, below, smaller] of [
    [86400, "d", 3600, "h"],
    [3600, "h", 60, "m"],
    [60, "m", 1, "s"],
  ]) {
    if (whole >= size) {
      const rest = Math.floor((whole % size) / below);
      return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${smaller}` : ""}`;
    }
  }
  return `${whole} s`;
}

/** Write what a <time> says at this moment. */
function tell(time) {
  const seconds = (Date.now() - Date.parse(time.dateTime)) / 1000;
  let words = span(seconds);
  if ("cqAgo" in time.dataset) {
    words += " ago";
  } else if ("cqIn" in time.dataset) {
    words = seconds < -1 ? `in ${span(-seconds)}` : "now";
  }
  if (time.textContent !== words) {
    time.textContent = words;
  }
}

const TIMES = "time[data-cq-ago], time[data-cq-in], time[data-cq-age]";

function tellAll(root = document) {
  root.querySelectorAll(TIMES).forEach(tell);
}

// --- patches -------------------------------------------------------------------------------

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.dataset?.key : undefined);

/** Whether two nodes are the same thing at two moments. */
function isSame(old, fresh) {
  return (
    old.nodeType === fresh.nodeType && old.nodeName === fresh.nodeName && keyOf(old) === keyOf(fresh)
  );
}

/** Whether somebody is busy in these rows, so that nothing there may move. */
function isBusy(rows) {
  return (
    rows.matches(":hover") ||
    rows.contains(document.activeElement) ||
    rows.querySelector("input:checked") !== null
  );
}

function patchAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    // What the reader opened or ticked is the reader's.
    if (!fresh.hasAttribute(name) && name !== "open") {
      old.removeAttribute(name);
    }
  }
  for (const { name, value } of fresh.attributes) {
    if (name !== "open" && old.getAttribute(name) !== value) {
      old.setAttribute(name, value);
    }
  }
}

function patch(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) {
      old.data = fresh.data;
    }
    return;
  }
  patchAttributes(old, fresh);
  if (old.matches(TIMES)) {
    tell(old);
  } else if (old.matches("[data-rows]") && isBusy(old)) {
    patchRowsInPlace(old, fresh);
  } else {
    patchChildren(old, fresh);
  }
}

function patchChildren(old, fresh) {
  const keyed = new Map();
  for (const child of old.children) {
    if (keyOf(child) !== undefined) {
      keyed.set(keyOf(child), child);
    }
  }
  let at = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const known = keyOf(next) === undefined ? at : keyed.get(keyOf(next));
    if (known && isSame(known, next)) {
      if (known !== at) {
        old.insertBefore(known, at);
      } else {
        at = at.nextSibling;
      }
      patch(known, next);
    } else {
      const made = document.importNode(next, true);
      old.insertBefore(made, at);
      if (made.nodeType === Node.ELEMENT_NODE) {
        tellAll(made);
      }
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

const waiting = new Map();

/** Patch the rows that are shown, and keep the others behind a pill. */
function patchRowsInPlace(old, fresh) {
  const rows = new Map([...fresh.children].map((row) => [keyOf(row), row]));
  let added = rows.size;
  for (const row of old.children) {
    const next = rows.get(keyOf(row));
    if (next) {
      added -= 1;
      patch(row, next);
    }
  }
  if (added) {
    waiting.set(old, fresh);
    showNew(old, added);
  }
}

function showNew(rows, count) {
  const table = rows.closest("table");
  let pill = table.parentElement.querySelector(".cq-new");
  if (!pill) {
    pill = document.createElement("button");
    pill.type = "button";
    pill.className = "cq-new";
    pill.addEventListener("click", () => {
      const fresh = waiting.get(rows);
      waiting.delete(rows);
      pill.remove();
      if (fresh) {
        patchChildren(rows, fresh);
      }
    });
    table.before(pill);
  }
  pill.textContent = `${count} new`;
}

/** Put what the server answered into the page. */
function apply(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    if (next) {
      part.querySelectorAll(".cq-new").forEach((pill) => pill.remove());
      patch(part, next);
    }
  }
  countChosen();
}

// --- asking --------------------------------------------------------------------------------

const pill = document.querySelector("button[data-cq-pill]");
const isLive = document.querySelector("[data-live]") !== null;
let isPaused = sessionStorage.getItem(PAUSED) === "1";
let etag = "";
let pause = SOON_MS;
let timer = 0;
let asking = null;

function show(state, word) {
  const shown = pill?.querySelector("[data-cq-pill-word]");
  if (!pill || (pill.dataset.cqPill === state && shown.textContent === word)) {
    return;
  }
  pill.dataset.cqPill = state;
  shown.textContent = word;
  pill.setAttribute("aria-pressed", String(isPaused));
  pill.title = isPaused ? "Paused. Click, or press p, to go on." : "Click, or press p, to pause.";
  if (word === LOGGED_OUT) {
    pill.title = "Click to log in again.";
  }
}

async function ask() {
  clearTimeout(timer);
  if (isPaused || document.hidden || asking) {
    return;
  }
  asking = new AbortController();
  try {
    const headers = { [LIVE]: "1", ...(etag ? { "If-None-Match": etag } : {}) };
    const response = await fetch(location.href, { headers, signal: asking.signal });
    if (response.status === 200 && !response.redirected) {
      etag = response.headers.get("ETag") || "";
      apply(await response.text());
      pause = SOON_MS;
      show("live", "live");
    } else if (response.status === 304) {
      pause = Math.min(pause * 1.5, SLOWEST_MS);
      show("live", "live");
    } else {
      pause = SLOWEST_MS;
      show("offline", response.redirected ? LOGGED_OUT : "offline");
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      pause = Math.min(pause * 2, SLOWEST_MS);
      show("offline", "offline");
    }
  } finally {
    asking = null;
    timer = setTimeout(ask, pause);
  }
}

function setPaused(paused) {
  isPaused = paused;
  sessionStorage.setItem(PAUSED, paused ? "1" : "0");
  say(paused ? "Paused" : "Live");
  if (paused) {
    clearTimeout(timer);
    asking?.abort();
    show("paused", "paused");
  } else {
    show("live", "live");
    ask();
  }
}

function say(text) {
  const region = document.querySelector("[data-cq-say]");
  if (region) {
    region.textContent = text;
  }
}

// --- what the reader does ------------------------------------------------------------------

let goes = false;

function onKey(event) {
  const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) {
    return;
  }
  const section = goes && document.querySelector(`[data-cq-key="${CSS.escape(event.key)}"]`);
  goes = event.key === "g";
  if (section) {
    section.click();
  } else if (event.key === "/" && document.querySelector("[data-cq-search]")) {
    event.preventDefault();
    document.querySelector("[data-cq-search]").focus();
  } else if (event.key === "p" && isLive) {
    setPaused(!isPaused);
  }
}

/** Say how many rows are ticked, and let the box above them say whether it is all of them. */
function countChosen() {
  const words = document.querySelector("[data-cq-chosen]");
  if (words) {
    const boxes = document.querySelectorAll('input[name="task"]');
    const count = [...boxes].filter((box) => box.checked).length;
    words.textContent = count ? `With ${count} ticked:` : "With the ticked ones:";
    for (const all of document.querySelectorAll("[data-cq-all]")) {
      all.parentElement.hidden = boxes.length === 0;
      all.checked = count > 0 && count === boxes.length;
      all.indeterminate = count > 0 && count < boxes.length;
    }
  }
}

/** The box above the rows ticks all that are shown, or none. */
function chooseAll({ target }) {
  if (target.matches("[data-cq-all]")) {
    for (const box of document.querySelectorAll('input[name="task"]')) {
      box.checked = target.checked;
    }
  }
  countChosen();
}

const THEMES = { auto: ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };

function startTheme(button) {
  const write = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.firstElementChild.textContent = THEMES[theme][0];
    button.setAttribute("aria-label", `Theme: ${THEMES[theme][1]}`);
  };
  write(document.documentElement.dataset.theme || "auto");
  button.hidden = false;
  button.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const now = names.indexOf(document.documentElement.dataset.theme);
    const next = names[(now + 1) % names.length];
    localStorage.setItem("theme", next);
    write(next);
  });
}

document.addEventListener("keydown", onKey);
document.addEventListener("change", chooseAll);
countChosen();
document.querySelectorAll("[data-cq-theme]").forEach(startTheme);
tellAll();
if (isLive && pill) {
  pill.hidden = false;
  pill.addEventListener("click", () => {
    if (pill.textContent.trim() === LOGGED_OUT) {
      location.reload();
    } else {
      setPaused(!isPaused);
    }
  });
  show(isPaused ? "paused" : "live", isPaused ? "paused" : "live");
  document.addEventListener("visibilitychange", () => (document.hidden ? asking?.abort() : ask()));
  timer = setTimeout(ask, pause);
  setInterval(() => document.hidden || tellAll(), 1000);
}
