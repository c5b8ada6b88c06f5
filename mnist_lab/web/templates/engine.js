// A network's forward pass: the operators of its graph, for one image at a time. Arrays are {data, shape}, without a
// dimension for the batch.

function elements(shape) {
  return shape.reduce((product, side) => product * side, 1);
}

function convolve(x, {weight, bias, stride, padding, dilation, groups}) {
  const [filters, depth, rows, columns] = weight.shape, weights = weight.data;
  const [down, right] = stride, [rowStep, columnStep] = dilation;
  const {data: inputs, shape: [, height, width]} = padMaps(x, padding);
  const outHeight = Math.floor((height - rowStep * (rows - 1) - 1) / down) + 1;
  const outWidth = Math.floor((width - columnStep * (columns - 1) - 1) / right) + 1;
  const data = new Float32Array(filters * outHeight * outWidth);
  for (let filter = 0; filter < filters; filter++) {
    const start = filter * outHeight * outWidth, first = Math.floor(filter * groups / filters) * depth;
    if (bias) data.fill(bias.data[filter], start, start + outHeight * outWidth);
    for (let channel = 0; channel < depth; channel++) {
      const plane = (first + channel) * height * width;
      for (let row = 0; row < rows; row++) {
        const at = ((filter * depth + channel) * rows + row) * columns;
        // It adds three columns at a time, since memory takes longer than sums.
        for (let column = 0; column < columns; column += 3) {
          const a = weights[at + column], b = column + 1 < columns ? weights[at + column + 1] : 0;
          const c = column + 2 < columns ? weights[at + column + 2] : 0;
          const toB = b ? columnStep : 0, toC = c ? 2 * columnStep : 0;
          for (let y = 0; y < outHeight; y++) {
            let place = plane + (y * down + row * rowStep) * width + column * columnStep;
            for (let target = start + y * outWidth, end = target + outWidth; target < end; target++, place += right) {
              data[target] += a * inputs[place] + b * inputs[place + toB] + c * inputs[place + toC];
            }
          }
        }
      }
    }
  }
  return {data, shape: [filters, outHeight, outWidth]};
}

// Add zeros around each map.
function padMaps(x, [above, left]) {
  if (!above && !left) return x;
  const [channels, height, width] = x.shape, shape = [channels, height + 2 * above, width + 2 * left];
  const data = new Float32Array(elements(shape));
  for (let channel = 0; channel < channels; channel++) {
    for (let y = 0; y < height; y++) {
      const row = x.data.subarray((channel * height + y) * width, (channel * height + y + 1) * width);
      data.set(row, (channel * shape[1] + y + above) * shape[2] + left);
    }
  }
  return {data, shape};
}

function connect(x, {weight, bias}) {
  const [outputs, inputs] = weight.shape, data = new Float32Array(outputs);
  for (let i = 0; i < outputs; i++) {
    let sum = bias ? bias.data[i] : 0;
    for (let j = 0; j < inputs; j++) sum += weight.data[i * inputs + j] * x.data[j];
    data[i] = sum;
  }
  return {data, shape: [outputs]};
}

function pool(x, {kernel, stride, padding, ceil, kind, counts}) {
  const [channels, height, width] = x.shape;
  const [outHeight, outWidth] = [height, width].map((side, axis) => {
    const room = side + 2 * padding[axis] - kernel[axis];
    let count = (ceil ? Math.ceil : Math.floor)(room / stride[axis]) + 1;
    if (ceil && (count - 1) * stride[axis] >= side + padding[axis]) count--;  // In torch, no window starts in the padding.
    return count;
  });
  const data = new Float32Array(channels * outHeight * outWidth);
  for (let channel = 0, place = 0; channel < channels; channel++) {
    for (let i = 0; i < outHeight; i++) {
      for (let j = 0; j < outWidth; j++, place++) {
        const top = i * stride[0] - padding[0], left = j * stride[1] - padding[1];
        const bottom = Math.min(top + kernel[0], height), right = Math.min(left + kernel[1], width);
        let best = -Infinity, sum = 0, seen = 0;
        for (let y = Math.max(top, 0); y < bottom; y++) {
          for (let z = Math.max(left, 0); z < right; z++) {
            const value = x.data[(channel * height + y) * width + z];
            if (value > best) best = value;
            sum += value;
            seen++;
          }
        }
        const all = (Math.min(top + kernel[0], height + padding[0]) - top) * (Math.min(left + kernel[1], width + padding[1]) - left);
        data[place] = kind === "max" ? best : sum / (counts ? all : seen);
      }
    }
  }
  return {data, shape: [channels, outHeight, outWidth]};
}

