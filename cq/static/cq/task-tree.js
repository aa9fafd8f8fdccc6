/*
 * The tree of a task's page: a tree of ARIA, moved through with the arrow keys.
 *
 * The nodes that `watch()` knows enter; what leaves are rows, of which only those that changed
 * are touched. Many siblings of one function are one row with a mosaic of cells; the path to
 * what failed is open.
 */

const FAILED = new Set(["failure", "incomplete", "lost"]);
const DEEPEST = 12;
const MOST_CELLS = 400;
const SVG = "http://www.w3.org/2000/svg";
const CELLS_A_ROW = 50;

export class TreeView {
  #list;
  #top;
  #kit;
  #rows = new Map();
  #open = new Map();
  #nodes = new Map();
  #current = null;

  constructor(list, top, kit) {
    this.#list = list;
    this.#top = top;
    this.#kit = kit;
    list.addEventListener("keydown", (event) => this.#move(event));
    list.addEventListener("focusin", (event) => this.#enter(event.target.closest(".tp-node")));
  }

  draw(nodes = this.#nodes) {
    this.#nodes = nodes;
    const rows = this.#order();
    if (!rows.length && !this.#rows.size) return;
    this.#list.setAttribute("role", "tree");
    this.#list.setAttribute("aria-label", "Subtasks");
    rows.forEach((row, at) => {
      if (this.#list.children[at] !== row) this.#list.insertBefore(row, this.#list.children[at] ?? null);
    });
    while (this.#list.childElementCount > rows.length) this.#list.lastElementChild.remove();
    if (!rows.includes(this.#current)) this.#enter(rows[0]);
  }

  #order() {
    const below = new Map();
    for (const node of this.#nodes.values()) {
      if (node.id === this.#top) continue;
      const parent = this.#nodes.has(node.parent) ? node.parent : this.#top;
      if (!below.has(parent)) below.set(parent, []);
      below.get(parent).push(node);
    }
    const failing = new Set();
    for (const node of this.#nodes.values()) {
      if (!FAILED.has(node.status)) continue;
      for (let one = node; one && !failing.has(one.parent); one = this.#nodes.get(one.parent)) {
        failing.add(one.parent);
      }
    }
    const rows = [];
    const visit = (parent, depth) => {
      const siblings = (below.get(parent) ?? []).sort((a, b) => !!a.previous - !!b.previous);
      for (const { node, nodes: many, name } of this.#kit.folded(siblings)) {
        if (node) {
          const children = below.has(node.id);
          const isOpen = children && (this.#open.get(node.id) ?? (depth < 2 || failing.has(node.id)));
          rows.push(this.#node(node, depth, children ? isOpen : null));
          if (isOpen) visit(node.id, depth + 1);
          continue;
        }
        const key = `${parent} ${name}`;
        const isOpen = this.#open.get(key) ?? false;
        rows.push(this.#fold(key, name, many, depth, isOpen));
        const failed = many.filter((one) => FAILED.has(one.status)).slice(0, 5);
        for (const one of isOpen ? many : failed) {
          rows.push(this.#node(one, depth + 1, null));
          if (isOpen && below.has(one.id)) visit(one.id, depth + 2);
        }
      }
    };
    visit(this.#top, 0);
    return rows;
  }

  #row(key, depth) {
    let row = this.#rows.get(key);
    if (!row) {
      row = document.createElement("li");
      row.setAttribute("role", "treeitem");
      row.tabIndex = -1;
      row.key = key;
      row.twist = document.createElement("span");
      row.twist.className = "tp-twist";
      row.twist.setAttribute("aria-hidden", "true");
      row.twist.addEventListener("click", () => this.#toggle(row));
      this.#rows.set(key, row);
    }
    row.dataset.depth = Math.min(depth, DEEPEST);
    row.setAttribute("aria-level", depth + 1);
    return row;
  }

  #setOpen(row, isOpen) {
    row.isOpen = isOpen;
    if (isOpen === null) row.removeAttribute("aria-expanded");
    else row.setAttribute("aria-expanded", isOpen);
    row.twist.textContent = isOpen === null ? "" : isOpen ? "▾" : "▸";
  }

  #node(node, depth, isOpen) {
    const { STATUSES, OVER, percentOf, clock, shortName, now, address } = this.#kit;
    const row = this.#row(node.id, depth);
    if (!row.name) {
      row.icon = span("tp-icon");
      row.icon.setAttribute("aria-hidden", "true");
      row.name = document.createElement("a");
      row.name.className = "tp-name";
      row.name.tabIndex = -1;
      row.detail = span("tp-detail");
      row.meter = meter();
      row.append(row.twist, row.icon, row.name, row.meter, row.detail);
    }
    this.#setOpen(row, isOpen);
    if (row.node === node && OVER.has(node.status)) return row;
    row.node = node;
    const percent = OVER.has(node.status) ? null : percentOf(node);
    row.className = `tp-node is-${node.status}`;
    row.icon.textContent = STATUSES[node.status][0];
    row.name.textContent = shortName(node.name);
    row.name.href = address(node.id);
    row.title = node.name;
    row.meter.toggleAttribute("hidden", percent === null);
    row.meter.lastChild.setAttribute("width", percent ?? 0);
    const end = node.finished ? Date.parse(node.finished) : now();
    const seconds = (end - Date.parse(node.started)) / 1000;
    row.detail.textContent = [
      STATUSES[node.status][1],
      percent === null ? "" : `${Math.floor(percent)} %`,
      node.attempt > 1 ? `attempt ${node.attempt}` : "",
      seconds >= 0 && OVER.has(node.status) ? (seconds < 10 ? `${seconds.toFixed(1)} s` : clock(seconds)) : "",
      node.progress?.message ?? "",
    ].filter(Boolean).join(" · ");
    return row;
  }

  #fold(key, name, many, depth, isOpen) {
    const row = this.#row(key, depth);
    if (!row.name) {
      row.className = "tp-node tp-fold";
      row.name = span("tp-name");
      row.detail = span("tp-detail");
      row.cells = document.createElementNS(SVG, "svg");
      row.cells.setAttribute("class", "tp-cells");
      row.cells.setAttribute("aria-hidden", "true");
      row.name.addEventListener("click", () => this.#toggle(row));
      row.append(row.twist, row.name, row.detail, row.cells);
    }
    this.#setOpen(row, isOpen);
    row.name.textContent = `${this.#kit.shortName(name)} × ${many.length}`;
    row.detail.textContent = this.#kit.tally(many);
    mosaic(row.cells, many);
    return row;
  }

  #toggle(row) {
    if (row.isOpen === null) return;
    this.#open.set(row.key, !row.isOpen);
    this.draw();
  }

  #enter(row) {
    if (!row || row === this.#current || row.tabIndex === undefined) return;
    if (this.#current) this.#current.tabIndex = -1;
    this.#current = row;
    row.tabIndex = 0;
  }

  #move(event) {
    const rows = [...this.#list.children];
    const at = rows.indexOf(this.#current);
    const row = this.#current;
    const depth = Number(row?.getAttribute("aria-level"));
    let next = null;
    if (event.key === "ArrowDown") next = rows[at + 1];
    else if (event.key === "ArrowUp") next = rows[at - 1];
    else if (event.key === "Home") next = rows[0];
    else if (event.key === "End") next = rows.at(-1);
    else if (event.key === "ArrowRight" && row?.isOpen === false) this.#toggle(row);
    else if (event.key === "ArrowRight") next = rows[at + 1];
    else if (event.key === "ArrowLeft" && row?.isOpen) this.#toggle(row);
    else if (event.key === "ArrowLeft") {
      next = rows.slice(0, at).findLast((one) => Number(one.getAttribute("aria-level")) < depth);
    } else if ((event.key === "Enter" || event.key === " ") && row) {
      if (row.name.href) location.assign(row.name.href);
      else this.#toggle(row);
    } else return;
    event.preventDefault();
    if (next) {
      this.#enter(next);
      next.focus();
    }
  }
}

function span(name) {
  const made = document.createElement("span");
  made.className = name;
  return made;
}

function rect(attributes) {
  const made = document.createElementNS(SVG, "rect");
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function meter() {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("class", "tp-meter");
  made.setAttribute("viewBox", "0 0 100 1");
  made.setAttribute("preserveAspectRatio", "none");
  made.setAttribute("aria-hidden", "true");
  made.append(rect({ class: "tp-track", width: 100, height: 1 }), rect({ class: "tp-fill", width: 0, height: 1 }));
  return made;
}

/** One cell for each task, in the colour of its status; the cells that stay are kept. */
function mosaic(svg, many) {
  const shown = many.slice(0, MOST_CELLS);
  const rows = Math.ceil(shown.length / CELLS_A_ROW);
  const columns = Math.min(shown.length, CELLS_A_ROW);
  svg.setAttribute("viewBox", `0 0 ${columns * 10} ${rows * 10}`);
  svg.setAttribute("width", columns * 10);
  svg.setAttribute("height", rows * 10);
  shown.forEach((node, at) => {
    let cell = svg.children[at];
    if (!cell) {
      const [x, y] = [(at % CELLS_A_ROW) * 10, Math.floor(at / CELLS_A_ROW) * 10];
      svg.append((cell = rect({ x, y, width: 8, height: 8, rx: 1.5 })));
    }
    const name = `tp-cell is-${node.status}`;
    if (cell.getAttribute("class") !== name) cell.setAttribute("class", name);
  });
}
