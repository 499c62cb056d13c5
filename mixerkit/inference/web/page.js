// The page: an image comes in, and what the model says of it is shown.

import { drawingBoard } from "./drawing.js";
import { influence, largest, softmax } from "./explain.js";
import { Model } from "./model.js";
import { drawInfluence, drawPixels, drawWeights } from "./pictures.js";
import { BadImage } from "./pixels.js";

const TOP = 5;
const UNITS = 8; // shown
const PATIENCE = 15_000; // milliseconds of computing that nobody has to ask for
const PACE = 250; // milliseconds between two looks at the patches

const $ = (id) => document.getElementById(id);
export const model = new Model(watchLoading);
let about;
let unitWeights;
let latest = 0; // the number of the image that is shown; what belongs to earlier ones is dropped

async function begin() {
  // A file that is dropped too early leaves the page where it is.
  for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
  try {
    about = await model.about;
    if (about.units) unitWeights = await fetched(about.units.weights);
  } catch (error) {
    say(`The model could not be loaded (${error.message}). Reload the page to try again.`, true);
    $("loading").hidden = true;
    return;
  }
  document.title = about.title;
  $("title").textContent = about.title;
  $("lead").textContent = about.lead;
  $("foot").textContent = `${about.runtime}, ${about.precision}. Made with mixerkit.`;
  $("loading").hidden = true;
  $("input").hidden = false;
  say("Ready for an image.");
  listen();
}

async function fetched(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name} is not there: ${answer.status}`);
  return new Int8Array(await answer.arrayBuffer());
}

function watchLoading(done, all) {
  $("loaded").max = all;
  $("loaded").value = done;
  const [some, whole] = [done, all].map((one) => (one / 1e6).toFixed(1));
  $("loading-text").textContent = `Loading the model: ${some} of ${whole} MB.`;
}

function say(words, isError = false) {
  $("said").textContent = words;
  $("said").classList.toggle("error", isError);
}

// -- where images come from ---------------------------------------------------------------------

function listen() {
  $("file").accept = about.image.formats.map((one) => `image/${one.toLowerCase()}`).join();
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    $("file").value = ""; // so that the same file may be chosen again
    if (file) look(file);
  });
  addEventListener("paste", (event) => take(event, event.clipboardData));
  addEventListener("drop", (event) => {
    document.body.classList.remove("dropping");
    take(event, event.dataTransfer);
  });
  addEventListener("dragover", () => document.body.classList.add("dropping"));
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  const elements = { canvas: $("board"), cursor: $("cursor"), pen: $("pen"), width: $("width") };
  drawingBoard({ ...elements, clear: $("clear"), said: $("pen-said") }, about, look);
}

function take(event, data) {
  event.preventDefault();
  const [file] = data.files;
  if (file) look(file);
  else say("That was no image file. Choose, drop or paste a picture.", true);
}

// -- one image ----------------------------------------------------------------------------------

// Everything about one image file; what is wrong with it is said.
export async function look(file) {
  const number = ++latest;
  const isWanted = () => number === latest;
  say(`Looking at ${file.name} …`);
  try {
    const pixels = await model.prepare(file);
    if (!isWanted()) return;
    const found = await model.run(pixels, 1, true);
    if (!isWanted()) return;
    showAnswer(pixels, found, file.name);
    await showInfluence(pixels, found, isWanted);
  } catch (error) {
    if (!isWanted()) return;
    say(whatIsWrong(error, file.name), true);
    for (const part of ["answer", "influence", "units"]) $(part).hidden = true;
  }
}

function whatIsWrong(error, name) {
  if (error instanceof BadImage) return `Cannot use ${name}: ${error.message}`;
  return `Something went wrong with ${name} (${error.message}). The page goes on with the next image.`;
}

function showAnswer(pixels, { logits, milliseconds, units }, name) {
  const shares = softmax(logits);
  const best = largest(shares, TOP);
  $("answer").hidden = false;
  drawPixels($("seen"), pixels, about.image);
  $("seen").setAttribute("aria-label", `${name}, as the model sees it`);
  $("time").textContent = `${duration(milliseconds)} for this image, in this browser, on one core.`;
  $("classes").replaceChildren(...best.map((label) => classRow(about.classes[label], shares[label])));
  const words = best.slice(0, 3).map((one) => `${about.classes[one]} ${percent(shares[one])}`);
  say(`${words.join(", ")}.`);
  if (units) showUnits(units);
}

function classRow(name, share) {
  const row = $("class-row").content.cloneNode(true);
  row.querySelector(".name").textContent = name;
  row.querySelector(".share").textContent = percent(share);
  row.querySelector(".bar > span").style.width = `${100 * share}%`;
  return row;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function duration(milliseconds) {
  if (milliseconds < 1000) return `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
  const seconds = milliseconds / 1000;
  return seconds < 120 ? `${seconds.toFixed(seconds < 10 ? 1 : 0)} s` : `${Math.round(seconds / 60)} minutes`;
}

