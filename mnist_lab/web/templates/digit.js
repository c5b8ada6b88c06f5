// Find the digits in a grey image and bring them into MNIST's form: what mnist_lab/inference/digits.py does, to the same
// bytes. Math.fround stands where NumPy computes with 32 bits, and sums run in NumPy's order.

const MNIST_SIDE = 28, DIGIT_BOX = 20;  // pixels, of the images that a network is given and of the digit in them
const SMALLEST_SIDE = 112, LARGEST_SIDE = 640;  // pixels of the longer side; Python resizes images beyond them
const MAX_STROKE = 0.25;  // of the shorter side; anything wider is paper, shadow or table
const MIN_LENGTH = 0.04;  // of the longer side; anything smaller is dust
const MIN_PIXELS = 6;  // of the digit's longer side
const MIN_CONTRAST = 0.08;  // of the paper's brightness
const MAX_GAP = 0.3;  // of the digit's longer side; components within it may be parts of the digit
const MIN_ELONGATION = 6, LINE_ELONGATION = 16;  // outline times length by area
const MIN_STROKE = 1.6;  // pixels of 20; thinner strokes are thickened to it
const EDGE_WIDTH = 4;  // pixels
const MIN_EDGE_CONTRAST = 0.25;  // of a component's mean ink
const MIN_FRAMED = 0.4;  // of a line's longer side; a line around something of this length is a frame
// Separate components of such similar heights and amounts of ink are two digits; side by side and apart, less will do.
const MIN_HEIGHT_RATIO = 0.6, MIN_MASS_RATIO = 0.2;
const MIN_HEIGHT_RATIO_IN_ROW = 0.5, MIN_MASS_RATIO_IN_ROW = 0.03;
const MIN_GAP_IN_ROW = 0.1;  // of the height
const OTSU_BINS = 64;
const BRIGHT = 170, DARK = 85;  // brightness from which, and below which, a background is clearly light or dark
const RESIZE_BITS = 22;  // of the weights' fractions, as in Pillow

// Find the row of digits that the clearest one stands in, in brightness values from 0 to 255, row by row: dark on light
// or light on dark. Returns for each, from left to right, its pixels (28 x 28 bytes), its box (left, top, right and
// bottom as fractions) and the number of digits in the image; nothing if the clearest is too small or none is there.
function findNumber(grey, width, height) {
  const longer = Math.max(width, height);
  if (grey.length !== width * height) throw new RangeError(`${grey.length} values for ${width} x ${height} pixels`);
  if (longer < SMALLEST_SIDE || longer > LARGEST_SIDE) {
    throw new RangeError(`the longer side must have ${SMALLEST_SIDE} to ${LARGEST_SIDE} pixels, not ${longer}`);
  }
  const dark = smoothed(grey, width, height), light = new Float32Array(dark.length);
  for (let i = 0; i < dark.length; i++) light[i] = 255 - dark[i];  // loops: map() takes several times as long
  let best = null;
  for (const values of [dark, light]) {
    const found = findCandidate(values, width, height);
    if (!found) continue;
    const framed = best === null ? 1 : found.isFramed - best.isFramed;
    if (framed > 0 || (framed === 0 && found.score > best.score)) best = found;
  }
  if (best === null) return [];
  const [first, ...others] = best.digits.map((digit) => prepared(digit, width, height, best.digits.length));
  if (first === null) return [];
  const row = [first], rest = new Set(others.filter((other) => other !== null));
  for (const digit of row) {  // which grows, so that a tilted row is followed to its ends
    for (const other of rest) {
      if (areSideBySide(digit.box, other.box)) rest.delete(other) && row.push(other);
    }
  }
  return row.sort((a, b) => a.box[0] - b.box[0]);
}

// Whether two boxes overlap by half of the lower one's height or more.
function areSideBySide(box, other) {
  const overlap = Math.min(box[3], other[3]) - Math.max(box[1], other[1]);
  return overlap >= 0.5 * Math.min(box[3] - box[1], other[3] - other[1]);
}

