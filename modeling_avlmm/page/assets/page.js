// The player's timeline, the theme switch and the size check. Listeners are on the document, so that they survive when Gradio
// replaces a part of the page.
(() => {
  "use strict";
  const MAX_BYTES = Number("@MAX_BYTES@");
  const LIMIT = "@LIMIT@";

  const playerOf = (element) => element.closest(".av-player") || document.querySelector(".av-player");
  const mediaOf = (player) => player && player.querySelector("video, audio");
  const number = (element, name) => Number(element.dataset[name]);
  const clock = (seconds) => {
    const tenths = Math.round(seconds * 10);
    const two = (value) => String(Math.floor(value)).padStart(2, "0");
    const ending = `${two((tenths % 600) / 10)}.${tenths % 10}`;
    const hours = Math.floor(tenths / 36000);
    return hours ? `${hours}:${two((tenths % 36000) / 600)}:${ending}` : `${Math.floor(tenths / 600)}:${ending}`;
  };

  // The windows, from the top row of the timeline.
  const cellsOf = (player) => {
    const row = player.querySelector(".av-timeline .av-track");
    return row ? [...row.querySelectorAll(".av-cell")] : [];
  };
  const cellAt = (player, time) =>
    cellsOf(player).findLast((cell) => number(cell, "start") <= time + 1e-3 && time < number(cell, "end"));

  function show(player, time) {
    const timeline = player.querySelector(".av-timeline");
    if (!timeline) return;
    const duration = number(player, "duration");
    const at = Math.min(Math.max(time, 0), duration);
    player.style.setProperty("--at", at / duration);
    timeline.setAttribute("aria-valuenow", at.toFixed(2));
    const cell = cellAt(player, at);
    let text = clock(at);
    if (cell) {
      text = `${clock(number(cell, "start"))} to ${clock(number(cell, "end"))}, score ${cell.dataset.score}, ${cell.dataset.label}`;
    }
    timeline.setAttribute("aria-valuetext", [text, ...avBoxes.words(player, at)].join("; "));
    for (const other of cellsOf(player)) other.classList.toggle("av-now", other === cell);
  }

  function seek(player, time) {
    const media = mediaOf(player);
    if (!media) return;
    media.currentTime = Math.max(0, time + number(player, "offset"));
    show(player, time);
  }

  const timeOf = (player) => {
    const media = mediaOf(player);
    return media ? media.currentTime - number(player, "offset") : 0;
  };

  document.addEventListener("click", (event) => {
    const jump = event.target.closest("[data-seek]");
    if (jump) {
      const player = playerOf(jump);
      if (!player) return;
      seek(player, number(jump, "seek"));
      const box = player.getBoundingClientRect();
      if (box.top < 0 || box.top > innerHeight) player.scrollIntoView({ block: "start" });
      return;
    }
    const timeline = event.target.closest(".av-timeline, .av-mini");
    if (timeline) {
      const player = playerOf(timeline);
      const cell = event.target.closest(".av-cell");
      const track = event.target.closest(".av-track");
      if (cell) seek(player, number(cell, "start"));
      else if (track) {
        const box = track.getBoundingClientRect();
        seek(player, ((event.clientX - box.left) / box.width) * number(player, "duration"));
      }
      return;
    }
    if (event.target.closest(".av-theme")) {
      const dark = document.body.classList.toggle("dark");
      event.target.closest(".av-theme").setAttribute("aria-pressed", String(dark));
    }
  });

  document.addEventListener("keydown", (event) => {
    const timeline = event.target.closest && event.target.closest(".av-timeline");
    if (!timeline || event.ctrlKey || event.metaKey || event.altKey) return;
    const player = playerOf(timeline);
    const media = mediaOf(player);
    const time = timeOf(player);
    const starts = cellsOf(player).map((cell) => number(cell, "start"));
    const suspicious = [...new Set([...player.querySelectorAll(".av-cell.av-fake")].map((cell) => number(cell, "start")))];
    suspicious.sort((one, other) => one - other);
    const after = (times) => times.find((start) => start > time + 0.05);
    const before = (times) => times.findLast((start) => start < time - 0.05);
    const duration = number(player, "duration");
    const to = {
      ArrowRight: () => after(starts) ?? Math.min(time + 1, duration),
      ArrowUp: () => after(starts) ?? Math.min(time + 1, duration),
      ArrowLeft: () => before(starts) ?? Math.max(time - 1, 0),
      ArrowDown: () => before(starts) ?? Math.max(time - 1, 0),
      PageDown: () => after(suspicious) ?? time,
      PageUp: () => before(suspicious) ?? time,
      Home: () => 0,
      End: () => starts.at(-1) ?? duration,
    }[event.key];
    if (to) seek(player, to());
    else if (event.key === "Enter" || event.key === " ") media.paused ? media.play().catch(() => {}) : media.pause();
    else return;
    event.preventDefault();
  });

  // Media events do not bubble, so they are caught on the way down.
  for (const name of ["timeupdate", "seeked"])
    document.addEventListener(name, (event) => {
      const player = event.target.closest && event.target.closest(".av-player");
      if (!player) return;
      show(player, timeOf(player));
      avBoxes.draw(player, timeOf(player));
    }, true);
  for (const name of ["loadedmetadata", "play"])
    document.addEventListener(name, (event) => {
      if (event.target.matches && event.target.matches(".av-player video")) avBoxes.watch(event.target, timeOf);
    }, true);
  document.addEventListener("error", (event) => {
    const player = event.target.matches && event.target.matches(".av-player video, .av-player audio") && playerOf(event.target);
    if (player) player.querySelector(".av-unplayable").hidden = false;
  }, true);

  // Refuse a file that is too large before it is uploaded. The server refuses it as well.
  function refused(event, files) {
    const large = [...(files || [])].find((file) => file.size > MAX_BYTES);
    if (!large) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.target.value) event.target.value = "";
    const place = document.querySelector("#av-size");
    place.textContent = `${large.name} has ${(large.size / 1e6).toFixed(1)} MB, and the limit is ${LIMIT} MB. ` +
      "Cut it, or compress it less finely.";
    place.hidden = false;
  }
  const accepted = () => { const place = document.querySelector("#av-size"); if (place) place.hidden = true; };
  document.addEventListener("change", (event) => {
    if (event.target.type !== "file") return;
    accepted();
    refused(event, event.target.files);
  }, true);
  document.addEventListener("drop", (event) => {
    accepted();
    refused(event, event.dataTransfer && event.dataTransfer.files);
  }, true);

  window.avPage = {
    download() {
      const link = document.querySelector("#av-report a[download]");
      if (link) link.click();
    },
  };
})();
