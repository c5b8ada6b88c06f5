// The page with the network inside: it answers, and shows the layers.

const CLASSES = PAGE.classes;
const BYTES = Uint8Array.from(atob(byId("arrays").textContent), (letter) => letter.charCodeAt(0));
let networks = unpack(PAGE.networks, BYTES);
let chosenImage = null;  // the number of the test image that is shown in place of a drawing
let isUpdatePlanned = false;  // for the next frame
// The digits that are found, from left to right: {pixels, box, candidates, probabilities, values}. A picture of another
// kind is a single one.
let digits = [];
let chosenDigit = null;  // the number of the digit whose answer and layers are shown; null for the last
let chosenUnit = null;  // the unit that is explained: {layer, map, y, x}

// Return, for 28 x 28 bytes, the probabilities of all classes, and the values of the graph if there is one network.
function classify(pixels) {
  const answers = networks.map((network) => answer(network, pixels));
  return {probabilities: meanOf(answers.map(({probabilities}) => probabilities)), values: answers.length === 1 ? answers[0].values : null};
}

function findInDrawing() {
  const {width, height} = DRAWN, grey = greyDrawing();
  return PAGE.digits ? findNumber(grey, width, height) : fitImage(grey, width, PAGE.background);
}

function shownDigit() {
  return digits[chosenDigit === null ? digits.length - 1 : chosenDigit];
}

// This runs once a frame, however fast the pen is.
function update() {
  isUpdatePlanned = false;
  let pictures = [];
  if (chosenImage !== null) pictures = [PAGE.wrong[chosenImage]];
  else if (strokes.length) pictures = findInDrawing();
  digits = pictures.map((digit) => ({...digit, ...classify(digit.pixels)}));
  if (chosenDigit >= digits.length) chosenDigit = null;
  show();
}

function show() {
  const digit = shownDigit(), boxes = digits.length > 1 ? digits.map(({box}) => box) : [];
  repaint(boxes, digits.indexOf(digit));
  byId("undo").disabled = strokes.length === 0;
  byId("clear").disabled = strokes.length === 0 && chosenImage === null;
  showAnswer(digit);
  let words = PAGE.invitation;
  if (digit) words = describeAnswer();
  else if (strokes.length) words = "Nothing like a digit yet. Draw it larger.";
  byId("words").textContent = words;
  // A screen reader speaks the answer once a stroke has ended.
  if (drawingPointer === null) byId("spoken").textContent = `${digits.map(bestClass).join("")} ${words}`;
  showLayers();
  startOcclusion();
}

function beforeChange() {
  choose(null);
}

function afterChange() {
  if (isUpdatePlanned) return;
  isUpdatePlanned = true;
  requestAnimationFrame(update);
}

// The answer

const bars = CLASSES.map((className) => {
  const line = byId("bars").appendChild(document.createElement("li"));
  const [name, track, share] = ["span", "div", "span"].map((tag) => line.appendChild(document.createElement(tag)));
  name.textContent = className;
  track.className = "track";
  const bar = track.appendChild(document.createElement("div"));
  bar.className = "bar";
  return {line, bar, share};
});

function bestLabel({probabilities}) {
  return probabilities.indexOf(Math.max(...probabilities));
}

function bestClass(digit) {
  return CLASSES[bestLabel(digit)];
}

function describeAnswer() {
  const sure = digits.reduce((product, {probabilities}) => product * Math.max(...probabilities), 1);
  const hasOthers = digits[0].candidates > digits.length;
  let words = `${(100 * sure).toFixed(1)} % sure`;
  if (chosenImage !== null) words += `; it is labelled ${CLASSES[PAGE.wrong[chosenImage].label]}`;
  if (chosenImage !== null || digits.length > 1 || hasOthers) words += ".";
  if (digits.length > 1) words += " Choose a digit.";
  if (hasOthers) words += " Only one row is read.";
  return words;
}