function prepared(digit, width, height, candidates) {  // null for one that is too small
  const strokes = strokesOf(digit);
  const [left, top, right, bottom] = boundsOf(strokes, digit.width, digit.height);
  if (Math.max(right - left, bottom - top) < MIN_PIXELS) return null;
  const x = (digit.left + left) / width, y = (digit.top + top) / height;
  return {
    pixels: centred(cropped(strokes, digit.width, left, top, right, bottom), right - left, bottom - top),
    box: [x, y, x + (right - left) / width, y + (bottom - top) / height],
    candidates,
  };
}

// The whole of a square image as 28 x 28 bytes, for networks of other things than digits: inverted where its edges are
// light and those of the training images, of this brightness, are dark, or the other way round.
function fitImage(grey, side, background) {
  const edges = [];
  for (let i = 0; i < side; i++) edges.push(grey[i], grey[(side - 1) * side + i], grey[i * side], grey[i * side + side - 1]);
  edges.sort((a, b) => a - b);
  const edge = Math.trunc((edges[2 * side - 1] + edges[2 * side]) / 2);
  const inverts = (background < DARK && edge > BRIGHT) || (background > BRIGHT && edge < DARK);
  const bytes = Uint8Array.from(grey, (value) => inverts ? 255 - value : value);
  return [{pixels: scaledTo(bytes, side, side, MNIST_SIDE, MNIST_SIDE, BILINEAR), box: [0, 0, 1, 1], candidates: 1}];
}

// Smooth against the noise of single pixels, with weights of 1, 2 and 1 in both directions.
function smoothed(grey, width, height) {
  const across = new Float64Array(grey.length), smooth = new Float32Array(grey.length);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      across[at] = grey[x > 0 ? at - 1 : at] + 2 * grey[at] + grey[x < width - 1 ? at + 1 : at];
    }
  }
  for (let y = 0, at = 0; y < height; y++) {
    const above = y > 0 ? width : 0, below = y < height - 1 ? width : 0;
    for (let x = 0; x < width; x++, at++) {
      smooth[at] = (across[at - above] + 2 * across[at] + across[at + below]) / 16;
    }
  }
  return smooth;
}

// Look for dark strokes: first in the darker half of the ink, which leaves out ruled lines and faint marks.
function findCandidate(grey, width, height) {
  const radius = Math.trunc(MAX_STROKE * Math.min(width, height)) >> 1;
  const paper = filled(grey, width, height, radius);  // shadows keep their edges
  const ink = new Float32Array(grey.length);
  for (let i = 0; i < ink.length; i++) ink[i] = Math.fround(paper[i] - grey[i]) / (paper[i] > 32 ? paper[i] : 32);
  const values = ink.slice();
  const low = percentile(values, 0.16), median = percentile(values, 0.5), middle = Math.fround(median);
  // Four standard deviations, of the half that has no strokes.
  const noise = Math.max(4 * (median - low), Math.fround(MIN_CONTRAST));
  let count = 0;
  for (let i = 0; i < ink.length; i++) {
    const value = Math.fround(ink[i] - middle);
    ink[i] = value < 0 ? 0 : value > 1 ? 1 : value;
    if (ink[i] > noise) values[count++] = ink[i];
  }
  if (!count) return null;
  const above = (threshold) => chooseDigits(grey, ink, width, height, threshold);
  const found = above(otsuThreshold(values.subarray(0, count))) || above(noise);
  if (!found) return null;
  // Paper is even, though shaded. Where light between dark digits is taken for digits, part of the paper is ink.
  const darkest = percentile(paper, 0.05), brightest = percentile(paper, 0.95);
  const evenness = 1 - (brightest - darkest) / Math.max(brightest, 32);
  return {...found, score: found.score * Math.max(evenness, 0.01)};
}

