// The page with the network inside: it answers, and shows the layers.

const CLASSES = PAGE.classes;
const BYTES = Uint8Array.from(atob(byId("arrays").textContent), (letter) => letter.charCodeAt(0));
let networks = unpack(PAGE.networks, BYTES);
let chosenImage = null;  // the test image that is shown in place of a drawing
let isExample = true;  // what the page opens with; a first stroke replaces it
let isUpdatePlanned = false;  // for the next frame
// The digits that are found, from left to right: {pixels, box, candidates, probabilities, values}. A picture of another
// kind is a single one.
let digits = [];
let chosenDigit = null;  // the number of the digit whose answer and layers are shown; null for the last
let chosenUnit = null;  // the unit that is explained: {layer, number}, its place among all that the layer shows
const EXAMPLE = [[0.39, 0.29], [0.42, 0.2], [0.5, 0.16], [0.58, 0.2], [0.6, 0.31], [0.56, 0.41], [0.47, 0.46], [0.57, 0.51],
  [0.62, 0.63], [0.59, 0.76], [0.5, 0.83], [0.41, 0.79], [0.37, 0.7]];  // a 3

// Return, for 28 x 28 bytes, the probabilities of all classes, and the values of the graph if there is one network.
function classify(pixels) {
  const answers = networks.map((network) => answer(network, pixels));
  return {probabilities: meanOf(answers.map(({probabilities}) => probabilities)), values: answers.length === 1 ? answers[0].values : null};
}

function shownDigit() {
  return digits[chosenDigit === null ? digits.length - 1 : chosenDigit];
}

// This runs once a frame, however fast the pen is.
function update() {
  isUpdatePlanned = false;
  let pictures = [];
  if (chosenImage !== null) pictures = [chosenImage];
  else if (strokes.length) pictures = (PAGE.digits ? findNumber : fitImage)(greyDrawing(), DRAWN, PAGE.background);
  digits = pictures.map((digit) => ({...digit, ...classify(digit.pixels)}));
  if (chosenDigit >= digits.length) chosenDigit = null;
  show();
}

function show() {
  const digit = shownDigit(), boxes = digits.length > 1 ? digits.map(({box}) => box) : [];
  showAnswer(digit);
  repaint(boxes, digits.indexOf(digit));
  if (chosenImage !== null) pad.getContext("2d").drawImage(byId("seen"), (pad.width - pad.height) / 2, 0, pad.height, pad.height);
  byId("undo").disabled = strokes.length === 0;
  byId("clear").disabled = strokes.length === 0 && chosenImage === null;
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
  if (isExample) strokes.length = 0;
  choose(null);
}

function afterChange() {
  if (isUpdatePlanned) return;
  isUpdatePlanned = true;
  requestAnimationFrame(update);
}

// The answer

