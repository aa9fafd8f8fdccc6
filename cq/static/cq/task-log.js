/*
 * The log of a task's page: the last lines at once, older ones on the way up, hits of a search.
 *
 * Lines enter from the server's markup, from the socket and from the address of older lines;
 * what leaves are rows, at most 5,000 of them. A filter asks the server too, so that hits are
 * found in lines that were never loaded.
 */

const KEPT = 5000;
const NEAR = 200;
const AROUND = 250;
const TYPING_MS = 250;
const ESCAPE_PICTURE = /\u241b/g;

export class LogView {
  #box;
  #address;
  #kit;
  #part;
  #first = null;
  #last = 0;
  #hasOlder = true;
  #isTail = true;
  #follows = true;
  #isPaused = false;
  #held = [];
  #filter = { q: "", level: "" };
  #busy = false;
  #unrecorded = [];
  #asked = 0;

  constructor(panel, address, kit) {
    this.#part = (name) => panel.querySelector(`[data-${name}]`);
    this.#box = this.#part("log");
    this.#address = address;
    this.#kit = kit;
    for (const row of this.#box.children) this.#hydrate(row);
    this.#measure();
    this.#hasOlder = this.#first !== null && this.#first > 1;
    this.#box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#part("search").addEventListener("input", () => this.#typed());
    this.#part("search").addEventListener("submit", (event) => event.preventDefault());
    this.#part("follow").addEventListener("click", () => this.#setFollow(!this.#follows));
    this.#part("pause").addEventListener("click", () => this.#setPaused(!this.#isPaused));
    this.#part("jump").addEventListener("click", () => this.#toEnd());
    for (const name of ["search", "follow", "pause"]) this.#part(name).hidden = false;
  }

  /** The number of the last line that is known. */
  get last() {
    return this.#last;
  }

  /** The panel has come into view; `line` is the one that the address names. */
  async shown(line) {
    if (line !== null) await this.#goTo(line);
    else if (this.#follows) this.#box.scrollTop = this.#box.scrollHeight;
  }

  /** Take new lines of the socket. */
  add(lines) {
    if (this.#isPaused) {
      this.#held.push(...lines);
      this.#held.splice(0, this.#held.length - KEPT);
      this.#part("pause").textContent = `Paused · ${this.#held.length} new`;
      return;
    }
    const fresh = lines.filter((line) => line.seq === null || line.seq > this.#last);
    if (!this.#isTail) {
      this.#last = Math.max(this.#last, ...fresh.map((line) => line.seq ?? 0));
      this.#part("jump").hidden = false;
      return;
    }
    this.#append(fresh.filter((line) => this.#matches(line)));
    this.#last = Math.max(this.#last, ...fresh.map((line) => line.seq ?? 0));
  }

  /** Begin anew: the record has other numbers now. */
  reload() {
    this.#last = 0;
    this.#load({});
  }

  #matches({ message, level }) {
    const { q, level: least } = this.#filter;
    return (!least || level >= Number(least)) && message.toLowerCase().includes(q.toLowerCase());
  }

  #append(lines, isOlder = false) {
    if (!lines.length) return;
    this.#part("no-log").hidden = true;
    const fragment = document.createDocumentFragment();
    for (const line of lines) {
      const row = this.#row(line);
      if (line.seq === null) this.#unrecorded.push({ line, row });
      else this.#replaceUnrecorded(line);
      fragment.append(row);
    }
    const box = this.#box;
    const height = box.scrollHeight;
    if (isOlder) {
      box.prepend(fragment);
      box.scrollTop += box.scrollHeight - height;
      while (box.childElementCount > KEPT) {
        box.lastElementChild.remove();
        this.#isTail = false;
        this.#part("jump").hidden = false;
      }
    } else {
      box.append(fragment);
      while (box.childElementCount > KEPT) {
        box.firstElementChild.remove();
        this.#hasOlder = true;
      }
      if (this.#follows) box.scrollTop = box.scrollHeight;
    }
    this.#measure();
    this.#countHits();
  }

  #measure() {
    const number = (row) => Number(row?.id.slice(1)) || null;
    this.#first = number(this.#box.firstElementChild);
    this.#last = Math.max(this.#last, number(this.#box.lastElementChild) ?? 0);
  }

  /** A row that the server made: its colours, its time, what is searched for. */
  #hydrate(row) {
    const time = row.querySelector("time");
    time.textContent = timeOf(time.dateTime);
    const raw = row.querySelector("[data-raw]");
    if (raw) this.#kit.fill(raw.lastElementChild, raw.dataset.raw.replace(ESCAPE_PICTURE, "\u001b"));
  }

