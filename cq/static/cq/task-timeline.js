/*
 * The timeline of a task's page: who waited and who ran when, in the order of the tree.
 *
 * Nodes enter; what leaves is an SVG made by DOM calls. The table below it, which the server
 * has made, says the same to those who cannot see it.
 */

const SVG = "http://www.w3.org/2000/svg";
const ROW = 22;
const TOP = 24;
const MOST_ROWS = 300;
const LABEL = 190;
const NARROW_LABEL = 96;
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400];

function make(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

export class Timeline {
  #box;
  #top;
  #kit;
  #nodes = new Map();

  constructor(box, top, kit) {
    this.#box = box;
    this.#top = top;
    this.#kit = kit;
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", "Timeline; the table below says the same");
    new ResizeObserver(() => this.draw()).observe(box.parentElement);
  }

  keep(nodes) {
    this.#nodes = nodes;
  }

  draw(nodes = this.#nodes) {
    this.#nodes = nodes;
    const top = nodes.get(this.#top);
    this.#box.hidden = !top;
    const width = Math.floor(this.#box.clientWidth);
    if (!top || !width) return;
    const rows = this.#rows(top);
    const began = Math.min(...rows.flatMap((row) => row.nodes.map((node) => Date.parse(node.submitted))));
    const ends = rows.flatMap((row) => row.nodes.map((node) => this.#end(node)));
    const end = Math.max(began + 100, ...ends);
    const left = width < 560 ? NARROW_LABEL : LABEL;
    const scale = (width - left - 12) / (end - began);
    const at = (moment) => left + (moment - began) * scale;
    const height = TOP + rows.length * ROW + 6;
    const svg = make("svg", { width, height, viewBox: `0 0 ${width} ${height}`, class: "tp-timeline" });
    this.#axis(svg, began, end, at, height, width);
    rows.forEach((row, index) => this.#row(svg, row, TOP + index * ROW, at, left));
    if (!this.#kit.OVER.has(top.status)) {
      const now = at(end);
      svg.append(make("line", { class: "tp-now", x1: now, x2: now, y1: TOP - 4, y2: height }));
    }
    this.#box.replaceChildren(svg);
  }

  #end(node) {
    return node.finished ? Date.parse(node.finished) : this.#kit.now();
  }

  #rows(top) {
    const below = new Map();
    for (const node of this.#nodes.values()) {
      if (node === top) continue;
      const parent = this.#nodes.has(node.parent) ? node.parent : this.#top;
      if (!below.has(parent)) below.set(parent, []);
      below.get(parent).push(node);
    }
    const rows = [{ depth: 0, name: this.#kit.shortName(top.name), nodes: [top] }];
    const visit = (parent, depth) => {
      // As in the tree: what follows a predecessor stands behind the others.
      const siblings = (below.get(parent) ?? []).sort((a, b) => !!a.previous - !!b.previous);
      for (const { node, nodes, name } of this.#kit.folded(siblings)) {
        if (rows.length >= MOST_ROWS) return;
        const label = this.#kit.shortName(node?.name ?? name);
        rows.push({ depth, name: node ? label : `${label} × ${nodes.length}`, nodes: node ? [node] : nodes });
        if (node) visit(node.id, depth + 1);
      }
    };
    visit(this.#top, 1);
    return rows;
  }

  #axis(svg, began, end, at, height, width) {
    const wanted = (end - began) / 1000 / Math.max(2, Math.floor(width / 130));
    const step = (STEPS.find((one) => one >= wanted) ?? 86400) * 1000;
    for (let moment = 0; moment <= end - began; moment += step) {
      const x = at(began + moment);
      svg.append(make("line", { class: "tp-tick", x1: x, x2: x, y1: TOP - 6, y2: height }));
      const seconds = moment / 1000;
      const text = step < 1000 ? `${seconds.toFixed(1)} s` : this.#kit.clock(seconds);
      if (x < width - 36) svg.append(make("text", { class: "tp-axis", x: x + 4, y: 13 }, text));
    }
  }

  #row(svg, { depth, name, nodes }, y, at, left) {
    const indent = Math.min(depth, 6) * 10;
    const room = Math.max(4, Math.floor((left - indent - 8) / 7.2));
    const text = name.length > room ? `${name.slice(0, room - 1)}…` : name;
    svg.append(make("text", { class: "tp-label", x: indent, y: y + 15 }, text));
    const crowd = nodes.length > 1 ? " tp-crowd" : "";
    const startOf = (node) => (node.started ? Date.parse(node.started) : this.#end(node));
    const from = at(Math.min(...nodes.map((node) => Date.parse(node.submitted))));
    // A crowd waits as one, until its first starts; the waits of the others lie below its bars.
    const wait = at(Math.min(...nodes.map(startOf))) - from;
    if (wait >= 1) svg.append(make("rect", { class: "tp-waited", x: from, y: y + 9, width: wait, height: 4, rx: 2 }));
    // What failed is drawn last, so that no success covers it.
    const isGood = (node) => node.status === "success";
    for (const node of [...nodes.filter(isGood), ...nodes.filter((one) => !isGood(one))]) {
      if (!node.started) continue;
      const started = Date.parse(node.started);
      const length = Math.max(2, at(this.#end(node)) - at(started));
      const bar = make("rect", { class: `tp-ran is-${node.status}${crowd}`, x: at(started), y: y + 4, width: length, height: 14, rx: 3 });
      const words = `${this.#kit.shortName(node.name)}: ${this.#kit.STATUSES[node.status][1]}`;
      bar.append(make("title", {}, `${words}, ${this.#kit.clock((this.#end(node) - started) / 1000)}`));
      svg.append(bar);
    }
  }
}
