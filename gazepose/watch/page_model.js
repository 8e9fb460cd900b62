// The videos, their people, and what the user corrected. Knows nothing of the document.
"use strict";

const ACTIONS_IN_TIME = ["look", "no_look", "not_codable"];
const COLUMNS = ["action", "video", "person", "start", "end", "value"];
const BINS = 10;                       // probabilities a second
const ABSENT = 255, FIRST_REASON = 101;
const SLACK = 0.002;                   // seconds; looks that are so near touch each other

// ---- spans: sorted lists of [start, end] that do not overlap

const Spans = {
  union(a, b) {
    const joined = [];
    for (const [start, end] of [...a, ...b].sort((one, other) => one[0] - other[0])) {
      const last = joined[joined.length - 1];
      if (last && start <= last[1] + 1e-9) last[1] = Math.max(last[1], end);
      else joined.push([start, end]);
    }
    return joined;
  },
  without(spans, start, end) {
    const pieces = spans.flatMap(([from, to]) => [[from, Math.min(to, start)], [Math.max(from, end), to]]);
    return pieces.filter(([from, to]) => to - from > 1e-9);
  },
  inside(spans, start, end) {
    const pieces = spans.map(([from, to]) => [Math.max(from, start), Math.min(to, end)]);
    return pieces.filter(([from, to]) => to - from > 1e-9);
  },
  /** What is in a and in no span of b. */
  minus(a, b) {
    const left = [];
    let next = 0;
    for (let [start, end] of a) {
      while (next < b.length && b[next][1] <= start) next++;
      for (let k = next; k < b.length && b[k][0] < end; k++) {
        if (b[k][0] > start) left.push([start, b[k][0]]);
        start = Math.max(start, b[k][1]);
      }
      if (end - start > 1e-9) left.push([start, end]);
    }
    return left;
  },
  length(spans) { return spans.reduce((sum, [start, end]) => sum + end - start, 0); },
};

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  return bytes;
}

// ---- a person as the corrections leave them

class Person {
  constructor(video, found) {
    this.video = video;
    this.name = found.name;
    this.parts = [found];              // the people, as found, who are this person
    this.present = found.present.map((span) => [...span]);
    this.codable = found.codable.map((span) => [...span]);
    this.looks = found.looks.map(([start, end, probability, source]) => ({ start, end, probability, source }));
    this.marks = [];                   // corrections in time, in their order
    this.drawn = this.hatched = null;  // the curve and what is not codable, once they are needed
  }

  mark(action, start, end) {
    const faces = Spans.inside(this.present, start, end);
    if (!faces.length) return false;
    this.drawn = this.hatched = null;
    start = Math.max(start, faces[0][0]);
    end = Math.min(end, faces[faces.length - 1][1]);
    this.marks.push({ action, start, end });
    if (action === "look") {
      const touched = this.looks.filter((look) => look.start <= end + SLACK && look.end >= start - SLACK);
      const whole = { start: Math.min(start, ...touched.map((look) => look.start)),
                      end: Math.max(end, ...touched.map((look) => look.end)), probability: null, source: "correction" };
      this.looks = [...this.looks.filter((look) => !touched.includes(look)), whole];
    } else {
      this.looks = this.looks.flatMap((look) => look.end <= start || look.start >= end ? [look]
        : Spans.without([[look.start, look.end]], start, end).filter(([from, to]) => to - from > SLACK)
          .map(([from, to]) => ({ start: from, end: to, probability: look.probability, source: "correction" })));
    }
    this.looks.sort((one, other) => one.start - other.start);
    if (action === "not_codable") this.codable = Spans.without(this.codable, start, end);
    else this.codable = Spans.union(this.codable, faces);
    return true;
  }

  join(other) {
    this.drawn = this.hatched = null;
    this.parts.push(...other.parts);
    this.present = Spans.union(this.present, other.present);
    this.codable = Spans.union(this.codable, other.codable);
    this.marks.push(...other.marks);
    const looks = [...this.looks, ...other.looks].sort((one, two) => one.start - two.start);
    this.looks = [];
    for (const look of looks) {
      const last = this.looks[this.looks.length - 1];
      if (last && look.start <= last.end + SLACK) {
        this.looks[this.looks.length - 1] = { ...last, end: Math.max(last.end, look.end) };
      } else this.looks.push(look);
    }
  }