function showAnswer(shown) {
  const predicted = byId("predicted");
  predicted.style.setProperty("--digits", digits.length);
  predicted.setAttribute("aria-hidden", String(digits.length < 2));  // The spoken words have a single digit.
  if (digits.length < 2) predicted.textContent = shown ? bestClass(shown) : "";
  else {
    while (predicted.children.length !== digits.length) {  // Otherwise the buttons are kept, so that the focus stays.
      if (!predicted.children.length) predicted.textContent = "";
      if (predicted.children.length > digits.length) predicted.lastChild.remove();
      else digitButton(predicted.appendChild(document.createElement("button")), predicted.children.length - 1);
    }
    digits.forEach((digit, i) => {
      predicted.children[i].textContent = bestClass(digit);
      predicted.children[i].setAttribute("aria-pressed", String(digit === shown));
      predicted.children[i].setAttribute("aria-label", `${bestClass(digit)}, digit ${i + 1} of ${digits.length}`);
    });
  }
  bars.forEach(({line, bar, share}, i) => {
    const value = shown ? shown.probabilities[i] : 0;
    line.className = shown && i === bestLabel(shown) ? "first" : "";
    bar.style.width = `${100 * value}%`;
    share.textContent = shown ? `${(100 * value).toFixed(1)} %` : "";
  });
  tile(byId("seen"), shown ? shown.pixels : new Uint8Array(784), 28, 28, (value) => [value, value, value]);
}

function digitButton(button, i) {
  button.type = "button";
  button.addEventListener("click", () => {
    chosenDigit = i;
    show();
  });
}

// Test images

const buttons = PAGE.wrong.map((image, number) => {
  image.pixels = BYTES.subarray(image.start, image.start + 784);
  const button = document.createElement("button");
  button.type = "button";
  const words = `${CLASSES[image.label]}, not ${CLASSES[image.predicted]}`;
  button.setAttribute("aria-label", `test image ${image.index}: ${words}`);
  tile(button.appendChild(document.createElement("canvas")), image.pixels, 28, 28, (value) => [value, value, value]);
  button.appendChild(document.createElement("span")).textContent = words;
  button.addEventListener("click", () => {
    choose(chosenImage === number ? null : number);
    afterChange();
  });
  byId("wrong").querySelector(".wrong").append(button);
  byId("wrong").hidden = false;
  return button;
});

function choose(number) {
  if (number !== null) strokes.length = 0;
  [chosenImage, chosenDigit] = [number, null];
  buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === number)));
}

// Training, epoch by epoch

if (PAGE.epochs.length) {
  const slider = byId("epoch"), states = [...PAGE.epochs, {epoch: null, shift: 0}];
  const showEpoch = () => {
    const {epoch} = states[slider.value];
    const words = epoch === null ? `the tested weights, of epoch ${PAGE.tested}` : `after epoch ${epoch}`;
    byId("time").querySelector("span").textContent = `The network ${epoch === null ? "with " : ""}${words}`;
    slider.setAttribute("aria-valuetext", words);
  };
  slider.max = slider.value = states.length - 1;
  slider.addEventListener("input", () => {
    networks = unpack(PAGE.networks, BYTES, states[slider.value].shift);
    showEpoch();
    afterChange();
  });
  showEpoch();
  byId("time").hidden = false;
}

// Layers

function tile(canvas, data, width, height, shade) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set(i < data.length ? [...shade(data[i]), 255] : [0, 0, 0, 0], 4 * i);
  context.putImageData(image, 0, 0);
}

// Return the colour of each value from negative to positive; 0 has the colour of the page's tracks.
function shades(most) {
  const [low, zero, high] = ["--negative", "--track", "--accent"].map((name) => {
    return [1, 3, 5].map((i) => parseInt(colour(name).slice(i, i + 2), 16));
  });
  return (value) => {
    const share = most ? Math.min(Math.abs(value) / most, 1) : 0, end = value < 0 ? low : high;
    return zero.map((from, i) => from + share * (end[i] - from));
  };
}