// Return the components of the ink above a threshold that are most likely digits, each with those that belong to it.
function chooseDigits(grey, ink, width, height, threshold) {
  const {labels, components} = labelled(ink, width, height, threshold);
  measure(components, labels, grey, ink, width, height);
  const border = width > 1 && height > 1 ? 2 * (width + height) - 4 : width * height;  // pixels
  const longer = Math.max(width, height);
  for (const part of components) {
    part.width = part.right - part.left;
    part.height = part.bottom - part.top;
    part.length = Math.max(part.width, part.height);
    const spans = part.width > 0.6 * width && part.height > 0.6 * height && part.touching < 0.35 * border;
    // A digit may be cropped closely, or cut off; what runs along the edge is the paper's end, a shadow or a table.
    part.inside = part.touching === 0 ? 1 : spans ? 0.5 : part.touching < 0.5 * part.length ? 0.2 : 0;
    const elongation = part.outline * part.length / part.area;
    const sharpness = Math.min(Math.max(part.contrast * part.area / Math.max(part.mass, 1e-6), 0), 1);
    part.isStroke = part.length >= MIN_LENGTH * longer && elongation >= MIN_ELONGATION
      && sharpness > MIN_EDGE_CONTRAST;
    part.isLine = part.isStroke && elongation >= LINE_ELONGATION;
    // Strokes are long and narrow; the hole of a 0, the notch of a 4 and a patch of light are not.
    const square = Math.min(elongation, LINE_ELONGATION) ** 2;
    part.score = part.isStroke ? part.mass * part.inside * sharpness * (square * square) : 0;
  }
  for (const line of components) {
    line.isFrame = line.isLine && components.some((part) => part.score > 0 && part.left > line.left
      && part.top > line.top && part.right < line.right && part.bottom < line.bottom
      && part.length >= MIN_FRAMED * line.length);
  }
  const scored = components.filter((part) => !part.isFrame && part.score > 0);
  if (!scored.length) return null;
  const main = scored.reduce((best, part) => part.score > best.score ? part : best);
  const isVisible = (part) => part.inside >= main.inside && !part.isFrame;
  const isBeside = (part) => {
    const overlap = Math.min(part.bottom, main.bottom) - Math.max(part.top, main.top);
    return overlap >= 0.5 * Math.min(part.height, main.height);
  };
  const others = components.filter((part) => {
    const heights = part.height / main.height, inRow = isBeside(part) && gapOf(main, part) >= MIN_GAP_IN_ROW * main.height;
    const isSimilar = Math.min(heights, 1 / heights) >= (inRow ? MIN_HEIGHT_RATIO_IN_ROW : MIN_HEIGHT_RATIO)
      && part.mass >= (inRow ? MIN_MASS_RATIO_IN_ROW : MIN_MASS_RATIO) * main.mass;
    return isVisible(part) && part.isStroke && isSimilar;
  });
  const digits = [main];
  for (const other of others.sort((a, b) => b.mass - a.mass)) {
    if (digits.every((digit) => gapOf(digit, other) >= 0)) digits.push(other);
  }
  const parts = new Map(digits.map((digit) => [digit, []]));
  for (const part of components.filter(isVisible)) {
    const nearest = digits.reduce((best, digit) => gapOf(digit, part) < gapOf(best, part) ? digit : best);
    if (gapOf(nearest, part) < MAX_GAP * nearest.length && part.mass >= 0.03 * nearest.mass) parts.get(nearest).push(part);
  }
  const margin = Math.floor(longer / 20) + 5;  // room for a digit's edges and for thicker strokes
  const found = digits.map((digit) => {
    const belongs = new Uint8Array(components.length + 1);
    let [left, top, right, bottom] = [width, height, 0, 0];
    for (const part of parts.get(digit)) {
      belongs[part.label] = 1;
      [left, top] = [Math.min(left, part.left), Math.min(top, part.top)];
      [right, bottom] = [Math.max(right, part.right), Math.max(bottom, part.bottom)];
    }
    [left, top] = [Math.max(left - margin, 0), Math.max(top - margin, 0)];
    [right, bottom] = [Math.min(right + margin, width), Math.min(bottom + margin, height)];
    return {
      left,
      top,
      width: right - left,
      height: bottom - top,
      margin,
      mask: cropped(labels, width, left, top, right, bottom).map((label) => belongs[label]),
      ink: cropped(ink, width, left, top, right, bottom),
    };
  });
  return {
    score: digits.filter(isBeside).reduce((sum, digit) => sum + digit.score, 0),
    isFramed: components.some((part) => part.isFrame) ? 1 : 0,
    digits: found,
  };
}

