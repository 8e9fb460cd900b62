// The page: what the user sees and does. Counts and corrections are in Model, timelines in Timelines.
"use strict";

const MOST_MOMENTS = 40, MOST_LOOKS = 60, MOST_ROWS = 30;      // shown at once
const AROUND = 0.6;                    // seconds played before and after a moment to check

class Page {
  constructor(data) {
    this.model = new Model(data);
    this.key = `gazepose-watch:${this.model.id}`;
    this.moment = this.look = this.person = null;
    this.number = 0;                   // of the video
    this.mostLooks = MOST_LOOKS;
    this.mostRows = MOST_ROWS;
    this.player = new Player(this.model, { moved: (time) => this.moved(time), changed: () => this.showPlaying() });
    this.lines = new Timelines(at("rows"), {
      now: () => this.player.now(), seek: (time) => this.player.seek(time),
      select: (person, look) => this.select(person, look),
      change: (person, look, start, end) => this.changeLook(person, look, start, end), moved: () => this.showScroll(),
      stretch: (person, start, end) => { this.select(person, null); this.setStretch(start, end); } });
    at("title").textContent = data.title;
    for (const [k, video] of this.model.videos.entries()) at("video-choice").add(new Option(video.name, k));
    at("videos").hidden = this.model.videos.length < 2;
    this.listen();
    this.restore();
    this.openVideo(0);
  }

  get video() { return this.model.videos[this.number]; }

  get people() { return this.model.people[this.number]; }

  openVideo(number) {
    this.number = number;
    this.moment = this.look = null;
    this.person = this.people.reduce((most, each) => !most || each.longest > most.longest ? each : most, null);
    this.mostRows = MOST_ROWS;
    at("video-choice").value = String(number);
    for (const id of ["controls", "timelines", "mark", "looks"]) at(id).hidden = !this.video.seconds;
    this.show();
    this.player.open(this.video);
  }

  moved(time) {
    this.lines.follow(time);
    this.showTime();
  }

  stepLook(direction) {
    const looks = (this.person ? [this.person] : this.people).flatMap((person) => person.looks);
    const starts = looks.map((look) => look.start).sort((one, other) => one - other), now = this.player.now();
    const start = direction > 0 ? starts.find((each) => each > now + 0.02)
      : starts.findLast((each) => each < now - (this.player.paused ? 0.02 : 0.7));
    if (start === undefined) {
      this.say(`${this.person?.name ?? "Nobody"} has no ${direction > 0 ? "later" : "earlier"} look.`);
      return;
    }
    this.goToLook(start);
  }

  /** Show the first frame of the selected person's look that begins then. */
  goToLook(start) {
    this.player.seek(start + 1e-3);
    this.select(this.person, this.person?.lookAt(start + 1e-3) ?? null);
  }

  // ---- what is selected

  select(person, look) {
    const other = person !== this.person;
    this.person = person;
    this.look = look;
    if (other) this.mostLooks = MOST_LOOKS;
    if (look) this.setStretch(look.start, look.end);
    this.lines.select(person, look);
    this.showPerson();
  }

  selectMoment(moment) {
    if (moment.number !== this.number) this.openVideo(moment.number);
    this.moment = moment;
    this.select(this.model.personOf(moment), null);
    this.setStretch(moment.start, moment.end);
    if (this.lines.to - this.lines.from > 40 * Math.max(moment.end - moment.start, 1)) {
      this.lines.zoom(30 * Math.max(moment.end - moment.start, 1) / (this.lines.to - this.lines.from), moment.start);
    }
    this.player.play(Math.max(moment.start - AROUND, 0), moment.end + AROUND);
    this.showMoments();
  }

  nextMoment() {
    const open = this.model.moments.filter((moment) => !this.model.isChecked(moment));
    const next = open[(open.indexOf(this.moment) + 1) % open.length];
    if (next) this.selectMoment(next);
    else this.say("Every uncertain moment is checked.");
  }

  setStretch(start, end) {
    if (start !== null) at("mark-start").value = clock(start, 3);
    if (end !== null) at("mark-end").value = clock(end, 3);
    this.lines.setStretch(...this.stretch());
  }

  setStretchEnd(side) {
    const [start, end] = this.player.frameSpan();
    this.setStretch(side ? null : start, side ? end : null);
  }

