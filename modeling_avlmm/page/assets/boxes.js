// Boxes over the player: one for each face on screen, with the person's number and their verdict at that moment.
window.avBoxes = (() => {
  "use strict";
  const SHAPES = { fake: "▲", real: "○", uncertain: "◇" };
  const parsed = new WeakMap();
  const drawn = new WeakMap();
  const watched = new WeakSet();

  function peopleOf(player) {
    if (!player.dataset.people) return [];
    if (!parsed.has(player)) parsed.set(player, JSON.parse(player.dataset.people));
    return parsed.get(player);
  }

  // The box of a person at a time, between the two that are nearest to it; null when they are not on screen.
  function boxAt(person, time) {
    const { boxes } = person;
    if (!boxes.length || time < person.start || time > person.end) return null;
    let low = 0, high = boxes.length - 1;
    if (time <= boxes[low][0]) return boxes[low].slice(1);
    if (time >= boxes[high][0]) return boxes[high].slice(1);
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (boxes[middle][0] <= time) low = middle; else high = middle;
    }
    const share = (time - boxes[low][0]) / (boxes[high][0] - boxes[low][0]);
    return [1, 2, 3, 4].map((side) => boxes[low][side] + share * (boxes[high][side] - boxes[low][side]));
  }

  // The last window that has begun: where windows overlap, the timeline shows it too.
  function windowAt(person, time) {
    const inside = Math.min(Math.max(time, person.windows[0]?.[0]), person.windows.at(-1)?.[1] - 1e-3);
    return person.windows.findLast((window) => window[0] <= inside + 1e-3 && inside < window[1]);
  }

  function verdictOf(person, time) {
    const [, , score, label] = windowAt(person, time) || [];
    return score == null ? { label: "none", text: "not scored" } : { label, text: `${label} ${score.toFixed(2)}`, shape: SHAPES[label] };
  }

  // Everybody on screen at a time, in words: for the timeline's text.
  function words(player, time) {
    return peopleOf(player)
      .filter((person) => boxAt(person, time))
      .map((person) => `${person.name} ${verdictOf(person, time).text}`);
  }

  function makeBox(layer, person) {
    const box = document.createElement("div");
    box.className = "av-face";
    box.dataset.number = person.number;
    box.style.setProperty("--person", person.colour);
    const chip = box.appendChild(document.createElement("span"));
    chip.appendChild(document.createElement("b")).textContent = person.number;
    chip.appendChild(document.createElement("i"));
    chip.appendChild(document.createElement("em"));
    return layer.appendChild(box);
  }

  // The layer lies on the picture itself, not on the bars beside or above it.
  function place(video, layer) {
    const { videoWidth, videoHeight, clientWidth, clientHeight } = video;
    layer.hidden = !videoWidth || !clientWidth;
    if (layer.hidden) return;
    const scale = Math.min(clientWidth / videoWidth, clientHeight / videoHeight);
    const [width, height] = [videoWidth * scale, videoHeight * scale];
    layer.style.left = `${video.offsetLeft + (clientWidth - width) / 2}px`;
    layer.style.top = `${video.offsetTop + (clientHeight - height) / 2}px`;
    layer.style.width = `${width}px`;
    layer.style.height = `${height}px`;
  }

  // The chip stands on the box: inside where there is no room above, under it where another chip is in the way, and flush
  // right where there is no room beside. It returns the chip's place.
  function putChip(layer, box, [left, top, right, bottom], others) {
    const chip = box.firstChild;
    const [width, height] = [chip.offsetWidth, chip.offsetHeight + 2];
    const [high, wide] = [layer.clientHeight, layer.clientWidth];
    const flush = left * wide + width > layer.parentNode.clientWidth - layer.offsetLeft;
    const x = flush ? right * wide - width : left * wide;
    const free = (y) => others.every((o) => x >= o.x + o.width || o.x >= x + width || y >= o.y + height || o.y >= y + height);
    const places = { above: top * high - height, below: bottom * high, inside: top * high };
    const fits = Object.keys(places).filter((at) => places[at] >= 0 && places[at] + height <= high);
    const at = fits.find((name) => free(places[name])) || "inside";
    box.dataset.chip = at;
    box.classList.toggle("av-flush", flush);
    return { x, y: places[at], width };
  }

  function draw(player, time) {
    const layer = player.querySelector(".av-faces");
    if (!layer) return;
    if (!drawn.has(layer)) drawn.set(layer, new Map());
    const boxes = drawn.get(layer);
    const chips = [];
    layer.dataset.time = time.toFixed(3);
    for (const person of peopleOf(player)) {
      const at = boxAt(person, time);
      let box = boxes.get(person.number);
      if (at && !box) boxes.set(person.number, (box = makeBox(layer, person)));
      if (box) box.hidden = !at;
      const { label, text, shape } = verdictOf(person, time);
      if (at) {
        const [left, top, right, bottom] = at;
        box.style.left = `${100 * left}%`;
        box.style.top = `${100 * top}%`;
        box.style.width = `${100 * (right - left)}%`;
        box.style.height = `${100 * (bottom - top)}%`;
        const chip = box.firstChild;
        if (box.dataset.label !== label || chip.lastChild.textContent !== text) {
          box.dataset.label = label;
          chip.children[1].textContent = shape || "";
          chip.lastChild.textContent = text;
        }
        chips.push(putChip(layer, box, at, chips));
      }
      const row = player.querySelector(`.av-person[data-number="${person.number}"]`);
      if (row) row.classList.toggle("av-on-screen", Boolean(at));
    }
  }

  // Follow a video: its frames where the browser tells of them, else its clock.
  function watch(video, timeOf) {
    const player = video.closest(".av-player");
    const layer = player && player.querySelector(".av-faces");
    if (!layer || watched.has(video)) return;
    watched.add(video);
    const fit = () => { place(video, layer); draw(player, timeOf(player)); };
    new ResizeObserver(fit).observe(video);
    for (const name of ["resize", "loadedmetadata"]) video.addEventListener(name, fit);
    fit();
    if (video.requestVideoFrameCallback) {
      const step = (_, frame) => {
        // A paused player may stand between two frames: its windows are those of its own clock.
        draw(player, video.paused ? timeOf(player) : frame.mediaTime - Number(player.dataset.offset));
        if (video.isConnected) video.requestVideoFrameCallback(step);
      };
      video.requestVideoFrameCallback(step);
    } else {
      const step = () => { if (!video.paused) { draw(player, timeOf(player)); requestAnimationFrame(step); } };
      video.addEventListener("play", step);
    }
  }

  document.addEventListener("click", (event) => {
    const shown = event.target.closest(".av-show-boxes");
    if (shown) {
      const layer = shown.closest(".av-player").querySelector(".av-faces");
      const on = shown.getAttribute("aria-pressed") !== "true";
      shown.setAttribute("aria-pressed", String(on));
      layer.classList.toggle("av-off", !on);
    }
    const full = event.target.closest(".av-full-screen");
    if (full) {
      const stage = full.closest(".av-player").querySelector(".av-stage");
      if (document.fullscreenElement) document.exitFullscreen(); else stage.requestFullscreen?.().catch(() => {});
    }
  });

  return { draw, watch, words };
})();
