"use strict";
// A box that shows what is below the pointer or the finger: the value of a mark in a chart, or an image on the map.
const tip = document.createElement("div");
tip.id = "tip";
document.body.append(tip);
const follow = (area, find, reach, show) => {
  const near = (event) => {
    const [distance, found] = find(event.clientX, event.clientY);
    tip.classList.toggle("on", distance < reach);
    area.classList.toggle("pointed", distance < reach);
    if (distance < reach) {
      tip.replaceChildren(...show(found));
      const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
      const above = event.clientY - tip.offsetHeight - 14;
      tip.style.transform = `translate(${Math.max(8, left)}px, ${above < 8 ? event.clientY + 20 : above}px)`;
    }
  };
  area.addEventListener("pointermove", near);
  area.addEventListener("pointerdown", near);
  area.addEventListener("pointerleave", () => [tip, area].forEach((each) => each.classList.remove("on", "pointed")));
};
const nearest = (items, x, y, place) => items.reduce((best, item) => {
  const [itemX, itemY] = place(item), distance = Math.hypot(itemX - x, itemY - y);
  return distance < best[0] ? [distance, item] : best;
}, [Infinity, null]);

for (const chart of document.querySelectorAll(".chart")) {
  const marks = [...chart.querySelectorAll("title")].map((title) => ({ mark: title.parentNode, text: title.textContent }));
  chart.querySelectorAll("title").forEach((title) => title.remove()); // The browser would show them, too, but late.
  const middle = ({ mark }) => {
    const box = mark.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  follow(chart, (x, y) => nearest(marks, x, y, middle), 30, ({ text }) => [text]);
}

// What is wider than the screen fades where it goes on.
const fade = (box) => box.classList.toggle("more", box.scrollWidth - box.clientWidth - box.scrollLeft > 2);
const fades = new ResizeObserver((entries) => entries.forEach((entry) => fade(entry.target)));
for (const box of document.querySelectorAll(".box, figure")) {
  fades.observe(box);
  box.addEventListener("scroll", () => fade(box));
}

const shown = document.getElementById("shown"), map = document.querySelector(".map");
if (shown) {
  const { columns, images } = JSON.parse(shown.textContent);
  const lines = ([, , , ...texts]) => texts.flatMap((text) => [text, document.createElement("br")]);
  const picture = (i) => {
    const element = document.createElement("span");
    element.className = "digit";
    element.style.cssText = `--x: ${i % columns}; --y: ${Math.floor(i / columns)}`;
    return element;
  };
  const panel = document.getElementById("cell"), [heading, note, gallery] = panel.children;
  const most = Number(panel.dataset.most);
  const open = (button) => {
    const chosen = [...images.keys()].filter((i) => images[i][0] === button.dataset.cell);
    const count = Number(button.dataset.count), some = chosen.slice(0, most);
    heading.textContent = button.title;
    note.textContent = some.length < count ? `${some.length} of them:` : "";
    gallery.replaceChildren(...some.map((i) => {
      const item = document.createElement("li");
      item.append(picture(i), ...lines(images[i]));
      return item;
    }));
    for (const other of document.querySelectorAll("[data-cell]")) {
      other.ariaPressed = other.dataset.cell === button.dataset.cell;
    }
    panel.hidden = false;
  };
  for (const button of document.querySelectorAll("[data-cell]")) {
    button.addEventListener("click", () => {
      open(button);
      panel.scrollIntoView({ block: "nearest", behavior: "smooth" });
    });
  }
  open(document.querySelector("[data-cell]"));

  const [, , width, height] = map.getAttribute("viewBox").split(" "), spot = map.querySelector("circle");
  const find = (x, y) => {
    const box = map.getBoundingClientRect();
    return nearest([...images.keys()], x, y, (i) => [
      box.x + images[i][1] / width * box.width, box.y + images[i][2] / height * box.height]);
  };
  follow(map, find, 30, (i) => {
    const [cell, x, y] = images[i];
    spot.setAttribute("cx", x);
    spot.setAttribute("cy", y);
    map.querySelectorAll("[data-class]").forEach((each) =>
      each.classList.toggle("on", each.dataset.class === cell.split("-")[0]));
    return [picture(i), ...lines(images[i])];
  });
}
