/** A small chart of the last readings: lines over a common scale that begins at zero. */

import { h, svg } from '../element.js';

const WIDTH = 300;
const HEIGHT = 64;

/**
 * Draw one. The numbers beside it say what it shows, so it is hidden from screen readers.
 * @param {number[][]} lines values from old to new; null where there is none
 * @param {number} length readings that fill the width
 * @param {number} [top] the least value at the upper edge
 */
export function chart(lines, length, top = 1) {
  const highest = Math.max(top, ...lines.flat().filter((value) => value !== null));
  const x = (index, count) => WIDTH - ((count - 1 - index) * WIDTH) / (length - 1);
  const y = (value) => HEIGHT - 2 - (value / highest) * (HEIGHT - 6);
  const shapes = lines.flatMap((values, number) => {
    const points = values.map((value, index) => value !== null && `${x(index, values.length).toFixed(1)},${y(value).toFixed(1)}`).filter(Boolean);
    if (points.length < 2) return [];
    const [first] = points[0].split(',');
    const area = number === 0 && svg('path', { class: 'area', d: `M${first},${HEIGHT}L${points.join('L')}L${WIDTH},${HEIGHT}Z` });
    return [area, svg('path', { class: `line line-${number}`, d: `M${points.join('L')}` })].filter(Boolean);
  });
  return h('div', { class: 'chart', 'aria-hidden': 'true' }, svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none' }, shapes));
}
