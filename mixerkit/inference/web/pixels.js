// From a decoded image to the pixels that the model takes: what mixerkit/data/decode.py does, with
// Pillow's own whole-number arithmetic, so that both give the same bytes.
//
// An image here is {width, height, rows}: rows(top, count) gives RGBA bytes of some rows.

export class BadImage extends Error {}

const PRECISION = 2 ** 22; // weights as whole numbers
const BAND = 2 ** 20; // pixels that are looked at together

// How far a filter reaches, and its weight at a distance, both in places of the smaller image.
const FILTERS = {
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, cubic],
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
};

function cubic(signed) {
  const x = Math.abs(signed);
  const a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// The image at the model's size: bytes of height × width × channels.
export function prepared(image, rule) {
  const size = canvasSize(image, rule);
  const whole = resized(image, size, rule);
  const { height, width, channels } = rule;
  const top = Math.floor((size.height - height) / 2);
  const left = Math.floor((size.width - width) / 2);
  const out = new Uint8Array(height * width * channels);
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * size.width + left) * channels;
    out.set(whole.subarray(from, from + width * channels), y * width * channels);
  }
  return out;
}

// Size after resizing and before the crop at the centre.
export function canvasSize(image, rule) {
  const { height, width, resize, resize_to: side } = rule;
  if (resize === "none") {
    if (image.height === height && image.width === width) return { height, width };
    throw new BadImage(
      `it has ${image.width} × ${image.height} px and this model takes ${width} × ${height} px only.`,
    );
  }
  const target = { height: side || height, width: side || width };
  if (resize === "squash") return target;
  const scale = Math.max(target.height / image.height, target.width / image.width);
  const found = {
    height: Math.max(target.height, rounded(image.height * scale)),
    width: Math.max(target.width, rounded(image.width * scale)),
  };
  if (found.height * found.width > rule.most_pixels) {
    throw new BadImage(`it is too long and narrow (${image.width} × ${image.height} px).`);
  }
  return found;
}

// To the nearest whole number, halves to the even one, as Python rounds.
function rounded(x) {
  const down = Math.floor(x);
  if (x - down !== 0.5) return Math.round(x);
  return down % 2 ? down + 1 : down;
}

// All pixels at another size: along the rows first, some rows at a time, then along the columns.
function resized(image, size, rule) {
  const { channels, interpolation } = rule;
  if (interpolation === "nearest") return nearest(image, size, channels);
  const across = weights(image.width, size.width, interpolation);
  const narrow = new Uint8Array(image.height * size.width * channels);
  forEachBand(image, channels, (pixels, top, count) => {
    const line = image.width * channels;
    for (let y = 0; y < count; y++) {
      const row = pixels.subarray(y * line, (y + 1) * line);
      const out = narrow.subarray((top + y) * size.width * channels);
      weighted(row, out, across, channels, channels);
    }
  });
  const line = size.width * channels;
  const down = weights(image.height, size.height, interpolation);
  const out = new Uint8Array(size.height * line);
  weighted(narrow, out, down, line, line);
  return out;
}

// `out` at each place: the weighted sum of `from` at the places that belong to it. A place has
// `values` numbers and begins `step` after the one before.
function weighted(from, out, places, values, step) {
  for (let place = 0; place < places.length; place++) {
    const { first, shares } = places[place];
    for (let value = 0; value < values; value++) {
      let sum = PRECISION / 2;
      let at = first * step + value;
      for (let i = 0; i < shares.length; i++, at += step) sum += from[at] * shares[i];
      const whole = Math.floor(sum / PRECISION);
      out[place * step + value] = whole < 0 ? 0 : whole > 255 ? 255 : whole;
    }
  }
}

// For each place of the new row: where it begins in the old one, and the shares that it takes.
function weights(from, to, interpolation) {
  const [reach, weight] = FILTERS[interpolation];
  const scale = from / to;
  const stretch = Math.max(1, scale);
  const places = [];
  for (let place = 0; place < to; place++) {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach * stretch + 0.5));
    const end = Math.min(from, Math.trunc(centre + reach * stretch + 0.5));
    const found = [];
    let total = 0;
    for (let i = 0; i < end - first; i++) {
      found.push(weight((i + first - centre + 0.5) * (1 / stretch)));
      total += found[i];
    }
    const shares = found.map((one) => {
      const share = (total ? one / total : one) * PRECISION;
      return Math.trunc(share + (one < 0 ? -0.5 : 0.5));
    });
    places.push({ first, shares: Int32Array.from(shares) });
  }
  return places;
}

function nearest(image, size, channels) {
  const across = nearestPlaces(image.width, size.width);
  const down = nearestPlaces(image.height, size.height);
  const out = new Uint8Array(size.height * size.width * channels);
  let y = 0;
  forEachBand(image, channels, (pixels, top, count) => {
    for (; y < size.height && down[y] < top + count; y++) {
      across.forEach((x, place) => {
        const from = ((down[y] - top) * image.width + x) * channels;
        out.set(pixels.subarray(from, from + channels), (y * size.width + place) * channels);
      });
    }
  });
  return out;
}

function nearestPlaces(from, to) {
  const places = [];
  let at = (from / to) * 0.5;
  for (let place = 0; place < to; place++, at += from / to) places.push(Math.floor(at));
  return places;
}

// Some rows after the others, in the model's channels: `use(pixels, top, count)`.
function forEachBand(image, channels, use) {
  const rows = Math.max(1, Math.floor(BAND / image.width));
  for (let top = 0; top < image.height; top += rows) {
    const count = Math.min(rows, image.height - top);
    use(inChannels(image.rows(top, count), channels), top, count);
  }
}

// RGBA as grey (ITU-R 601-2 in Pillow's whole numbers) or as RGB.
function inChannels(rgba, channels) {
  const pixels = rgba.length / 4;
  const out = new Uint8Array(pixels * channels);
  for (let i = 0; i < pixels; i++) {
    const red = rgba[4 * i];
    const green = rgba[4 * i + 1];
    const blue = rgba[4 * i + 2];
    if (channels === 1) {
      out[i] = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16;
    } else {
      out[3 * i] = red;
      out[3 * i + 1] = green;
      out[3 * i + 2] = blue;
    }
  }
  return out;
}