  /** { first, values }: from that tenth of a second on, the probability 0 to 100, a reason's number, or ABSENT. */
  get curve() {
    if (this.drawn) return this.drawn;
    const first = Math.min(...this.parts.map((part) => part.first));
    const last = Math.max(...this.parts.map((part) => part.first + part.values.length));
    const values = new Uint8Array(last - first).fill(ABSENT);
    for (const part of this.parts) {
      part.values.forEach((value, k) => {
        const place = part.first - first + k;
        if (value !== ABSENT && (values[place] === ABSENT || value <= 100)) values[place] = value;
      });
    }
    for (const { action, start, end } of this.marks) {
      const set = { look: 100, no_look: 0, not_codable: FIRST_REASON }[action];
      const to = Math.min(Math.round(end * BINS) - first, values.length);
      for (let k = Math.max(Math.round(start * BINS) - first, 0); k < to; k++) {
        if (values[k] !== ABSENT) values[k] = set;
      }
    }
    this.drawn = { first, values };
    return this.drawn;
  }

  lookAt(time) { return this.looks.find((look) => look.start <= time + 1e-6 && time < look.end - 1e-6); }

  isPresent(time) { return this.present.some(([start, end]) => start <= time + 1e-6 && time < end); }

  /** "looking", "not looking", "not codable" or "not in the picture". */
  stateAt(time) {
    if (this.lookAt(time)) return "looking";
    if (!this.isPresent(time)) return "not in the picture";
    return this.codable.some(([start, end]) => start <= time + 1e-6 && time < end) ? "not looking" : "not codable";
  }

  get notCodable() { return this.hatched ??= Spans.minus(this.present, this.codable); }

  get longest() { return Spans.length(this.codable) + 1e-3 * Spans.length(this.present); }

  /** The same counts, by the same rules, as people.csv. */
  counts() {
    const codable = Spans.length(this.codable), looks = this.looks;
    const lengths = looks.map((look) => look.end - look.start), sum = lengths.reduce((a, b) => a + b, 0);
    const seen = codable - Spans.length(Spans.minus(this.codable, looks.map((look) => [look.start, look.end])));
    return { looks: looks.length, seconds: sum, codable, rate: codable > 0 ? 60 * looks.length / codable : null,
             share: codable > 0 ? seen / codable : null, mean: looks.length ? sum / looks.length : null,
             latency: looks.length && this.codable.length ? Math.max(0, looks[0].start - this.codable[0][0]) : null };
  }
}

// ---- all videos and all corrections

class Model {
  constructor(data) {
    this.id = data.id;
    this.videos = data.videos;
    for (const video of this.videos) {
      video.times = video.times && Model.times(video.times);
      for (const person of video.people) person.values = bytesOf(person.values);
    }
    this.actions = [];
    this.past = [];
    this.future = [];
    this.replay();
    this.moments = this.findMoments();
  }

  static times(base64) {
    const bytes = bytesOf(base64), times = new Float64Array(bytes.length / 2);
    for (let k = 0, sum = 0; k < times.length; k++) times[k] = (sum += bytes[2 * k] + 256 * bytes[2 * k + 1]) / 1000;
    return times;
  }

  // corrections

  /** Replace all corrections; what was there before can be brought back. */
  set(actions) {
    this.past.push(this.actions);
    this.future = [];
    this.actions = actions;
    this.replay();
  }

  add(...actions) { this.set([...this.actions, ...actions]); }

  undo() { return this.step(this.past, this.future); }

  redo() { return this.step(this.future, this.past); }

  step(from, to) {
    if (!from.length) return false;
    to.push(this.actions);
    this.actions = from.pop();
    this.replay();
    return true;
  }

  /** Apply all corrections in their order to the people as found; this.unused counts those that fit nobody. */
  replay() {
    this.people = this.videos.map((video) => video.people.map((found) => new Person(video, found)));
    this.unused = 0;
    const newer = this.videos.map(() => new Map());        // older name -> the name after it
    for (const action of this.actions) {
      const number = this.videos.findIndex((video) => video.name === action.video);
      if (number < 0 || !this.applyTo(this.people[number], newer[number], action)) this.unused++;
    }
  }

