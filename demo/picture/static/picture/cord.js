// The cord: the page's WebSocket, which two buttons cut, and the record that survives it.
//
// This file comes before cq's and puts a WebSocket of its own in the place of the browser's:
// while the cord is cut, open ones are closed and no new one comes about. Nothing in cq knows
// of it. What is shown is what the element tells: how it is connected, and the numbers of
// the log lines it heard. They go up by one, whatever happens to the cord.

const SHORT_MS = 1000;
const WORDS = { ws: "Live, by WebSocket.", poll: "By polling.", offline: "Cut off." };

const open = new Set();
let isCut = false;

window.WebSocket = class extends WebSocket {
  constructor(...address) {
    if (isCut) throw new Error("The cord is cut.");
    super(...address);
    open.add(this);
    this.addEventListener("close", () => open.delete(this));
  }
};

function cut() {
  isCut = true;
  for (const socket of open) socket.close();
}

function tie() {
  isCut = false;
}

const panel = document.querySelector("#cord");
const record = { first: 0, last: 0, missing: 0, twice: 0 };

function hear(lines) {
  for (const { seq } of lines) {
    if (!Number.isInteger(seq)) continue; // seen live, and not recorded yet: it comes again
    record.first ||= seq;
    if (record.last && seq > record.last + 1) record.missing += seq - record.last - 1;
    if (seq <= record.last) record.twice += 1;
    record.last = Math.max(record.last, seq);
  }
  const { first, last, missing, twice } = record;
  panel.querySelector(".record").textContent =
    `Lines ${first} to ${last}: ${missing || "none"} missing, ${twice || "none"} twice.`;
}

if (panel) {
  panel.hidden = false;
  const long = panel.querySelector("#cut-long");
  panel.querySelector("#cut-short").addEventListener("click", () => {
    cut();
    setTimeout(() => long.getAttribute("aria-pressed") === "true" || tie(), SHORT_MS);
  });
  long.addEventListener("click", () => {
    const stays = long.getAttribute("aria-pressed") !== "true";
    long.setAttribute("aria-pressed", stays);
    long.textContent = stays ? "Tie it again" : "Leave it cut";
    if (stays) cut();
    else tie();
  });
  document.addEventListener("cq:transport", ({ detail }) => {
    panel.dataset.transport = detail.transport;
    panel.querySelector(".transport").textContent = WORDS[detail.transport];
  });
  document.addEventListener("cq:log", ({ detail }) => hear(detail.lines));
}
