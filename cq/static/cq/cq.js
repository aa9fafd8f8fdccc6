/*
 * <cq-task>: one task of django-cq, live, in any page.
 *
 * What enters are frames of the protocol cq.v1, over one shared WebSocket per page or, where
 * that does not get through, by polling; what leaves is a shadow tree and events. No
 * dependencies, no build, nothing inline: it works under `default-src 'self'`. Whatever a
 * task says reaches the page as text, never as markup.
 */

const PROTOCOL = "cq.v1";
const FIRST_FRAME_MS = 4000;
const PING_MS = 25000;
const SILENCE_MS = 60000;
const LONGEST_WAIT_MS = 15000;
const SOCKET_AGAIN_MS = 60000;
const SLOWEST_POLL_MS = 5000;
const ACK_MS = 100;
const ACK_LINES = 100;
const TAIL = 1000;
const KEPT_LINES = 5000;
const KEPT_NODES = 500;
const REMEMBERED = "cq:transport";

const STATUSES = {
  pending: ["○", "Pending"],
  queued: ["◌", "Queued"],
  running: ["◐", "Running"],
  retry: ["↻", "Retry"],
  waiting: ["◔", "Waiting"],
  success: ["✔", "Success"],
  failure: ["✖", "Failure"],
  incomplete: ["◪", "Incomplete"],
  lost: ["?", "Lost"],
  revoked: ["⊘", "Revoked"],
};
const OVER = new Set(["success", "failure", "incomplete", "lost", "revoked"]);
const LEVELS = [[50, "critical"], [40, "error"], [30, "warning"], [20, "info"], [0, "debug"]];

// --- what is known of one task -------------------------------------------------------------

/** A task as the server tells it: its state, its tree, the number of its last line. */
class Feed {
  constructor(id, token, src, poll, tail) {
    Object.assign(this, { id, token, src, poll, tail });
    this.listeners = new Set();
    this.forget();
  }

  forget() {
    this.state = null;
    this.nodes = new Map();
    this.seq = null;
    this.ended = null;
    this.counts = null;
    this.lines = [];
  }

  /** The frame that asks for everything this feed does not have yet. */
  subscription() {
    const frame = { type: "sub", id: this.id };
    if (this.token) frame.token = this.token;
    if (this.seq === null) frame.tail = this.tail;
    else frame.since = this.seq;
    return frame;
  }

  tell(kind, detail) {
    for (const listener of [...this.listeners]) listener(kind, detail);
  }

  take(frame) {
    if (frame.type === "snap") this.snap(frame);
    else if (frame.type === "log") this.log(frame);
    else if (frame.type === "state") this.patch(frame.nodes, frame);
    else if (frame.type === "end") this.end(frame);
    else if (frame.type === "err") this.fail(frame);
    else if (frame.type === "did" && frame.do === "retry") this.ended = null;
  }

  snap(frame) {
    if (frame.reset) {
      this.lines = [];
      this.tell("reset");
    }
    if (this.seq === null || frame.reset) this.seq = frame.since ?? null;
    this.scopes = frame.scopes;
    this.patch(frame.tree ?? [frame.state], frame);
  }

  log(frame) {
    const fresh = frame.lines.filter((line) => line.seq === null || line.seq > (this.seq ?? 0));
    this.seq = Math.max(this.seq ?? 0, frame.seq ?? 0);
    if (!fresh.length) return;
    this.lines = [...this.lines, ...fresh.filter((line) => line.seq !== null)].slice(-TAIL);
    this.tell("log", fresh);
  }

  patch(nodes, frame = {}) {
    if (frame.truncated) this.counts = frame.counts;
    for (const node of nodes) {
      if (!node) continue;
      const before = this.nodes.get(node.id);
      const after = { ...before, ...node };
      this.nodes.set(node.id, after);
      if (node.id === this.id) {
        this.state = after;
        this.tell("state", { before, after });
      } else {
        this.tell("child", { before, after });
      }
    }
    this.tell("changed");
  }

  end(frame) {
    this.patch([frame.state]);
    if (this.ended) return;
    this.ended = frame;
    this.tell("end", frame);
  }

