/*
 * <cq-task>: one task of django-cq, live, in any page; `watch()` is the same without an element.
 *
 * What enters are frames of the protocol cq.v1, over one shared WebSocket per page or, where
 * that does not get through, by polling; what leaves is a shadow tree and events. No
 * dependencies, no build, nothing inline: it works under `default-src 'self'`. Whatever a
 * task says reaches the page as text, never as markup. A hidden tab watches nothing.
 */

const PROTOCOL = "cq.v1";
const FIRST_FRAME_MS = 4000;
const PING_MS = 25000;
const SILENCE_MS = 60000;
const LONGEST_WAIT_MS = 15000;
const SOCKET_AGAIN_MS = 60000;
const SLOWEST_POLL_MS = 5000;
const HIDDEN_MS = 5000;
const RENEW_MS = 10000;
const SPEECH_MS = 10000;
const ACK_MS = 100;
const ACK_LINES = 100;
const TAIL = 1000;
const KEPT_LINES = 5000;
const KEPT_NODES = 500;
const FOLD_ABOVE = 20;
const FAILED_SHOWN = 5;
const REMEMBERED = "cq:transport";

export const STATUSES = {
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
const COUNTED = { success: "ok", failure: "failed", retry: "in retry" };
export const OVER = new Set(["success", "failure", "incomplete", "lost", "revoked"]);
const FAILED = new Set(["failure", "incomplete", "lost"]);
const LEVELS = [[50, "critical"], [40, "error"], [30, "warning"], [20, "info"], [0, "debug"]];

// --- what is known of one task

class Feed {
  constructor(options) {
    Object.assign(this, options);
    this.listeners = new Set();
    this.renewed = -Infinity;
    this.forget();
    this.seq = options.since ?? null;
  }

  /** Whether nothing is to be asked: it is over, or nobody looks. */
  get rests() {
    return this.ended || (document.hidden && !this.background);
  }

  /** Let a listener in; what is known is told to it as if it had just come. */
  join(listener) {
    this.listeners.add(listener);
    if (!this.state) return;
    queueMicrotask(() => {
      if (!this.listeners.has(listener) || !this.state) return;
      listener("state", { after: this.state });
      for (const node of this.nodes.values()) {
        if (node !== this.state) listener("child", { after: node });
      }
      if (this.lines.length) listener("log", this.lines);
      listener("changed");
      if (this.ended) listener("end", this.ended);
    });
  }

  forget() {
    this.state = null;
    this.nodes = new Map();
    this.seq = null;
    this.ended = null;
    this.counts = null;
    this.lines = [];
  }

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

// --- the ladder: one socket, else polling

const connections = [];

// One socket cannot watch a task under two tokens.
function connect(options) {
  for (const connection of connections) {
    const feed = connection.feeds.get(options.id);
    if (connection.src !== options.src) continue;
    const hasLines = feed?.tail >= options.tail || (feed?.scopes && !feed.scopes.includes("log"));
    if (feed?.token === options.token && hasLines) {
      feed.background ||= options.background;
      return [connection, feed];
    }
    if (!feed) return [connection, connection.add(new Feed(options))];
  }
  const connection = new Connection(options.src);
  connections.push(connection);
  return [connection, connection.add(new Feed(options))];
}

let hiding;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (!document.hidden) for (const connection of [...connections]) connection.wake();
  else hiding = setTimeout(() => connections.forEach((one) => one.rest()), HIDDEN_MS);
});

class Connection {
  constructor(src) {
    this.src = src;
    this.feeds = new Map();
    this.failures = 0;
    this.polls = new Map();
    this.mode = recall() === "poll" ? "poll" : "ws";
    this.after = 0;
    if (this.mode === "poll") this.openLater(SOCKET_AGAIN_MS);
  }

  add(feed) {
    this.feeds.set(feed.id, feed);
    queueMicrotask(() => this.start(feed));
    return feed;
  }

