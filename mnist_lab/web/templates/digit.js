// Find the digits in a drawing, dark on white, and convert them into MNIST's form. `predict` does the same for images of
// any kind (mnist_lab/inference/digits.py); clean strokes need no search for paper, shadows, frames and noise.

const MNIST_SIDE = 28, DIGIT_BOX = 20;  // pixels, the sides of a network's image and of the digit in it
const MIN_INK = 0.08;  // share of black
const MIN_MASS = 0.03;  // share of the digit's ink; a part with less does not belong to the digit
const MIN_LENGTH = 0.04;  // share of the drawing's longer side
const MIN_ELONGATION = 6;  // outline times length divided by area; a dot has 5
const MAX_GAP = 0.3;  // share of the digit's longer side; a part that is nearer may belong to the digit
// Separate strokes are two digits if their heights and amounts of ink are similar; side by side, these ratios suffice.
const MIN_RATIOS = {height: 0.6, mass: 0.2}, MIN_RATIOS_IN_ROW = {height: 0.5, mass: 0.03};
const MIN_GAP_IN_ROW = 0.1;  // share of the height
const MIN_STROKE = 1.3;  // pixels of 20; thinner strokes are thickened to it
const EDGE = 4;  // pixels around a stroke that its smooth edge may reach

// Find the row of the clearest digit, from left to right, in brightness values from 0 to 255, row by row. Return each
// digit's pixels (28 x 28 bytes) and box (left, top, right and bottom as fractions), and the number of all digits.
function findNumber(grey, {width, height}) {
  const ink = measureInk(grey, width, height), {labels, parts} = findParts(ink, width, height);
  const digits = groupParts(parts, MIN_LENGTH * Math.max(width, height));
  const row = digits.slice(0, 1), rest = new Set(digits.slice(1));
  for (const digit of row) {  // The row grows in the loop, so that a tilted row is followed to its ends.
    for (const other of rest) if (areSideBySide(digit.box, other.box)) rest.delete(other) && row.push(other);
  }
  return row.map((digit) => {
    const {strokes, box: [left, top, right, bottom]} = extractStrokes(digit, ink, labels, width, height);
    const pixels = centre(strokes, right - left, bottom - top);
    return {pixels, box: [left / width, top / height, right / width, bottom / height], candidates: digits.length};
  }).sort((a, b) => a.box[0] - b.box[0]);
}

// Return a whole square drawing as 28 x 28 bytes, for networks that do not recognise digits. The background is the
// brightness of the training images' edges; if it is dark, the drawing becomes light on dark.
function fitImage(grey, {width: side}, background) {
  const pixels = scale(background < 85 ? grey.map((value) => 255 - value) : grey, side, side, MNIST_SIDE, MNIST_SIDE);
  return [{pixels: Uint8Array.from(pixels, Math.round), box: [0, 0, 1, 1], candidates: 1}];
}

// Return the ink of each pixel, from 0 to 1, smoothed with weights of 1, 2 and 1 in both directions.
function measureInk(grey, width, height) {
  const across = new Float32Array(grey.length), ink = new Float32Array(grey.length), last = grey.length - width;
  for (let i = 0; i < grey.length; i++) across[i] = (grey[i % width ? i - 1 : i] + 2 * grey[i] + grey[(i + 1) % width ? i + 1 : i]) / 4;
  for (let i = 0; i < ink.length; i++) {
    ink[i] = 1 - (across[i < width ? i : i - width] + 2 * across[i] + across[i < last ? i + width : i]) / 4 / 255;
  }
  return ink;
}

// Return the threshold that best separates the ink from the faint edges of the strokes (Otsu).
function findThreshold(ink) {
  const bins = 64, counts = new Float64Array(bins), strong = ink.filter((value) => value > MIN_INK);
  const step = (strong.reduce((most, value) => Math.max(most, value), 0) - MIN_INK) / bins;
  for (const value of strong) counts[Math.min(Math.floor((value - MIN_INK) / step), bins - 1)]++;
  const total = counts.reduce((sum, count, bin) => sum + count * bin, 0);
  let below = 0, sum = 0, best = 0, threshold = MIN_INK;
  counts.forEach((count, bin) => {
    [below, sum] = [below + count, sum + count * bin];
    const separation = (sum * strong.length - total * below) ** 2 / Math.max(below * (strong.length - below), 1);
    if (separation > best) [best, threshold] = [separation, MIN_INK + (bin + 1) * step];
  });
  return threshold;
}