// How far two components' boxes are apart; below 0 where they overlap.
function gapOf(part, other) {
  const across = Math.max(part.left - other.right, other.left - part.right);
  return Math.max(across, part.top - other.bottom, other.top - part.bottom);
}

// Label the ink above a threshold, 8-connected, in the order of the components' first pixels, as SciPy does.
function labelled(ink, width, height, threshold) {
  const labels = new Int32Array(ink.length), waiting = new Int32Array(ink.length), components = [];
  for (let first = 0; first < ink.length; first++) {
    if (labels[first] || !(ink[first] > threshold)) continue;
    const label = components.length + 1;
    let left = width, top = height, right = 0, bottom = 0, area = 0, count = 1;
    waiting[0] = first;
    labels[first] = label;
    while (count) {
      const at = waiting[--count], x = at % width, y = (at - x) / width;
      area++;
      if (x < left) left = x;
      if (x >= right) right = x + 1;
      if (y < top) top = y;
      if (y >= bottom) bottom = y + 1;
      for (let v = Math.max(y - 1, 0); v <= y + 1 && v < height; v++) {
        for (let u = Math.max(x - 1, 0); u <= x + 1 && u < width; u++) {
          const next = v * width + u;
          if (labels[next] || !(ink[next] > threshold)) continue;
          labels[next] = label;
          waiting[count++] = next;
        }
      }
    }
    components.push({label, left, top, right, bottom, area});
  }
  return {labels, components};
}

// Add each component's mass, how many of its pixels touch the image's edge, its outline's length, and its contrast:
// how much brighter it is outside. Where the paper was estimated wrongly, as at the end of a shadow, the ink ends but
// the brightness does not change.
function measure(components, labels, grey, ink, width, height) {
  const count = components.length + 1;
  const mass = new Float64Array(count), outline = new Int32Array(count), paper = new Int32Array(count);
  const touching = new Int32Array(count), contrast = [0, 1, 2, 3].map(() => new Float64Array(count));
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const label = labels[at];
      if (!label) continue;
      mass[label] += ink[at];
      if (x === 0 || y === 0 || x === width - 1 || y === height - 1) touching[label]++;
      const open = (x === width - 1 || !labels[at + 1]) + (x === 0 || !labels[at - 1])
        + (y === height - 1 || !labels[at + width]) + (y === 0 || !labels[at - width]);
      if (!open) continue;
      outline[label] += open;
      for (let side = 0; side < 4; side++) {  // right, left, below, above
        const far = side % 2 ? -EDGE_WIDTH : EDGE_WIDTH, u = side < 2 ? x + far : x, v = side < 2 ? y : y + far;
        if (u < 0 || v < 0 || u >= width || v >= height || labels[v * width + u]) continue;
        const outside = grey[v * width + u];
        paper[label]++;
        contrast[side][label] += Math.fround(Math.fround(outside - grey[at]) / Math.max(outside, 32));
      }
    }
  }
  for (const part of components) {
    const [right, left, below, above] = contrast.map((sums) => sums[part.label]);
    part.mass = mass[part.label];
    part.touching = touching[part.label];
    part.outline = outline[part.label];
    part.contrast = (right + left + below + above) / Math.max(paper[part.label], 1);
  }
}

