// Lines of the panels: a look, a moment to check, a person's counts.
"use strict";

const ANSWERS = { look: "looking", no_look: "not looking", not_codable: "not codable" };

/** A line of the table of looks: its ends can be changed, and it can be deleted. */
function lookRow(page, person, look) {
  const field = (side) => {
    const input = element("input", { value: clock(look[side], 3), autocomplete: "off" });
    input.setAttribute("aria-label", `${side} of the look`);
    input.onchange = () => {
      const seconds = secondsOf(input.value), changed = { start: look.start, end: look.end, [side]: seconds };
      if (seconds >= 0 && changed.end > changed.start) page.changeLook(person, look, changed.start, changed.end);
      else {
        input.value = clock(look[side], 3);
        page.say("A look needs a start and a later end, as 12.5 or 1:02.25.", true);
      }
    };
    return element("td", {}, input);
  };
  const go = element("button", { type: "button" }, "Go"), drop = element("button", { type: "button" }, "Delete");
  go.setAttribute("aria-label", `Go to the look at ${clock(look.start, 1)}`);
  drop.setAttribute("aria-label", `Delete the look at ${clock(look.start, 1)}`);
  go.onclick = () => page.goToLook(look.start);
  drop.onclick = () => page.deleteLook(person, look);
  const probability = look.probability === null ? "by hand" : percent(look.probability);
  return element("tr", { className: look === page.look ? "selected" : "" }, field("start"), field("end"),
                 element("td", {}, `${(look.end - look.start).toFixed(2)} s`), element("td", {}, probability),
                 element("td", {}, go, drop));
}

/** A moment of the queue; the selected one has buttons with the answers. */
function momentRow(page, moment) {
  const selected = moment === page.moment, checked = page.model.isChecked(moment);
  const several = page.model.videos.length > 1 ? `${page.model.videos[moment.number].name}, ` : "";
  const name = page.model.personOf(moment).name, length = (moment.end - moment.start).toFixed(1);
  const button = element("button", { type: "button", className: "moment" },
    element("b", { className: checked ? "done" : "" }, name), element("span", {}, `${Math.round(moment.mean)} %`),
    element("small", {}, `${several}${clock(moment.start, 1)}, ${length} s`),
    element("small", {}, moment.looking ? "in a look" : "no look"));
  button.onclick = () => page.selectMoment(moment);
  if (!selected) return element("li", {}, button);
  const answers = Object.entries(ANSWERS).map(([action, words], k) => {
    const answer = element("button", { type: "button", title: `key ${k + 1}` },
                           words[0].toUpperCase() + words.slice(1));
    answer.onclick = () => page.answer(moment, action);
    return answer;
  });
  return element("li", { className: "selected" }, button, element("div", { className: "answers" }, ...answers));
}

/** A line of the summary; of a still picture, the probability only. */
function summaryRow(page, person) {
  const number = (value, digits) => value === null ? "–" : value.toFixed(digits);
  const counts = person.counts();
  const cells = page.video.seconds > 0 ? [counts.looks, number(counts.rate, 1), number(counts.seconds, 1),
    percent(counts.share), number(counts.mean, 2), number(counts.latency, 1), number(counts.codable, 1)]
    : ["–", "–", "–", page.model.pictureState(person), "–", "–", "–"];
  return element("tr", {}, element("th", { scope: "row" }, person.name),
                 ...cells.map((cell) => element("td", {}, String(cell))));
}

/** Seconds of a field: 75.5, 1:15.5 or 0:01:15.5; NaN for anything else. */
function secondsOf(text) {
  if (!/^\s*(\d+:){0,2}\d+([.,]\d*)?\s*$/.test(text)) return NaN;
  return text.replace(",", ".").split(":").reduce((sum, part) => 60 * sum + Number(part), 0);
}
