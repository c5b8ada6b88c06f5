// The area to draw in. It calls two functions of the page: beforeChange() before a stroke is added or removed, and
// afterChange() after that.

const PEN = 0.07;  // share of the height
const DRAWN = {width: PAGE.digits ? 384 : 256, height: 256};  // pixels of the drawing that is searched for digits
const byId = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const pad = byId("pad");
const strokes = [];  // lists of points [x, y], from 0 to 1
let drawingPointer = null;  // the id of the pointer that draws

function paint(context, width, height, ink) {
  const at = ([x, y]) => [x * width, y * height];
  context.strokeStyle = ink;
  context.lineWidth = PEN * height;
  context.lineCap = context.lineJoin = "round";
  for (const points of strokes) {
    context.beginPath();
    context.moveTo(...at(points[0]));
    for (let i = 1; i < points.length; i++) {  // Curves through the middles between points are smooth.
      const [[x, y], [u, v]] = [at(points[i - 1]), at(points[i])];
      context.quadraticCurveTo(x, y, (x + u) / 2, (y + v) / 2);
    }
    context.lineTo(...at(points[points.length - 1]));
    context.stroke();
  }
}

// Paint the strokes, and boxes: left, top, right and bottom from 0 to 1. One of the boxes is highlighted.
function repaint(boxes = [], highlighted = 0) {
  const [width, height] = [pad.clientWidth, pad.clientHeight].map((side) => Math.round(side * (devicePixelRatio || 1)));
  if (pad.width !== width || pad.height !== height) [pad.width, pad.height] = [width, height];
  const context = pad.getContext("2d"), line = Math.max(1, height / 200);
  context.clearRect(0, 0, width, height);
  paint(context, width, height, colour("--ink"));
  boxes.forEach(([left, top, right, bottom], i) => {
    context.strokeStyle = colour(i === highlighted ? "--accent" : "--line");
    context.lineWidth = i === highlighted ? 2 * line : line;
    const [x, y, u, v] = [left * width - 4 * line, top * height - 4 * line, right * width + 4 * line, bottom * height + 4 * line];
    context.strokeRect(x, y, u - x, v - y);
  });
}

// Return the drawing, black on white, with a byte for each pixel.
function greyDrawing() {
  const {width, height} = DRAWN, sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [width, height];
  const context = sheet.getContext("2d", {willReadFrequently: true});
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  paint(context, width, height, "#000");
  const {data} = context.getImageData(0, 0, width, height);
  return Uint8Array.from({length: width * height}, (_, i) => data[4 * i]);
}

function place(event) {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

pad.addEventListener("pointerdown", (event) => {
  if (drawingPointer !== null || event.button !== 0) return;
  drawingPointer = event.pointerId;
  pad.setPointerCapture(drawingPointer);
  beforeChange();
  strokes.push([place(event)]);
  afterChange();
});
pad.addEventListener("pointermove", (event) => {
  if (event.pointerId !== drawingPointer) return;
  const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  strokes[strokes.length - 1].push(...(events.length ? events : [event]).map(place));
  afterChange();
});
pad.addEventListener("lostpointercapture", (event) => {  // It also follows the end of a stroke.
  if (event.pointerId !== drawingPointer) return;
  drawingPointer = null;
  afterChange();
});

function undo() {
  if (drawingPointer !== null) return;
  beforeChange();
  strokes.pop();
  afterChange();
}

function clear() {
  drawingPointer = null;
  beforeChange();
  strokes.length = 0;
  afterChange();
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