// Return the digit's strokes alone, from 0 to 1 with edges at one half, thickened if they are thin.
function strokesOf({mask, ink, width, height, margin}) {
  const inside = new Float32Array(ink.length);
  let count = 0;
  for (let i = 0; i < ink.length; i++) if (mask[i]) inside[count++] = ink[i];
  const full = Math.fround(percentile(inside.subarray(0, count), 0.75));
  const near = maximumFilter(mask, width, height, Math.floor(margin / 5)), strokes = new Float32Array(ink.length);
  for (let i = 0; i < ink.length; i++) {
    strokes[i] = near[i] * Math.min(Math.max(Math.fround(Math.fround(2 * ink[i] / full) - 0.5), 0), 1);
  }
  let solid = 0, outline = 0;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const isSolid = strokes[at] > 0.5;
      solid += isSolid;
      if (x > 0) outline += isSolid !== strokes[at - 1] > 0.5;
      if (y > 0) outline += isSolid !== strokes[at - width] > 0.5;
    }
  }
  const [left, top, right, bottom] = boundsOf(strokes, width, height);
  const missing = MIN_STROKE * Math.max(right - left, bottom - top) / DIGIT_BOX - 2 * solid / outline;
  return missing > 0 ? maximumFilter(strokes, width, height, roundEven(missing / 2)) : strokes;
}

// Return the left, top, right and bottom of what is more than one half.
function boundsOf(values, width, height) {
  let left = width, top = height, right = 0, bottom = 0;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (!(values[at] > 0.5)) continue;
      if (x < left) left = x;
      if (x >= right) right = x + 1;
      if (y < top) top = y;
      bottom = y + 1;
    }
  }
  return [left, top, right, bottom];
}

function cropped(values, width, left, top, right, bottom) {
  const part = new values.constructor((right - left) * (bottom - top));
  for (let y = top; y < bottom; y++) {
    part.set(values.subarray(y * width + left, y * width + right), (y - top) * (right - left));
  }
  return part;
}

