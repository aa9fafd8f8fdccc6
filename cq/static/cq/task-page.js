/*
 * The page of one task, made live: what the server has rendered is patched by the socket.
 *
 * It enters as markup and as the news of `watch()`; the tree, the timeline and the log have
 * files of their own. On a change of status the parts that the server words (the heading, the
 * reason for waiting, the buttons, the data) are asked for again.
 */

import { LogView } from "./task-log.js";
import { Timeline } from "./task-timeline.js";
import { TreeView } from "./task-tree.js";

const page = document.querySelector("[data-task]");
const { watch, STATUSES, OVER, percentOf, etaOf, clock, shortName, fill, levelOf, folded, tally } =
  await import(new URL(page.dataset.script, location.href));
const kit = { STATUSES, OVER, percentOf, clock, shortName, fill, levelOf, folded, tally };
const { task: id, poll, page: pageAddress } = page.dataset;
const skew = Date.parse(page.dataset.now) - Date.now();
const now = () => Date.now() + skew;
const REASON_MS = 2000;

kit.now = now;
kit.address = (task) => pageAddress.replace("00000000-0000-0000-0000-000000000000", task);

// --- parts of the page, each with an address -------------------------------------------------

const panels = [...page.querySelectorAll(".tp-panel")];
const tabs = [...page.querySelectorAll(".tp-tabs a")];

function show(name) {
  const isLine = /^L\d+$/.test(name);
  const wanted = isLine ? "log" : name;
  const hasTree = Number(page.querySelector("[data-count=tree]")?.textContent) > 0;
  const fallback = hasTree ? "tree" : "log";
  const shown = [wanted, fallback, panels[0].id].find((one) => panels.some((panel) => panel.id === one));
  for (const panel of page.querySelectorAll(".tp-panel")) panel.hidden = panel.id !== shown;
  for (const tab of tabs) {
    if (tab.hash === `#${shown}`) tab.setAttribute("aria-current", "true");
    else tab.removeAttribute("aria-current");
  }
  if (shown === "timeline") timeline?.draw();
  if (shown === "log") log?.shown(isLine ? Number(name.slice(1)) : null);
}

const hash = () => decodeURIComponent(location.hash.slice(1));
for (const tab of tabs) {
  tab.addEventListener("click", (event) => {
    event.preventDefault();
    history.replaceState(null, "", tab.hash);
    show(hash());
  });
}
addEventListener("hashchange", () => show(hash()));

// --- the heading ------------------------------------------------------------------------------

const part = (name) => page.querySelector(`[data-part=${name}]`);
// What the server said last of each part, before anything here was put into it.
const said = new Map([...page.querySelectorAll("[data-part]")].map((one) => [one.dataset.part, one.outerHTML]));
const inHead = (name) => part("head").querySelector(`[data-${name}]`);

function drawHead(node) {
  const head = part("head");
  const percent = percentOf(node);
  const eta = etaOf(node);
  head.className = `tp-head is-${node.status}${percent === null ? " is-unknown" : ""}`;
  inHead("sign").textContent = STATUSES[node.status][0];
  inHead("word").textContent = STATUSES[node.status][1];
  inHead("message").textContent = node.progress?.message ?? "";
  inHead("progress").hidden = percent === 0 && OVER.has(node.status);
  inHead("percent").textContent = percent === null ? "" : `${Math.floor(percent)} %`;
  inHead("eta").textContent = eta === null ? "" : `ETA ${clock(eta)}`;
  inHead("fill").setAttribute("width", percent ?? 30);
  if (percent === null) inHead("bar").removeAttribute("aria-valuenow");
  else inHead("bar").setAttribute("aria-valuenow", Math.floor(percent));
  drawElapsed(node);
}

function drawElapsed(node) {
  const began = Date.parse(node.started);
  if (!began) return;
  const seconds = ((node.finished ? Date.parse(node.finished) : now()) - began) / 1000;
  inHead("elapsed").textContent = OVER.has(node.status) && seconds < 60
    ? `${Math.max(0, seconds).toFixed(1)} s`
    : clock(Math.max(0, seconds));
}

/** Moments in the time of whoever looks. */
function localise(root) {
  for (const time of root.querySelectorAll("time[data-moment]")) {
    const moment = new Date(time.dateTime);
    if (!Number.isNaN(moment.getTime())) time.textContent = moment.toLocaleString();
  }
}

let isAsking = false;
let isStale = false;

/** Ask the server again for what it words itself; news that come meanwhile ask once more. */
async function refresh() {
  isStale = true;
  if (isAsking) return;
  isAsking = true;
  while (isStale) {
    isStale = false;
    const answer = await fetch(page.dataset.partAddress, { credentials: "same-origin" }).catch(() => null);
    if (answer?.ok) replaceParts(await answer.text().catch(() => ""));
  }
  isAsking = false;
}

/**
 * Put the parts that have changed in the place of the old: what a reader has unfolded stays so
 * while nothing is new. A link keeps the focus by its address; anything else that has it is
 * left alone.
 */