  // ---- corrections

  correct(message, ...lines) {
    this.model.add(...lines);
    this.changed(message);
  }

  changed(message) {
    const name = this.person?.name, middle = this.look && (this.look.start + this.look.end) / 2;
    const parts = this.person?.parts ?? [];
    this.person = this.people.find((person) => person.name === name)
      ?? this.people.find((person) => person.parts.some((part) => parts.includes(part))) ?? this.people[0] ?? null;
    this.lines.setStretch(NaN, NaN);
    this.look = middle === null ? null : this.person?.lookAt(middle) ?? null;
    try {
      if (this.model.actions.length) localStorage.setItem(this.key, JSON.stringify(this.model.actions));
      else localStorage.removeItem(this.key);
      this.unstored = false;
    } catch { this.unstored = true; }            // then only the file keeps them
    this.show();
    this.say(message + (this.model.unused ? ` ${plural(this.model.unused, "correction")} fit nobody here.` : ""));
  }

  restore() {
    try {
      const stored = JSON.parse(localStorage.getItem(this.key) ?? "[]");
      if (!stored.length) return;
      this.model.set(stored);
      this.say(`${plural(stored.length, "correction")} restored that you made in this browser.`);
    } catch { localStorage.removeItem(this.key); }
  }

  mark(action, start, end) {
    if (!this.person) return;
    if (!(start >= 0 && end > start)) {
      this.say("Give a start and a later end, as 12.5 or 1:02.25.", true);
    } else if (!Spans.inside(this.person.present, start, end).length) {
      this.say(`${this.person.name} is not in the picture from ${clock(start, 2)} to ${clock(end, 2)}.`, true);
    } else {
      this.correct(`${this.person.name} is ${ANSWERS[action]} from ${clock(start, 2)} to ${clock(end, 2)}.`,
                   this.model.line(action, this.person, start, end));
    }
  }

  answer(moment, action) {
    const open = this.model.moments.filter((each) => !this.model.isChecked(each));
    const next = open[open.indexOf(moment) + 1];
    this.person = this.model.personOf(moment);
    this.mark(action, moment.start, moment.end);
    this.moment = next ?? null;
    if (next) this.selectMoment(next);
    else this.showMoments();
  }

  /** 1, 2, 3: the moment that is being checked, else the stretch in the form. */
  answerByKey(action) {
    if (this.moment && !this.model.isChecked(this.moment)) this.answer(this.moment, action);
    else this.mark(action, ...this.stretch());
  }

  stretch() { return ["mark-start", "mark-end"].map((id) => secondsOf(at(id).value)); }

  changeLook(person, look, start, end) {
    const lines = this.model.changeOf(person, look, Math.max(start, 0), Math.min(end, this.video.seconds));
    if (!(end > start)) return this.say("The end must be later than the start.", true);
    this.look = { start, end };
    if (lines.length) this.correct(`The look of ${person.name} is now from ${clock(start, 2)} to ${clock(end, 2)}.`,
                                   ...lines);
  }

  deleteLook(person, look) {
    this.look = null;
    this.correct(`A look of ${person.name} is deleted.`, this.model.line("no_look", person, look.start, look.end));
  }

  rename(name) {
    name = name.replace(/[\p{C}\s]+/gu, " ").trim();
    if (!this.person || name === this.person.name) return;
    const problem = this.model.nameProblem(this.video, name);
    if (problem) return this.say(problem, true);
    this.correct(`${this.person.name} is now ${name}.`, this.model.nameLine("rename", this.person, name));
  }

  merge(name) {
    if (!this.person || !name) return;
    this.correct(`${this.person.name} and ${name} are now one person, ${name}.`,
                 this.model.nameLine("merge", this.person, name));
  }

  discard() {
    this.model.set([]);
    this.changed("All corrections are discarded. Undo brings them back.");
  }

