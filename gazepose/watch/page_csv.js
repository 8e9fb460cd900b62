// The table of corrections as CSV, as gazepose writes and reads it.
"use strict";

/** A cell that no spreadsheet computes, as gazepose writes and reads it. */
function cellOf(text) {
  text = String(text);
  if (isFormula(text)) text = "'" + text;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function isFormula(text) {
  const plain = text.replace(/^'+/, "");
  return /^[=+\-@\t\r]/.test(plain) && !/^(?!\.+$)[A-Za-z0-9_.-]{1,128}$/.test(plain);
}

function csvOf(actions) {
  const lines = actions.map((action) => COLUMNS.map((name) => cellOf(action[name] ?? "")).join(","));
  return [COLUMNS.join(","), ...lines].join("\n") + "\n";
}

/** Corrections of a CSV text; throws an Error that says what is wrong in which line. */
function actionsOf(text) {
  const [header, ...rows] = cellsOf(text.replace(/^\ufeff/, ""));
  const missing = COLUMNS.filter((name) => !header?.includes(name));
  if (missing.length) {
    throw new Error(`line 1 has no column ${missing.join(", ")}. Choose a file that this page saved.`);
  }
  return rows.filter((row) => row.some(Boolean)).map((row, k) => {
    const cell = (name) => row[header.indexOf(name)] ?? "";
    const name = (column) => cell(column).replace(/^'/, (mark) => isFormula(cell(column)) ? "" : mark);
    const action = { action: cell("action"), video: name("video"), person: name("person"), start: "", end: "",
                     value: name("value") };
    if (ACTIONS_IN_TIME.includes(action.action)) {
      action.start = Number(cell("start") || NaN);
      action.end = Number(cell("end") || NaN);
      if (!(action.start >= 0 && action.end >= action.start)) {
        throw new Error(`line ${k + 2}: start and end must be seconds.`);
      }
    } else if (!["rename", "merge"].includes(action.action)) {
      throw new Error(`line ${k + 2}: “${action.action}” is no action.`);
    }
    return action;
  });
}

/** Rows of cells of a CSV text; quoted cells may hold commas, quotes and line ends. */
function cellsOf(text) {
  const rows = [[]];
  for (const [, quoted, plain, ends] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|\r|$)/g)) {
    rows[rows.length - 1].push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
    if (ends === "") break;
    if (ends !== ",") rows.push([]);
  }
  return rows.filter((row) => row.length > 1 || row[0]);
}