function largest(data) {
  let most = 0;
  for (const value of data) most = Math.max(most, Math.abs(value));
  return most;
}

const LAYERS = networks.length > 1 ? [] : networks[0].layers.map((layer, number) => {
  const section = byId("layers").appendChild(document.createElement("section"));
  const [channels, height, width] = layer.shape.length === 3 ? layer.shape : [1, Math.ceil(layer.shape[0] / 32), Math.min(layer.shape[0], 32)];
  const size = layer.shape.length === 3 ? `${channels} maps of ${height} × ${width}` : `${layer.shape[0]} units`;
  const head = section.appendChild(document.createElement("h3"));
  head.append(`${layer.name} `);
  head.appendChild(document.createElement("span")).textContent = size;
  const maps = section.appendChild(document.createElement("div"));
  maps.className = "maps";
  maps.tabIndex = 0;
  maps.setAttribute("role", "img");
  maps.setAttribute("aria-label", `${layer.name}: ${size}`);
  const scale = layer.shape.length === 3 ? Math.max(2, Math.round(56 / width)) : 12;
  const canvases = Array.from({length: channels}, (_, map) => {
    const canvas = maps.appendChild(document.createElement("canvas"));
    canvas.style.width = `min(100%, ${scale * width}px)`;
    canvas.style.aspectRatio = `${width} / ${height}`;
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect();
      select(number, map, Math.floor((event.clientY - box.top) / box.height * height), Math.floor((event.clientX - box.left) / box.width * width));
    });
    return canvas;
  });
  maps.addEventListener("keydown", (event) => {
    const [map, down, right] = {ArrowUp: [0, -1, 0], ArrowDown: [0, 1, 0], ArrowLeft: [0, 0, -1], ArrowRight: [0, 0, 1],
      PageDown: [1, 0, 0], PageUp: [-1, 0, 0]}[event.key] || [0, 0, 0];
    if (!map && !down && !right) return;
    event.preventDefault();
    const from = chosenUnit && chosenUnit.layer === number ? chosenUnit : {map: 0, y: 0, x: 0};
    select(number, from.map + map, from.y + down, from.x + right);
  });
  const detail = section.appendChild(document.createElement("div"));
  detail.className = "detail";
  detail.hidden = true;
  return {...layer, channels, height, width, canvases, detail};
});

function select(layer, map, y, x) {
  const {channels, height, width, shape} = LAYERS[layer], inside = (value, count) => Math.min(Math.max(value, 0), count - 1);
  chosenUnit = {layer, map: inside(map, channels), y: inside(y, height), x: inside(x, width)};
  if (shape.length === 1) {  // The last row of units may not be full.
    const number = Math.min(chosenUnit.y * width + chosenUnit.x, shape[0] - 1);
    [chosenUnit.y, chosenUnit.x] = [Math.floor(number / width), number % width];
  }
  explain();
}

function showLayers() {
  const values = shownDigit() && shownDigit().values;
  byId("layers").hidden = !values || LAYERS.length === 0;
  if (values) {
    for (const {name, shown, canvases, height, width} of LAYERS) {
      const {data} = values[shown], shade = shades(largest(data));
      canvases.forEach((canvas, map) => tile(canvas, data.subarray(map * height * width, (map + 1) * height * width), width, height, shade));
    }
  }
  explain();
}