const bars = CLASSES.map((name) => {
  const line = add(byId("bars"), "li");
  add(line, "span", "", name);
  return {line, bar: add(add(line, "div", "track"), "div", "bar"), share: add(line, "span")};
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
  if (chosenImage !== null) words += `; it is labelled ${CLASSES[chosenImage.label]}`;
  if (chosenImage !== null || digits.length > 1 || hasOthers || isExample) words += ".";
  if (isExample) words += " An example: draw your own over it.";
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
      const number = predicted.children.length;
      if (number > digits.length) predicted.lastChild.remove();
      else addButton(predicted, "", () => (chosenDigit = number, show()));
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

// Test images

for (const image of PAGE.images) image.pixels = BYTES.subarray(image.start, image.start + 784);
const imageButtons = PAGE.images.filter(({label, predicted}) => label !== predicted).map((image) => {
  const button = addButton(byId("wrong").querySelector(".wrong"), "", () => {
    choose(chosenImage === image ? null : image);
    afterChange();
  });
  const words = `${CLASSES[image.label]}, not ${CLASSES[image.predicted]}`;
  button.setAttribute("aria-label", `test image ${image.index}: ${words}`);
  tile(add(button, "canvas"), image.pixels, 28, 28, (value) => [value, value, value]);
  add(button, "span", "", words);
  byId("wrong").hidden = false;
  return {image, button};
});

function choose(image) {
  if (image !== null) strokes.length = 0;
  [chosenImage, chosenDigit, isExample] = [image, null, false];
  imageButtons.forEach((each) => each.button.setAttribute("aria-pressed", String(each.image === image)));
}

// Training, epoch by epoch

const states = [...PAGE.epochs, {epoch: PAGE.tested, isTested: true}].sort((a, b) => (a.epoch ?? Infinity) - (b.epoch ?? Infinity));
let timer = null;  // while the epochs are played

function showEpoch(number) {
  const {epoch, isTested} = states[number], words = epoch === null ? "after training" : `after epoch ${epoch}`;
  networks = unpack(PAGE.networks, BYTES, states[number]);
  byId("epoch").value = number;
  byId("epoch").setAttribute("aria-valuetext", isTested ? `${words}, the tested one` : words);
  byId("time").querySelector("label span").textContent = `Weights ${words}${isTested ? " (tested)" : ""}`;
  afterChange();
}

function play(isPlaying) {
  clearInterval(timer);
  timer = isPlaying ? setInterval(() => {
    showEpoch(Number(byId("epoch").value) + 1);
    if (Number(byId("epoch").value) === states.length - 1) play(false);
  }, 900) : null;
  byId("play").textContent = isPlaying ? "❚❚ Pause" : "▶ Play";
}

function prepareSlider() {
  const last = states.length - 1, tested = states.findIndex(({isTested}) => isTested);
  byId("epoch").max = last;
  byId("epoch").addEventListener("input", () => {
    play(false);
    showEpoch(Number(byId("epoch").value));
  });
  byId("play").addEventListener("click", () => {
    if (timer === null) showEpoch(0);
    play(timer === null);
  });
  states.forEach(({epoch, isTested}, number) => {
    if (last > 10 && ![0, tested, last].includes(number)) return;
    const tick = add(byId("time").querySelector(".ticks"), "span", isTested ? "tested" : "", isTested ? `★ ${epoch ?? ""}` : epoch);
    tick.style.left = `${100 * number / last}%`;
  });
  byId("time").hidden = false;
  showEpoch(tested);
}

// Layers

function tile(canvas, data, width, height, shade) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set(i < data.length ? [...shade(data[i]), 255] : [0, 0, 0, 0], 4 * i);
  context.putImageData(image, 0, 0);
}

function rgb(name) {
  return [1, 3, 5].map((i) => parseInt(colour(name).slice(i, i + 2), 16));
}

// Return the colour of each value from negative to positive; 0 has the colour of the page's tracks.
function shades(most) {
  const [low, zero, high] = ["--negative", "--track", "--accent"].map(rgb);
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

function signed(value, places = 3) {
  return value.toFixed(places).replace(/^-(?=.*[1-9])/, "−").replace("-", "");
}

function add(parent, tag, className = "", text = "") {
  const element = parent.appendChild(document.createElement(tag));
  [element.className, element.textContent] = [className, text];
  return element;
}

function addButton(parent, text, act) {
  const button = add(parent, "button", "", text);
  button.type = "button";
  button.addEventListener("click", act);
  return button;
}

function setVariables(element, values) {
  for (const [name, value] of Object.entries(values)) element.style.setProperty(`--${name}`, value);
}

const WIDE = matchMedia("(min-width: 64rem)");
const TALL = 528, CELL = 24;  // pixels: the height of a layer in the row, and the least side of a unit
const [DETAIL, ZOOMED, ANSWER] = ["#detail", "#zoomed", ".answer"].map((name) => document.querySelector(name));
const DESCRIBED = {  // Other operators have the names that users know.
  linear: () => "fully connected",
  convolution: ({weight}) => `conv ${weight.shape[2]}×${weight.shape[3]}`,
  pool: ({kernel}) => `max pool ${kernel.join("×")}`,
  scale: () => "batch norm",
};
const describe = (step) => step.operator in DESCRIBED ? DESCRIBED[step.operator](step) : step.operator;

// Return a layer's steps: a convolution or a linear layer, and what follows it. Their weights are those of the epoch.
function stepsOf({steps}) {
  return steps.map((place) => networks[0].graph[place]);
}

const LAYERS = networks.length > 1 ? [] : networks[0].layers.map((layer, number, {length}) => {
  const section = add(byId("row"), "section", "layer"), head = add(section, "header"), steps = stepsOf(layer);
  const {name: shown, shape} = steps[steps.length - 1], isMaps = shape.length === 3;
  const hasScores = number === length - 1 && shape.length === 1 && shape[0] === CLASSES.length;
  const size = isMaps ? `${shape[0]} maps of ${shape[1]} × ${shape[2]}` : `${shape[0]} units`;
  add(head, "h3", "", layer.name);
  add(head, "p", "shape", isMaps ? shape.join(" × ") : size);
  add(head, "p", "kinds", steps.map(describe).join(",\n"));
  const range = add(head, "p"), parent = add(section, "div", "scores"), maps = add(parent, "div", "maps");
  maps.tabIndex = 0;
  maps.setAttribute("role", "application");  // A screen reader would keep the arrow keys of an image.
  maps.setAttribute("aria-label", `${layer.name}: ${size}`);
  const [height, width] = isMaps ? shape.slice(1) : [1, 1], made = {...layer, shown, shape, isMaps, height, width, range, maps};
  made.canvases = Array.from({length: isMaps ? shape[0] : 1}, (_, map) => {
    const canvas = add(maps, "canvas");
    canvas.title = isMaps ? `map ${map + 1}` : size;
    canvas.addEventListener("click", (event) => {
      select(number, unitAt(event, made, map));
      // On a phone, the panel covers the half of the window that the unit is not in.
      setVariables(DETAIL, {top: `${ANSWER.offsetHeight}px`});
      DETAIL.classList.toggle("above", event.clientY > (innerHeight + ANSWER.offsetHeight) / 2);
    });
    return canvas;
  });
  maps.addEventListener("keydown", (event) => moveUnit(number, event.key) && event.preventDefault());
  made.mark = add(maps, "div", "mark");
  made.labels = add(parent, "div", CLASSES.some(({length}) => length > 2) ? "names long" : "names");
  made.names = hasScores ? CLASSES.map((name) => add(made.labels, "span", "", name)) : [];
  return made;
});

// Return the number of the unit at a place of a map.
function unitAt({currentTarget, offsetX, offsetY}, {width, height, shape}, map) {
  const x = Math.min(Math.floor(offsetX / currentTarget.offsetWidth * width), width - 1);
  const y = Math.min(Math.floor(offsetY / currentTarget.offsetHeight * height), height - 1);
  return Math.min((map * height + y) * width + x, elements(shape) - 1);
}

// Return the map, row and column of a unit.
function placeIn({width, height}, number) {
  return [Math.floor(number / (width * height)), Math.floor(number / width) % height, number % width];
}

// Choose the unit that a key leads to from the chosen one, or from a layer's first; return whether it is such a key.
function moveUnit(layer, key) {
  const {width, height, shape, mark} = LAYERS[layer], area = width * height;
  const move = {ArrowUp: -width, ArrowDown: width, ArrowLeft: -1, ArrowRight: 1, PageUp: -area, PageDown: area}[key];
  if (!move) return false;
  const from = chosenUnit && chosenUnit.layer === layer ? chosenUnit.number : 0, to = from + move;
  select(layer, to >= 0 && to < elements(shape) ? to : from);
  mark.scrollIntoView({block: "nearest", inline: "nearest"});
  return true;
}

function select(layer, number) {
  chosenUnit = {layer, number};
  explain();
  if (!DETAIL.hidden) byId("spoken").textContent = `${DETAIL.querySelector("h2 span").textContent}: ${DETAIL.querySelector("b").textContent}`;
}

byId("close").addEventListener("click", () => (LAYERS[chosenUnit.layer].maps.focus({preventScroll: true}), chosenUnit = null, explain()));
for (const [text, key, label] of [["↑", "ArrowUp", "above"], ["↓", "ArrowDown", "below"], ["←", "ArrowLeft", "to the left"], ["→", "ArrowRight", "to the right"]]) {
  addButton(DETAIL.querySelector(".steps"), text, () => moveUnit(chosenUnit.layer, key)).setAttribute("aria-label", `unit ${label}`);
}
ZOOMED.addEventListener("click", (event) => {
  const layer = LAYERS[chosenUnit.layer];
  select(chosenUnit.layer, unitAt(event, layer, placeIn(layer, chosenUnit.number)[0]));
});

// Arrange the layers: in a row as columns of similar height, on a phone as wide as the page.
function arrange() {
  const room = Math.max(byId("row").clientWidth, 2 * CELL), isWide = WIDE.matches;  // A window may have no width.
  for (const layer of LAYERS) {
    const count = layer.shape[0], sideOf = (columns) => Math.min(Math.floor(TALL / Math.ceil(count / columns)) - 4, 76);
    let columns = 1, side = 56;
    if (!layer.isMaps) {
      layer.width = Math.min(count, isWide ? Math.ceil(count * CELL / TALL) : 32, Math.floor(room / CELL));
      layer.height = Math.ceil(count / layer.width);
      side = isWide ? layer.width * CELL : Math.min(room, layer.width * 32);
    } else if (isWide) {
      while (sideOf(columns) < (count > 96 ? CELL : 40)) columns++;
      side = sideOf(columns);
    } else columns = Math.floor((room + 4) / (side + 4));
    setVariables(layer.maps, {columns, side: `${side}px`, shape: `${layer.width} / ${layer.height}`});
    setVariables(layer.labels, {columns: layer.width});
  }
}

function showLayers() {
  const digit = shownDigit(), values = digit && digit.values;
  for (const {shown, shape, canvases, height, width, range, names} of LAYERS) {
    const data = values ? values[shown].data : new Float32Array(elements(shape)), shade = shades(largest(data));
    canvases.forEach((canvas, map) => tile(canvas, data.subarray(map * height * width, (map + 1) * height * width), width, height, shade));
    range.textContent = values ? `${signed(data.reduce((a, b) => Math.min(a, b)), 1)} to ${signed(data.reduce((a, b) => Math.max(a, b)), 1)}` : "\u00a0";
    names.forEach((name, i) => name.className = digit && i === bestLabel(digit) ? "best" : "");
  }
  explain();
}

// Place a frame around a unit of a canvas.
function frame(mark, canvas, {width, height}, y, x) {
  const [across, down] = [canvas.offsetWidth / width, canvas.offsetHeight / height];
  Object.assign(mark.style, {left: `${canvas.offsetLeft + x * across}px`, top: `${canvas.offsetTop + y * down}px`, width: `${across}px`, height: `${down}px`});
}

// Explain the chosen unit: its value, how that comes about step by step, its weights and its inputs.
function explain() {
  const values = shownDigit() && shownDigit().values;
  DETAIL.hidden = !values || chosenUnit === null;
  LAYERS.forEach(({mark, maps}, number) => {
    mark.hidden = DETAIL.hidden || chosenUnit.layer !== number;
    maps.classList.toggle("explained", !mark.hidden);
  });
  if (DETAIL.hidden) return;
  const layer = LAYERS[chosenUnit.layer], {number} = chosenUnit, {isMaps, canvases, names, width, height} = layer;
  const steps = stepsOf(layer), units = sources(steps, values, number), results = steps.map(({name}, i) => values[name].data[units[i]]);
  const [map, y, x] = isMaps ? placeIn(layer, number) : [0, Math.floor(number / width), number % width];
  const {data} = values[layer.shown], shade = shades(largest(data));
  canvases.forEach((canvas, i) => canvas.classList.toggle("chosen", isMaps && i === map));
  frame(layer.mark, canvases[map], layer, y, x);
  const unit = names.length ? `score of ${CLASSES[number]}` : `unit ${number + 1}`;
  DETAIL.querySelector("h2 span").textContent = `${layer.name}, ${isMaps ? `map ${map + 1}, row ${y + 1}, column ${x + 1}` : unit}`;
  ZOOMED.parentElement.hidden = !isMaps;
  setVariables(ZOOMED.parentElement, {shape: `${width} / ${height}`});
  tile(ZOOMED, data.subarray(map * width * height, (map + 1) * width * height), width, height, shade);
  frame(ZOOMED.nextElementSibling, ZOOMED, layer, y, x);

  const [first, ...others] = steps, input = values[first.inputs[0]], isLinear = first.operator === "linear";
  const filter = isLinear ? units[0] : placeIn(sizeOf(first), units[0])[0], bias = first.bias ? first.bias.data[filter] : 0;
  const sums = [["weights × inputs", results[0] - bias], ["+ bias", bias], [`= ${describe(first)}`, results[0]]];
  others.forEach((step, i) => sums.push([`→ ${describe(step)}`, results[i + 1]]));
  const list = DETAIL.querySelector("dl");
  list.replaceChildren();
  sums.forEach(([words, value], i) => {
    add(list, "dt", "", words);
    add(add(list, "dd"), i === sums.length - 1 ? "b" : "span", "", signed(value));
  });
  add(list.lastChild, "span", "swatch").style.background = `rgb(${shade(data[number]).map(Math.round)})`;
  const pairs = (isLinear ? pairsOfLinear : pairsOfConvolution)(first, input, units[0]);
  showPairs([...pairs].sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum)).slice(0, 12), pairs.length);
}