function replaceParts(markup) {
  const parts = new DOMParser().parseFromString(markup, "text/html");
  for (const fresh of parts.querySelectorAll("[data-part]")) {
    const { part: name } = fresh.dataset;
    const old = part(name);
    const { outerHTML: text } = fresh;
    const focused = old?.contains(document.activeElement) ? document.activeElement : null;
    if (!old || said.get(name) === text || (focused && !focused.matches("a[data-act]"))) continue;
    said.set(name, text);
    fresh.hidden = old.hidden;
    localise(fresh);
    old.replaceWith(document.importNode(fresh, true));
    if (focused) linkTo(focused.href)?.focus();
  }
  if (watched.state) drawHead(watched.state);
}

const linkTo = (address) => [...page.querySelectorAll("a[data-act]")].find((one) => one.href === address);

// --- asking before something is done --------------------------------------------------------------

page.addEventListener("click", async (event) => {
  const link = event.target.closest("a[data-act]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || !window.HTMLDialogElement) return;
  event.preventDefault();
  const answer = await fetch(link.href, { credentials: "same-origin" }).catch(() => null);
  const text = answer?.ok ? await answer.text() : "";
  const asked = new DOMParser().parseFromString(text, "text/html").querySelector("[data-confirm]");
  if (!asked) return location.assign(link.href);
  const dialog = document.createElement("dialog");
  dialog.className = "tp-dialog";
  dialog.append(document.importNode(asked, true));
  dialog.setAttribute("aria-label", link.textContent);
  dialog.querySelector("form").action = link.href;
  const back = dialog.querySelector("[data-back]");
  back.addEventListener("click", (click) => {
    click.preventDefault();
    dialog.close();
  });
  dialog.addEventListener("close", () => {
    dialog.remove();
    // The heading may have been made anew meanwhile, and its links with it.
    linkTo(link.href)?.focus();
  });
  page.append(dialog);
  dialog.showModal();
  back.focus();
});

// --- news ------------------------------------------------------------------------------------------

const treeList = page.querySelector("[data-tree]");
const gantt = page.querySelector("[data-gantt]");
const logBox = page.querySelector("[data-log]");
let watched;
const start = () => {
  const since = log ? { since: Math.max(log.last, Number(page.dataset.seq)) } : {};
  return watch({ id, ...(poll && { poll }), ...since });
};
const tree = treeList && new TreeView(treeList, id, kit);
const timeline = gantt && new Timeline(gantt, id, kit);
const log = logBox && new LogView(page.querySelector("#log"), page.dataset.lines, kit);

let drawing = false;

function draw() {
  if (drawing || !watched.state) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    drawHead(watched.state);
    tree?.draw(watched.nodes);
    if (gantt && !page.querySelector("#timeline").hidden) timeline.draw(watched.nodes);
    else timeline?.keep(watched.nodes);
    page.querySelector("[data-count=attempts]").textContent = watched.state.attempt;
    const count = page.querySelector("[data-count=tree]");
    const all = watched.counts?.reduce((sum, one) => sum + one.count, 0) ?? watched.nodes.size - 1;
    if (count) count.textContent = all;
    const empty = page.querySelector("[data-no-tree]");
    if (empty) empty.hidden = all > 0;
  });
}

const say = document.querySelector("[data-cq-say]");

// --- the pill of the frame: how news come, and a pause for all of it --------------------------------

const pill = document.querySelector("button[data-cq-pill]");
const TRANSPORTS = { ws: ["live", "live"], poll: ["live", "polling"], offline: ["offline", "offline"] };
let isPaused = false;
let isOver = false;

function drawPill(state, word) {
  if (!pill) return;
  pill.hidden = state === "over";
  pill.dataset.cqPill = state;
  pill.querySelector("[data-cq-pill-word]").textContent = word;
  pill.setAttribute("aria-pressed", isPaused);
}

pill?.addEventListener("click", () => {
  if (isOver) return location.reload();
  isPaused = !isPaused;
  if (isPaused) watched.close();
  else follow();
  drawPill(isPaused ? "paused" : "offline", isPaused ? "paused" : "connecting");
});

async function follow() {
  watched = start();
  isOver = false;
  let refused = null;
  let status = page.querySelector("[data-status]").dataset.status;
  for await (const { type, detail } of watched) {
    if (type === "transport") drawPill(...TRANSPORTS[detail.transport]);
    if (type === "log") log?.add(detail.lines);
    if (type === "reset") log?.reload();
    if (type === "error") refused = detail;
    const current = watched.state?.status;
    if (current && current !== status) {
      status = current;
      inHead("why")?.remove();
      said.delete("head");
      if (say) say.textContent = STATUSES[current][1];
      refresh();
    }
    draw();
  }
  if (isPaused) return;
  isOver = true;
  if (refused && !OVER.has(watched.state?.status)) return drawPill("offline", "load again");
  draw();
  refresh();
  drawPill("over", "");
}

setInterval(() => {
  const node = watched?.state;
  if (document.hidden || isPaused || isOver || !node) return;
  if (node.status === "running" || node.status === "waiting") {
    drawElapsed(node);
    if (gantt && !page.querySelector("#timeline").hidden) timeline.draw();
  }
}, 1000);

// The reason for waiting changes without the task: other tasks end, workers come.
setInterval(() => {
  const status = watched?.state?.status;
  if (!document.hidden && !isPaused && !isOver && ["pending", "queued", "retry", "waiting"].includes(status)) refresh();
}, REASON_MS);

localise(page);
page.classList.add("is-live");
const table = page.querySelector("[data-table]");
if (table) table.open = false;
show(hash());
follow();
