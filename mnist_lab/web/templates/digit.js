// Find the digits in a drawing, dark on white, and bring them into MNIST's form. `predict` does the same for images of any
// kind (mnist_lab/inference/digits.py); clean strokes need no search for paper, shadows, frames and noise.

const MNIST_SIDE = 28, DIGIT_BOX = 20;  // pixels, of the images that a network is given and of the digit in them
const MIN_INK = 0.08, MIN_MASS = 0.03;  // of black; of the digit's ink, for a part of it
const MIN_LENGTH = 0.04, MIN_ELONGATION = 6;  // of the drawing's longer side; outline times length by area, 5 for a dot
const MAX_GAP = 0.3;  // of the digit's longer side; what is nearer may be a part of the digit
// Separate strokes of such similar heights and amounts of ink are two digits; side by side and apart, less will do.
const MIN_RATIOS = {height: 0.6, mass: 0.2}, MIN_RATIOS_IN_ROW = {height: 0.5, mass: 0.03};
const MIN_GAP_IN_ROW = 0.1;  // of the height
const MIN_STROKE = 1.6;  // pixels of 20; thinner strokes are thickened to it
const EDGE = 4;  // pixels around a stroke that its smooth edge may reach

// Find the row of digits that the clearest one is in, in brightness values from 0 to 255, row by row. Returns for each,
// from left to right, its pixels (28 x 28 bytes), its box (left, top, right and bottom as fractions) and the number of
// digits in the drawing.
function findNumber(grey, width, height) {
  const ink = inkOf(grey, width, height), {labels, parts} = partsOf(ink, width, height);
  const digits = digitsOf(parts, MIN_LENGTH * Math.max(width, height));
  const row = digits.slice(0, 1), rest = new Set(digits.slice(1));
  for (const digit of row) {  // it grows, so that a tilted row is followed to its ends
    for (const other of rest) if (areSideBySide(digit.box, other.box)) rest.delete(other) && row.push(other);
  }
  return row.map(({box, labels: own}) => {
    const {strokes, box: [left, top, right, bottom]} = strokesOf(ink, labels, width, height, box, own);
    return {
      pixels: centred(strokes, right - left, bottom - top),
      box: [left / width, top / height, right / width, bottom / height],
      candidates: digits.length,
    };
  }).sort((a, b) => a.box[0] - b.box[0]);
}

// The whole of a square drawing as 28 x 28 bytes, for networks of other things than digits: light on dark if the edges of
// the training images, of this brightness, are dark.
function fitImage(grey, side, background) {
  const pixels = scaled(background < 85 ? grey.map((value) => 255 - value) : grey, side, side, MNIST_SIDE, MNIST_SIDE);
  return [{pixels: Uint8Array.from(pixels, Math.round), box: [0, 0, 1, 1], candidates: 1}];
}

function inkOf(grey, width, height) {  // from 0 to 1, smooth with weights of 1, 2 and 1 in both directions
  let ink = Float32Array.from(grey, (value) => 1 - value / 255);
  for (const [step, length] of [[1, width], [width, height]]) {
    ink = ink.map((value, at) => {
      const place = Math.floor(at / step) % length;
      return (ink[place > 0 ? at - step : at] + 2 * value + ink[place < length - 1 ? at + step : at]) / 4;
    });
  }
  return ink;
}

// Return the threshold that separates the ink best from the faint edges of the strokes (Otsu).
function thresholdOf(ink) {
  const counts = new Array(64).fill(0), most = ink.reduce((most, value) => Math.max(most, value), 0);
  for (const value of ink) if (value > MIN_INK) counts[Math.min(Math.floor(64 * (value - MIN_INK) / (most - MIN_INK)), 63)]++;
  const all = counts.reduce((sum, count) => sum + count, 0), total = counts.reduce((sum, count, bin) => sum + count * bin, 0);
  let below = 0, sum = 0, best = 0, threshold = MIN_INK;
  counts.forEach((count, bin) => {
    [below, sum] = [below + count, sum + count * bin];
    const separation = (sum * all - total * below) ** 2 / Math.max(below * (all - below), 1);
    if (separation > best) [best, threshold] = [separation, MIN_INK + (bin + 1) / 64 * (most - MIN_INK)];
  });
  return threshold;
}