function showPairs(pairs, count) {
  const most = {weights: largest(pairs.flatMap(({weights}) => [...weights])), inputs: largest(pairs.flatMap(({inputs}) => [...inputs]))};
  const list = DETAIL.querySelector(".pairs");
  list.replaceChildren();
  const which = pairs.length < count ? `, of the ${pairs.length} maps of ${count} that count most` : "";
  add(list, "p", "", `Weights up to ±${most.weights.toFixed(2)}, inputs up to ±${most.inputs.toFixed(2)}${which}:`);
  for (const pair of pairs) {
    const isLong = count === 1 && pair.width > 20, side = Math.max(pair.width, pair.height);
    const figure = add(list, "figure", isLong ? "long" : ""), zoom = Math.max(2, Math.round((isLong ? 112 : 44) / side));
    for (const kind of ["weights", "inputs"]) {
      const cell = add(figure, "div");
      if (pair === pairs[0]) add(cell, "small", "", kind);
      const canvas = add(cell, "canvas");
      canvas.style.cssText = `width: ${zoom * pair.width}px; height: ${zoom * pair.height}px`;
      canvas.title = kind;
      tile(canvas, pair[kind], pair.width, pair.height, shades(most[kind]));
      add(figure, "span", "", kind === "weights" ? "×" : `= ${signed(pair.sum, 2)}`);
    }
    if (count > 1) add(figure.lastChild, "small", "", `map ${pair.channel + 1}`);
  }
}