  fail(frame) {
    if (frame.code === "moved") {
      this.forget();
      this.tell("reset");
    }
    this.tell("error", frame);
  }
}

// --- the ladder: one socket, else polling ----------------------------------------------------

const connections = [];

/** Find, or open, the connection for a feed; one socket cannot watch a task under two tokens. */
function connect(id, token, src, poll, tail) {
  for (const connection of connections) {
    const feed = connection.feeds.get(id);
    if (connection.src !== src) continue;
    if (feed && feed.token === token && feed.tail >= tail) return [connection, feed];
    if (!feed) return [connection, connection.add(new Feed(id, token, src, poll, tail))];
  }
  const connection = new Connection(src);
  connections.push(connection);
  return [connection, connection.add(new Feed(id, token, src, poll, tail))];
}

class Connection {
  constructor(src) {
    this.src = src;
    this.feeds = new Map();
    this.failures = 0;
    this.polls = new Map();
    this.mode = recall() === "poll" ? "poll" : "ws";
    this.after = 0;
    if (this.mode === "poll") this.timer = setTimeout(() => this.open(), SOCKET_AGAIN_MS);
  }

  add(feed) {
    this.feeds.set(feed.id, feed);
    queueMicrotask(() => this.start(feed));
    return feed;
  }

  start(feed) {
    if (feed.ended || !this.feeds.has(feed.id)) return;
    if (this.mode === "poll") this.poll(feed);
    else if (this.socket?.readyState === WebSocket.OPEN) this.send(feed.subscription());
    else this.open();
  }

  remove(feed) {
    if (feed.listeners.size) return;
    this.feeds.delete(feed.id);
    this.stopPolling(feed);
    this.send({ type: "unsub", id: feed.id });
    if (!this.feeds.size) this.close();
  }

  act(feed, action) {
    if (this.mode === "poll") return this.post(feed, action);
    const frame = { type: "act", id: feed.id, do: action };
    if (feed.token) frame.token = feed.token;
    if (!this.send(frame)) {
      this.pending = [...(this.pending ?? []), frame];
      this.open();
    }
  }

  // The socket.