// Return the connected parts of the ink, with their boxes and measures, and the label of each pixel's part; 0 for none.
function partsOf(ink, width, height) {
  const threshold = thresholdOf(ink), labels = new Int32Array(ink.length), parts = [];
  for (let first = 0; first < ink.length; first++) {
    if (labels[first] || ink[first] <= threshold) continue;
    const label = parts.length + 1, waiting = [first], box = [width, height, 0, 0];
    let area = 0, mass = 0, outline = 0;
    labels[first] = label;
    while (waiting.length) {
      const at = waiting.pop(), x = at % width, y = (at - x) / width;
      [area, mass] = [area + 1, mass + ink[at]];
      [box[0], box[1]] = [Math.min(box[0], x), Math.min(box[1], y)];
      [box[2], box[3]] = [Math.max(box[2], x + 1), Math.max(box[3], y + 1)];
      for (let v = y - 1; v <= y + 1; v++) {
        for (let u = x - 1; u <= x + 1; u++) {
          const next = v * width + u, isInk = u >= 0 && v >= 0 && u < width && v < height && ink[next] > threshold;
          if (!isInk) outline += u === x || v === y;
          else if (!labels[next]) waiting.push(next) && (labels[next] = label);
        }
      }
    }
    const [across, down] = [box[2] - box[0], box[3] - box[1]], length = Math.max(across, down);
    parts.push({label, box, mass, height: down, length, elongation: outline * length / area});
  }
  return {labels, parts};
}

// Return the box and the labels of each digit, the clearest first: a long and narrow part that is no smaller than others, or
// that is not within another's box, with the parts near it.
function digitsOf(parts, minLength) {
  const scoreOf = ({mass, elongation}) => mass * Math.min(elongation, 16) ** 4;
  const strokes = parts.filter(({length, elongation}) => length >= minLength && elongation >= MIN_ELONGATION);
  const main = strokes.reduce((best, part) => !best || scoreOf(part) > scoreOf(best) ? part : best, null);
  const similar = strokes.filter((part) => {
    const inRow = areSideBySide(part.box, main.box) && gapOf(part, main) >= MIN_GAP_IN_ROW * main.height;
    const ratios = inRow ? MIN_RATIOS_IN_ROW : MIN_RATIOS, heights = part.height / main.height;
    return part !== main && Math.min(heights, 1 / heights) >= ratios.height && part.mass >= ratios.mass * main.mass;
  });
  const digits = main ? [main] : [];
  for (const part of similar.sort((a, b) => b.mass - a.mass)) {
    if (digits.every((digit) => gapOf(digit, part) >= 0)) digits.push(part);
  }
  const found = new Map(digits.map((digit) => [digit, {box: [...digit.box], labels: new Set()}]));
  for (const part of digits.length ? parts : []) {
    const digit = digits.reduce((best, digit) => gapOf(digit, part) < gapOf(best, part) ? digit : best);
    if (gapOf(digit, part) >= MAX_GAP * digit.length || part.mass < MIN_MASS * digit.mass) continue;
    const {box, labels} = found.get(digit);
    labels.add(part.label);
    part.box.forEach((edge, side) => box[side] = side < 2 ? Math.min(box[side], edge) : Math.max(box[side], edge));
  }
  return [...found.values()];
}

// How far two parts' boxes are apart; below 0 where they overlap.
function gapOf({box: [left, top, right, bottom]}, {box: other}) {
  return Math.max(left - other[2], other[0] - right, top - other[3], other[1] - bottom);
}

// Whether two boxes overlap by half of the lower one's height or more.
function areSideBySide(box, other) {
  const overlap = Math.min(box[3], other[3]) - Math.max(box[1], other[1]);
  return overlap >= 0.5 * Math.min(box[3] - box[1], other[3] - other[1]);
}