function sizeOf({shape: [, height = 1, width = 1]}) {
  return {height, width};
}

// Return, for a unit of a layer's last step, the unit of each step that it comes from: pooling takes the largest.
function sources(steps, values, number) {
  const units = [number];
  for (const step of steps.slice(1).reverse()) units.unshift(step.operator === "pool" ? largestOf(step, values, units[0]) : units[0]);
  return units;
}

function largestOf(step, values, unit) {
  const [map, y, x] = placeIn(sizeOf(step), unit), {stride, padding, kernel} = step, before = values[step.inputs[0]], {height, width} = sizeOf(before);
  const [top, left] = [y * stride[0] - padding[0], x * stride[1] - padding[1]];
  let best = null;
  for (let row = Math.max(top, 0); row < Math.min(top + kernel[0], height); row++) {
    for (let column = Math.max(left, 0); column < Math.min(left + kernel[1], width); column++) {
      const at = (map * height + row) * width + column;
      if (best === null || before.data[at] > before.data[best]) best = at;
    }
  }
  return best;
}

// Return, for each map of the input, a unit's weights and inputs, and the sum of their products.
function pairsOfConvolution(step, input, unit) {
  const [, height, width] = input.shape, [filters, depth, rows, columns] = step.weight.shape, [map, y, x] = placeIn(sizeOf(step), unit);
  const first = Math.floor(map * step.groups / filters) * depth;
  return Array.from({length: depth}, (_, channel) => {
    const start = (map * depth + channel) * rows * columns, weights = step.weight.data.subarray(start, start + rows * columns);
    const inputs = Float32Array.from({length: rows * columns}, (_, i) => {
      const row = y * step.stride[0] - step.padding[0] + Math.floor(i / columns) * step.dilation[0];
      const column = x * step.stride[1] - step.padding[1] + i % columns * step.dilation[1];
      const inside = row >= 0 && row < height && column >= 0 && column < width;
      return inside ? input.data[((first + channel) * height + row) * width + column] : 0;
    });
    const sum = weights.reduce((total, weight, i) => total + weight * inputs[i], 0);
    return {weights, inputs, sum, channel: first + channel, width: columns, height: rows};
  });
}