  open() {
    if (this.socket || !(this.feeds.size || this.pending)) return;
    const url = new URL(this.src, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    let socket;
    try {
      socket = new WebSocket(url, PROTOCOL);
    } catch {
      return this.closed(true);
    }
    this.socket = socket;
    this.heard = false;
    const patience = setTimeout(() => socket.close(), FIRST_FRAME_MS);
    socket.onopen = () => {
      for (const feed of this.feeds.values()) if (!feed.ended) this.send(feed.subscription());
      for (const frame of this.pending ?? []) this.send(frame);
      this.pending = null;
      this.send({ type: "ping" });
    };
    socket.onmessage = (event) => {
      clearTimeout(patience);
      if (!this.heard) this.opened();
      this.heardAt = Date.now();
      this.take(JSON.parse(event.data));
    };
    socket.onclose = () => {
      clearTimeout(patience);
      if (this.socket === socket) this.closed(!this.heard);
    };
  }

  opened() {
    this.heard = true;
    this.failures = 0;
    this.after = 0;
    this.setMode("ws");
    for (const feed of this.feeds.values()) this.stopPolling(feed);
    clearInterval(this.pinger);
    this.pinger = setInterval(() => {
      if (Date.now() - this.heardAt > SILENCE_MS) this.socket?.close();
      else this.send({ type: "ping" });
    }, PING_MS);
  }

  closed(failed) {
    this.socket = null;
    clearInterval(this.pinger);
    clearTimeout(this.acker);
    this.acker = null;
    this.failures += failed ? 1 : 0;
    if (![...this.feeds.values()].some((feed) => !feed.ended)) return;
    if (this.failures >= 2) this.setMode("poll");
    else this.announce("offline");
    const backoff = 500 * 2 ** Math.min(this.failures, 5) * (0.5 + Math.random());
    const wait = Math.max(this.after * 1000, Math.min(backoff, LONGEST_WAIT_MS));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), this.mode === "poll" ? SOCKET_AGAIN_MS : wait);
  }

  close() {
    clearTimeout(this.timer);
    clearInterval(this.pinger);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
    connections.splice(connections.indexOf(this), 1);
  }

  send(frame) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  take(frame) {
    if (frame.type === "bye") this.after = frame.after ?? 0;
    const feed = this.feeds.get(frame.id);
    feed?.take(frame);
    if (frame.frame) this.ack(frame);
    if (feed && frame.type === "err" && frame.retryable) {
      setTimeout(() => this.start(feed), 1000 + 1000 * Math.random());
    }
    if (feed && frame.type === "did" && frame.do === "retry") this.start(feed);
  }

  ack(frame) {
    this.lastFrame = frame.frame;
    this.unacked = (this.unacked ?? 0) + (frame.lines?.length ?? 1);
    if (this.unacked >= ACK_LINES) this.sendAck();
    else this.acker ??= setTimeout(() => this.sendAck(), ACK_MS);
  }

  sendAck() {
    clearTimeout(this.acker);
    this.acker = null;
    this.unacked = 0;
    this.send({ type: "ack", frame: this.lastFrame });
  }

  setMode(mode) {
    const changed = this.mode !== mode || mode === "ws";
    this.mode = mode;
    remember(mode);
    if (changed) this.announce(mode);
    if (mode === "poll") for (const feed of this.feeds.values()) this.poll(feed);
  }

  announce(transport) {
    for (const feed of this.feeds.values()) feed.tell("transport", transport);
  }

  // Polling.

  async poll(feed) {
    if (this.polls.has(feed) || feed.ended || !feed.poll) return;
    const poll = { wait: 1000, etag: null };
    this.polls.set(feed, poll);
    while (this.polls.get(feed) === poll) {
      const next = await this.ask(feed, poll);
      if (next === null || this.polls.get(feed) !== poll) break;
      await new Promise((resolve) => (poll.timer = setTimeout(resolve, next)));
    }
    if (this.polls.get(feed) === poll) this.polls.delete(feed);
  }

  stopPolling(feed) {
    const poll = this.polls.get(feed);
    clearTimeout(poll?.timer);
    this.polls.delete(feed);
  }

  /** Ask once; returns the milliseconds until the next question, null for never. */
  async ask(feed, poll) {
    const url = new URL(feed.poll, location.href);
    if (feed.seq !== null) url.searchParams.set("since", feed.seq);
    const headers = { Accept: "application/json" };
    if (feed.token) headers.Authorization = `Bearer ${feed.token}`;
    if (poll.etag) headers["If-None-Match"] = poll.etag;
    try {
      const response = await fetch(url, { headers, credentials: "same-origin", cache: "no-store" });
      if (this.polls.get(feed) !== poll) return null;
      if (response.status === 304) {
        poll.wait = Math.min(poll.wait * 1.5, SLOWEST_POLL_MS);
        return poll.wait;
      }
      const answer = await response.json();
      if (!response.ok) {
        feed.take({ ...answer, id: feed.id, retryable: false });
        return response.status < 500 ? null : SLOWEST_POLL_MS;
      }
      poll.etag = response.headers.get("ETag");
      for (const frame of answer.frames) feed.take(frame);
      poll.wait = answer.next_ms ?? poll.wait;
      return answer.next_ms;
    } catch {
      feed.tell("transport", "offline");
      return SLOWEST_POLL_MS;
    }
  }

  async post(feed, action) {
    const url = new URL(feed.poll.replace(/watch$/, action), location.href);
    const headers = {};
    if (feed.token) headers.Authorization = `Bearer ${feed.token}`;
    const cookie = /(?:^|; )csrftoken=([^;]*)/.exec(document.cookie);
    if (cookie) headers["X-CSRFToken"] = decodeURIComponent(cookie[1]);
    const response = await fetch(url, { method: "POST", headers, credentials: "same-origin" });
    feed.take({ ...(await response.json()), id: feed.id });
    if (response.ok) this.start(feed);
  }
}