// Return the connected parts of the ink, with their boxes and measures, and the label of each pixel's part; 0 for none.
function findParts(ink, width, height) {
  const threshold = findThreshold(ink), labels = new Int32Array(ink.length), parts = [];
  for (let first = 0; first < ink.length; first++) {
    if (labels[first] || ink[first] <= threshold) continue;
    const label = parts.length + 1, waiting = [first], box = [width, height, 0, 0];
    let area = 0, mass = 0, outline = 0;
    labels[first] = label;
    while (waiting.length) {
      const at = waiting.pop(), x = at % width, y = (at - x) / width;
      [area, mass] = [area + 1, mass + ink[at]];
      extend(box, x, y, x + 1, y + 1);
      for (let i = 0; i < 9; i++) {  // each pixel around it
        const u = x - 1 + i % 3, v = y - 1 + Math.floor(i / 3), next = v * width + u;
        if (u < 0 || v < 0 || u >= width || v >= height || ink[next] <= threshold) outline += u === x || v === y;
        else if (!labels[next]) waiting.push(next) && (labels[next] = label);
      }
    }
    const tall = box[3] - box[1], length = Math.max(box[2] - box[0], tall);
    parts.push({label, box, mass, area, outline, height: tall, length, elongation: outline * length / area});
  }
  return {labels, parts};
}

// Return the digits, the clearest first: each is a long, narrow part similar in size to the clearest, with parts near it.
function groupParts(parts, minLength) {
  const strokes = parts.filter(({length, elongation}) => length >= minLength && elongation >= MIN_ELONGATION);
  const scoreOf = ({mass, elongation}) => mass * Math.min(elongation, 16) ** 4;
  const [main] = [...strokes].sort((a, b) => scoreOf(b) - scoreOf(a));
  const similar = strokes.filter((part) => {
    const inRow = areSideBySide(part.box, main.box) && measureGap(part, main) >= MIN_GAP_IN_ROW * main.height;
    const ratios = inRow ? MIN_RATIOS_IN_ROW : MIN_RATIOS, heights = part.height / main.height;
    return part !== main && Math.min(heights, 1 / heights) >= ratios.height && part.mass >= ratios.mass * main.mass;
  });
  const digits = main ? [main] : [];
  for (const part of similar.sort((a, b) => b.mass - a.mass)) if (digits.every((digit) => measureGap(digit, part) >= 0)) digits.push(part);
  const groups = digits.map((digit) => ({box: [...digit.box], labels: new Set(), area: 0, outline: 0}));
  for (const part of digits.length ? parts : []) {
    const gaps = digits.map((digit) => measureGap(digit, part)), gap = Math.min(...gaps), nearest = gaps.indexOf(gap);
    if (gap >= MAX_GAP * digits[nearest].length || part.mass < MIN_MASS * digits[nearest].mass) continue;
    const group = groups[nearest];
    [group.area, group.outline] = [group.area + part.area, group.outline + part.outline];
    group.labels.add(part.label);
    extend(group.box, ...part.box);
  }
  return groups;
}

// Extend a box, in place, to contain another.
function extend(box, left, top, right, bottom) {
  [box[0], box[1]] = [Math.min(box[0], left), Math.min(box[1], top)];
  [box[2], box[3]] = [Math.max(box[2], right), Math.max(box[3], bottom)];
}

// Return the distance between the boxes of two parts; it is negative if they overlap.
function measureGap({box: [left, top, right, bottom]}, {box: other}) {
  return Math.max(left - other[2], other[0] - right, top - other[3], other[1] - bottom);
}