  #row(line) {
    const level = this.#kit.levelOf(line);
    const row = document.createElement("div");
    row.className = `tp-line is-${level}${line.seq === null ? " is-unrecorded" : ""}`;
    row.dataset.level = line.level;
    const number = document.createElement("a");
    number.className = "tp-number";
    number.textContent = line.seq ?? "…";
    if (line.seq !== null) {
      row.id = `L${line.seq}`;
      number.href = `#L${line.seq}`;
    }
    const time = document.createElement("time");
    time.dateTime = line.at;
    time.textContent = timeOf(line.at);
    const who = span("tp-who", this.#kit.shortName(line.name));
    const text = span("tp-text");
    if (line.level >= 30) {
      const mark = document.createElement("b");
      mark.className = "tp-level";
      mark.textContent = level;
      text.append(mark);
    }
    const words = span();
    if (this.#filter.q) highlight(words, line.message, this.#filter.q);
    else this.#kit.fill(words, line.message);
    text.append(words);
    row.append(number, time, who, text);
    return row;
  }

  #replaceUnrecorded({ task, attempt, message }) {
    const place = this.#unrecorded.findIndex(
      ({ line }) => line.task === task && line.attempt === attempt && line.message === message,
    );
    if (place >= 0) this.#unrecorded.splice(place, 1)[0].row.remove();
  }

  // What is read from the server.

  async #ask(query) {
    const url = new URL(this.#address, location.href);
    for (const [name, value] of Object.entries({ ...this.#filter, ...query })) {
      if (value !== "") url.searchParams.set(name, value);
    }
    const answer = await fetch(url, { credentials: "same-origin" }).catch(() => null);
    return answer?.ok ? answer.json() : null;
  }

  async #load(query) {
    const asked = ++this.#asked;
    const answer = await this.#ask(query);
    if (!answer || asked !== this.#asked) return;
    this.#box.replaceChildren();
    this.#unrecorded = [];
    this.#first = null;
    this.#hasOlder = query.after !== undefined || answer.more;
    this.#isTail = query.after === undefined || !answer.more;
    this.#part("jump").hidden = this.#isTail;
    this.#append(answer.lines);
    this.#part("no-log").hidden = answer.lines.length > 0;
    this.#part("no-log").textContent = this.#isFiltered ? "No line matches." : "Nothing has been logged.";
    this.#countHits();
  }

  async #older() {
    if (this.#busy || !this.#hasOlder || this.#first === null) return;
    this.#busy = true;
    const answer = await this.#ask({ before: this.#first });
    this.#busy = false;
    if (!answer) return;
    this.#hasOlder = answer.more;
    this.#append(answer.lines, true);
  }

  async #newer() {
    if (this.#busy || this.#isTail) return;
    this.#busy = true;
    const answer = await this.#ask({ after: this.#box.lastElementChild?.id.slice(1) ?? 0 });
    this.#busy = false;
    if (!answer) return;
    this.#isTail = !answer.more;
    this.#part("jump").hidden = this.#isTail;
    this.#append(answer.lines);
  }

  async #goTo(line) {
    this.#setFollow(false);
    if (!document.getElementById(`L${line}`)) {
      this.#clearFilter();
      await this.#load({ after: Math.max(0, line - AROUND) });
    }
    for (const old of this.#box.querySelectorAll(".is-target")) old.classList.remove("is-target");
    const row = document.getElementById(`L${line}`);
    row?.classList.add("is-target");
    row?.scrollIntoView({ block: "center" });
  }

  async #toEnd() {
    if (!this.#isTail) await this.#load({});
    this.#setFollow(true);
  }

  // What people do.

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#box;
    const left = scrollHeight - scrollTop - clientHeight;
    if (scrollTop < NEAR) this.#older();
    if (left < NEAR) this.#newer();
    const isAtEnd = left < 24 && this.#isTail;
    if (this.#follows !== isAtEnd) this.#setFollow(isAtEnd, false);
  }

  #setFollow(follows, scrolls = true) {
    this.#follows = follows;
    this.#part("follow").setAttribute("aria-pressed", follows);
    this.#part("jump").hidden = follows;
    if (follows && scrolls) {
      if (!this.#isTail) this.#toEnd();
      else this.#box.scrollTop = this.#box.scrollHeight;
    }
  }

  #setPaused(isPaused) {
    this.#isPaused = isPaused;
    this.#part("pause").setAttribute("aria-pressed", isPaused);
    this.#part("pause").textContent = isPaused ? "Paused" : "Pause";
    if (!isPaused) this.add(this.#held.splice(0));
  }

  get #isFiltered() {
    return this.#filter.q !== "" || this.#filter.level !== "";
  }

  #clearFilter() {
    if (!this.#isFiltered) return;
    this.#part("search").reset();
    this.#filter = { q: "", level: "" };
    this.#countHits();
  }

  #typed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => {
      const form = new FormData(this.#part("search"));
      this.#filter = { q: form.get("q").trim(), level: form.get("level") };
      this.#load({});
    }, TYPING_MS);
  }

  #countHits() {
    const count = this.#box.childElementCount;
    const words = `${count}${this.#hasOlder ? "+" : ""} ${count === 1 ? "line" : "lines"}`;
    this.#part("hits").textContent = this.#isFiltered ? words : "";
  }
}

function span(name = "", text = "") {
  const made = document.createElement("span");
  made.className = name;
  made.textContent = text;
  return made;
}

function timeOf(moment) {
  const at = new Date(moment);
  const two = (number) => String(number).padStart(2, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** Text with every occurrence of some words marked. */
function highlight(target, message, words) {
  const text = message.replace(/\u001b(\[[0-9;:?]*[ -/]*[@-~])?/g, "");
  const lower = text.toLowerCase();
  const wanted = words.toLowerCase();
  let at = 0;
  for (let hit = lower.indexOf(wanted); hit >= 0; hit = lower.indexOf(wanted, at)) {
    const mark = document.createElement("mark");
    mark.textContent = text.slice(hit, hit + wanted.length);
    target.append(text.slice(at, hit), mark);
    at = hit + wanted.length;
  }
  target.append(text.slice(at));
}
