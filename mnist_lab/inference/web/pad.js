// What every page to draw on has: the strokes, and the bars of the probabilities. The page itself has two functions:
// began(), before anything is drawn or taken away, and changed(), after it.

const PEN = 0.07, DRAWN = 256;  // of the side; pixels
const byId = (id) => document.getElementById(id);
const pad = byId("pad"), seen = byId("seen").getContext("2d");
const strokes = [];  // each a list of points [x, y], from 0 to 1
let drawing = null;  // the pointer that draws

const bars = CLASSES.map((className) => {
  const line = byId("bars").appendChild(document.createElement("li"));
  const [name, track, share] = ["span", "div", "span"].map((tag) => line.appendChild(document.createElement(tag)));
  name.textContent = className;
  track.className = "track";
  const bar = track.appendChild(document.createElement("div"));
  bar.className = "bar";
  return {line, bar, share};
});

function paint(context, side, ink, paper) {
  context.clearRect(0, 0, side, side);
  if (paper) {
    context.fillStyle = paper;
    context.fillRect(0, 0, side, side);
  }
  context.strokeStyle = ink;
  context.lineWidth = PEN * side;
  context.lineCap = context.lineJoin = "round";
  for (const points of strokes) {
    context.beginPath();
    context.moveTo(points[0][0] * side, points[0][1] * side);
    for (let i = 1; i < points.length; i++) {  // smooth: curves through the middles
      const [[x, y], [u, v]] = [points[i - 1], points[i]];
      context.quadraticCurveTo(x * side, y * side, (x + u) / 2 * side, (y + v) / 2 * side);
    }
    const [x, y] = points[points.length - 1];
    context.lineTo(x * side, y * side);
    context.stroke();
  }
}

function repaint() {
  const side = Math.round(pad.clientWidth * (window.devicePixelRatio || 1));
  if (pad.width !== side || pad.height !== side) pad.width = pad.height = side;
  paint(pad.getContext("2d"), side, getComputedStyle(document.documentElement).getPropertyValue("--ink"));
  byId("undo").disabled = byId("clear").disabled = strokes.length === 0;
}

function sheetOfPaper() {  // the drawing as a picture of its own, black on white
  const sheet = document.createElement("canvas");
  sheet.width = sheet.height = DRAWN;
  paint(sheet.getContext("2d", {willReadFrequently: true}), DRAWN, "#000", "#fff");
  return sheet;
}

function showAnswer(best, probabilities, pixels) {  // nulls for none
  byId("predicted").textContent = best === null ? "" : CLASSES[best];
  bars.forEach(({line, bar, share}, place) => {
    const value = best === null ? 0 : probabilities[place];
    line.className = place === best ? "first" : "";
    bar.style.width = `${100 * value}%`;
    share.textContent = best === null ? "" : `${(100 * value).toFixed(1)} %`;
  });
  const image = seen.createImageData(28, 28);
  for (let i = 0; i < 784; i++) image.data.set([...Array(3).fill(pixels ? pixels[i] : 0), 255], 4 * i);
  seen.putImageData(image, 0, 0);
}

function sure(probability, candidates) {
  const several = candidates > 1 ? `, of one of ${candidates} digits. Draw one alone.` : "";
  return `${(100 * probability).toFixed(1)} % sure${several}`;
}

function speak() {  // when the pen is up, not with every change
  if (drawing === null) byId("spoken").textContent = `${byId("predicted").textContent} ${byId("words").textContent}`;
}

function place(event) {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

pad.addEventListener("pointerdown", (event) => {
  if (drawing !== null || event.button !== 0) return;
  drawing = event.pointerId;
  pad.setPointerCapture(drawing);
  began();
  strokes.push([place(event)]);
  changed();
});
pad.addEventListener("pointermove", (event) => {
  if (event.pointerId !== drawing) return;
  const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  strokes[strokes.length - 1].push(...(events.length ? events : [event]).map(place));
  changed();
});
for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
  pad.addEventListener(end, (event) => {
    if (event.pointerId !== drawing) return;
    drawing = null;
    changed();
  });
}

function undo() {
  if (drawing !== null) return;
  began();
  strokes.pop();
  changed();
}

function clear() {
  drawing = null;
  began();
  strokes.length = 0;
  changed();
}

byId("undo").addEventListener("click", undo);
byId("clear").addEventListener("click", clear);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") clear();
  else if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey) {
    event.preventDefault();
    undo();
  }
});
window.addEventListener("resize", repaint);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