function pairsOfLinear(step, input, number) {
  const inputs = step.weight.shape[1], weights = step.weight.data.subarray(number * inputs, (number + 1) * inputs);
  const [channels, height, width] = step.form.length === 3 ? step.form : [1, Math.ceil(inputs / 32), Math.min(inputs, 32)];
  return Array.from({length: channels}, (_, channel) => {
    const part = (data) => data.subarray(channel * height * width, (channel + 1) * height * width);
    const pair = {weights: part(weights), inputs: part(input.data), channel, width, height};
    pair.sum = pair.weights.reduce((total, weight, i) => total + weight * pair.inputs[i], 0);
    return pair;
  });
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

// Cover a few patches in each frame, until all have been covered, and show the change so far.
function occlude(task) {
  const start = performance.now();
  while (task === occlusion && task.drops.length < PLACES ** 2 && performance.now() - start < 12) {
    const covered = task.digit.pixels.slice();
    forPatch(task.drops.length, (at) => covered[at] = PAGE.background);
    const odds = logOdds(covered);
    task.drops.push(task.odds.map((before, i) => before - odds[i]));
  }
  if (task !== occlusion) return;
  if (task.drops.length < PLACES ** 2) requestAnimationFrame(() => occlude(task));
  showCounts();
}

function forPatch(spot, work) {
  const [top, left] = [Math.floor(spot / PLACES), spot % PLACES].map((number) => number * STEP - (PATCH >> 1));
  for (let y = Math.max(top, 0); y < Math.min(top + PATCH, 28); y++) {
    for (let x = Math.max(left, 0); x < Math.min(left + PATCH, 28); x++) work(28 * y + x);
  }
}

function showCounts() {
  const {digit, drops} = occlusion, number = byId("class").value, which = number === "" ? bestLabel(digit) : Number(number);
  byId("class").options[0].textContent = `${bestClass(digit)} (the answer)`;
  const sums = new Float32Array(784), counts = new Float32Array(784);
  drops.forEach((drop, spot) => {
    forPatch(spot, (at) => {
      sums[at] += drop[which];
      counts[at]++;
    });
  });
  const mean = sums.map((sum, at) => counts[at] ? sum / counts[at] : 0), shade = shades(Math.max(largest(mean), 0.1)), ink = rgb("--ink");
  const pixels = Array.from(mean, (value, at) => {
    const share = Math.abs(digit.pixels[at] - PAGE.background) / 255;
    return shade(value).map((part, i) => part + 0.55 * share * (ink[i] - part));
  });
  tile(byId("map"), pixels, 28, 28, (pixel) => pixel);
}

CLASSES.forEach((name, number) => byId("class").add(new Option(name, number)));
byId("class").addEventListener("change", showCounts);

byId("legend").hidden = byId("unit").hidden = !LAYERS.length;
window.addEventListener("resize", () => (arrange(), show()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
// The page opens with a digit that is drawn already, or with a test image that the network gets right.
if (PAGE.digits) strokes.push(EXAMPLE);
else chosenImage = PAGE.images.find(({label, predicted}) => label === predicted) || null;
arrange();
if (states.length > 1) prepareSlider();
update();