  start(feed) {
    if (feed.rests || this.feeds.get(feed.id) !== feed) return;
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

  rest() {
    const feeds = [...this.feeds.values()];
    for (const feed of feeds.filter((one) => one.rests && !one.ended)) {
      this.stopPolling(feed);
      this.send({ type: "unsub", id: feed.id });
    }
    if (feeds.every((feed) => feed.rests)) this.drop();
  }

  wake() {
    for (const feed of this.feeds.values()) this.start(feed);
    if (this.mode === "poll" && !this.socket) this.openLater(SOCKET_AGAIN_MS);
  }

  openLater(wait) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), wait);
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

  open() {
    if (this.socket || !(this.pending || [...this.feeds.values()].some((one) => !one.rests))) return;
    const url = new URL(this.src, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    let socket;
    try {
      socket = new WebSocket(url, PROTOCOL);
    } catch {
      return this.closed(true, "refused by the browser");
    }
    this.socket = socket;
    this.heard = false;
    const patience = setTimeout(() => socket.close(), FIRST_FRAME_MS);
    socket.onopen = () => {
      for (const feed of this.feeds.values()) if (!feed.rests) this.send(feed.subscription());
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
    socket.onclose = (event) => {
      clearTimeout(patience);
      if (this.socket === socket) this.closed(!this.heard, this.reason ?? `closed, ${event.code}`);
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

  closed(failed, reason) {
    this.socket = this.reason = null;
    clearInterval(this.pinger);
    clearTimeout(this.acker);
    this.acker = null;
    this.failures += failed ? 1 : 0;
    if (![...this.feeds.values()].some((feed) => !feed.rests)) return;
    if (this.failures >= 2) this.setMode("poll", reason);
    else this.announce("offline", reason);
    const backoff = 500 * 2 ** Math.min(this.failures, 5) * (0.5 + Math.random());
    const wait = Math.max(this.after * 1000, Math.min(backoff, LONGEST_WAIT_MS));
    this.openLater(this.mode === "poll" ? SOCKET_AGAIN_MS : wait);
  }

  drop() {
    clearTimeout(this.timer);
    clearInterval(this.pinger);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  close() {
    this.drop();
    const place = connections.indexOf(this);
    if (place >= 0) connections.splice(place, 1);
  }

  send(frame) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  take(frame) {
    if (frame.type === "bye") {
      this.after = frame.after ?? 0;
      this.reason = frame.reason;
    }
    const feed = this.feeds.get(frame.id);
    if (feed) this.deliver(feed, frame);
    if (frame.frame) this.ack(frame);
    if (feed && frame.type === "err" && frame.retryable) {
      setTimeout(() => this.start(feed), 1000 + 1000 * Math.random());
    }
    if (feed && frame.type === "did" && frame.do === "retry") this.start(feed);
  }

  deliver(feed, frame) {
    const renewable = feed.refresh && Date.now() - feed.renewed > RENEW_MS;
    if (frame.type === "err" && frame.code === "expired" && renewable) this.renew(feed, frame);
    else feed.take(frame);
  }

  async renew(feed, frame) {
    feed.renewed = Date.now();
    try {
      const response = await post(feed.refresh, feed.token);
      feed.token = response.ok && (await response.json()).token;
    } catch {
      feed.token = null;
    }
    if (feed.token) this.start(feed);
    else feed.take(frame);
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

  setMode(mode, reason) {
    const changed = this.mode !== mode || mode === "ws";
    this.mode = mode;
    remember(REMEMBERED, mode);
    if (changed) this.announce(mode, reason);
    if (mode === "poll") for (const feed of this.feeds.values()) this.poll(feed);
  }

  announce(transport, reason = "") {
    for (const feed of this.feeds.values()) feed.tell("transport", { transport, reason });
  }

  async poll(feed) {
    if (this.polls.has(feed) || feed.rests || !feed.poll) return;
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
        this.deliver(feed, { ...answer, id: feed.id, retryable: false });
        return response.status < 500 ? null : SLOWEST_POLL_MS;
      }
      poll.etag = response.headers.get("ETag");
      for (const frame of answer.frames) feed.take(frame);
      poll.wait = answer.next_ms ?? poll.wait;
      return answer.next_ms;
    } catch {
      feed.tell("transport", { transport: "offline", reason: "no answer" });
      return SLOWEST_POLL_MS;
    }
  }

  async post(feed, action) {
    const response = await post(feed.poll.replace(/watch$/, action), feed.token);
    this.deliver(feed, { ...(await response.json()), id: feed.id });
    if (response.ok) this.start(feed);
  }
}

function post(address, token) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  const cookie = /(?:^|; )csrftoken=([^;]*)/.exec(document.cookie);
  if (cookie) headers["X-CSRFToken"] = decodeURIComponent(cookie[1]);
  const url = new URL(address, location.href);
  return fetch(url, { method: "POST", headers, credentials: "same-origin" });
}

function recall(key = REMEMBERED) {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

function remember(key, value) {
  try {
    sessionStorage.setItem(key, value);
  } catch {
    // Storage may be forbidden.
  }
}

// --- what is told

/** What a feed's news are called outside. */
function* eventsOf(feed, kind, detail) {
  const { id } = feed;
  if (kind === "state") {
    const { before, after } = detail;
    const { status: to, progress } = after;
    const at = after.finished ?? (to === "running" ? after.started : null);
    if (before?.status !== to) {
      yield ["state", { id, from: before?.status ?? null, to, at: at ?? new Date().toISOString() }];
    }
    if (progress && JSON.stringify(before?.progress) !== JSON.stringify(progress)) {
      yield ["progress", { id, ...progress, percent: percentOf(after), eta: etaOf(after) }];
    }
  } else if (kind === "child") {
    const { id: child, name, status, progress } = detail.after;
    yield ["child", { id: child, name, state: status, progress }];
  } else if (kind === "log") {
    yield ["log", { id, lines: detail }];
  } else if (kind === "transport") {
    yield ["transport", { id, ...detail }];
  } else if (kind === "error") {
    const { code, message } = detail;
    if (code === "expired") yield ["expired", { id }];
    yield ["error", { id, code, message }];
  } else if (kind === "end") {
    const { state, result, error } = detail;
    const duration = state.started ? (Date.parse(state.finished) - Date.parse(state.started)) / 1000 : null;
    const end = { id, status: state.status, result, error, duration };
    yield [state.status === "success" ? "success" : "failure", end];
    yield ["end", end];
  }
}

/**
 * Watch a task without an element: `for await (const { type, detail } of watch({ id, token }))`.
 *
 * The events are those of <cq-task> without their "cq:". The loop ends after "end", or when
 * nothing can follow; `close()` ends it at once.
 */
export function watch({ id, token = null, src = "/cq/ws", poll = `/cq/t/${id}/watch`, ...rest }) {
  const [connection, feed] = connect({ id, token, src, poll, tail: TAIL, ...rest });
  const news = [];
  let wake = () => {};
  let over = false;
  const finish = () => {
    over = true;
    feed.listeners.delete(listener);
    connection.remove(feed);
    wake();
  };
  const listener = (kind, detail) => {
    if (kind === "reset" || kind === "changed") news.push({ type: kind, detail: { id } });
    for (const [type, told] of eventsOf(feed, kind, detail)) news.push({ type, detail: told });
    const refused = kind === "error" && !detail.retryable && detail.code !== "failed";
    if (kind === "end" || refused) finish();
    wake();
  };
  feed.join(listener);
  return {
    get state() { return feed.state; },
    get nodes() { return feed.nodes; },
    get counts() { return feed.counts; },
    get scopes() { return feed.scopes ?? []; },
    revoke: () => connection.act(feed, "revoke"),
    retry: () => connection.act(feed, "retry"),
    close: finish,
    async *[Symbol.asyncIterator]() {
      try {
        while (news.length || !over) {
          if (news.length) yield news.shift();
          else await new Promise((resolve) => (wake = resolve));
        }
      } finally {
        if (!over) finish();
      }
    },
  };
}

// --- what is shown

const sheet = new CSSStyleSheet();
sheet.replaceSync(`
  :host { display: block; font: var(--cq-font, inherit); color: var(--body-fg, inherit);
    --_ok: var(--cq-ok, light-dark(#1a7f4b, #5fd39a)); --_warn: var(--cq-warn, light-dark(#8a5a00, #e0b050));
    --_fail: var(--cq-fail, var(--error-fg, light-dark(#b3261e, #ff8a80)));
    --_accent: var(--cq-accent, var(--link-fg, light-dark(#2563a8, #7ab8ff)));
    --_quiet: var(--body-quiet-color, light-dark(#5f6670, #aab)); --_line: var(--hairline-color, #8884);
    --_round: var(--cq-radius, .3em);
    --_mono: .85em/1.45 var(--cq-mono, ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace); }
  [hidden], :host([hidden]), .log:empty, .tree:empty, .offline:empty, .eta:empty { display: none; }
  .head { display: flex; flex-wrap: wrap; gap: .1em .6em; align-items: baseline; }
  .status { white-space: nowrap; font-weight: 600; }
  .status, .is-running .icon, .is-waiting .icon { color: var(--_accent); }
  .is-success .status, .is-success > .icon { color: var(--_ok); }
  .is-failure .status, .is-incomplete .status, .is-lost .status, .is-failure > .icon,
  .is-incomplete > .icon, .is-lost > .icon { color: var(--_fail); }
  .is-retry .status, .is-revoked .status, .is-retry > .icon, .is-revoked > .icon { color: var(--_warn); }
  .message { flex: 1 1 8em; min-width: 0; overflow-wrap: anywhere; unicode-bidi: isolate; }
  .percent, .eta, .offline { font-variant-numeric: tabular-nums; color: var(--_quiet); }
  .bar { height: var(--cq-height, .6em); margin: .35em 0; overflow: hidden;
    border-radius: var(--_round); background: var(--cq-track, #8883); }
  .fill { height: 100%; width: 0; border-radius: inherit; background: var(--_accent);
    transition: width .25s linear; }
  .is-success .fill { background: var(--_ok); }
  .is-failure .fill, .is-incomplete .fill, .is-lost .fill { background: var(--_fail); }
  .is-revoked .fill { background: var(--_warn); }
  .is-unknown .fill { width: 30%; animation: slide 1.4s ease-in-out infinite alternate; }
  .log, .outcome { max-height: var(--cq-log-height, 18em); overflow: auto; margin: .35em 0; padding: .4em .6em;
    border: 1px solid var(--_line); border-radius: var(--_round); font: var(--_mono); }
  .outcome { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
  .error { border-color: var(--_fail); }
  .line { display: flex; gap: .8em; }
  .text { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 0; unicode-bidi: isolate; }
  .number { flex: none; min-width: 3ch; text-align: right; color: var(--_quiet); user-select: none; }
  .is-unrecorded { opacity: .75; font-style: italic; }
  .is-warning .text { color: var(--_warn); }
  .is-error .text, .is-critical .text { color: var(--_fail); }
  .tree { list-style: none; margin: .35em 0; padding: 0; overflow: auto;
    max-height: var(--cq-tree-height, 24em); }
  .node { display: flex; flex-wrap: wrap; gap: 0 .5em; align-items: baseline; }
  .name { overflow-wrap: anywhere; unicode-bidi: isolate; }
  .detail, .more { color: var(--_quiet); }
  button { font: inherit; cursor: pointer; }
  .fold { padding: 0; border: 0; background: none; color: inherit; text-align: start; }
  .fold::before { content: "▸ " / ""; } .fold[aria-expanded=true]::before { content: "▾ " / ""; }
  :focus-visible { outline: 2px solid var(--_accent); outline-offset: 1px; }
  .spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  @keyframes slide { from { margin-left: 0; } to { margin-left: 70%; } }
  @media (prefers-reduced-motion: reduce) { .fill { animation: none !important; transition: none; } }
  @media (forced-colors: active) { .bar { border: 1px solid; } .fill { background: Highlight !important; } }
`);

/** Fill a span with a log line's text; its colours come from a file of their own. */
export function fill(span, message) {
  span.textContent = message;
  if (!message.includes("\u001b")) return;
  span.textContent = message.replace(/\u001b(\[[0-9;:?]*[ -/]*[@-~])?/g, "");
  const file = new URL("./cq-ansi.js", import.meta.url);
  import(file).then(({ ansi }) => span.replaceChildren(...ansi(message)), () => {});
}

function make(tag, part, text) {
  const element = document.createElement(tag);
  if (part) {
    element.className = part;
    element.setAttribute("part", part);
  }
  if (text !== undefined) element.textContent = text;
  return element;
}

export function shortName(name) {
  return /^[\w.]+$/.test(name ?? "") ? name.split(".").at(-1) : name;
}

const BOXES = [
  ["error", "pre", "Error"],
  ["result", "pre", "Result"],
  ["tree", "ul", "Subtasks"],
  ["log", "div", "Log"],
];

function words(value) {
  return (value ?? "").split(/[\s,]+/).filter(Boolean);
}

/** Percent, by a node's own word or else by its children; null if unknown. */
export function percentOf(node) {
  const { progress, children, children_open: open, status } = node;
  if (status === "success") return 100;
  if (progress?.total > 0) return Math.min(100, (100 * progress.done) / progress.total);
  if (children > 0 && (status === "waiting" || OVER.has(status))) {
    return Math.max(0, (100 * (children - open)) / children);
  }
  return OVER.has(status) ? 0 : null;
}

/** Seconds to go at the speed so far; null while nobody can tell. */
export function etaOf(node) {
  const percent = percentOf(node);
  const elapsed = (Date.now() - Date.parse(node.started)) / 1000;
  if (OVER.has(node.status) || !(percent >= 2) || !(elapsed > 2)) return null;
  return Math.round((elapsed * (100 - percent)) / percent);
}

/** Seconds as 0:07 or 3:05:00. */
export function clock(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  const rest = String(Math.floor(seconds % 60)).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

export function levelOf(line) {
  return LEVELS.find(([from]) => line.level >= from)?.[1] ?? "debug";
}

/** "3 failed · 300 ok" */
export function tally(nodes) {
  const counts = new Map();
  for (const { status } of nodes) counts.set(status, (counts.get(status) ?? 0) + 1);
  const known = Object.keys(STATUSES).reverse().filter((status) => counts.has(status));
  return known.map((status) => `${counts.get(status)} ${COUNTED[status] ?? status}`).join(" · ");
}

/** Siblings in order, many of one function as one entry. */
export function folded(siblings) {
  const groups = new Map();
  for (const node of siblings) groups.set(node.name, [...(groups.get(node.name) ?? []), node]);
  const many = (node) => groups.get(node.name).length > FOLD_ABOVE;
  const entries = [];
  for (const node of siblings) {
    const nodes = groups.get(node.name);
    if (!many(node)) entries.push({ node });
    else if (nodes[0] === node) entries.push({ name: node.name, nodes });
  }
  return entries;
}

class CQTask extends HTMLElement {
  static observedAttributes = ["task", "id", "token", "show", "actions"];

  #connection;
  #feed;
  #listener = (kind, detail) => this.#hear(kind, detail);
  #parts = {};
  #rows = new Map();
  #open = new Set();
  #unrecorded = [];
  #drawing = false;
  #told = "";
  #spokeAt = 0;
  #appendedAt = 0;
  #result;
  #words = {};
  #resolve;

  constructor() {
    super();
    this.attachShadow({ mode: "open" }).adoptedStyleSheets = [sheet];
    this.#promise();
  }

  get state() {
    return this.#feed?.state?.status ?? null;
  }

  /** {done, total, percent, message, eta} as last told. */
  get progress() {
    const state = this.#feed?.state;
    return state ? { ...state.progress, percent: percentOf(state), eta: etaOf(state) } : null;
  }

  get result() {
    return this.#result;
  }

  revoke() {
    return this.#connection?.act(this.#feed, "revoke");
  }

  retry() {
    return this.#connection?.act(this.#feed, "retry");
  }

  /** Stop watching; what is shown stays. */
  pause() {
    this.#detach();
  }

  /** Ask again for what is missing, also after `pause()`. */
  refresh() {
    if (this.#feed) this.#connection.start(this.#feed);
    else this.#attach();
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

  #promise() {
    this.ended = new Promise((resolve) => (this.#resolve = resolve));
  }

  #attach() {
    const id = (this.getAttribute("task") ?? this.id).toLowerCase();
    if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id)) return;
    this.#parts.log?.replaceChildren();
    [this.#connection, this.#feed] = connect({
      id,
      token: this.getAttribute("token"),
      src: this.getAttribute("src") ?? "/cq/ws",
      poll: this.getAttribute("poll") ?? `/cq/t/${id}/watch`,
      refresh: this.getAttribute("refresh-url"),
      background: this.hasAttribute("background"),
      tail: this.#parts.log ? TAIL : 0,
    });
    this.#feed.join(this.#listener);
  }

  #detach() {
    this.#feed?.listeners.delete(this.#listener);
    if (this.#feed) this.#connection.remove(this.#feed);
    this.#feed = this.#connection = undefined;
  }

  #hear(kind, detail) {
    if (kind === "end" && !this.#isNew(detail.state)) return this.#draw();
    if (kind === "state" && detail.before?.status !== detail.after.status) this.#enter(detail.after);
    else if (kind === "log") this.#append(detail);
    else if (kind === "reset") this.#clear();
    else if (kind === "transport") {
      this.#parts.offline.textContent = detail.transport === "offline" ? this.#say("reconnecting…") : "";
    } else if (kind === "error" && !detail.retryable) {
      if (detail.code === "failed") this.#parts.message.textContent = detail.message;
      else this.#stop();
    }
    if (kind === "end") this.#show(detail);
    for (const [name, told] of eventsOf(this.#feed, kind, detail)) {
      this.dispatchEvent(new CustomEvent(`cq:${name}`, { detail: told, bubbles: true, composed: true }));
      if (name === "end") this.#finish(told, detail.state);
    }
    if (kind === "changed" || kind === "end") this.#draw();
  }

  /** Say that nothing more will come, and offer nothing. */
  #stop() {
    const parts = this.#parts;
    parts.frame.classList.remove("is-unknown");
    parts.offline.textContent = this.#say("Load the page again.");
    for (const button of parts.buttons) button.hidden = true;
  }

  /** Whether this end was not told yet. */
  #isNew({ id, attempt, finished }) {
    const key = `${id} ${attempt} ${finished}`;
    const fresh = this.#told !== key;
    this.#told = key;
    return fresh;
  }

  #enter(state) {
    if (OVER.has(this.getAttribute("state")) && !OVER.has(state.status) && this.#told) this.#promise();
    this.#live ||= !OVER.has(state.status) || !OVER.has(this.getAttribute("state") ?? "success");
    this.setAttribute("state", state.status);
    this.#speak(this.#word(state.status));
    this.#dropUnrecorded(state);
  }

  #live = false;

  #show({ result, error }) {
    this.#result = result;
    const parts = this.#parts;
    if (parts.error) parts.error.textContent = error ?? "";
    if (parts.result) parts.result.textContent = result == null ? "" : JSON.stringify(result, null, 2);
  }

  #finish(end, state) {
    this.#resolve(end);
    const [verb, ...rest] = (this.getAttribute("on-success") ?? "").split(":");
    if (!verb || end.status !== "success" || !this.#live) return;
    if (verb === "remove") return this.remove();
    // Once an end: a page out of a cache would load itself for ever.
    const key = `cq:${state.id} ${state.finished}`;
    if (recall(key)) return;
    remember(key, verb);
    const url = new URL(rest.join(":"), location.href);
    if (verb === "reload") location.reload();
    else if (verb === "redirect" && url.protocol.startsWith("http")) location.assign(url);
  }

  #say(text) {
    return this.#words[text] ?? text;
  }

  #word(status) {
    return this.#say(STATUSES[status]?.[1] ?? status);
  }

  #speak(text) {
    this.#spokeAt = Date.now();
    this.#parts.spoken.textContent = text;
  }

  #build() {
    try {
      this.#words = JSON.parse(this.getAttribute("words") ?? "{}");
    } catch {
      this.#words = {};
    }
    const show = words(this.getAttribute("show") ?? "bar");
    const frame = make("div", "frame");
    const head = make("div", "head");
    const status = make("span", "status");
    const parts = { frame, slots: {} };
    for (const name of ["icon", "word", "message", "percent", "eta", "offline", "spoken"]) {
      parts[name] = make("span", name);
    }
    parts.icon.setAttribute("aria-hidden", "true");
    parts.spoken.setAttribute("role", "status");
    status.append(parts.icon, " ", parts.word);
    const label = make("slot");
    label.name = "label";
    label.append(parts.message);
    head.append(status, label, parts.percent, parts.eta, parts.offline);
    parts.buttons = words(this.getAttribute("actions")).map((action) => this.#button(action));
    head.append(...parts.buttons, parts.spoken);
    frame.append(head);
    if (show.includes("bar")) {
      parts.bar = make("div", "bar");
      parts.bar.setAttribute("role", "progressbar");
      parts.bar.setAttribute("aria-label", this.getAttribute("label") ?? this.#say("Progress"));
      parts.fill = make("div", "fill");
      parts.bar.append(parts.fill);
      frame.append(parts.bar);
    }
    for (const name of ["queued", "success", "failure"]) {
      const slot = (parts.slots[name] = make("slot"));
      slot.name = name;
      slot.hidden = true;
      frame.append(slot);
    }
    for (const [name, tag, label] of BOXES) {
      if (!show.includes(name)) continue;
      const box = (parts[name] = make(tag, name));
      box.setAttribute("aria-label", this.#say(label));
      box.tabIndex = 0;
      if (name === "log") box.setAttribute("role", "log");
      if (tag === "pre") {
        box.classList.add("outcome");
        box.setAttribute("role", "group");
        box.hidden = true;
      }
      frame.append(box);
    }
    this.#parts = parts;
    this.#rows = new Map();
    this.#unrecorded = [];
    this.shadowRoot.replaceChildren(frame);
    const known = this.getAttribute("state");
    if (known) this.#drawStatus(known, this.getAttribute("label") ?? "");
  }

  #button(action) {
    const button = make("button", "button", this.#say(action === "retry" ? "Retry" : "Revoke"));
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

  #drawStatus(status, message, isUnknown = !OVER.has(status)) {
    const parts = this.#parts;
    parts.frame.className = `frame is-${status}${isUnknown ? " is-unknown" : ""}`;
    parts.icon.textContent = STATUSES[status]?.[0] ?? "";
    parts.word.textContent = this.#word(status);
    parts.message.textContent = message;
    if (parts.fill) parts.fill.style.width = status === "success" ? "100%" : "";
    const over = OVER.has(status) && (status === "success" ? "success" : "failure");
    const phase = over || (["pending", "queued"].includes(status) && "queued");
    for (const [name, slot] of Object.entries(parts.slots)) slot.hidden = name !== phase;
  }

  #drawState(state) {
    const parts = this.#parts;
    const { status, progress } = state;
    const percent = percentOf(state);
    const label = this.getAttribute("label") || shortName(state.name);
    this.#drawStatus(status, progress?.message || label, percent === null);
    const known = percent === null ? "" : `${Math.floor(percent)} %`;
    const eta = etaOf(state);
    parts.percent.textContent = known;
    parts.eta.textContent = eta === null ? "" : `ETA ${clock(eta)}`;
    if (known && !OVER.has(status) && Date.now() - this.#spokeAt > SPEECH_MS) {
      this.#speak(`${known} ${progress?.message ?? ""}`);
    }
    if (parts.bar) {
      parts.fill.style.width = percent === null ? "" : `${percent}%`;
      if (percent === null) parts.bar.removeAttribute("aria-valuenow");
      else parts.bar.setAttribute("aria-valuenow", Math.floor(percent));
    }
    for (const button of parts.buttons) {
      const right = this.#feed.scopes?.includes(button.dataset.action);
      const useful = button.dataset.action === "retry"
        ? OVER.has(status) && status !== "success"
        : !OVER.has(status);
      button.hidden = !(right && useful);
    }
    for (const box of [parts.error, parts.result]) {
      if (box) box.hidden = !(OVER.has(status) && box.textContent);
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
    let left = 0;
    const place = (node, depth) => {
      if (ordered.length >= KEPT_NODES) return left++;
      ordered.push(this.#row(node, depth));
      visit(node.id, depth + 1);
    };
    const visit = (parent, depth) => {
      // What follows a predecessor stands behind the others.
      const siblings = (below.get(parent) ?? []).sort((a, b) => !!a.previous - !!b.previous);
      for (const { node, nodes: many, name } of folded(siblings)) {
        if (node) {
          place(node, depth);
          continue;
        }
        const key = `${parent} ${name}`;
        const isOpen = this.#open.has(key);
        ordered.push(this.#fold(key, name, many, depth));
        const failed = many.filter((one) => FAILED.has(one.status)).slice(0, FAILED_SHOWN);
        for (const one of isOpen ? many : failed) place(one, depth + 1);
      }
    };
    visit(id, 0);
    const all = counts ? counts.reduce((sum, { count }) => sum + count, 0) : nodes.size - 1;
    left = Math.max(left, all - nodes.size + 1);
    if (left > 0) ordered.push(make("li", "more", `… and ${left} more`));
    // A row in its place may have the focus.
    const { tree } = this.#parts;
    ordered.forEach((row, at) => tree.children[at] === row || tree.insertBefore(row, tree.children[at]));
    while (tree.childElementCount > ordered.length) tree.lastElementChild.remove();
  }

  #fold(key, name, many, depth) {
    let row = this.#rows.get(key);
    if (!row) {
      row = make("li", "node");
      row.button = make("button", "fold");
      row.button.type = "button";
      row.button.addEventListener("click", () => {
        if (!this.#open.delete(key)) this.#open.add(key);
        this.#draw();
      });
      row.detail = make("span", "detail");
      row.append(row.button, row.detail);
      row.style.paddingInlineStart = `${depth * 1.2}em`;
      this.#rows.set(key, row);
    }
    row.button.textContent = `${shortName(name)} × ${many.length}`;
    row.button.setAttribute("aria-expanded", this.#open.has(key));
    row.detail.textContent = tally(many);
    return row;
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
    row.style.paddingInlineStart = `${depth * 1.2}em`;
    if (row.node !== node) {
      const percent = OVER.has(node.status) ? null : percentOf(node);
      row.node = node;
      row.className = `node is-${node.status}`;
      row.icon.textContent = STATUSES[node.status]?.[0] ?? "";
      row.name.textContent = shortName(node.name);
      row.title = `${node.name} ${node.id}`;
      row.detail.textContent = [
        this.#word(node.status),
        percent === null ? "" : `${Math.floor(percent)} %`,
        node.attempt > 1 ? `attempt ${node.attempt}` : "",
        node.progress?.message ?? "",
      ].filter(Boolean).join(" · ");
    }
    return row;
  }

  #append(lines) {
    const { log } = this.#parts;
    if (!log) return;
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
    // Read aloud only while lines come singly.
    const isFlood = lines.length > 3 || Date.now() - this.#appendedAt < 1000;
    log.setAttribute("aria-live", isFlood ? "off" : "polite");
    this.#appendedAt = Date.now();
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
    const level = levelOf(line);
    const row = make("div", "line");
    row.classList.add(`is-${level}`);
    row.classList.toggle("is-unrecorded", line.seq === null);
    row.title = `${line.at} ${level} ${line.name}`;
    const text = make("span", "text");
    fill(text, line.message);
    row.append(make("span", "number", line.seq ?? "…"), text);
    return row;
  }

  #clear() {
    this.#parts.log?.replaceChildren();
    this.#unrecorded = [];
  }

  /** A line shown before it was recorded gives way. */
  #replaceUnrecorded({ task, attempt, message }) {
    const place = this.#unrecorded.findIndex(
      ({ line }) => line.task === task && line.attempt === attempt && line.message === message,
    );
    if (place >= 0) this.#unrecorded.splice(place, 1)[0].row.remove();
  }

  #dropUnrecorded(state) {
    if (!OVER.has(state.status) && state.status !== "retry") return;
    for (const { row } of this.#unrecorded.splice(0)) row.remove();
  }
}

// The page may have loaded this file under two addresses, with and without its hash.
if (!customElements.get("cq-task")) customElements.define("cq-task", CQTask);