// Explain the chosen unit: its weights, its inputs and its value.
function explain() {
  const unit = chosenUnit, values = shownDigit() && shownDigit().values;
  LAYERS.forEach(({detail, canvases}, number) => {
    const here = unit !== null && unit.layer === number && values;
    detail.hidden = !here;
    canvases.forEach((canvas, map) => canvas.classList.toggle("chosen", here && canvases.length > 1 && map === unit.map));
  });
  if (unit === null || !values) return;
  const {name, weights, shape, detail, width} = LAYERS[unit.layer];
  const step = networks[0].graph.find((candidate) => candidate.name === weights), input = values[step.inputs[0]];
  const number = shape.length === 3 ? unit.map : unit.y * width + unit.x;
  const {pairs, value} = step.operator === "convolution" ? pairsOfConvolution(step, input) : pairsOfLinear(step, input, number);
  const where = shape.length === 3 ? `map ${number + 1}, row ${unit.y + 1}, column ${unit.x + 1}` : `unit ${number + 1}`;
  const bias = step.bias ? step.bias.data[number] : 0;
  detail.replaceChildren();
  const words = detail.appendChild(document.createElement("div"));
  words.textContent = `${name}, ${where}: ${value.toFixed(3)}, the sum of weights × inputs, and a bias of ${bias.toFixed(3)}.`;
  if (pairs.length < pairs.all) words.textContent += ` The ${pairs.length} of ${pairs.all} inputs that count most:`;
  const list = detail.appendChild(document.createElement("div"));
  list.className = "pairs";
  const most = {weights: largest(pairs.flatMap(({weights}) => [...weights])), inputs: largest(pairs.flatMap(({inputs}) => [...inputs]))};
  for (const pair of pairs) {
    const figure = list.appendChild(document.createElement("figure"));
    for (const kind of ["weights", "inputs"]) {
      const canvas = figure.appendChild(document.createElement("canvas"));
      const zoom = Math.max(3, Math.round(44 / Math.max(pair.width, pair.height)));
      canvas.style.width = `${zoom * pair.width}px`;
      canvas.style.height = `${zoom * pair.height}px`;
      canvas.title = kind;
      tile(canvas, pair[kind], pair.width, pair.height, shades(most[kind]));
    }
    figure.appendChild(document.createElement("figcaption")).textContent = (pair.sum < 0 ? "−" : "+") + Math.abs(pair.sum).toFixed(2);
  }
}

// Return the pairs of weights and inputs whose sums are largest, and as `all` the number of pairs.
function strongest(pairs) {
  const sorted = [...pairs].sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum)).slice(0, 12);
  return Object.assign(sorted, {all: pairs.length});
}

// Return, for each map of the input, the weights and inputs of the chosen unit, and the unit's value.
function pairsOfConvolution(step, input) {
  const unit = chosenUnit;
  const [, height, width] = input.shape, [filters, depth, rows, columns] = step.weight.shape;
  const first = Math.floor(unit.map * step.groups / filters) * depth;
  let value = step.bias ? step.bias.data[unit.map] : 0;
  const pairs = Array.from({length: depth}, (_, channel) => {
    const start = (unit.map * depth + channel) * rows * columns, weights = step.weight.data.subarray(start, start + rows * columns);
    const inputs = Float32Array.from({length: rows * columns}, (_, i) => {
      const y = unit.y * step.stride[0] - step.padding[0] + Math.floor(i / columns) * step.dilation[0];
      const x = unit.x * step.stride[1] - step.padding[1] + i % columns * step.dilation[1];
      const inside = y >= 0 && y < height && x >= 0 && x < width;
      return inside ? input.data[((first + channel) * height + y) * width + x] : 0;
    });
    const sum = weights.reduce((total, weight, i) => total + weight * inputs[i], 0);
    value += sum;
    return {weights, inputs, sum, width: columns, height: rows};
  });
  return {pairs: strongest(pairs), value};
}

function pairsOfLinear(step, input, number) {
  const inputs = step.weight.shape[1], weights = step.weight.data.subarray(number * inputs, (number + 1) * inputs);
  const [channels, height, width] = step.form.length === 3 ? step.form : [1, Math.ceil(inputs / 32), Math.min(inputs, 32)];
  let value = step.bias ? step.bias.data[number] : 0;
  const pairs = Array.from({length: channels}, (_, channel) => {
    const part = (data) => data.subarray(channel * height * width, (channel + 1) * height * width);
    const pair = {weights: part(weights), inputs: part(input.data), width, height};
    pair.sum = pair.weights.reduce((total, weight, i) => total + weight * pair.inputs[i], 0);
    value += pair.sum;
    return pair;
  });
  return {pairs: strongest(pairs), value};
}