function recall() {
  try {
    return sessionStorage.getItem(REMEMBERED);
  } catch {
    return null;
  }
}

function remember(mode) {
  try {
    sessionStorage.setItem(REMEMBERED, mode);
  } catch {
    // Storage may be forbidden; the ladder is then climbed anew on each page.
  }
}

// --- what is shown -------------------------------------------------------------------------

const sheet = new CSSStyleSheet();
sheet.replaceSync(`
  :host { display: block; font: var(--cq-font, inherit); color: var(--body-fg, inherit);
    --_ok: var(--cq-ok, #1a7f4b); --_fail: var(--cq-fail, var(--error-fg, #b3261e));
    --_warn: var(--cq-warn, #8a5a00); --_accent: var(--cq-accent, var(--link-fg, #2563a8));
    --_quiet: var(--body-quiet-color, #666); --_line: var(--hairline-color, #8884); }
  :host([hidden]) { display: none; }
  .head { display: flex; flex-wrap: wrap; gap: .5em; align-items: baseline; }
  .status { white-space: nowrap; font-weight: 600; color: var(--_accent); }
  .is-success .status { color: var(--_ok); }
  .is-failure .status, .is-incomplete .status, .is-lost .status { color: var(--_fail); }
  .is-retry .status, .is-revoked .status { color: var(--_warn); }
  .message { flex: 1 1 8em; min-width: 0; overflow-wrap: anywhere; unicode-bidi: isolate; }
  .offline:empty { display: none; }
  .percent, .offline { font-variant-numeric: tabular-nums; color: var(--_quiet); }
  .bar { height: var(--cq-height, .6em); margin: .35em 0; overflow: hidden;
    border-radius: var(--cq-radius, .3em); background: var(--cq-track, #8883); }
  .fill { height: 100%; width: 0; border-radius: inherit; background: var(--_accent);
    transition: width .25s linear; }
  .is-success .fill { background: var(--_ok); }
  .is-failure .fill, .is-incomplete .fill, .is-lost .fill { background: var(--_fail); }
  .is-revoked .fill { background: var(--_warn); }
  .is-unknown .fill { width: 30%; animation: slide 1.4s ease-in-out infinite alternate; }
  .log { max-height: var(--cq-log-height, 18em); overflow: auto; margin: .35em 0; padding: .4em .6em;
    border: 1px solid var(--_line); border-radius: var(--cq-radius, .3em); line-height: 1.45;
    font: .85em var(--cq-mono, ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace); }
  .log:empty { display: none; }
  .line { display: flex; gap: .8em; }
  .line .text { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 0; unicode-bidi: isolate; }
  .line .number { flex: none; min-width: 3ch; text-align: right; color: var(--_quiet);
    user-select: none; }
  .line.is-unrecorded { opacity: .6; font-style: italic; }
  .line.is-warning .text { color: var(--_warn); }
  .line.is-error .text, .line.is-critical .text { color: var(--_fail); }
  .tree { list-style: none; margin: .35em 0; padding: 0; overflow: auto;
    max-height: var(--cq-tree-height, 24em); }
  .node { display: flex; gap: .5em; align-items: baseline; }
  .node .name { overflow-wrap: anywhere; unicode-bidi: isolate; }
  .node .detail, .more { color: var(--_quiet); }
  .node.is-success .icon { color: var(--_ok); }
  .node.is-failure .icon, .node.is-incomplete .icon, .node.is-lost .icon { color: var(--_fail); }
  .node.is-retry .icon, .node.is-revoked .icon { color: var(--_warn); }
  button { font: inherit; cursor: pointer; }
  .spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  @keyframes slide { from { margin-left: 0; } to { margin-left: 70%; } }
  @media (prefers-reduced-motion: reduce) { .fill { animation: none !important; transition: none; } }
  @media (prefers-color-scheme: dark) { :host { --_ok: var(--cq-ok, #5fd39a);
    --_warn: var(--cq-warn, #e0b050); --_fail: var(--cq-fail, var(--error-fg, #ff8a80));
    --_accent: var(--cq-accent, var(--link-fg, #7ab8ff)); --_quiet: var(--body-quiet-color, #aaa); } }
`);