// Scale strokes, from 0 to 1, into a box of 20 x 20, and centre them by mass in 28 x 28 bytes.
function centred(strokes, width, height) {
  const longer = Math.max(width, height);
  const [across, down] = [width, height].map((side) => Math.max(1, roundEven(DIGIT_BOX * side / longer)));
  const bytes = new Uint8Array(strokes.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Math.fround(255 * strokes[i]);  // cuts off, does not round
  const scaled = scaledTo(bytes, width, height, across, down, BOX);
  const brightest = scaled.reduce((most, value) => Math.max(most, value), 0);
  const pixels = Float64Array.from(scaled, (value) => value * (255 / brightest));
  const mass = pairwiseSum(pixels, 0, pixels.length);
  const [x, y] = [(at) => at % across, (at) => Math.floor(at / across)].map((place) => {
    return pairwiseSum(pixels.map((value, at) => value * place(at)), 0, pixels.length) / mass;
  });
  const left = Math.min(Math.max(roundEven(MNIST_SIDE / 2 - x), 0), MNIST_SIDE - across);
  const top = Math.min(Math.max(roundEven(MNIST_SIDE / 2 - y), 0), MNIST_SIDE - down);
  const centre = new Uint8Array(MNIST_SIDE * MNIST_SIDE);
  for (let row = 0; row < down; row++) {
    const line = pixels.subarray(row * across, (row + 1) * across);
    centre.set(line.map(roundEven), (top + row) * MNIST_SIDE + left);
  }
  return centre;
}

// Filters of Pillow's: how far they reach, and the weight of what is so far away, in pixels of the smaller image.
const BOX = {reach: 0.5, weigh: (away) => away > -0.5 && away <= 0.5 ? 1 : 0};
const BILINEAR = {reach: 1, weigh: (away) => Math.max(1 - Math.abs(away), 0)};

// Scale bytes to another size as Pillow does. Pillow 13 rounds the height's pass first where it takes away most; an older
// one never does, which may be a grey level's difference.
function scaledTo(bytes, width, height, across, down, filter) {
  if (height - down <= 2 * (width - across)) {
    return scaledAcross(scaledAcross(bytes, width, height, across, filter), height, across, down, filter);
  }
  const lower = scaledAcross(transposed(bytes, width, height), height, width, down, filter);
  return transposed(scaledAcross(lower, width, down, across, filter), down, across);
}

// The same along rows, with Pillow's rounded weights. Columns become rows: a second call scales the height.
function scaledAcross(bytes, width, height, across, filter) {
  const scaled = new Uint8Array(across * height), scale = width / across, span = Math.max(scale, 1);
  for (let column = 0; column < across; column++) {
    const centre = (column + 0.5) * scale;
    const start = Math.max(Math.trunc(centre - filter.reach * span + 0.5), 0);
    const stop = Math.min(Math.trunc(centre + filter.reach * span + 0.5), width);
    const weights = [];
    for (let x = start; x < stop; x++) weights.push(filter.weigh((x - centre + 0.5) * (1 / span)));
    const all = weights.reduce((sum, weight) => sum + weight, 0);
    const rounded = weights.map((weight) => Math.trunc(0.5 + weight * (1 / all) * 2 ** RESIZE_BITS));
    for (let y = 0; y < height; y++) {
      let sum = 2 ** (RESIZE_BITS - 1);
      for (let i = 0; i < rounded.length; i++) sum += bytes[y * width + start + i] * rounded[i];
      scaled[column * height + y] = Math.min(sum >> RESIZE_BITS, 255);
    }
  }
  return scaled;
}

// Fill what is darker than its surroundings and fits into a square: the smallest of the largest values around.
function filled(values, width, height, radius) {
  const turned = transposed(maximaAcross(values, width, height, radius), width, height);
  const negative = negated(maximaAcross(turned, height, width, radius));
  const back = transposed(maximaAcross(negative, height, width, radius), height, width);
  return negated(maximaAcross(back, width, height, radius));
}

// Return the largest value within a square around each pixel.
function maximumFilter(values, width, height, radius) {
  const turned = transposed(maximaAcross(values, width, height, radius), width, height);
  return transposed(maximaAcross(turned, height, width, radius), height, width);
}

// The same along rows (van Herk), from the largest of each block up to a place and from it on: in a time that does not
// grow with the radius.
function maximaAcross(values, width, height, radius) {
  const maxima = new Float32Array(values.length), size = 2 * radius + 1, padded = width + 2 * radius;
  const [line, upTo, from] = [0, 1, 2].map(() => new Float32Array(padded).fill(-Infinity));
  for (let y = 0; y < height; y++) {
    const row = values.subarray(y * width, (y + 1) * width);
    let same = 1;
    while (same < width && row[same] === row[0]) same++;
    if (same === width) {  // blank, as most rows of a drawing are
      maxima.fill(row[0], y * width, (y + 1) * width);
      continue;
    }
    line.set(row, radius);
    for (let start = 0; start < padded; start += size) {
      const last = Math.min(start + size, padded) - 1;
      let most = -Infinity;
      for (let i = start; i <= last; i++) {
        const value = line[i];
        if (value > most) most = value;
        upTo[i] = most;
      }
      most = -Infinity;
      for (let i = last; i >= start; i--) {
        const value = line[i];
        if (value > most) most = value;
        from[i] = most;
      }
    }
    for (let x = 0, at = y * width; x < width; x++, at++) {
      const one = from[x], other = upTo[x + 2 * radius];
      maxima[at] = one > other ? one : other;
    }
  }
  return maxima;
}

// Return columns as rows; in strips of 16 rows, which a processor's cache holds.
function transposed(values, width, height) {
  const turned = new values.constructor(values.length);
  for (let top = 0; top < height; top += 16) {
    const bottom = Math.min(top + 16, height);
    for (let x = 0; x < width; x++) {
      for (let y = top; y < bottom; y++) turned[x * height + y] = values[y * width + x];
    }
  }
  return turned;
}

// Change the sign of values in place.
function negated(values) {
  for (let i = 0; i < values.length; i++) values[i] = -values[i];
  return values;
}

// Return the value below which a share of the values are, interpolated. Sorts the values in part.
function percentile(values, share) {
  const place = (values.length - 1) * share, rank = Math.floor(place), part = place - rank;
  let low = 0, high = values.length - 1;
  while (low < high) {  // Hoare's selection: smaller values end up before the rank, larger ones behind it
    const pivot = values[(low + high) >> 1];
    let i = low, j = high;
    while (i <= j) {
      while (values[i] < pivot) i++;
      while (values[j] > pivot) j--;
      if (i > j) break;
      const value = values[i];
      values[i++] = values[j];
      values[j--] = value;
    }
    if (rank <= j) high = j;
    else if (rank >= i) low = i;
    else break;
  }
  const below = values[rank];
  let above = rank + 1 < values.length ? Infinity : below;
  for (let i = rank + 1; i < values.length; i++) if (values[i] < above) above = values[i];
  const step = Math.fround(above - below);
  return part < 0.5 ? below + step * part : above - step * (1 - part);
}

// Return the threshold that separates values best into two groups (Otsu), with NumPy's histogram.
function otsuThreshold(values) {
  let least = Infinity, most = -Infinity;
  for (const value of values) {
    least = Math.min(least, value);
    most = Math.max(most, value);
  }
  const range = Math.fround(most - least), step = Math.fround(range / OTSU_BINS);
  if (range < Math.fround(1e-4)) return Math.fround(least - 1e-4);  // one group, above the threshold
  const edges = Float32Array.from({length: OTSU_BINS + 1}, (_, bin) => Math.fround(bin * step) + least);
  edges[OTSU_BINS] = most;
  const counts = new Int32Array(OTSU_BINS);
  for (const value of values) {
    let bin = Math.trunc(Math.fround(Math.fround(Math.fround(value - least) / range) * OTSU_BINS));
    if (bin === OTSU_BINS) bin--;
    if (value < edges[bin]) bin--;
    if (value >= edges[bin + 1] && bin !== OTSU_BINS - 1) bin++;
    counts[bin]++;
  }
  const below = [], sums = [];
  for (let bin = 0, count = 0, sum = 0; bin < OTSU_BINS; bin++) {
    below.push(count += counts[bin]);
    sums.push(sum += counts[bin] * Math.fround(edges[bin] + edges[bin + 1]) / 2);
  }
  const all = values.length, total = sums[OTSU_BINS - 1];
  const separation = below.map((count, bin) => {
    return (sums[bin] * all - total * count) ** 2 / Math.max(count * (all - count), 1);
  });
  return edges[1 + separation.indexOf(Math.max(...separation))];
}

// Round halves to even, as Python and NumPy do.
function roundEven(value) {
  const floor = Math.floor(value), rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2) ? floor + 1 : floor;
}

// Sum in the order in which NumPy does: where a digit is symmetric, the last bit decides on which side its centre is.
function pairwiseSum(values, start, stop) {
  const count = stop - start;
  if (count > 128) {
    const half = start + (count >> 1) - (count >> 1) % 8;
    return pairwiseSum(values, start, half) + pairwiseSum(values, half, stop);
  }
  let sum = 0, at = start;
  if (count >= 8) {
    const sums = values.slice(start, start + 8);
    for (at += 8; at + 8 <= stop; at += 8) {
      for (let i = 0; i < 8; i++) sums[i] += values[at + i];
    }
    const [a, b, c, d, e, f, g, h] = sums;
    sum = ((a + b) + (c + d)) + ((e + f) + (g + h));
  }
  while (at < stop) sum += values[at++];
  return sum;
}
