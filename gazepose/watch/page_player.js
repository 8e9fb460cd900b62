// The video: plays, seeks and steps. Times are seconds of the drawn video, which are those of the source.
"use strict";

class Player {
  /** hooks: moved(time), changed() when it starts or stops. */
  constructor(model, hooks) {
    this.model = model;
    this.hooks = hooks;
    this.moving = at("video");
    this.still = at("picture");
    this.stopAt = Infinity;            // where it pauses by itself
    this.pending = undefined;          // where a seek goes
    this.moving.onclick = () => this.toggle();
    this.moving.onseeked = () => this.seeked();
    this.moving.onplay = () => { this.hooks.changed(); this.tick(); };
    this.moving.onpause = () => this.hooks.changed();
    this.moving.onerror = this.still.onerror = () => this.askForFile();
  }

  get paused() { return this.moving.paused; }

  open(video) {
    this.video = video;
    this.moving.pause();
    const moves = video.seconds > 0;
    this.moving.hidden = !moves;
    this.still.hidden = moves;
    this.still.alt = `The picture ${video.name} with its faces`;
    this.moving.setAttribute("aria-label", `The video ${video.name} with its faces`);
    this.moving.removeAttribute("src");
    this.show(video.source);
    this.pending = moves ? 0 : undefined;
    if (moves) this.seek(0);
  }

  show(source) {
    at("missing").hidden = true;
    (this.video.seconds > 0 ? this.moving : this.still).src = source;
  }

  askForFile() {
    at("missing").hidden = false;
    at("missing").firstElementChild.textContent = `“${decodeURIComponent(this.video.source)}” cannot be played. `
      + "Put it beside this page, or choose the video here.";
  }

  chooseFile(file) { if (file) this.show(URL.createObjectURL(file)); }

  now() { return this.pending ?? this.moving.currentTime; }

  /** Go to a time. Seeks come faster than a video can follow, so only the last of them waits. */
  seek(time) {
    const waits = this.moving.seeking && this.pending !== undefined;
    this.stopAt = Infinity;
    this.pending = Math.min(Math.max(time, 0), this.video.seconds);
    if (!waits) this.moving.currentTime = this.pending;
    this.hooks.moved(this.pending);
  }

  seeked() {
    if (this.pending !== undefined && Math.abs(this.pending - this.moving.currentTime) > 0.002) {
      this.moving.currentTime = this.pending;
      if (this.moving.seeking) return;
    }
    this.pending = undefined;
    this.hooks.moved(this.now());
  }

  step(frames) {
    this.moving.pause();
    const frame = Math.min(Math.max(this.frame() + frames, 0), this.video.frames - 1);
    const [start, end] = this.model.frameSpan(this.video, frame);
    this.seek((start + end) / 2);      // its middle: no browser rounds that to another frame
  }

  frame() { return this.model.frameAt(this.video, this.now()); }

  /** [start, end] of the frame that is shown. */
  frameSpan() { return this.model.frameSpan(this.video, this.frame()); }

  play(start = this.now(), end = Infinity) {
    if (start !== this.now()) this.seek(start);
    this.stopAt = end;
    this.moving.play().catch(() => {});          // the browser may refuse, or the file may be missing
  }

  toggle() { if (this.paused) this.play(); else this.moving.pause(); }

  /** Runs with the screen while the video plays. */
  tick() {
    if (this.paused) return;
    if (this.moving.currentTime >= this.stopAt) this.moving.pause();
    this.hooks.moved(this.now());
    requestAnimationFrame(() => this.tick());
  }

  mute() { return this.moving.muted = !this.moving.muted; }
}