  applyTo(people, newer, { action, person: name, start, end, value }) {
    const find = (text) => {
      for (let steps = 0; steps < 1000; steps++) {
        const person = people.find((each) => each.name === text);
        if (person || !newer.has(text)) return person;
        text = newer.get(text);
      }
      return undefined;
    };
    const person = find(name);
    if (!person) return false;
    if (ACTIONS_IN_TIME.includes(action)) return person.mark(action, start, end);
    const other = action === "merge" ? find(value) : people.find((each) => each.name === value);
    if (action === "merge" && other && other !== person) {
      other.join(person);
      people.splice(people.indexOf(person), 1);
      newer.set(person.name, other.name);
      return true;
    }
    if (action !== "rename" || other || !value) return other === person;
    newer.set(person.name, value);
    newer.delete(value);
    person.name = value;
    return true;
  }

  /** Why a person cannot get a name; empty if they can. */
  nameProblem(video, name) {
    if (!name) return "Type a name first.";
    const names = video.people.map((found) => found.name);
    for (const action of this.actions) if (action.video === video.name) names.push(action.person, action.value);
    if (!names.includes(name)) return "";
    return `“${name}” is or was somebody's name in this video. Merge them, or take another name.`;
  }

  /** Corrections that turn the look into one from start to end. */
  changeOf(person, look, start, end) {
    const line = (action, from, to) => this.line(action, person, from, to);
    if (start >= look.end || end <= look.start) {
      return [line("no_look", look.start, look.end), line("look", start, end)];
    }
    const changes = [];
    if (start > look.start) changes.push(line("no_look", look.start, start));
    if (start < look.start) changes.push(line("look", start, look.start));
    if (end < look.end) changes.push(line("no_look", end, look.end));
    if (end > look.end) changes.push(line("look", look.end, end));
    return changes;
  }

  line(action, person, start, end) {
    const round = (seconds) => Math.round(1000 * seconds) / 1000;
    return { action, video: person.video.name, person: person.name, start: round(start), end: round(end), value: "" };
  }

  nameLine(action, person, value) {
    return { action, video: person.video.name, person: person.name, start: "", end: "", value };
  }

  // the queue

  /** Stretches of time whose probability is neither high nor low, the least certain first. */
  findMoments() {
    const moments = [];
    this.videos.forEach((video, number) => {
      if (!video.seconds) return;
      for (const person of this.people[number]) {
        const found = person.parts[0], unsure = (k) => found.values[k] > 25 && found.values[k] < 75;
        const stateOf = (k) => Boolean(person.lookAt((found.first + k + 0.5) / BINS));
        for (let k = 0; k < found.values.length; k++) {
          if (!unsure(k)) continue;
          let last = k, sum = 0;
          while (unsure(last) && stateOf(last) === stateOf(k)) sum += found.values[last++];
          if (last - k >= 2) {
            moments.push({ number, found, start: (found.first + k) / BINS, looking: stateOf(k),
                           end: Math.min((found.first + last) / BINS, video.seconds), mean: sum / (last - k) });
          }
          k = last - 1;
        }
      }
    });
    const doubt = (moment) => Math.abs(moment.mean - 50);
    return moments.sort((one, other) => doubt(one) - doubt(other) || other.end - other.start - one.end + one.start);
  }

  personOf(moment) { return this.people[moment.number].find((person) => person.parts.includes(moment.found)); }

  isChecked(moment) {
    const middle = (moment.start + moment.end) / 2;
    return this.personOf(moment).marks.some((mark) => mark.start <= middle && middle < mark.end);
  }

  /** Of a person in a still picture: the probability, or why there is none. */
  pictureState(person) {
    const value = person.curve.values[0];
    return value <= 100 ? `${value} %` : person.video.reasons[value - FIRST_REASON] ?? "not codable";
  }

  // frames

  frameAt(video, time) {
    if (!video.times) return Math.max(0, Math.min(video.frames - 1, Math.floor(time * video.fps + 1e-3)));
    let low = 0, high = video.times.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (video.times[middle] <= time + 1e-3) low = middle; else high = middle - 1;
    }
    return low;
  }

  /** [start, end] of a frame in seconds. */
  frameSpan(video, frame) {
    const start = (k) => video.times ? video.times[k] ?? video.seconds : k / video.fps;
    return [start(frame), frame + 1 < video.frames ? start(frame + 1) : Math.max(video.seconds, start(frame))];
  }
}
