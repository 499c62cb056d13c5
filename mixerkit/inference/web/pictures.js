// Pixels, weights and influence as pictures.

import { patchBox } from "./explain.js";

const RED = [197, 46, 50];
const BLUE = [38, 100, 190];

// The image that the model sees.
export function drawPixels(canvas, pixels, { height, width, channels }) {
  paint(canvas, width, height, (x, y) => colourAt(pixels, (y * width + x) * channels, channels));
}

function colourAt(pixels, at, channels) {
  return channels === 1 ? [pixels[at], pixels[at], pixels[at]] : pixels.subarray(at, at + 3);
}

// Weights from -127 to 127 on a grid: red above 0, white at 0, blue below.
export function drawWeights(canvas, weights, [rows, columns]) {
  paint(canvas, columns, rows, (x, y) => {
    const share = weights[y * columns + x] / 127;
    return mixed([255, 255, 255], share > 0 ? RED : BLUE, Math.abs(share));
  });
}

// The image in grey, with patches red that speak for the class, and blue that speak against it.
export function drawInfluence(canvas, pixels, falls, about) {
  const { height, width, channels } = about.image;
  const most = Math.max(1e-9, ...falls.map(Math.abs));
  const shares = new Float32Array(height * width);
  falls.forEach((fall, index) => {
    const [top, bottom, left, right] = patchBox(index, about.patches, about.image);
    for (let y = top; y < bottom; y++) shares.fill(fall / most, y * width + left, y * width + right);
  });
  paint(canvas, width, height, (x, y) => {
    const at = y * width + x;
    const [red, green, blue] = colourAt(pixels, at * channels, channels);
    const grey = 60 + 0.6 * (0.299 * red + 0.587 * green + 0.114 * blue);
    return mixed([grey, grey, grey], shares[at] > 0 ? RED : BLUE, 0.85 * Math.abs(shares[at]));
  });
}

function mixed(from, to, share) {
  return from.map((value, i) => value + share * (to[i] - value));
}

function paint(canvas, width, height, colour) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      picture.data.set([...colour(x, y), 255], 4 * (y * width + x));
    }
  }
  context.putImageData(picture, 0, 0);
}
