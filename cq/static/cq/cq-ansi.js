/*
 * Colours of terminals: what a log line says with ANSI escapes, as nodes of the page.
 *
 * Any text enters; what leaves are texts and spans, never markup. SGR sequences give colours
 * (16, 256, true), bold, italic, underline; every other escape is left out. cq.js loads this
 * file when the first line with an escape comes.
 */

const ESCAPE = /\u001b(?:\[([0-9;:?<=>]*)[ -/]*([@-~])|[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[ -/]*[0-~]?)/;
const [LIGHT, DARK] = [
  "57606a b3261e 1a7341 7d5a00 1f5fbf 8a3fb0 0b6a7a 24292f".split(" "),
  "9ba8b8 ff8a80 5fd39a e6b85c 7ab8ff d9a4f5 6cd3e3 ffffff".split(" "),
];
const SGR = {
  1: ["fontWeight", "bold"], 2: ["fontWeight", "lighter"], 22: ["fontWeight", ""],
  3: ["fontStyle", "italic"], 23: ["fontStyle", ""], 39: ["color", ""], 49: ["background", ""],
  4: ["textDecoration", "underline"], 9: ["textDecoration", "line-through"], 24: ["textDecoration", ""],
  29: ["textDecoration", ""], 7: ["background", "currentcolor"], 27: ["background", ""],
};

/** One of the 256 colours; the first 16 follow the theme of the page. */
function colour(code) {
  if (!(code >= 0 && code < 256)) return "";
  if (code < 16) return `var(--cq-ansi-${code}, light-dark(#${LIGHT[code % 8]}, #${DARK[code % 8]}))`;
  if (code > 231) return `rgb(${Array(3).fill(8 + 10 * (code - 232))})`;
  return `rgb(${[36, 6, 1].map((by) => [0, 95, 135, 175, 215, 255][Math.floor((code - 16) / by) % 6])})`;
}

/** Apply one SGR sequence to a style. */
function paint(style, codes) {
  for (let at = 0; at < codes.length; at++) {
    const code = codes[at];
    const name = code % 60 < 40 ? "color" : "background";
    if (!code) for (const key in style) style[key] = "";
    else if (SGR[code]) style[SGR[code][0]] = SGR[code][1];
    else if (code === 38 || code === 48) {
      const deep = codes[++at] === 2;
      style[name] = deep ? `rgb(${codes.slice(at + 1, at + 4)})` : colour(codes[++at]);
      if (deep) at += 3;
    } else if (code >= 30 && code < 108) style[name] = colour((code % 10) + (code > 89 ? 8 : 0));
  }
}

/**
 * Text with SGR sequences as nodes: colours, bold, underline. Any other escape is left out.
 * Backgrounds are tints, so that what stands on them stays readable.
 */
export function ansi(text) {
  const [first, ...pieces] = String(text).split(ESCAPE);
  const nodes = first ? [first] : [];
  const style = {};
  for (let at = 0; at < pieces.length; at += 3) {
    const [codes, kind, words] = pieces.slice(at, at + 3);
    if (kind === "m") paint(style, codes.split(/[;:]/).map(Number));
    if (!words) continue;
    const span = document.createElement("span");
    Object.assign(span.style, style);
    if (style.background) span.style.background = `color-mix(in srgb, ${style.background} 25%, transparent)`;
    span.textContent = words;
    nodes.push(span);
  }
  return nodes;
}