// What counts: the change of each class's odds when a patch of the image is covered, for one patch after another

const PATCH = 7, STEP = 2;  // pixels
const PLACES = Math.ceil(28 / STEP);  // of a patch in each direction
let occlusion = null;  // {digit, odds: the log-odds of the whole image, drops: from these, a list for each patch}

function startOcclusion() {
  const digit = shownDigit();
  byId("counts").hidden = !digit || networks.length > 1;
  if (byId("counts").hidden || drawingPointer !== null) return;
  if (occlusion === null || occlusion.digit !== digit) {
    occlusion = {digit, odds: logOdds(digit.pixels), drops: []};
    requestAnimationFrame(() => occlude(occlusion));
  }
  showCounts();
}

// Return the log-odds of each class, without views, which would multiply the time.
function logOdds(pixels) {
  const {probabilities} = answer(networks[0], pixels, []), least = 1e-30;
  return Array.from(probabilities, (value, i) => {
    const others = probabilities.reduce((sum, other, j) => j === i ? sum : sum + other, 0);
    return Math.log(Math.max(value, least)) - Math.log(Math.max(others, least));
  });
}

// Cover a few patches in each frame, until all have been covered.
function occlude(task) {
  const start = performance.now();
  while (task === occlusion && task.drops.length < PLACES ** 2 && performance.now() - start < 12) {
    const covered = task.digit.pixels.slice(), empty = PAGE.background, spot = task.drops.length;
    const [top, left] = [Math.floor(spot / PLACES), spot % PLACES].map((number) => number * STEP - (PATCH >> 1));
    forPatch(top, left, (at) => covered[at] = empty);
    const odds = logOdds(covered);
    task.drops.push(task.odds.map((before, i) => before - odds[i]));
  }
  if (task !== occlusion) return;
  if (task.drops.length < PLACES ** 2) requestAnimationFrame(() => occlude(task));
  else showCounts();
}

function forPatch(top, left, work) {
  for (let y = Math.max(top, 0); y < Math.min(top + PATCH, 28); y++) {
    for (let x = Math.max(left, 0); x < Math.min(left + PATCH, 28); x++) work(28 * y + x);
  }
}

function showCounts() {
  const {digit, drops} = occlusion, number = byId("class").value, which = number === "" ? bestLabel(digit) : Number(number);
  byId("class").options[0].textContent = `${bestClass(digit)} (the answer)`;
  const sums = new Float32Array(784), counts = new Float32Array(784);
  if (drops.length === PLACES ** 2) drops.forEach((drop, spot) => {
    const [top, left] = [Math.floor(spot / PLACES), spot % PLACES].map((number) => number * STEP - (PATCH >> 1));
    forPatch(top, left, (at) => {
      sums[at] += drop[which];
      counts[at]++;
    });
  });
  const mean = sums.map((sum, at) => counts[at] ? sum / counts[at] : 0), shade = shades(Math.max(largest(mean), 0.1));
  const ink = [1, 3, 5].map((i) => parseInt(colour("--ink").slice(i, i + 2), 16));
  const pixels = Array.from(mean, (value, at) => {
    const share = Math.abs(digit.pixels[at] - PAGE.background) / 255;
    return shade(value).map((part, i) => part + 0.55 * share * (ink[i] - part));
  });
  tile(byId("map"), pixels, 28, 28, (pixel) => pixel);
}

CLASSES.forEach((name, number) => byId("class").add(new Option(name, number)));
byId("class").addEventListener("change", showCounts);

window.addEventListener("resize", show);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
update();
