// The board: each tile shows the state of its task until its picture arrives.
//
// The page comes with every tile as it stood when it was rendered. From then on the
// <cq-task> element tells what it hears over its socket, as `cq:child` events; this file
// finds the tile of a task and repaints it. Which task prints which tile is asked once,
// when the first task appears that the page does not know.

const SVG = "http://www.w3.org/2000/svg";
const WAITING = new Set(["pending", "queued", "waiting"]);
const FAILED = new Set(["failure", "incomplete", "lost", "revoked"]);

const board = document.querySelector("#board");
const tiles = new Map();
const unplaced = new Map();
let asking = false;

for (const tile of board.querySelectorAll(".tile[data-task]")) tiles.set(tile.dataset.task, tile);

function repaint(tile, state) {
  if (tile.dataset.state === state) return;
  tile.dataset.state = state;
  tile.querySelector("title").textContent = `${tile.id.replace("tile-", "Tile ")}: ${state}`;
  if (state === "success") hang(tile);
  count();
}

function hang(tile) {
  if (tile.querySelector("image")) return;
  const field = tile.querySelector(".field");
  const image = document.createElementNS(SVG, "image");
  for (const name of ["x", "y", "width", "height"]) image.setAttribute(name, field.getAttribute(name));
  image.setAttribute("href", tile.dataset.image);
  tile.append(image);
}

function count() {
  const sums = { waiting: 0, running: 0, retry: 0, success: 0, failure: 0 };
  for (const tile of board.querySelectorAll(".tile")) {
    const { state } = tile.dataset;
    sums[WAITING.has(state) ? "waiting" : FAILED.has(state) ? "failure" : state] += 1;
  }
  for (const item of document.querySelectorAll(".legend li")) {
    const sum = sums[item.dataset.state];
    item.querySelector(".count").textContent = sum;
    item.classList.toggle("none", sum === 0);
  }
}

async function place() {
  if (asking) return;
  asking = true;
  try {
    const answer = await fetch(board.dataset.places);
    for (const [task, name] of Object.entries(await answer.json())) {
      const tile = document.getElementById(`tile-${name}`);
      tile.dataset.task = task;
      tiles.set(task, tile);
      if (unplaced.has(task)) repaint(tile, unplaced.get(task));
    }
    unplaced.clear();
  } finally {
    asking = false;
  }
}

function hear({ id, name, state }) {
  if (tiles.has(id)) {
    repaint(tiles.get(id), state);
  } else if (name.startsWith("print_tile")) {
    unplaced.set(id, state);
    place();
  } else if (state === "success") {
    if (name === "stitch") unveil();
    if (name === "write_report") document.querySelector("#open-report").hidden = false;
  }
}

function unveil() {
  const finished = document.querySelector("#finished");
  if (!finished.hasAttribute("href")) finished.setAttribute("href", finished.dataset.href);
  board.dataset.finished = "";
  document.querySelector("#open-print").hidden = false;
}

document.addEventListener("cq:child", (event) => hear(event.detail));

document.addEventListener("cq:state", ({ detail }) => {
  const mend = document.querySelector("#mend");
  if (detail.id === mend.dataset.task) mend.hidden = detail.to !== "incomplete";
});

// Who may not see the tree hears of no tile: the page is loaded again when all is done.
document.addEventListener("cq:end", () => {
  if (!board.hasAttribute("data-told") && !board.hasAttribute("data-finished")) location.reload();
});
count();