// Change each value, in a loop: Float32Array.from takes many times as long.
function mapValues(x, change) {
  const data = new Float32Array(x.data.length);
  for (let i = 0; i < data.length; i++) data[i] = change(x.data[i]);
  return {data, shape: x.shape};
}

function softmax(x) {
  const most = Math.max(...x.data), powers = x.data.map((value) => Math.exp(value - most));
  const sum = powers.reduce((total, value) => total + value, 0);
  return {data: powers.map((value) => value / sum), shape: x.shape};
}

// Combine the values of two arrays of the same shape; y may also have one value for each channel.
function combine(x, y, change) {
  const data = new Float32Array(x.data.length), run = data.length / y.data.length;
  for (let i = 0, place = 0; i < y.data.length; i++) {
    for (let j = 0; j < run; j++, place++) data[place] = change(x.data[place], y.data[i]);
  }
  return {data, shape: x.shape};
}

function meanOfMaps(x, {shape}) {
  const [channels] = x.shape, area = x.data.length / channels, data = new Float32Array(channels);
  for (let i = 0; i < channels; i++) {
    let sum = 0;
    for (let j = 0; j < area; j++) sum += x.data[i * area + j];
    data[i] = sum / area;
  }
  return {data, shape};
}

const ERF = [0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429];  // Abramowitz and Stegun, 7.1.26
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  return Math.sign(x) * (1 - t * ERF.reduceRight((sum, factor) => sum * t + factor, 0) * Math.exp(-x * x));
}

const OPERATORS = {
  convolution: ([x], options) => convolve(x, options),
  linear: ([x], options) => connect(x, options),
  pool: ([x], options) => pool(x, options),
  relu: ([x]) => mapValues(x, (value) => Math.max(value, 0)),
  leaky_relu: ([x], {slope}) => mapValues(x, (value) => value < 0 ? slope * value : value),
  elu: ([x], {alpha}) => mapValues(x, (value) => value < 0 ? alpha * Math.expm1(value) : value),
  sigmoid: ([x]) => mapValues(x, (value) => 1 / (1 + Math.exp(-value))),
  tanh: ([x]) => mapValues(x, Math.tanh),
  silu: ([x]) => mapValues(x, (value) => value / (1 + Math.exp(-value))),
  gelu: ([x]) => mapValues(x, (value) => value * (1 + erf(value / Math.SQRT2)) / 2),
  scale: ([x], {factor, shift}) => combine(combine(x, factor, (a, b) => a * b), shift, (a, b) => a + b),
  reshape: ([x], {shape}) => ({data: x.data, shape}),
  mean: ([x], options) => meanOfMaps(x, options),
  add: ([x, y], {value}) => y ? combine(x, y, (a, b) => a + b) : mapValues(x, (a) => a + value),
  subtract: ([x, y], {value}) => y ? combine(x, y, (a, b) => a - b) : mapValues(x, (a) => a - value),
  multiply: ([x, y], {value}) => y ? combine(x, y, (a, b) => a * b) : mapValues(x, (a) => a * value),
  divide: ([x, y], {value}) => y ? combine(x, y, (a, b) => a / b) : mapValues(x, (a) => a / value),
  softmax: ([x]) => softmax(x),
  log_softmax: ([x]) => mapValues(softmax(x), Math.log),
  concatenate: (all, {shape}) => {
    const data = new Float32Array(elements(shape));
    all.reduce((start, {data: part}) => (data.set(part, start), start + part.length), 0);
    return {data, shape};
  },
};

// Return all values by name: "input" is the image, and the last step has the scores.
function evaluate(graph, x) {
  const values = {input: x};
  for (const step of graph) values[step.name] = OPERATORS[step.operator](step.inputs.map((name) => values[name]), step);
  return values;
}