  save() {
    const link = element("a", { download: "corrections.csv",
      href: URL.createObjectURL(new Blob([csvOf(this.model.actions)], { type: "text/csv" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    this.say(`${plural(this.model.actions.length, "correction")} saved as corrections.csv.`);
  }

  async load(file) {
    if (!file) return;
    try {
      const actions = actionsOf(await file.text());
      this.model.set(actions);
      this.changed(`${plural(actions.length, "correction")} loaded from ${file.name}.`);
    } catch (error) {
      this.say(`${file.name}: ${error.message}`, true);
    }
  }

  // ---- showing

  say(text, wrong = false) {
    at("status").textContent = text;
    at("status").className = wrong ? "wrong" : "";
    clearTimeout(this.fading);
    this.fading = setTimeout(() => at("status").classList.add("old"), wrong ? 12000 : 6000);
  }

  show() {
    const rows = this.people.slice(0, this.mostRows), more = this.people.length - rows.length;
    if (this.person && !rows.includes(this.person)) rows.push(this.person);
    if (this.video.seconds > 0) this.lines.show(this.video, rows, this.person);
    this.lines.select(this.person, this.look);
    at("more-rows").hidden = more <= 0;
    at("more-rows").textContent = `Show ${people(more)} more`;
    const looks = plural(this.people.reduce((sum, person) => sum + person.looks.length, 0), "look");
    const rest = this.video.seconds > 0 ? `${looks}, ${clock(this.video.seconds)}` : "one picture";
    at("lede").textContent = this.people.length ? `${people(this.people.length)}, ${rest}` : "no face was found";
    at("lede").dataset.video = this.video.name;
    at("undo").disabled = !this.model.past.length;
    at("redo").disabled = !this.model.future.length;
    at("save").disabled = at("discard").hidden = !this.model.actions.length;
    at("save").textContent = this.model.actions.length ? `Download corrections (${this.model.actions.length})`
      : "Download corrections";
    this.showPerson();
    this.showMoments();
    this.showSummary();
  }

  showTime() {
    if (!this.video.seconds) return;
    const time = this.player.now();
    at("clock").replaceChildren(`${clock(time, 2)} / ${clock(this.video.seconds)}`,
                                element("small", {}, `frame ${this.player.frame()}`));
    this.lines.say(time);
  }

  showScroll() {
    const free = this.lines.free();
    at("scroll-label").hidden = free <= 0.01;
    at("scroll").value = free > 0 ? 1000 * this.lines.from / free : 0;
    at("scroll").setAttribute("aria-valuetext", `from ${clock(this.lines.from)} to ${clock(this.lines.to)}`);
  }

  showPerson() {
    at("person").hidden = !this.person;
    if (!this.person) return;
    const { person } = this, others = this.people.filter((each) => each !== person);
    at("person-title").textContent = person.name;
    at("new-name").value = person.name;
    const choices = others.map((each) => new Option(each.name, each.name));
    at("other").replaceChildren(new Option("choose …", ""), ...choices);
    at("merge").hidden = !others.length;
    const now = person.looks.indexOf(this.look ?? person.looks.find((look) => look.end > this.player.now()));
    const from = person.looks.length > this.mostLooks ? Math.max(0, now - MOST_LOOKS / 2) : 0;
    const looks = person.looks.slice(from, from + this.mostLooks), more = person.looks.length - looks.length;
    at("looks").caption.textContent = person.looks.length ? plural(person.looks.length, "look") : "No looks yet.";
    at("looks").tHead.hidden = !person.looks.length;
    refill(at("looks").tBodies[0], looks.map((look) => lookRow(this, person, look)));
    at("looks").parentElement.scrollTop = (at("looks").querySelector(".selected")?.offsetTop ?? 0) - 80;
    at("more-looks").hidden = more <= 0;
    at("more-looks").textContent = `Show ${more} more`;
  }

  showMoments() {
    const { moments } = this.model, open = moments.filter((moment) => !this.model.isChecked(moment));
    at("queue-note").textContent = moments.length ? `${moments.length - open.length} of ${moments.length} uncertain `
      + "moments checked. The least certain comes first." : "No moment is uncertain: every probability is high or low.";
    const shown = open.slice(0, MOST_MOMENTS);
    if (this.moment && !shown.includes(this.moment)) shown.unshift(this.moment);
    refill(at("moments"), shown.map((moment) => momentRow(this, moment)), ".selected .moment");
  }

  showSummary() {
    at("summary").querySelector("tbody").replaceChildren(...this.people.map((person) => summaryRow(this, person)));
  }

  // ---- listening

  listen() {
    const { player, lines } = this, click = (id, act) => { at(id).onclick = act; };
    click("play", () => player.toggle());
    click("frame-back", () => player.step(-1));
    click("frame-on", () => player.step(1));
    click("look-back", () => this.stepLook(-1));
    click("look-on", () => this.stepLook(1));
    click("mute", () => this.mute());
    click("zoom-in", () => lines.zoom(0.5));
    click("zoom-out", () => lines.zoom(2));
    click("zoom-all", () => lines.move(0, this.video.seconds));
    click("undo", () => this.model.undo() && this.changed("Undone."));
    click("redo", () => this.model.redo() && this.changed("Done again."));
    click("save", () => this.save());
    click("discard", () => this.discard());
    click("start-now", () => this.setStretchEnd(0));
    click("end-now", () => this.setStretchEnd(1));
    click("more-looks", () => { this.mostLooks += 300; this.showPerson(); });
    click("more-rows", () => { this.mostRows += 100; this.show(); });
    at("speed").onchange = (event) => { player.moving.playbackRate = Number(event.target.value); };
    at("scroll").oninput = (event) => lines.move(event.target.value / 1000 * lines.free());
    at("video-choice").onchange = (event) => this.openVideo(Number(event.target.value));
    at("file").onchange = (event) => player.chooseFile(event.target.files[0]);
    at("load").onchange = async (event) => { await this.load(event.target.files[0]); event.target.value = ""; };
    at("rename").onsubmit = (event) => { event.preventDefault(); this.rename(at("new-name").value); };
    at("merge").onsubmit = (event) => { event.preventDefault(); this.merge(at("other").value); };
    for (const id of ["mark-start", "mark-end"]) at(id).oninput = () => lines.setStretch(...this.stretch());
    at("mark").onsubmit = (event) => { event.preventDefault(); this.mark(event.submitter.value, ...this.stretch()); };
    at("rows").addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      lines.zoom(event.deltaY > 0 ? 1.25 : 0.8, lines.time(event, lines.ruler));
    }, { passive: false });
    at("mark").onkeydown = (event) => {          // Enter in a field must not press “Looking”
      if (event.key === "Enter" && event.target.matches("input")) event.preventDefault();
    };
    window.onbeforeunload = (event) => { if (this.unstored && this.model.actions.length) event.preventDefault(); };
    for (const query of ["(prefers-color-scheme: dark)", "print"]) {
      matchMedia(query).addEventListener("change", () => lines.draw());
    }
    document.addEventListener("keydown", (event) => this.onKey(event), true);
  }

  showPlaying() {
    this.showTime();
    const path = this.player.paused ? "M4 2v12l10-6z" : "M3 2h4v12H3zM9 2h4v12H9z";
    at("play").querySelector("path").setAttribute("d", path);
    at("play").setAttribute("aria-label", this.player.paused ? "Play" : "Pause");
  }

  mute() {
    const muted = this.player.mute();
    at("mute").setAttribute("aria-pressed", String(muted));
    at("mute").textContent = muted ? "Unmute" : "Mute";
  }

  onKey(event) {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || !this.video.seconds) return;
    if (target.matches("input:not([type=range]), select, textarea")) return;
    if (key === " " && target.matches("button, summary, .button")) return;          // it presses the button
    if (key.startsWith("Arrow") && target.matches("[role=slider], input")) return;
    const { player, lines } = this;
    const act = { " ": () => player.toggle(), ",": () => player.step(-1), ".": () => player.step(1),
      n: () => this.stepLook(1), p: () => this.stepLook(-1),
      i: () => this.setStretchEnd(0), o: () => this.setStretchEnd(1),
      1: () => this.answerByKey("look"), 2: () => this.answerByKey("no_look"), 3: () => this.answerByKey("not_codable"),
      c: () => this.nextMoment(), u: () => at("undo").click(), r: () => at("redo").click(), m: () => this.mute(),
      ArrowLeft: () => player.seek(player.now() - 1), ArrowRight: () => player.seek(player.now() + 1),
      Delete: () => this.look && this.deleteLook(this.person, this.look), "+": () => lines.zoom(0.5),
      "-": () => lines.zoom(2), 0: () => lines.move(0, this.video.seconds) }[key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

window.page = new Page(JSON.parse(document.getElementById("data").textContent));