function make(tag, part, text) {
  const element = document.createElement(tag);
  element.className = part;
  element.setAttribute("part", part);
  if (text !== undefined) element.textContent = text;
  return element;
}

function plain(text) {
  return String(text).replace(/\u001b\[[0-9;?]*[ -/]*[@-~]/g, "");
}

/** The name people know a function by: the last part of a dotted path. */
function shortName(name) {
  return /^[\w.]+$/.test(name ?? "") ? name.split(".").at(-1) : name;
}

function words(value) {
  return (value ?? "").split(/[\s,]+/).filter(Boolean);
}

/** How far a node is, in percent: by its own word, else by its children; null if unknown. */
function percentOf(node) {
  const { progress, children, children_open: open, status } = node;
  if (status === "success") return 100;
  if (progress?.total > 0) return Math.min(100, (100 * progress.done) / progress.total);
  if (children > 0 && (status === "waiting" || OVER.has(status))) {
    return Math.max(0, (100 * (children - open)) / children);
  }
  return OVER.has(status) ? 0 : null;
}

class CQTask extends HTMLElement {
  static observedAttributes = ["task", "id", "token", "show", "actions"];

  #connection;
  #feed;
  #listener = (kind, detail) => this.#hear(kind, detail);
  #parts = {};
  #rows = new Map();
  #unrecorded = [];
  #drawing = false;
  #resolve;

  constructor() {
    super();
    this.attachShadow({ mode: "open" }).adoptedStyleSheets = [sheet];
    this.ended = new Promise((resolve) => (this.#resolve = resolve));
  }

  /** The status word, or null before the first frame. */
  get state() {
    return this.#feed?.state?.status ?? null;
  }

  /** {done, total, percent, message} as last told. */
  get progress() {
    const state = this.#feed?.state;
    return state ? { ...state.progress, percent: percentOf(state) } : null;
  }

  /** The result, once the task has ended and if the token shows it. */
  get result() {
    return this.#feed?.ended?.result;
  }

  revoke() {
    return this.#connection?.act(this.#feed, "revoke");
  }

  retry() {
    return this.#connection?.act(this.#feed, "retry");
  }

  connectedCallback() {
    this.#build();
    this.#attach();
  }

  disconnectedCallback() {
    this.#detach();
  }

  attributeChangedCallback(name, before, after) {
    if (!this.isConnected || before === after || !this.#parts.frame) return;
    this.#detach();
    this.#build();
    this.#attach();
  }

  #attach() {
    const id = (this.getAttribute("task") ?? this.id).toLowerCase();
    if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id)) return;
    const src = this.getAttribute("src") ?? "/cq/ws";
    const poll = this.getAttribute("poll") ?? `/cq/t/${id}/watch`;
    const tail = this.#parts.log ? TAIL : 0;
    [this.#connection, this.#feed] = connect(id, this.getAttribute("token"), src, poll, tail);
    this.#feed.listeners.add(this.#listener);
    const { state, lines, ended } = this.#feed;
    if (lines.length) this.#append(lines);
    if (!state) return;
    this.setAttribute("state", state.status);
    this.#draw();
    if (ended) queueMicrotask(() => this.#end(id, ended));
  }

  #detach() {
    this.#feed?.listeners.delete(this.#listener);
    if (this.#feed) this.#connection.remove(this.#feed);
    this.#feed = this.#connection = undefined;
  }

  #hear(kind, detail) {
    const id = this.#feed.id;
    if (kind === "state") {
      this.#hearState(id, detail);
    } else if (kind === "child") {
      const { id: child, name, status, progress } = detail.after;
      this.#emit("child", { id: child, name, state: status, progress });
    } else if (kind === "log") {
      this.#append(detail);
      this.#emit("log", { id, lines: detail });
    } else if (kind === "reset") {
      this.#parts.log?.replaceChildren();
      this.#unrecorded = [];
    } else if (kind === "transport") {
      this.#parts.offline.textContent = detail === "offline" ? "reconnecting…" : "";
      this.#emit("transport", { transport: detail });
    } else if (kind === "error") {
      this.#hearError(detail);
    } else if (kind === "end") {
      this.#end(id, detail);
    }
    if (kind === "changed" || kind === "end") this.#draw();
  }

  #hearState(id, { before, after }) {
    if (before?.status !== after.status) {
      this.setAttribute("state", after.status);
      this.#emit("state", { id, from: before?.status ?? null, to: after.status });
      this.#parts.spoken.textContent = STATUSES[after.status]?.[1] ?? "";
      this.#dropUnrecorded(after);
    }
    if (after.progress && JSON.stringify(before?.progress) !== JSON.stringify(after.progress)) {
      this.#emit("progress", { id, percent: percentOf(after), ...after.progress });
    }
  }

  #hearError(frame) {
    if (frame.code === "expired") this.#emit("expired", { id: frame.id });
    if (!frame.retryable) this.#parts.message.textContent = frame.message;
    this.#emit("error", { id: frame.id, code: frame.code, message: frame.message });
  }

  #end(id, frame) {
    const { status } = frame.state;
    const detail = { id, status, result: frame.result, error: frame.error };
    this.#emit(status === "success" ? "success" : "failure", detail);
    this.#emit("end", detail);
    this.#resolve(detail);
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(`cq:${name}`, { detail, bubbles: true, composed: true }));
  }

  #build() {
    const show = words(this.getAttribute("show") ?? "bar");
    const frame = make("div", "frame");
    const head = make("div", "head");
    const status = make("span", "status");
    const parts = { frame };
    for (const name of ["icon", "word", "message", "percent", "offline", "spoken"]) {
      parts[name] = make("span", name);
    }
    parts.icon.setAttribute("aria-hidden", "true");
    parts.spoken.setAttribute("role", "status");
    status.append(parts.icon, " ", parts.word);
    head.append(status, parts.message, parts.percent, parts.offline);
    parts.buttons = words(this.getAttribute("actions")).map((action) => this.#button(action));
    head.append(...parts.buttons, parts.spoken);
    frame.append(head);
    if (show.includes("bar")) {
      parts.bar = make("div", "bar");
      parts.bar.setAttribute("role", "progressbar");
      parts.bar.setAttribute("aria-label", this.getAttribute("label") ?? "Progress");
      parts.fill = make("div", "fill");
      parts.bar.append(parts.fill);
      frame.append(parts.bar);
    }
    if (show.includes("tree")) frame.append((parts.tree = make("ul", "tree")));
    if (show.includes("log")) {
      parts.log = make("div", "log");
      parts.log.setAttribute("role", "log");
      parts.log.setAttribute("aria-label", "Log");
      parts.log.tabIndex = 0;
      frame.append(parts.log);
    }
    this.#parts = parts;
    this.#rows = new Map();
    this.#unrecorded = [];
    this.shadowRoot.replaceChildren(frame);
  }

  #button(action) {
    const button = make("button", "button", action === "retry" ? "Retry" : "Revoke");
    button.type = "button";
    button.dataset.action = action;
    button.hidden = true;
    button.addEventListener("click", () => this.#connection?.act(this.#feed, action));
    return button;
  }

  #draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      if (this.#feed?.state) this.#drawState(this.#feed.state);
    });
  }

  #drawState(state) {
    const parts = this.#parts;
    const [icon, word] = STATUSES[state.status] ?? ["", state.status];
    const percent = percentOf(state);
    parts.frame.className = `frame is-${state.status}${percent === null ? " is-unknown" : ""}`;
    parts.icon.textContent = icon;
    parts.word.textContent = word;
    parts.message.textContent =
      state.progress?.message || this.getAttribute("label") || shortName(state.name);
    parts.percent.textContent = percent === null ? "" : `${Math.floor(percent)} %`;
    if (parts.bar) {
      parts.fill.style.width = percent === null ? "" : `${percent}%`;
      if (percent === null) parts.bar.removeAttribute("aria-valuenow");
      else parts.bar.setAttribute("aria-valuenow", Math.floor(percent));
    }
    for (const button of parts.buttons) {
      const right = this.#feed.scopes?.includes(button.dataset.action);
      const useful = button.dataset.action === "retry"
        ? OVER.has(state.status) && state.status !== "success"
        : !OVER.has(state.status);
      button.hidden = !(right && useful);
    }
    if (parts.tree) this.#drawTree();
  }

  #drawTree() {
    const { nodes, counts, id } = this.#feed;
    const below = new Map();
    for (const node of nodes.values()) {
      if (node.id === id) continue;
      const parent = nodes.has(node.parent) ? node.parent : id;
      if (!below.has(parent)) below.set(parent, []);
      below.get(parent).push(node);
    }
    const ordered = [];
    const visit = (parent, depth) => {
      // What follows a predecessor stands behind the others, in the order of the chain.
      const siblings = (below.get(parent) ?? []).sort((a, b) => !!a.previous - !!b.previous);
      for (const node of siblings) {
        if (ordered.length >= KEPT_NODES) return;
        ordered.push(this.#row(node, depth));
        visit(node.id, depth + 1);
      }
    };
    visit(id, 0);
    const all = counts ? counts.reduce((sum, { count }) => sum + count, 0) : nodes.size - 1;
    if (all > ordered.length) ordered.push(make("li", "more", `… and ${all - ordered.length} more`));
    this.#parts.tree.replaceChildren(...ordered);
  }

  #row(node, depth) {
    let row = this.#rows.get(node.id);
    if (!row) {
      row = make("li", "node");
      row.icon = make("span", "icon");
      row.icon.setAttribute("aria-hidden", "true");
      row.name = make("span", "name");
      row.detail = make("span", "detail");
      row.append(row.icon, row.name, row.detail);
      this.#rows.set(node.id, row);
    }
    if (row.node !== node) {
      const [icon, word] = STATUSES[node.status] ?? ["", node.status];
      const percent = OVER.has(node.status) ? null : percentOf(node);
      row.node = node;
      row.className = `node is-${node.status}`;
      row.style.paddingInlineStart = `${depth * 1.2}em`;
      row.icon.textContent = icon;
      row.name.textContent = shortName(node.name);
      row.title = `${node.name} ${node.id}`;
      row.detail.textContent = [
        word,
        percent === null ? "" : `${Math.floor(percent)} %`,
        node.attempt > 1 ? `attempt ${node.attempt}` : "",
        node.progress?.message ?? "",
      ].filter(Boolean).join(" · ");
    }
    return row;
  }

  // The log.

  #append(lines) {
    const { log } = this.#parts;
    if (!log) return;
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
    const fragment = document.createDocumentFragment();
    for (const line of lines) {
      const row = this.#line(line);
      if (line.seq === null) this.#unrecorded.push({ line, row });
      else this.#replaceUnrecorded(line);
      fragment.append(row);
    }
    log.append(fragment);
    while (log.childElementCount > KEPT_LINES) log.firstElementChild.remove();
    if (follows) log.scrollTop = log.scrollHeight;
  }

  #line(line) {
    const level = LEVELS.find(([from]) => line.level >= from)?.[1] ?? "debug";
    const row = make("div", "line");
    row.classList.add(`is-${level}`);
    row.classList.toggle("is-unrecorded", line.seq === null);
    row.title = `${line.at} ${level} ${line.name}`;
    row.append(make("span", "number", line.seq ?? "…"), make("span", "text", plain(line.message)));
    return row;
  }

  /** A line that was shown before it was recorded gives way to the recorded one. */
  #replaceUnrecorded({ task, attempt, message }) {
    const place = this.#unrecorded.findIndex(
      ({ line }) => line.task === task && line.attempt === attempt && line.message === message,
    );
    if (place >= 0) this.#unrecorded.splice(place, 1)[0].row.remove();
  }

  /** What an attempt said and never recorded goes with it. */
  #dropUnrecorded(state) {
    if (!OVER.has(state.status) && state.status !== "retry") return;
    for (const { row } of this.#unrecorded.splice(0)) row.remove();
  }
}

customElements.define("cq-task", CQTask);