// Return a digit's strokes alone, from 0 to 1 with edges at one half, thickened if they are thin, and their box.
function strokesOf(ink, labels, width, height, box, own) {
  const margin = EDGE + Math.ceil(MIN_STROKE * Math.max(box[2] - box[0], box[3] - box[1]) / DIGIT_BOX);
  const around = [box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin];
  const [left, top, right, bottom] = around.map((edge, side) => Math.min(Math.max(edge, 0), side % 2 ? height : width));
  const across = right - left, down = bottom - top, isOwn = cropped(labels, width, left, top, right, bottom).map((label) => own.has(label));
  const part = cropped(ink, width, left, top, right, bottom), inside = part.filter((_, at) => isOwn[at]).sort();
  const full = inside[Math.floor(0.75 * (inside.length - 1))], near = widened(isOwn, across, down, EDGE);
  let strokes = part.map((value, at) => near[at] * Math.min(Math.max(2 * value / full - 0.5, 0), 1));
  let solid = 0, outline = 0;
  strokes.forEach((value, at) => {
    solid += value > 0.5;
    outline += (at % across > 0 && value > 0.5 !== strokes[at - 1] > 0.5) + (at >= across && value > 0.5 !== strokes[at - across] > 0.5);
  });
  const [x, y, u, v] = boundsOf(strokes, across);
  const missing = MIN_STROKE * Math.max(u - x, v - y) / DIGIT_BOX - 2 * solid / outline;
  if (missing > 0) strokes = widened(strokes, across, down, Math.round(missing / 2));
  const bounds = boundsOf(strokes, across);
  return {strokes: cropped(strokes, across, ...bounds), box: bounds.map((edge, side) => edge + (side % 2 ? top : left))};
}

function boundsOf(values, width) {  // of what is more than one half
  const box = [Infinity, Infinity, 0, 0];
  values.forEach((value, at) => {
    if (value <= 0.5) return;
    const x = at % width, y = (at - x) / width;
    [box[0], box[1]] = [Math.min(box[0], x), Math.min(box[1], y)];
    [box[2], box[3]] = [Math.max(box[2], x + 1), Math.max(box[3], y + 1)];
  });
  return box;
}

function cropped(values, width, left, top, right, bottom) {
  const part = new values.constructor((right - left) * (bottom - top));
  for (let y = top; y < bottom; y++) part.set(values.subarray(y * width + left, y * width + right), (y - top) * (right - left));
  return part;
}

function widened(values, width, height, radius) {  // the largest value within a square around each pixel
  for (const [step, length] of [[1, width], [width, height]]) {
    values = values.map((value, at) => {
      const place = Math.floor(at / step) % length;
      for (let away = -Math.min(radius, place); away <= Math.min(radius, length - 1 - place); away++) value = Math.max(value, values[at + away * step]);
      return value;
    });
  }
  return values;
}

// Scale strokes, from 0 to 1, into a box of 20 x 20, and centre them by mass in 28 x 28 bytes.
function centred(strokes, width, height) {
  const [across, down] = [width, height].map((side) => Math.max(1, Math.round(DIGIT_BOX * side / Math.max(width, height))));
  const pixels = scaled(strokes, width, height, across, down), most = Math.max(...pixels);
  let mass = 0, x = 0, y = 0;
  pixels.forEach((value, at) => [mass, x, y] = [mass + value, x + value * (at % across), y + value * Math.floor(at / across)]);
  const [left, top] = [[x, across], [y, down]].map(([moment, side]) => {
    return Math.min(Math.max(Math.round(MNIST_SIDE / 2 - moment / mass), 0), MNIST_SIDE - side);
  });
  const centre = new Uint8Array(MNIST_SIDE * MNIST_SIDE);
  pixels.forEach((value, at) => centre[(top + Math.floor(at / across)) * MNIST_SIDE + left + at % across] = Math.round(255 * value / most));
  return centre;
}

function scaled(values, width, height, across, down) {  // each pixel is the mean of those in its place
  const range = (place, scale, side) => [Math.floor((place + 0.5) * scale - Math.max(scale, 1) / 2 + 0.5), Math.min(Math.floor((place + 0.5) * scale + Math.max(scale, 1) / 2 + 0.5), side)];
  return Float32Array.from({length: across * down}, (_, at) => {
    const [left, right] = range(at % across, width / across, width), [top, bottom] = range(Math.floor(at / across), height / down, height);
    let sum = 0;
    for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) sum += values[y * width + x];
    return sum / ((right - left) * (bottom - top));
  });
}
