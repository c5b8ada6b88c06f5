"use strict";
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const make = (name, properties, ...content) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...content);
  return element;
};
const tip = make("div", { id: "tip" });
document.body.append(tip);
const hide = () => all(".pointed").forEach((each) => each.classList.remove("pointed"));
document.addEventListener("pointerdown", hide, true);
document.addEventListener("scroll", hide);

// Beside the pointer or the finger is shown what is nearest to it: a value of a chart, or an image on the map.
function follow(area, items, place, show) {
  const near = (event) => {
    const { clientX, clientY } = event;
    const places = items.map((item) => place(item, event));
    const distances = places.map(([x, y]) => Math.hypot(x - clientX, y - clientY));
    const least = Math.min(...distances), isNear = least < 30;
    [tip, area].forEach((each) => each.classList.toggle("pointed", isNear));
    if (isNear) {
      tip.replaceChildren(...show(items[distances.indexOf(least)]));
      const left = Math.min(clientX + 14, innerWidth - tip.offsetWidth - 8);
      tip.style.translate = `${left}px ${Math.max(8, clientY - tip.offsetHeight - 14)}px`;
    }
  };
  ["pointermove", "pointerdown"].forEach((name) => area.addEventListener(name, near));
  area.addEventListener("pointerleave", ({ pointerType }) => pointerType === "mouse" && hide()); // A finger may go.
}

for (const chart of all(".chart")) {
  const marks = all("title", chart).map((title) => ({ mark: title.parentNode, text: title.textContent }));
  all("title", chart).forEach((title) => title.remove()); // The browser would show it, too, but late.
  const lines = marks.filter(({ mark }) => mark.closest(".line")), points = marks.filter((each) => !lines.includes(each));
  const middle = ({ mark }) => {
    const { x, y, width, height } = mark.getBoundingClientRect();
    return [x + width / 2, y + height / 2];
  };
  if (points.length) follow(chart, points, middle, ({ text }) => [text]);
  for (const { mark, text } of lines) follow(mark, [text], (_, { clientX, clientY }) => [clientX, clientY], (each) => [each]);
}

const shown = document.getElementById("shown");
if (shown) {
  const { columns, images } = JSON.parse(shown.textContent);
  const panel = document.getElementById("cell"), map = document.querySelector(".map");
  const show = (i) => {
    const digit = make("span", { className: "digit", style: `--x: ${i % columns}; --y: ${Math.floor(i / columns)}` });
    return [digit, ...images[i].slice(3).flatMap((line) => [make("br"), line]).slice(1)];
  };
  const open = ({ title, dataset: { cell, count } }) => {
    const items = [...images.keys()].filter((i) => images[i][0] === cell).slice(0, 12)
      .map((i) => make("li", {}, ...show(i)));
    const heading = items.length < count ? `${title}, ${items.length} of them here` : title;
    panel.replaceChildren(make("h3", {}, heading), make("ul", { className: "gallery" }, ...items));
    all("[data-cell]").forEach((button) => { button.ariaPressed = button.dataset.cell === cell; });
  };
  for (const button of all("[data-cell]")) {
    button.addEventListener("click", () => {
      open(button);
      panel.scrollIntoView({ block: "nearest", behavior: "smooth" });
    });
  }
  all("[data-cell]").slice(0, 1).forEach(open);

  const place = ([, x, y]) => {
    const box = map.getBoundingClientRect(), scale = box.width / map.viewBox.baseVal.width;
    return [box.x + x * scale, box.y + y * scale];
  };
  follow(map, images, place, (image) => {
    map.querySelector("circle").style.translate = `${image[1]}px ${image[2]}px`;
    return show(images.indexOf(image));
  });
}
