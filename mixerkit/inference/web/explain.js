// What the model's answer rests on: probabilities, units, the influence of each patch.

// Shares of one of the logits each.
export function softmax(logits) {
  const most = Math.max(...logits);
  const found = Array.from(logits, (one) => Math.exp(one - most));
  const sum = found.reduce((a, b) => a + b, 0);
  return found.map((one) => one / sum);
}

// The places of the largest numbers, the largest first; of equal ones the earlier first.
export function largest(numbers, count) {
  const places = Array.from(numbers.keys());
  return places.sort((a, b) => numbers[b] - numbers[a] || a - b).slice(0, count);
}

// Where patch number `index` lies in the image: [top, bottom, left, right].
export function patchBox(index, { grid, size, outside }, { height, width }) {
  const place = [Math.floor(index / grid[1]), index % grid[1]];
  const [top, left] = place.map((at, axis) => at * size[axis] - outside[axis]);
  return [
    Math.max(0, top),
    Math.min(height, top + size[0]),
    Math.max(0, left),
    Math.min(width, left + size[1]),
  ];
}

// The images without patch `first`, `first + 1`, …: each has the image's mean colour there.
export function withoutPatches(pixels, first, count, about) {
  const { width, channels } = about.image;
  const mean = meanColour(pixels, channels);
  const images = new Uint8Array(count * pixels.length);
  for (let i = 0; i < count; i++) {
    images.set(pixels, i * pixels.length);
    const image = images.subarray(i * pixels.length, (i + 1) * pixels.length);
    const [top, bottom, left, right] = patchBox(first + i, about.patches, about.image);
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) image.set(mean, (y * width + x) * channels);
    }
  }
  return images;
}

function meanColour(pixels, channels) {
  const sums = new Array(channels).fill(0);
  pixels.forEach((value, i) => (sums[i % channels] += value));
  return sums.map((sum) => Math.round((sum * channels) / pixels.length));
}

// By how much the logit of class `label` falls when each patch is covered. `show(falls)` is told of
// those that are known already; it ends, with nothing, when `wanted()` is no longer true.
export async function influence(model, about, pixels, logits, label, pace, show, wanted) {
  const patches = about.patches.grid[0] * about.patches.grid[1];
  const falls = [];
  while (falls.length < patches) {
    const count = Math.min(pace, patches - falls.length);
    const found = await model.run(withoutPatches(pixels, falls.length, count, about), count);
    if (!wanted()) return null;
    for (let i = 0; i < count; i++) falls.push(logits[label] - found.logits[i * logits.length + label]);
    show(falls, patches);
  }
  return falls;
}
