// Timelines: one canvas per person, one ruler for all, and the playhead over them.
"use strict";

const ROW = 40, EDGE = 7;              // pixels: height of a timeline; how near to the end of a look a drag begins
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200];

const at = (id) => document.getElementById(id);

/** An element with properties and children; text stays text, whatever it holds. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Give an element other children; a control that had the focus, or the preferred one in its place, has it again. */
function refill(container, children, preferred = null) {
  const controls = () => [...container.querySelectorAll("button, input, canvas")];
  const focused = controls().indexOf(document.activeElement);
  container.replaceChildren(...children);
  if (focused < 0) return;
  const next = (preferred && container.querySelector(preferred)) ?? controls()[focused];
  next?.focus({ preventScroll: true });
}

function plural(count, word) { return `${count} ${word}${count === 1 ? "" : "s"}`; }

function people(count) { return count === 1 ? "1 person" : `${count} people`; }

function percent(share) { return share === null ? "–" : `${Math.round(100 * share)} %`; }

/** Time as people read it: 1:02:03, with digits behind the second on demand. */
function clock(seconds, digits = 0) {
  const unit = 10 ** digits, whole = Math.round(Math.max(seconds, 0) * unit);
  const rest = (whole % (60 * unit) / unit).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  const minutes = Math.floor(whole / (60 * unit)), hours = Math.floor(minutes / 60);
  return hours ? `${hours}:${String(minutes % 60).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

class Timelines {
  /** hooks: now(), seek(time), select(person, look), change(person, look, start, end), stretch(person, start, end). */
  constructor(root, hooks) {
    this.root = root;
    this.hooks = hooks;
    this.rows = [];
    this.from = 0;
    this.to = 1;
    this.stretch = [NaN, NaN];         // of the selected person, to be corrected
    this.visible = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const row = this.rows.find((each) => each.canvas === target);
        if (!row) continue;
        row.inView = isIntersecting;
        if (isIntersecting) this.drawRow(row); else target.width = 0;       // its memory is free again
      }
    }, { rootMargin: "200px" });
    new ResizeObserver(() => this.draw()).observe(root);
  }

  show(video, people, selected) {
    const whole = this.video !== video;
    this.video = video;
    this.visible.disconnect();
    if (whole) { this.from = 0; this.to = video.seconds || 1; }
    this.ruler = element("canvas", { className: "ruler", ariaHidden: "true" });
    this.playhead = element("div", { className: "playhead" });
    this.rows = people.map((person) => this.newRow(person, selected === person));
    const track = element("div", { className: "ruler-row" }, element("span"), this.ruler);
    refill(this.root, [track, ...this.rows.map((row) => row.line), this.playhead]);
    this.catchPointer(this.ruler, null);
    for (const row of this.rows) this.visible.observe(row.canvas);
    this.draw();
  }

  newRow(person, selected) {
    const name = element("button", { className: "name", type: "button", ariaPressed: String(selected) },
                         element("b", {}, person.name), element("small"));
    name.onclick = () => this.hooks.select(person, null);
    const canvas = element("canvas", { className: "row", tabIndex: 0 });
    for (const [key, value] of Object.entries({ role: "slider", "aria-label": `Timeline of ${person.name}`,
      "aria-valuemin": "0", "aria-valuemax": this.video.seconds.toFixed(1) })) canvas.setAttribute(key, value);
    const row = { person, canvas, selected, inView: false,
                  line: element("div", { className: selected ? "line selected" : "line" }, name, canvas) };
    this.catchPointer(canvas, row);
    canvas.onkeydown = (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10 }[event.key];
      if (event.key === "Home" || event.key === "End") this.hooks.seek(event.key === "Home" ? 0 : this.video.seconds);
      else if (step) this.hooks.seek(this.hooks.now() + step);
      else return;
      event.preventDefault();
    };
    return row;
  }

  // ---- time and pixels

  width() { return this.ruler.clientWidth || 1; }

  x(time) { return (time - this.from) / (this.to - this.from) * this.width(); }

  time(event, canvas) {
    const box = canvas.getBoundingClientRect();
    const time = this.from + (event.clientX - box.left) / box.width * (this.to - this.from);
    return Math.min(Math.max(time, 0), this.video.seconds);
  }

  zoom(factor, around = this.hooks.now()) {
    const length = Math.min(Math.max((this.to - this.from) * factor, 2), this.video.seconds);
    const share = around >= this.from && around <= this.to ? (around - this.from) / (this.to - this.from) : 0.5;
    this.move(Math.min(Math.max(around, 0), this.video.seconds) - share * length, length);
  }

  move(from, length = this.to - this.from) {
    this.from = Math.min(Math.max(from, 0), Math.max(this.video.seconds - length, 0));
    this.to = this.from + length;
    this.draw();
  }

  /** Seconds that are out of view. */
  free() { return this.video.seconds - (this.to - this.from); }

  /** Bring a time into view. */
  follow(time) {
    const length = this.to - this.from;
    if (time < this.from || time > this.to) this.move(time - 0.1 * length);
    this.setPlayhead(time);
  }

  setPlayhead(time) {
    const x = this.x(time);
    this.playhead.hidden = !(x >= 0 && x <= this.width() + 1);
    this.playhead.style.transform = `translateX(${this.ruler.offsetLeft + x}px)`;
  }

  /** Write beside each timeline in view how its person is at a time. */
  say(time) {
    for (const { canvas, person, inView, line } of this.rows) {
      if (!inView) continue;
      const state = person.stateAt(time), value = person.curve.values[Math.floor(time * BINS) - person.curve.first];
      const reason = state === "not codable" && this.video.reasons[value - FIRST_REASON];
      const small = line.querySelector("small");
      small.textContent = value <= 100 ? `${state}, ${value} %` : reason || state;
      small.title = reason ? `not codable: ${reason}` : state;
      canvas.setAttribute("aria-valuenow", time.toFixed(1));
      canvas.setAttribute("aria-valuetext", `${clock(time, 1)}, ${state}`);
    }
  }

  // ---- pointer: a click seeks, a drag scrubs, a drag of the end of a selected look changes it

  edgeAt(row, event) {
    if (!row?.selected || !row.look) return null;
    const x = event.clientX - row.canvas.getBoundingClientRect().left;
    return ["start", "end"].find((side) => Math.abs(this.x(row.look[side]) - x) <= EDGE) ?? null;
  }

  catchPointer(canvas, row) {
    let dragged = null, from = 0;      // "seek", "start", "end" or "stretch"
    canvas.onpointerdown = (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      dragged = this.edgeAt(row, event) ?? "seek";
      if (dragged !== "seek") return;
      const time = this.time(event, canvas);
      if (row && event.shiftKey) { dragged = "stretch"; from = time; return; }
      this.hooks.seek(time);
      if (row) this.hooks.select(row.person, row.person.lookAt(time) ?? null);
    };
    canvas.onpointermove = (event) => {
      if (dragged === null) {
        canvas.style.cursor = this.edgeAt(row, event) ? "ew-resize" : "pointer";
        return;
      }
      const time = this.time(event, canvas);
      this.hooks.seek(time);
      if (dragged === "stretch") this.hooks.stretch(row.person, Math.min(from, time), Math.max(from, time));
      if (dragged === "seek" || dragged === "stretch") return;
      row.draft = { start: row.look.start, end: row.look.end, [dragged]: time };
      this.drawRow(row);
    };
    canvas.onpointerup = canvas.onpointercancel = () => {
      const draft = row?.draft;
      dragged = null;
      if (!draft) return;
      row.draft = null;
      if (draft.end - draft.start > 0.01) this.hooks.change(row.person, row.look, draft.start, draft.end);
      else this.drawRow(row);
    };
  }

  // ---- drawing

  setStretch(start, end) {
    this.stretch = [start, end];
    for (const row of this.rows) if (row.selected && row.inView) this.drawRow(row);
  }

  /** Mark a person and perhaps a look, without making the rows anew. */
  select(person, look) {
    for (const row of this.rows) {
      row.selected = row.person === person;
      row.look = row.selected ? look : null;
      row.line.classList.toggle("selected", row.selected);
      row.line.firstChild.ariaPressed = String(row.selected);
    }
    this.draw();
  }

  draw() {
    if (!this.video || !this.ruler) return;
    const style = getComputedStyle(document.documentElement);
    this.colours = Object.fromEntries(["paper", "back", "ink", "muted", "line", "accent", "run1", "run2"].map(
      (name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.drawRuler();
    for (const row of this.rows) if (row.inView) this.drawRow(row);
    this.setPlayhead(this.hooks.now());
    this.hooks.moved?.();
  }

  begin(canvas, height) {
    const dense = window.devicePixelRatio || 1, width = this.width();
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
    const pen = canvas.getContext("2d");
    pen.scale(dense, dense);
    return pen;
  }

  drawRuler() {
    const pen = this.begin(this.ruler, 22), width = this.width(), seconds = this.to - this.from;
    const step = STEPS.find((each) => each / seconds * width >= 64) ?? 3600;
    pen.fillStyle = this.colours.muted;
    pen.font = "12px system-ui, sans-serif";
    for (let k = Math.ceil(this.from / step - 1e-6); k * step <= this.to + 1e-6; k++) {
      const x = this.x(k * step), words = clock(k * step, step < 1 ? 1 : 0), wide = pen.measureText(words).width;
      pen.fillRect(Math.min(x, width - 1), 16, 1, 6);
      pen.fillText(words, Math.min(Math.max(x - wide / 2, 0), width - wide), 12);
    }
  }

  drawRow(row) {
    const pen = this.begin(row.canvas, ROW), { person } = row;
    const { accent, muted, line, back, ink, run1, run2 } = this.colours;
    const rect = (start, end, top, height, least = 1) => {
      const x = Math.max(this.x(start), 0);
      const right = Math.min(this.x(end), this.width());
      if (right > 0 && x < this.width()) pen.fillRect(x, top, Math.max(right - x, least), height);
    };
    pen.fillStyle = back;
    pen.fillRect(0, 0, this.width(), ROW);
    pen.fillStyle = line;
    for (const [start, end] of person.present) rect(start, end, 0, ROW, 0.5);
    pen.fillStyle = this.hatch(pen, muted);
    for (const [start, end] of person.notCodable) rect(start, end, 0, ROW, 0.5);
    pen.globalAlpha = 0.55;
    pen.fillStyle = accent;
    for (const look of person.looks) rect(look.start, look.end, 0, ROW);
    pen.globalAlpha = 1;
    for (const look of person.looks) {
      pen.fillStyle = accent;
      rect(look.start, look.end, ROW - 5, 5);
      pen.fillStyle = run2;
      if (look.source === "correction") rect(look.start, look.end, 0, 4);
    }
    this.drawCurve(pen, person, ink);
    const [start, end] = this.stretch;
    if (row.selected && !row.look && end > start) {
      const x = this.x(start), wide = Math.max(this.x(end) - x, 2);
      pen.globalAlpha = 0.18;
      pen.fillStyle = run1;
      pen.fillRect(x, 0, wide, ROW);
      pen.globalAlpha = 1;
      pen.strokeStyle = run1;
      pen.setLineDash([5, 3]);
      pen.strokeRect(x, 1, wide, ROW - 2);
      pen.setLineDash([]);
    }
    const framed = row.draft ?? row.look;
    if (framed) {
      const x = this.x(framed.start), wide = Math.max(this.x(framed.end) - x, 2);
      pen.strokeStyle = pen.fillStyle = ink;
      pen.lineWidth = 2;
      pen.strokeRect(x, 1, wide, ROW - 2);
      for (const side of [x, x + wide]) pen.fillRect(side - 2, ROW / 2 - 8, 4, 16);
    }
  }

  hatch(pen, colour) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 8;
    const ink = tile.getContext("2d");
    ink.strokeStyle = colour;
    ink.lineWidth = 1.4;
    for (const shift of [-8, 0, 8]) { ink.moveTo(shift, 8); ink.lineTo(shift + 8, 0); }
    ink.stroke();
    return pen.createPattern(tile, "repeat");
  }

  /** The probability; where a pixel holds many tenths of a second, their mean. */
  drawCurve(pen, person, ink) {
    const first = Math.max(0, Math.floor(this.from * BINS)), last = Math.ceil(this.to * BINS);
    const each = Math.max(1, Math.floor((last - first) / this.width()));
    const { first: shift, values } = person.curve;
    pen.strokeStyle = ink;
    pen.lineWidth = each > 1 ? 1 : 1.4;
    pen.lineJoin = "round";
    pen.beginPath();
    let drawing = false;
    for (let place = first - first % each; place <= last; place += each) {
      let sum = 0, count = 0;
      for (let k = place; k < place + each; k++) {
        const value = values[k - shift];         // undefined before and after the person is seen
        if (value <= 100) { sum += value; count++; }
      }
      if (count) {
        const x = this.x((place + each / 2) / BINS), y = 4 + (ROW - 8) * (1 - sum / count / 100);
        if (drawing) pen.lineTo(x, y); else pen.moveTo(x, y);
      }
      drawing = count > 0;
    }
    pen.stroke();
  }
}
