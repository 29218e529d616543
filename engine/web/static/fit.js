// How many columns show all tiles at once, as large as they can be.

const RATIO = 16 / 9;

/** {columns, width} in pixels of the largest 16:9 tiles of which `count` fit into `width` x `height`; null if they would be narrower than `least`. */
export function fit(count, width, height, gap, least) {
  let best = null;
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const across = (width - gap * (columns - 1)) / columns;
    const down = ((height - gap * (rows - 1)) / rows) * RATIO;
    const tile = Math.floor(Math.min(across, down));
    if (!best || tile > best.width) best = { columns, width: tile };
  }
  return best && best.width >= least ? best : null;
}