// Resize as torch does for bytes, in two passes, each rounded to bytes.
function resize(pixels, {weight, unit, size}) {
  const rounded = (sum) => Math.min(Math.max(Math.floor(Math.fround(Math.fround(sum * unit) + 0.5)), 0), 255);
  const wide = new Float32Array(28 * size), data = new Float32Array(size * size);
  for (let y = 0; y < 28; y++) {
    for (let i = 0; i < size; i++) {
      let sum = 0;
      for (let j = 0; j < 28; j++) sum += weight.data[i * 28 + j] * pixels[y * 28 + j];
      wide[y * size + i] = rounded(sum);
    }
  }
  for (let i = 0; i < size; i++) {
    for (let x = 0; x < size; x++) {
      let sum = 0;
      for (let y = 0; y < 28; y++) sum += weight.data[i * 28 + y] * wide[y * size + x];
      data[i * size + x] = rounded(sum);
    }
  }
  return data;
}

function normalise(pixels, mean, std) {
  const shares = Float32Array.from(pixels, (value) => value / 255);
  if (mean !== null) return shares.map((value) => Math.fround(value - mean) / std);
  const middle = shares.reduce((sum, value) => sum + value, 0) / shares.length;
  const spread = Math.sqrt(shares.reduce((sum, value) => sum + (value - middle) ** 2, 0) / shares.length);
  return shares.map((value) => (value - middle) / Math.max(spread, 1 / 255));
}

// Return a view of an image: each pixel comes from a place in it, by bilinear interpolation. Edges extend outwards.
function turn({data, shape}, places) {
  const [, height, width] = shape, turned = new Float32Array(height * width);
  for (let i = 0; i < height * width; i++) {
    const x = Math.min(Math.max(((places.data[2 * i] + 1) * width - 1) / 2, 0), width - 1);
    const y = Math.min(Math.max(((places.data[2 * i + 1] + 1) * height - 1) / 2, 0), height - 1);
    const left = Math.floor(x), top = Math.floor(y), right = Math.min(left + 1, width - 1), bottom = Math.min(top + 1, height - 1);
    const above = data[top * width + left] * (1 - x + left) + data[top * width + right] * (x - left);
    const below = data[bottom * width + left] * (1 - x + left) + data[bottom * width + right] * (x - left);
    turned[i] = above * (1 - y + top) + below * (y - top);
  }
  return {data: turned, shape};
}

// Return the values of the graph for an image, 28 x 28 bytes, and the mean probabilities over all views of it.
function answer(network, pixels, views = network.views) {
  const {size, mean, std, resizing, graph} = network;
  const image = {data: normalise(resizing ? resize(pixels, resizing) : pixels, mean, std), shape: [1, size, size]};
  const values = evaluate(graph, image), last = graph[graph.length - 1].name;
  const all = [softmax(values[last]).data, ...views.map((places) => softmax(evaluate(graph, turn(image, places))[last]).data)];
  return {values, probabilities: meanOf(all)};
}

function meanOf(lists) {
  return lists[0].map((_, i) => lists.reduce((sum, list) => sum + list[i], 0) / lists.length);
}

// Replace each {offset, shape} in a network by its array. An earlier epoch has {start, length}: its weights, in float16,
// replace the first ones of the page.
function unpack(network, bytes, {start = 0, length = 0} = {}) {
  let numbers = new Float32Array(bytes.buffer, bytes.byteOffset, Math.floor(bytes.length / 4));
  if (length) {
    numbers = numbers.slice();
    numbers.set(widenHalves(new Uint16Array(bytes.buffer, bytes.byteOffset + start, length)));
  }
  const filled = (node) => {
    if (Array.isArray(node)) return node.map(filled);
    if (node === null || typeof node !== "object") return node;
    if ("offset" in node) return {data: numbers.subarray(node.offset, node.offset + elements(node.shape)), shape: node.shape};
    return Object.fromEntries(Object.entries(node).map(([name, value]) => [name, filled(value)]));
  };
  return filled(network);
}

// Return numbers of 16 bits (IEEE 754) as numbers of 32.
function widenHalves(halves) {
  const numbers = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) {
    const exponent = halves[i] >> 10 & 31, fraction = halves[i] & 1023, sign = halves[i] >> 15 ? -1 : 1;
    numbers[i] = sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
  }
  return numbers;
}