// The units that respond most, as maps of what they make of each patch.
function showUnits(sizes) {
  const { grid, count } = about.units;
  const patches = grid[0] * grid[1];
  const maps = largest(sizes, Math.min(UNITS, count)).map((unit) => {
    const row = $("unit-map").content.cloneNode(true);
    const weights = unitWeights.subarray(unit * patches, (unit + 1) * patches);
    const canvas = row.querySelector("canvas");
    drawWeights(canvas, weights, grid);
    canvas.setAttribute("aria-label", unitWords(unit, weights, grid));
    row.querySelector("figcaption").textContent = `unit ${unit}: ${sizes[unit].toFixed(2)}`;
    return row;
  });
  $("units").hidden = false;
  $("unit-maps").replaceChildren(...maps);
}

function unitWords(unit, weights, [, columns]) {
  const [most] = largest(weights, 1);
  const [least] = largest(weights.map((one) => -one), 1);
  const place = (at) => `row ${Math.floor(at / columns) + 1}, column ${(at % columns) + 1}`;
  return `Unit ${unit} adds most of ${place(most)} and takes most away of ${place(least)}`;
}

// At once where it is quick, else when it is asked for.
async function showInfluence(pixels, { logits, milliseconds }, isWanted) {
  const [rows, columns] = about.patches.grid;
  const expected = rows * columns * milliseconds;
  $("influence").hidden = false;
  drawPixels($("influence-map"), pixels, about.image);
  $("influence-map").setAttribute("aria-label", "The image, before its patches were covered");
  $("influence-said").textContent = "";
  $("influence-progress").hidden = $("influence-button").hidden = true;
  if (expected > PATIENCE) await asked(`Cover all ${rows * columns} patches (about ${duration(expected)})`);
  if (!isWanted()) return;
  const [label] = largest(logits, 1);
  const pace = Math.min(32, Math.max(1, Math.round(PACE / milliseconds)));
  $("influence-progress").hidden = false;
  await influence(model, about, pixels, logits, label, pace, show, isWanted);

  function show(falls, patches) {
    $("influence-progress").max = patches;
    $("influence-progress").value = falls.length;
    drawInfluence($("influence-map"), pixels, falls, about);
    if (falls.length < patches) return;
    $("influence-progress").hidden = true;
    const words = influenceWords(falls, columns, about.classes[label]);
    $("influence-said").textContent = words;
    $("influence-map").setAttribute("aria-label", words);
  }
}

function influenceWords(falls, columns, name) {
  const [most] = largest(falls, 1);
  const place = `row ${Math.floor(most / columns) + 1}, column ${(most % columns) + 1}`;
  if (falls[most] <= 0) return `No patch alone speaks for ${name}: without any of them its score rises.`;
  return `Without the patch in ${place} the score of ${name} falls most, by ${falls[most].toFixed(2)}.`;
}

function asked(words) {
  const button = $("influence-button");
  button.textContent = words;
  button.hidden = false;
  return new Promise((resolve) => {
    button.onclick = () => {
      button.hidden = true;
      resolve();
    };
  });
}

begin();