// Return whether two boxes overlap vertically by at least half of the lower one's height.
function areSideBySide(box, other) {
  const overlap = Math.min(box[3], other[3]) - Math.max(box[1], other[1]);
  return overlap >= 0.5 * Math.min(box[3] - box[1], other[3] - other[1]);
}

// Return only the strokes of a digit, from 0 to 1 with edges at one half, thickened if they are thin, and their box.
function extractStrokes({box, labels: digitLabels, area, outline}, ink, labels, width, height) {
  const missing = MIN_STROKE * Math.max(box[2] - box[0], box[3] - box[1]) / DIGIT_BOX - 2 * area / outline;
  const thicker = Math.max(Math.round(missing / 2), 0), margin = EDGE + thicker;
  const around = [box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin];
  const [left, top, right, bottom] = around.map((edge, side) => Math.min(Math.max(edge, 0), side % 2 ? height : width));
  const across = right - left, down = bottom - top, part = crop(ink, width, left, top, right, bottom);
  const isInside = crop(labels, width, left, top, right, bottom).map((label) => digitLabels.has(label));
  const inside = part.filter((_, at) => isInside[at]).sort(), full = inside[Math.floor(0.75 * (inside.length - 1))];
  const near = widen(isInside, across, down, EDGE);
  const thin = part.map((value, at) => near[at] * Math.min(Math.max(2 * value / full - 0.5, 0), 1));
  const strokes = widen(thin, across, down, thicker), bounds = [Infinity, Infinity, 0, 0];
  strokes.forEach((value, at) => {
    if (value > 0.5) extend(bounds, at % across, Math.floor(at / across), at % across + 1, Math.floor(at / across) + 1);
  });
  return {strokes: crop(strokes, across, ...bounds), box: bounds.map((edge, side) => edge + (side % 2 ? top : left))};
}

function crop(values, width, left, top, right, bottom) {
  const part = new values.constructor((right - left) * (bottom - top));
  for (let y = top; y < bottom; y++) part.set(values.subarray(y * width + left, y * width + right), (y - top) * (right - left));
  return part;
}

// Return, for each pixel, the largest value within a square around it.
function widen(values, width, height, radius) {
  for (const [step, length] of [[1, width], [width, height]]) {
    const before = values;
    values = before.map((value, at) => {
      const place = Math.floor(at / step) % length, last = at + Math.min(radius, length - 1 - place) * step;
      for (let next = at - Math.min(radius, place) * step; next <= last; next += step) if (before[next] > value) value = before[next];
      return value;
    });
  }
  return values;
}

// Scale strokes, from 0 to 1, into a box of 20 x 20, and centre them by mass in 28 x 28 bytes.
function centre(strokes, width, height) {
  const [across, down] = [width, height].map((side) => Math.max(1, Math.round(DIGIT_BOX * side / Math.max(width, height))));
  const pixels = scale(strokes, width, height, across, down), factor = 255 / Math.max(...pixels);
  const mean = (place) => pixels.reduce((sum, value, at) => sum + value * place(at), 0) / pixels.reduce((sum, value) => sum + value, 0);
  const startOf = (centre, side) => Math.min(Math.max(Math.round(MNIST_SIDE / 2 - centre), 0), MNIST_SIDE - side);
  const left = startOf(mean((at) => at % across), across), top = startOf(mean((at) => Math.floor(at / across)), down);
  const image = new Uint8Array(MNIST_SIDE * MNIST_SIDE);
  pixels.forEach((value, at) => image[(top + Math.floor(at / across)) * MNIST_SIDE + left + at % across] = Math.round(factor * value));
  return image;
}

// Return values at another size, each the mean of the values that it covers.
function scale(values, width, height, across, down) {
  const range = (place, from, to) => [-0.5, 0.5].map((half) => Math.round((place + 0.5) * from / to + half * Math.max(from / to, 1)));
  return Float32Array.from({length: across * down}, (_, at) => {
    const [left, right] = range(at % across, width, across), [top, bottom] = range(Math.floor(at / across), height, down);
    let sum = 0;
    for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) sum += values[y * width + x];
    return sum / ((right - left) * (bottom - top));
  });
}
